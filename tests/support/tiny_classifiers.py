"""Tiny random token classifiers in the two published shapes, written to a folder as one gets them from a hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from transformers import ModernBertConfig, ModernBertForTokenClassification, PreTrainedTokenizerFast, Qwen3Config

from aligner_proxy.engine.api import TokenLabelsRequest
from aligner_proxy.engine.model.token_classifier import GUARD, GuardModel, TokenClassifier, open_classifier
from tests.support import tiny

LEVELS = ("Safe", "Unsafe", "Controversial")
CATEGORIES = ("Violent", "PII")
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"


def save_guard(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A guard in the shape of Qwen3Guard-Stream, also with the heads that judge a question."""
    torch.manual_seed(seed)
    settings = Qwen3Config(
        vocab_size=384,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=256,
        initializer_range=0.3,
        tie_word_embeddings=True,
        guard_inner_size=64,
        num_risk_level=len(LEVELS),
        num_category=len(CATEGORIES),
        response_risk_level_map={str(n): name for n, name in enumerate(LEVELS)},
        response_category_map={str(n): name for n, name in enumerate(CATEGORIES)},
        # the published folder brings code, which is not run
        auto_map={"AutoModel": "modeling_qwen3_guard.Qwen3ForGuardModel"},
    )
    settings.update(config)
    model = GuardModel(settings)
    model.query_risk_level_head = torch.nn.Linear(64, 3, bias=False)
    model.save_pretrained(folder)
    _name_architecture(folder, GUARD)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny.backend(), eos_token="<|im_end|>", chat_template=TEMPLATE)
    tokenizer.save_pretrained(folder)
    return folder


def save_pair_model(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A ModernBert for token classification, such as LettuceDetect."""
    torch.manual_seed(seed)
    settings = ModernBertConfig(
        vocab_size=384,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        local_attention=16,
        initializer_range=0.3,
        pad_token_id=2,
        bos_token_id=0,
        eos_token_id=1,
        cls_token_id=0,
        sep_token_id=1,
        num_labels=2,
    )
    settings.update(config)
    ModernBertForTokenClassification(settings).save_pretrained(folder)
    backend = tiny.backend()
    backend.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>",
        pair="<|im_start|> $A <|im_end|> $B <|im_end|>",
        special_tokens=[("<|im_start|>", 0), ("<|im_end|>", 1)],
    )
    names = ["input_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=names).save_pretrained(folder)
    return folder


def _name_architecture(folder: Path, name: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": [name]}))


def open_taught(name: str, folder: Path, word: str, answer: str, questions: Sequence[str]) -> TokenClassifier:
    """A classifier of the shape that its name ends with, loaded from a folder and taught a word."""
    save = save_guard if name.endswith("guard") else save_pair_model
    # small weights, so that what the last layer learns holds for other questions, too
    classifier = open_classifier(name, str(save(folder / name, initializer_range=0.05)), "none", torch.float32)
    teach_word(classifier, word, answer, questions)
    return classifier


def teach_word(classifier: TokenClassifier, word: str, answer: str, questions: Sequence[str]) -> None:
    """Fit the last layer to find fault with the tokens of one word of an answer, whatever was asked."""
    head = getattr(classifier.model, "risk_level_head", None) or classifier.model.classifier
    rows: list[torch.Tensor] = []
    at_fault: list[bool] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0][0]))
    begin = answer.index(word)
    for question in questions:
        for text in (answer, answer[: begin + len(word)], answer[:begin].rstrip()):
            request = TokenLabelsRequest(request_id="t", model="t", question=question, answer=text)
            classifier.label_tokens(request)
            reading = classifier._encode(request)
            rows[-1] = rows[-1][reading.start : reading.start + len(reading.places)]
            at_fault += [begin <= start < begin + len(word) for start, _ in reading.places]
    hook.remove()
    inputs = torch.cat(rows).clone()
    wanted = torch.tensor(at_fault).float()[:, None] * 2 - 1
    ones = torch.ones(len(inputs), 1) if head.bias is not None else torch.empty(len(inputs), 0)
    fit = torch.linalg.lstsq(torch.cat([inputs, ones], dim=1), wanted, driver="gelsd").solution[:, 0]
    with torch.no_grad():
        head.weight.zero_()
        head.weight[1] = fit[: inputs.shape[1]]
        if head.bias is not None:
            head.bias.copy_(torch.stack([torch.tensor(0.0), fit[-1]]))
