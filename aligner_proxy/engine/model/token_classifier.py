"""Token classifiers that an engine has beside its aligner: guards and fact checkers that label each token of an answer.

    classifier = open_classifier("facts", "owner/name", "nf4", torch.bfloat16)

Two shapes are known. A guard has the heads of Qwen3Guard-Stream over a Qwen3, and labels each token by how harmful the
answer is up to it. Any other model is what transformers loads for token classification, such as LettuceDetect, and
labels each token by the context before it. Question, context and answer are read in one forward.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer, BitsAndBytesConfig
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model, Qwen3PreTrainedModel, Qwen3RMSNorm

from aligner_proxy.engine.api import ClassifierInfo, LabelledSpan, TokenLabels, TokenLabelsRequest
from aligner_proxy.engine.model import cpu_kernels
from aligner_proxy.engine.weights import manifest, sources
from aligner_proxy.errors import AnswerTooLong, WeightsError

GUARD = "Qwen3ForGuardModel"
"""The architecture that the config of a Qwen3Guard-Stream names."""
UNSAFE = "Unsafe"
"""The level of a guard that counts; `Controversial` does not."""
_LEVELS = ("Safe", UNSAFE, "Controversial")
"""The levels in the order of the published head, for a config that does not name them."""
_FAULTLESS_LABELS = frozenset({"o", "supported", "label_0", "0"})
"""Labels, in small letters, that find no fault with a token."""
_UNQUANTISED_LAYERS = ("risk_level_category_pre", "risk_level_head", "category_head", "classifier", "score")
"""Layers that are never quantised: the small ones that decide."""
_MAX_READINGS = 8
"""How often a guard reads an answer at most. After the last reading, all text after a segment at fault may be marked
as at fault, too."""
_QUESTION, _ANSWER = "\ue000", "\ue001"
"""Letters that stand for question and answer in a chat template."""
_CHAT_TEMPLATE = f"<|im_start|>user\n{_QUESTION}<|im_end|>\n<|im_start|>assistant\n{_ANSWER}"
"""Qwen's chat template, for a tokenizer that comes without one."""
_GROUNDED_PROMPT = (
    "\nBriefly answer the following question:\n{question}\nBear in mind that your response should be strictly based on "
    "the following {count} passages:\n{passages}\nIn case the passages do not contain the necessary information to "
    'answer the question, please reply with: "Unable to answer based on given passages."\noutput:\n'
)
"""The published prompt of LettuceDetect, as it was trained on it."""


class GuardModel(Qwen3PreTrainedModel):  # type: ignore[no-untyped-call]
    """Qwen3 with the two heads of Qwen3Guard-Stream that judge an answer; those that judge a question are left out."""

    _keys_to_ignore_on_load_unexpected = [r"^query_"]  # noqa: RUF012 - as the library declares it

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        inner = config.guard_inner_size
        self.model = Qwen3Model(config)
        self.risk_level_category_pre = nn.Linear(config.hidden_size, inner, bias=False)
        self.risk_level_category_layernorm = Qwen3RMSNorm(inner, eps=config.rms_norm_eps)
        self.risk_level_head = nn.Linear(inner, config.num_risk_level, bias=False)
        self.category_head = nn.Linear(inner, config.num_category, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of levels and categories, [batch, tokens, number]."""
        states = self.model(input_ids=input_ids, use_cache=False).last_hidden_state
        inner = self.risk_level_category_layernorm(self.risk_level_category_pre(states))
        return self.risk_level_head(inner), self.category_head(inner)


@dataclass(frozen=True, slots=True)
class _Reading:
    """The whole input of one forward pass, and where the answer is in it."""

    inputs: dict[str, list[int]]
    """The model's arguments by name, such as `input_ids`; one number for each token."""
    start: int
    """Number of the answer's first token."""
    places: list[tuple[int, int]]
    """The (start, end) characters in the answer of each of its tokens."""


class TokenClassifier(ABC):
    """A loaded token classifier."""

    categories: tuple[str, ...] | None = None
    """The kinds of harm that it names; None unless it is a guard."""

    def __init__(self, model: Any, tokenizer: Any, content_hash: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        # The largest number of tokens in one input. Some models have more positions than they can read tokens, and a
        # tokenizer without a limit reports a huge number.
        self._window: int = min(model.config.max_position_embeddings, tokenizer.model_max_length)
        self._content_hash = content_hash

    @property
    def info(self) -> ClassifierInfo:
        return ClassifierInfo(self._content_hash, self.categories)

    def label_tokens(self, request: TokenLabelsRequest) -> TokenLabels:
        """The spans of an answer that the classifier finds fault with.

        Raises `AnswerTooLong` if the input exceeds the window, because no text may stay unread.
        """
        began = time.monotonic()
        spans, read = self._find_faults(request)
        return TokenLabels(spans=tuple(spans), read=read, ms=(time.monotonic() - began) * 1000)

    def _find_faults(self, request: TokenLabelsRequest) -> tuple[list[LabelledSpan], int]:
        """The spans at fault, and the number of tokens read."""
        encoded = self._encode(request)
        length = len(encoded.inputs["input_ids"])
        if length > self._window:
            raise AnswerTooLong(f"the judge reads {self._window} tokens; these are {length}")
        with torch.inference_mode():
            device = self.model.device
            labels = self._label_inputs(
                {name: torch.tensor([ids], device=device) for name, ids in encoded.inputs.items()}
            )
        # there may be a control token after the answer
        stop = encoded.start + len(encoded.places)
        return _join_spans(request.answer, list(zip(encoded.places, labels[encoded.start : stop], strict=True))), length

    @abstractmethod
    def _encode(self, request: TokenLabelsRequest) -> _Reading:
        """The input for this request, in the form that the model was trained on."""

    @abstractmethod
    def _label_inputs(self, inputs: dict[str, Tensor]) -> list[tuple[str, str] | None]:
        """Label and category of each token of an input; None for a token without fault."""


class GuardClassifier(TokenClassifier):
    """Qwen3Guard-Stream: a chat of question and answer, a level and a category for each token."""

    def __init__(self, model: Any, tokenizer: Any, content_hash: str) -> None:
        super().__init__(model, tokenizer, content_hash)
        levels = _list_names(model.config, "response_risk_level_map")
        # a config of other names is not the one that the published code reads; then its order counts, and no category
        is_named = UNSAFE in levels
        self._unsafe_level = (levels if is_named else _LEVELS).index(UNSAFE)  # its number in the head's output
        self.categories = _list_names(model.config, "response_category_map") if is_named else ()
        frame = _read_chat_frame(tokenizer)
        # tokens of the chat template: before the question, and between question and answer
        self._before, self._between = (tokenizer(text, add_special_tokens=False).input_ids for text in frame)

    def _find_faults(self, request: TokenLabelsRequest) -> tuple[list[LabelledSpan], int]:
        """The spans at fault, and the number of tokens read.

        A token's label judges all text up to the token, so all text after a harmful segment would be at fault.
        Therefore the text after each segment at fault is read again without that segment.
        """
        faults: list[LabelledSpan] = []
        new_faults: list[LabelledSpan] = []
        tokens_read = 0
        # the text that was read and has no fault, and where the rest of the answer begins
        faultless = ""
        rest_start = 0
        for reading in range(1, _MAX_READINGS + 1):
            text = faultless + request.answer[rest_start:]
            spans, token_count = super()._find_faults(request.model_copy(update={"answer": text}))
            tokens_read += token_count
            new_faults = _move_spans(spans, len(faultless), rest_start)
            segment = _find_segment(request.ends, new_faults[0].start) if new_faults else None
            if segment is None or reading == _MAX_READINGS or segment.stop >= len(request.answer):
                break
            faults += _cut_spans(new_faults, segment.stop)
            # without the segment at fault
            faultless += request.answer[rest_start : segment.start]
            rest_start = segment.stop
        return [*faults, *new_faults], tokens_read

    def _encode(self, request: TokenLabelsRequest) -> _Reading:
        """The question and the answer in the chat template."""
        question = _encode_plainly(self.tokenizer, request.question).input_ids
        answer = _encode_plainly(self.tokenizer, request.answer)
        ids = [*self._before, *question, *self._between]
        return _Reading({"input_ids": [*ids, *answer.input_ids]}, len(ids), answer.offset_mapping)

    def _label_inputs(self, inputs: dict[str, Tensor]) -> list[tuple[str, str] | None]:
        """`UNSAFE` and the category of each token that the guard finds unsafe; None for all others."""
        levels, categories = (logits[0].argmax(-1).tolist() for logits in self.model(**inputs))
        names = dict(enumerate(self.categories or ()))
        return [
            (UNSAFE, names.get(category, "")) if level == self._unsafe_level else None
            for level, category in zip(levels, categories, strict=True)
        ]


class PairClassifier(TokenClassifier):
    """A model for token classification that reads context and answer as a pair of texts, such as LettuceDetect."""

    def __init__(self, model: Any, tokenizer: Any, content_hash: str) -> None:
        super().__init__(model, tokenizer, content_hash)
        self._labels: dict[int, str] = {int(number): name for number, name in model.config.id2label.items()}
        fine = [name for name in self._labels.values() if name.casefold() in _FAULTLESS_LABELS]
        if not fine or len(fine) == len(self._labels):
            raise WeightsError(f"its labels {', '.join(self._labels.values())} do not say which tokens are at fault")

    def _encode(self, request: TokenLabelsRequest) -> _Reading:
        """The context and the answer as a pair of texts."""
        encoded = _encode_plainly(self.tokenizer, _write_context(request), request.answer)
        # for each token, 0 in the context, 1 in the answer, None for a control token
        parts = encoded.sequence_ids(0)
        start = parts.index(1) if 1 in parts else len(parts)
        inputs = {name: encoded[name] for name in self.tokenizer.model_input_names if name in encoded}
        return _Reading(inputs, start, encoded.offset_mapping[start : start + parts.count(1)])

    def _label_inputs(self, inputs: dict[str, Tensor]) -> list[tuple[str, str] | None]:
        """The model's label of each token, without category; None if the label finds no fault."""
        numbers = self.model(**inputs).logits[0].argmax(-1).tolist()
        names = [self._labels[number] for number in numbers]
        return [None if name.casefold() in _FAULTLESS_LABELS else (name, "") for name in names]


def open_classifier(name: str, model: str | Path, quantization: str, dtype: torch.dtype) -> TokenClassifier:
    """Load a token classifier from a folder or a fetched hub model. Raises `WeightsError` that names it."""
    try:
        folder = sources.find_judge(model)
        config: Any = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        is_guard = GUARD in (config.architectures or ())
        loader: Any = GuardModel if is_guard else AutoModelForTokenClassification
        loaded = _load_model(loader, folder, config, quantization, dtype)
        tokenizer = _open_tokenizer(folder)
        parts = {"files": _identify_files(model, folder), "chat": tokenizer.chat_template, "quantization": quantization}
        return (GuardClassifier if is_guard else PairClassifier)(loaded, tokenizer, manifest.digest(parts))
    except WeightsError as error:
        # of the same class, which decides the status with which a command ends
        raise type(error)(f"judge {name!r}: {error}") from None
    except (MemoryError, torch.OutOfMemoryError):
        raise WeightsError(f"judge {name!r}: not enough memory to load {model}") from None
    except Exception as error:
        why = str(error).partition("\n")[0]
        raise WeightsError(f"judge {name!r}: {model} cannot be loaded ({type(error).__name__}: {why})") from error


def _load_model(loader: Any, folder: Path, config: Any, quantization: str, dtype: torch.dtype) -> Any:
    """Load the model with all its weights; raises `WeightsError` where some are missing, which would be random."""
    quantised = {}
    if quantization == "nf4":
        quantised["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=list(_UNQUANTISED_LAYERS),
        )
    model, report = loader.from_pretrained(
        str(folder),
        config=config,
        dtype=dtype,
        device_map="cuda:0" if torch.cuda.is_available() else "cpu",
        local_files_only=True,
        output_loading_info=True,
        **quantised,
    )
    if missing := sorted(report["missing_keys"]):
        raise WeightsError(f"{folder} lacks the weights {', '.join(missing[:4])}; it is no token classifier")
    cpu_kernels.install(model.eval())
    return model


def _open_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model; raises `WeightsError` for one that does not know where its tokens stand."""
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise WeightsError(f"{folder} has no tokenizer.json, which says where each token stands")
    return tokenizer


def _identify_files(model: str | Path, folder: Path) -> dict[str, str]:
    """What identifies the files of a classifier: of a hub model its commit, which names the folder."""
    return {"hub": str(model), "commit": folder.name} if sources.is_hub_id(model) else manifest.hash_files(folder)


def _encode_plainly(tokenizer: Any, *texts: str) -> Any:
    """The tokenizer's encoding of one text or a pair, with offsets; a control token in it is read as plain letters."""
    return tokenizer(*texts, add_special_tokens=len(texts) > 1, split_special_tokens=True, return_offsets_mapping=True)


def _read_chat_frame(tokenizer: Any) -> tuple[str, str]:
    """The texts that the chat template writes before the question, and between question and answer."""
    chat = _CHAT_TEMPLATE
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
        chat = tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False)
    before, _, rest = chat.partition(_QUESTION)
    return before, rest.partition(_ANSWER)[0]


def _list_names(config: Any, key: str) -> tuple[str, ...]:
    """The names of a map from numbers to names in a config, in the order of the numbers; empty without it."""
    names = getattr(config, key, None) or {}
    return tuple(name for _, name in sorted((int(number), str(name)) for number, name in names.items()))


def _write_context(request: TokenLabelsRequest) -> str:
    """The text with which an answer must agree: the passages with the question, or the question alone."""
    passages = "\n".join(f"passage {number}: {text}" for number, text in enumerate(request.context, 1))
    if not passages:
        return request.question
    return _GROUNDED_PROMPT.format(question=request.question, count=len(request.context), passages=passages)


def _move_spans(spans: Iterable[LabelledSpan], kept_length: int, rest_start: int) -> list[LabelledSpan]:
    """The spans that reach into the rest of the answer, with positions in the answer.

    What was read is the beginning of the answer without its faults (`kept_length` characters), and then the answer from
    `rest_start` on. With 10 and 25, characters 12 to 20 that were read are characters 27 to 35 of the answer.
    """
    shift = rest_start - kept_length
    return [
        # a span that begins before the rest is cut to it
        span.model_copy(update={"start": max(span.start + shift, rest_start), "end": span.end + shift})
        for span in spans
        if span.end > kept_length
    ]


def _cut_spans(spans: Iterable[LabelledSpan], stop: int) -> list[LabelledSpan]:
    """The parts of the spans before `stop`."""
    return [span.model_copy(update={"end": min(span.end, stop)}) for span in spans if span.start < stop]


def _find_segment(ends: Iterable[int], position: int) -> slice | None:
    """Where the segment with this position starts and stops: of `ends` (10, 25), position 12 is in `slice(10, 25)`.

    None if the segments end before it.
    """
    start = 0
    for stop in ends:
        if stop > position:
            return slice(start, stop)
        start = stop
    return None


def _join_spans(answer: str, pairs: Sequence[tuple[tuple[int, int], tuple[str, str] | None]]) -> list[LabelledSpan]:
    """One span for each run of tokens with the same fault, without white space at its ends.

    `pairs` are, for each token, its (start, end) characters and its (label, category), None without fault.
    """
    spans = []
    for fault, run in groupby(pairs, key=lambda pair: pair[1]):
        places = [place for place, _ in run]
        text = answer[places[0][0] : places[-1][1]]
        start = places[0][0] + len(text) - len(text.lstrip())
        if fault and text.strip():
            span = LabelledSpan(start=start, end=start + len(text.strip()), label=fault[0], category=fault[1])
            spans.append(span)
    return spans
