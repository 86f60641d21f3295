"""Texts that are made to cost time outside the model: undisguised, cut, judged by the gate, whole and streamed.

What is counted is work, not seconds (`bench.worst_texts` measures those): lines of Python that run, and where a regular
expression or the standard library would be at work for minutes, the time limit of the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from aligner_proxy.gate.judge import judge
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text import disguises
from aligner_proxy.text.disguises import undisguise
from aligner_proxy.text.languages import foreign_segments
from aligner_proxy.text.reading_form import reading_windows
from aligner_proxy.types import Correction, Exchange, Objective, Outcome, Policy, Status, StreamMode, Turn
from bench.worst_texts import FOOL, KINDS, TextKind
from tests.attacks.attack import Attack, rows
from tests.support.counting import growth
from tests.support.growing import grown
from tests.support.scripted import SegmentEngine

POLICY = Policy(
    "p", (Objective("kind", "Kind: never insult"),), stream=StreamMode.SENTENCE, max_answer_chars=200_000, deadline_s=60
)
FACTS = Exchange("call-1", 0, (Turn("user", "When?"),), None)
CHARS = 24_000
HEAD = "Good day.\n"
LINEAR = 2.25
"""Twice the text may be so many times the work."""


def engine() -> SegmentEngine:
    return SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0)


def make_text(size: int, kind: TextKind) -> str:
    return f"{HEAD}{FOOL}\n{kind.text(size)}\n{FOOL}\nBye."


async def whole(text: str) -> Outcome:
    return await Pipeline(engine()).align(replace(FACTS, answer=text), POLICY)


async def streamed(text: str) -> Outcome:
    made = GrowingAnswer(Pipeline(engine()), POLICY, lambda: FACTS, lambda: None)
    return await grown(made, [text[at : at + 200] for at in range(0, len(text), 200)], rounds=1)


WORST = rows(
    *(
        (f"worst-{kind.name}", "upstream", f"a long answer of {kind.what}", "corrected, whole and streamed", kind)
        for kind in KINDS
    )
)


@pytest.mark.slow
@pytest.mark.some(10)
@pytest.mark.timeout(60)
@pytest.mark.parametrize("way", [whole, streamed])
@pytest.mark.parametrize("attack", WORST)
def test_no_text_keeps_the_gateway_busy(attack: Attack, way: Callable[[str], Coroutine[None, None, Outcome]]) -> None:
    disguises._undisguise_cached.cache_clear()
    outcome = asyncio.run(way(make_text(CHARS, attack.payload)))
    assert outcome.status is Status.CORRECTED
    assert (outcome.text or "").startswith(HEAD.strip())
    assert not (outcome.text or "").startswith(HEAD + FOOL)


@pytest.mark.slow
@pytest.mark.some(16)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("attack", WORST)
def test_undisguising_judging_and_reading_are_linear(attack: Attack) -> None:
    """An edit of the whole text, which is the dearest one."""

    def work(size: int) -> None:
        text = attack.payload.text(size)
        disguises._undisguise_cached.cache_clear()
        undisguise(text)
        judge(text, Correction(text[:-1] + "z"), POLICY)
        reading_windows(text)
        foreign_segments(text, ("en",))

    work(50)  # tables that are read once
    assert growth(work, 2_500) < LINEAR
