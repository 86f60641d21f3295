"""Token classifiers that an engine has beside its aligner: guards and fact checkers that label each token of an answer.

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
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model, Qwen3PreTrainedModel, Qwen3RMSNorm

from aligner_proxy.engine.api import ClassifierInfo, LabelledSpan, TokenLabels, TokenLabelsRequest
from aligner_proxy.engine.model import cpu_kernels
from aligner_proxy.engine.weights import manifest, quantise, sources
from aligner_proxy.errors import AnswerTooLong, WeightsError

GUARD = "Qwen3ForGuardModel"
"""The architecture that the config of a Qwen3Guard-Stream names."""
UNSAFE = "Unsafe"
"""The risk level of a guard that counts as a fault; `Controversial` does not."""
_LEVELS = ("Safe", UNSAFE, "Controversial")
"""The risk levels in the order of the published head, for a config that does not name them."""
_FAULTLESS_LABELS = frozenset({"o", "supported", "label_0", "0"})
"""Labels, in small letters, that find no fault with a token."""
_UNQUANTISED_LAYERS = ("risk_level_category_pre", "risk_level_head", "category_head", "classifier", "score")
"""Layers that are never quantised: the small ones that decide."""
_MAX_READINGS = 8
"""How often a guard reads an answer at most. After the last reading, all text after a segment at fault may be marked
as at fault, too."""
_QUESTION, _ANSWER = "\ue000", "\ue001"
"""Private characters that stand for question and answer in a chat template."""
_CHAT_TEMPLATE = f"<|im_start|>user\n{_QUESTION}<|im_end|>\n<|im_start|>assistant\n{_ANSWER}"
"""Qwen's chat template, for a tokenizer that comes without one."""
_GROUNDED_PROMPT = (
    "\nBriefly answer the following question:\n{question}\nBear in mind that your response should be strictly based on "
    "the following {count} passages:\n{passages}\nIn case the passages do not contain the necessary information to "
    'answer the question, please reply with: "Unable to answer based on given passages."\noutput:\n'
)
"""The published prompt of LettuceDetect, on which the model was trained."""


class GuardModel(Qwen3PreTrainedModel):  # type: ignore[no-untyped-call]
    """Qwen3 with the two heads of Qwen3Guard-Stream that judge an answer, without the heads that judge a question."""

    _keys_to_ignore_on_load_unexpected = [r"^query_"]  # noqa: RUF012 - as the library declares it

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        inner_size = config.guard_inner_size
        self.model = Qwen3Model(config)
        # the names are those of the published weights
        self.risk_level_category_pre = nn.Linear(config.hidden_size, inner_size, bias=False)
        self.risk_level_category_layernorm = Qwen3RMSNorm(inner_size, eps=config.rms_norm_eps)
        self.risk_level_head = nn.Linear(inner_size, config.num_risk_level, bias=False)
        self.category_head = nn.Linear(inner_size, config.num_category, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the risk levels and those of the categories, [batch, tokens, levels or categories]."""
        states = self.model(input_ids=input_ids, use_cache=False).last_hidden_state
        inner_states = self.risk_level_category_layernorm(self.risk_level_category_pre(states))
        return self.risk_level_head(inner_states), self.category_head(inner_states)


_Fault = tuple[str, str] | None
"""Label and category of a token with a fault; None for a token without fault."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """The whole input of one forward pass, and where the answer is in the input."""

    inputs: dict[str, list[int]]
    """The model's arguments by name, such as `input_ids`; one number for each token."""
    start: int
    """Index of the answer's first token."""
    places: list[tuple[int, int]]
    """The (start, end) characters, in the answer, of each token of the answer."""


class TokenClassifier(ABC):
    """A loaded token classifier, which finds the spans of an answer that are at fault: harmful, or without support."""

    categories: tuple[str, ...] | None = None
    """The kinds of harm that a guard names; None for another classifier."""

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
        """Return the spans of an answer that are at fault; raises `AnswerTooLong` if the input exceeds the window."""
        began = time.monotonic()
        spans, tokens_read = self._find_faults(request)
        return TokenLabels(spans=tuple(spans), read=tokens_read, ms=(time.monotonic() - began) * 1000)

    def _find_faults(self, request: TokenLabelsRequest) -> tuple[list[LabelledSpan], int]:
        """Return the spans at fault, and the number of tokens read."""
        reading = self._encode(request)
        token_count = len(reading.inputs["input_ids"])
        if token_count > self._window:
            raise AnswerTooLong(f"the judge reads {self._window} tokens; these are {token_count}")
        with torch.inference_mode():
            device = self.model.device
            inputs = {name: torch.tensor([numbers], device=device) for name, numbers in reading.inputs.items()}
            faults = self._label_inputs(inputs)
        # the stop leaves out a control token after the answer
        answer_faults = faults[reading.start : reading.start + len(reading.places)]
        return _join_spans(request.answer, reading.places, answer_faults), token_count

    @abstractmethod
    def _encode(self, request: TokenLabelsRequest) -> _Reading:
        """Return the input for this request, in the form on which the model was trained."""

    @abstractmethod
    def _label_inputs(self, inputs: dict[str, Tensor]) -> list[_Fault]:
        """Return the fault of each token of an input, or None for a token without fault."""


class GuardClassifier(TokenClassifier):
    """Qwen3Guard-Stream, which reads question and answer as a chat and gives each token a risk level and a category."""

    def __init__(self, model: Any, tokenizer: Any, content_hash: str) -> None:
        super().__init__(model, tokenizer, content_hash)
        levels = _list_names(model.config, "response_risk_level_map")
        # without the published names in the config, levels have the published order, and categories have no names
        has_names = UNSAFE in levels
        self._unsafe_level = (levels if has_names else _LEVELS).index(UNSAFE)  # index in the head's output
        self.categories = _list_names(model.config, "response_category_map") if has_names else ()
        text_before, text_between = _read_chat_frame(tokenizer)
        # the tokens of the chat template before the question, and between question and answer
        self._ids_before = tokenizer(text_before, add_special_tokens=False).input_ids
        self._ids_between = tokenizer(text_between, add_special_tokens=False).input_ids

    def _find_faults(self, request: TokenLabelsRequest) -> tuple[list[LabelledSpan], int]:
        """Return the spans at fault, and the number of tokens read.

        A token's label judges all text up to the token, so the text after a harmful segment is read again without it.
        """
        faults: list[LabelledSpan] = []
        last_faults: list[LabelledSpan] = []
        tokens_read = 0
        faultless_text = ""  # the text that was read, without the segments at fault
        rest_start = 0  # where the rest of the answer begins
        for reading in range(1, _MAX_READINGS + 1):
            text = faultless_text + request.answer[rest_start:]
            spans, token_count = super()._find_faults(request.model_copy(update={"answer": text}))
            tokens_read += token_count
            last_faults = _move_spans(spans, len(faultless_text), rest_start)
            segment = _find_segment(request.ends, last_faults[0].start) if last_faults else None
            if segment is None or reading == _MAX_READINGS or segment.stop >= len(request.answer):
                break
            faults += _cut_spans(last_faults, segment.stop)
            # the segment at fault is left out of the next reading
            faultless_text += request.answer[rest_start : segment.start]
            rest_start = segment.stop
        return [*faults, *last_faults], tokens_read

    def _encode(self, request: TokenLabelsRequest) -> _Reading:
        """Return the question and the answer in the chat template."""
        question_ids = _encode_plainly(self.tokenizer, request.question).input_ids
        answer = _encode_plainly(self.tokenizer, request.answer)
        ids_before_answer = [*self._ids_before, *question_ids, *self._ids_between]
        inputs = {"input_ids": [*ids_before_answer, *answer.input_ids]}
        return _Reading(inputs, start=len(ids_before_answer), places=answer.offset_mapping)

    def _label_inputs(self, inputs: dict[str, Tensor]) -> list[_Fault]:
        """Return `UNSAFE` and the category of each token that the guard finds unsafe; None for all other tokens."""
        level_logits, category_logits = self.model(**inputs)
        levels = level_logits[0].argmax(-1).tolist()
        categories = category_logits[0].argmax(-1).tolist()
        category_names = dict(enumerate(self.categories or ()))
        faults: list[_Fault] = []
        for level, category in zip(levels, categories, strict=True):
            faults.append((UNSAFE, category_names.get(category, "")) if level == self._unsafe_level else None)
        return faults


class PairClassifier(TokenClassifier):
    """A model for token classification that reads context and answer as a pair of texts, such as LettuceDetect."""

    def __init__(self, model: Any, tokenizer: Any, content_hash: str) -> None:
        super().__init__(model, tokenizer, content_hash)
        self._labels: dict[int, str] = {int(index): label for index, label in model.config.id2label.items()}
        faultless_labels = [label for label in self._labels.values() if label.casefold() in _FAULTLESS_LABELS]
        if not faultless_labels or len(faultless_labels) == len(self._labels):
            raise WeightsError(f"its labels {', '.join(self._labels.values())} do not say which tokens are at fault")

    def _encode(self, request: TokenLabelsRequest) -> _Reading:
        """Return the context and the answer as a pair of texts."""
        encoded = _encode_plainly(self.tokenizer, _write_context(request), request.answer)
        # of each token: 0 in the context, 1 in the answer, None for a control token
        text_numbers = encoded.sequence_ids(0)
        answer_start = text_numbers.index(1) if 1 in text_numbers else len(text_numbers)
        answer_stop = answer_start + text_numbers.count(1)
        inputs = {name: encoded[name] for name in self.tokenizer.model_input_names if name in encoded}
        return _Reading(inputs, answer_start, encoded.offset_mapping[answer_start:answer_stop])

    def _label_inputs(self, inputs: dict[str, Tensor]) -> list[_Fault]:
        """Return the model's label of each token, without a category; None if the label finds no fault."""
        label_indices = self.model(**inputs).logits[0].argmax(-1).tolist()
        labels = [self._labels[index] for index in label_indices]
        return [None if label.casefold() in _FAULTLESS_LABELS else (label, "") for label in labels]


def open_classifier(name: str, model: str | Path, quantization: str, dtype: torch.dtype) -> TokenClassifier:
    """Load a token classifier from a folder, or from a model of the hub that was fetched.

    `model` is the folder or the hub's id; `quantization` is "nf4", or other text for weights in `dtype`. Raises a
    `WeightsError` that calls the classifier `name`.
    """
    try:
        folder = sources.find_judge(model)
        config: Any = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        is_guard = GUARD in (config.architectures or ())
        loader: Any = GuardModel if is_guard else AutoModelForTokenClassification
        loaded_model = _load_model(loader, folder, config, quantization, dtype)
        tokenizer = _open_tokenizer(folder)
        # everything that decides on the labels
        parts = {"files": _identify_files(model, folder), "chat": tokenizer.chat_template, "quantization": quantization}
        classifier = GuardClassifier if is_guard else PairClassifier
        return classifier(loaded_model, tokenizer, manifest.digest(parts))
    except WeightsError as error:
        # the error keeps its class, which decides the status with which a command ends
        raise type(error)(f"judge {name!r}: {error}") from None
    except (MemoryError, torch.OutOfMemoryError):
        raise WeightsError(f"judge {name!r}: not enough memory to load {model}") from None
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise WeightsError(
            f"judge {name!r}: {model} cannot be loaded ({type(error).__name__}: {first_line})"
        ) from error


def _load_model(loader: Any, folder: Path, config: Any, quantization: str, dtype: torch.dtype) -> Any:
    """Load the model by the class `loader`; raises `WeightsError` if weights are missing, which would be random."""
    model, report = loader.from_pretrained(
        str(folder),
        config=config,
        dtype=dtype,
        device_map="cuda:0" if torch.cuda.is_available() else "cpu",
        local_files_only=True,
        output_loading_info=True,
        quantization_config=quantise.make_nf4_config(list(_UNQUANTISED_LAYERS)) if quantization == "nf4" else None,
    )
    missing_weights = sorted(report["missing_keys"])
    if missing_weights:
        raise WeightsError(f"{folder} lacks the weights {', '.join(missing_weights[:4])}; it is no token classifier")
    cpu_kernels.install(model.eval())
    return model


def _open_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a model; raises `WeightsError` if it cannot say where in a text its tokens stand."""
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise WeightsError(f"{folder} has no tokenizer.json, which says where each token stands")
    return tokenizer


def _identify_files(model: str | Path, folder: Path) -> dict[str, str]:
    """Return what identifies the files of a classifier: their hashes, or the commit of a model from the hub."""
    # the folder of a model from the hub is named by the commit
    return {"hub": str(model), "commit": folder.name} if sources.is_hub_id(model) else manifest.hash_files(folder)


def _encode_plainly(tokenizer: Any, *texts: str) -> Any:
    """Return the tokenizer's encoding, with offsets, of one text or a pair, in which control tokens are plain text."""
    return tokenizer(*texts, add_special_tokens=len(texts) > 1, split_special_tokens=True, return_offsets_mapping=True)


def _read_chat_frame(tokenizer: Any) -> tuple[str, str]:
    """Return what the chat template writes before the question, and what it writes between question and answer."""
    chat = _CHAT_TEMPLATE
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
        chat = tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False)
    text_before, _, rest = chat.partition(_QUESTION)
    text_between, _, _ = rest.partition(_ANSWER)
    return text_before, text_between


def _list_names(config: Any, key: str) -> tuple[str, ...]:
    """Return the names in the config's map `key`, from numbers to names, by number; empty without this map."""
    names_by_number = getattr(config, key, None) or {}
    numbered_names = sorted((int(number), str(name)) for number, name in names_by_number.items())
    return tuple(name for _, name in numbered_names)


def _write_context(request: TokenLabelsRequest) -> str:
    """Return the text with which an answer must agree: the passages with the question, or the question alone."""
    passages = "\n".join(f"passage {number}: {text}" for number, text in enumerate(request.context, 1))
    if not passages:
        return request.question
    return _GROUNDED_PROMPT.format(question=request.question, count=len(request.context), passages=passages)


def _move_spans(spans: Iterable[LabelledSpan], kept_length: int, rest_start: int) -> list[LabelledSpan]:
    """Return the spans that reach into the rest of the answer, with positions in the answer instead of the text read.

    The text read was the beginning of the answer without its faults (`kept_length` characters), and then the answer
    from `rest_start` on. With 10 and 25, characters 12 to 20 of the text read are characters 27 to 35 of the answer.
    """
    shift = rest_start - kept_length
    return [
        # a span that begins before the rest is cut to it
        span.model_copy(update={"start": max(span.start + shift, rest_start), "end": span.end + shift})
        for span in spans
        if span.end > kept_length
    ]


def _cut_spans(spans: Iterable[LabelledSpan], stop: int) -> list[LabelledSpan]:
    """Return the spans that begin before `stop`, cut to their part before `stop`."""
    return [span.model_copy(update={"end": min(span.end, stop)}) for span in spans if span.start < stop]


def _find_segment(ends: Iterable[int], position: int) -> slice | None:
    """Return where the segment that holds this position starts and stops: `slice(10, 25)` for 12, with ends (10, 25).

    The result is None if all segments end before.
    """
    start = 0
    for stop in ends:
        if stop > position:
            return slice(start, stop)
        start = stop
    return None


def _join_spans(answer: str, places: Sequence[tuple[int, int]], faults: Sequence[_Fault]) -> list[LabelledSpan]:
    """Return a span, without white space at its ends, for each run of tokens (at `places`) with the same fault."""
    spans = []
    first_token = 0
    for fault, run in groupby(faults):
        stop_token = first_token + len(list(run))
        start, _ = places[first_token]
        _, end = places[stop_token - 1]
        text = answer[start:end]
        start += len(text) - len(text.lstrip())
        if fault and text.strip():
            label, category = fault
            spans.append(LabelledSpan(start=start, end=start + len(text.strip()), label=label, category=category))
        first_token = stop_token
    return spans
