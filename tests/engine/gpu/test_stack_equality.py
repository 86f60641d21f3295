"""The 500 random cases each of tokens and scores (test_equality.py), with steps replayed by our own stack.

The recorder is a fake that is as strict as a CUDA graph. Steps with adapters are left to the library's forward, so most
cases have none; some have, and then both write to the same cache.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.loop import Loop
from aligner_proxy.engine.scheduling.scheduler import Feed, Job
from aligner_proxy.engine.scheduling.sequence import Ask, TokenSequence
from tests.engine.gpu import plain_kernels
from tests.engine.gpu.fake_recorder import FakeRecorder
from tests.engine.test_equality import NAMES, TOGETHER, house, score_alike, write_alike
from tests.support import tiny
from tests.support.sampling import examples

BLOCKS = 50
"""Tests that the seeds are divided among."""
SEEDS = 500 // TOGETHER // BLOCKS
MIXED = 10
"""Of so many seeds, one mixes all adapters."""
SCORED_TOKENS = (900, 1500)
"""Sizes of the cache while segments are scored: the plain kernel of attention reads as many, whatever is in use."""


class RecordedHouse:
    """Makes houses whose steps are replayed, and counts their steps without adapters, and how many were replayed."""

    def __init__(self) -> None:
        self.steps = 0
        self.replayed = 0

    def __call__(self, rng: random.Random, tokens: tuple[int, int]) -> tuple[Aligner, Loop]:
        """See `test_equality.house`."""
        made, loop = house(rng, tokens)
        # as in an engine, no step has more tokens than the runner is made for
        loop.scheduler.budget = min(loop.scheduler.budget, made.runner.step_tokens)
        recorder = record(made)
        run = made.runner.run

        def count_and_run(feeds: Sequence[Feed]) -> list[list[int]]:
            before = recorder.replays
            tokens = run(feeds)
            if not any(feed.job.sequence.adapter for feed in feeds):
                self.steps += 1
                self.replayed += recorder.replays > before
            return tokens

        made.runner.run = count_and_run  # type: ignore[method-assign]
        return made, loop


def record(made: Aligner) -> FakeRecorder:
    """Let an aligner use the stack with a fake recorder."""
    recorder = FakeRecorder()
    assert made.runner.use_recorded(plain_kernels, recorder) is None
    return recorder


def adapters_of(seed: int) -> int:
    """How many adapters, the model without one included, the cases of a seed have."""
    return 1 if seed % MIXED else len(NAMES)


@pytest.mark.some(1)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_replayed_steps_write_what_generate_writes(block: int) -> None:
    houses = RecordedHouse()
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        write_alike(range(seed, seed + 1), houses, adapters_of(seed))
    assert houses.replayed == houses.steps > 0


@pytest.mark.some(1)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_segments_score_alike_if_their_prompts_were_replayed(block: int) -> None:
    houses = RecordedHouse()
    score = partial(score_alike, pieces=9, question=1, build=houses, tokens=SCORED_TOKENS)
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        score(range(seed, seed + 1), adapters=adapters_of(seed))
    assert houses.replayed == houses.steps > 0


def draft_in_two_steps(rng: random.Random) -> list[list[Feed]]:
    """Steps that feed three prompts, each with a draft that begins in the first and ends in the second."""
    steps: list[list[Feed]] = [[], []]
    for number in range(3):
        work: Any = iter(())
        ids = rng.choices(range(5, 380), k=rng.randrange(20, 60))
        favoured = rng.choices(range(5, 380), k=rng.randrange(2, 20))
        # there may be one favoured token more than the draft has
        draft = favoured[: len(favoured) - rng.randrange(2)]
        ask = Ask(ids, draft=draft, favoured=favoured, caution=rng.choice((-0.3, 0.0, 4.0, 6.0, 8.0, 1e9)), prompt=True)
        sequence = TokenSequence(ids=[*ids, *draft], blocks=list(range(6 * number, 6 * number + 6)))
        job = Job(str(number), work, print, sequence=sequence, ask=ask, prompt_length=len(ids))
        middle = len(ids) + rng.randrange(len(draft))
        steps[0].append(Feed(job, 0, middle))
        steps[1].append(Feed(job, middle, len(sequence.ids)))
    return steps


def find_kept(steps: list[list[Feed]], chosen: list[list[list[int]]]) -> list[bool]:
    """Of each favoured token of a finite caution, whether it was chosen."""
    kept: list[bool] = []
    for feeds, found in zip(steps, chosen, strict=True):
        for feed, tokens in zip(feeds, found, strict=True):
            ask = feed.job.ask
            if ask is not None and 0 < ask.caution < 1e9:
                own = ask.favoured[feed.choice_positions.start - feed.job.first_choice :]
                kept += [token == favoured for token, favoured in zip(tokens, own, strict=False)]
    return kept


def test_favoured_tokens_are_kept_as_the_library_keeps_them() -> None:
    made = tiny.together(tokens=400)
    record(made)
    plain = tiny.together(tokens=400)
    kept: list[bool] = []
    for seed in range(examples(40, 12)):
        steps = draft_in_two_steps(random.Random(seed))
        chosen = [made.runner.run(feeds) for feeds in steps]
        assert chosen == [plain.runner.run(feeds) for feeds in steps], seed
        kept += find_kept(steps, chosen)
    assert 0.1 < sum(kept) / len(kept) < 0.9, "some are kept and some are not"
