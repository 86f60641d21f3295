"""The language of an answer that goes out while it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from aligner_proxy.engine.api import AlignerInfo
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.outcomes import blocks
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Exchange, OnSkip, Policy, SkipPolicy, Status, StreamMode, Turn
from tests.pipeline.test_language import ENGLISH, GERMAN, INSULT, POLICY, pipeline
from tests.support.scripted import SCRIPTED, SegmentEngine

RELEASED = replace(POLICY, stream=StreamMode.SENTENCE)
BLOCKING = replace(RELEASED, on_skip=SkipPolicy(language=OnSkip.BLOCK))
FACTS = Exchange("call-1", 0, (Turn("user", "What?"),), None, finish_reason=None)


async def corrected(pieces: Sequence[str], policy: Policy = RELEASED) -> GrowingAnswer:
    """A text that came in these pieces, decided as far as it goes after each."""
    text = GrowingAnswer(pipeline(), policy, lambda: FACTS, lambda: None)
    for piece in pieces:
        await text.feed(piece)
        for _ in range(50):
            await asyncio.sleep(0)
    await text.end()
    while not text.done:
        await asyncio.sleep(0)
    await text.aclose()
    return text


@pytest.mark.parametrize(
    ("pieces", "status", "reason"),
    [
        ([f"{GERMAN} "] * 4, Status.NOT_JUDGED, "language"),
        ([f"{GERMAN} ", f"{INSULT} ", GERMAN], Status.CORRECTED, "language"),
        ([f"{ENGLISH} "] * 4, Status.UNCHANGED, None),
        (["Ja, gut."], Status.UNCHANGED, None),
        ([f"{GERMAN} "] * 900, Status.NOT_JUDGED, "language"),
    ],
)
async def test_what_is_said(pieces: list[str], status: Status, reason: str | None) -> None:
    outcome = (await corrected(pieces)).outcome()
    assert (outcome.status, outcome.reason) == (status, reason)
    assert outcome.text == "".join(pieces).replace(f"{INSULT} ", "")
    assert outcome.correction is not None
    assert outcome.correction.aligner == SCRIPTED.content_hash  # whether or not something was written


async def test_nothing_of_a_blocked_language_goes_out() -> None:
    text = await corrected([f"{GERMAN} "] * 4, BLOCKING)
    assert text.stopped is not None
    assert (text.stopped.reason, blocks(text.stopped)) == ("language", True)
    assert not text._present.replacements.end
    assert (await corrected([f"{ENGLISH} "] * 4, BLOCKING)).stopped is None


async def test_a_language_that_shows_itself_late_ends_the_stream() -> None:
    text = await corrected([f"{ENGLISH} ", *([f"{GERMAN} "] * 8)], BLOCKING)
    assert text.stopped is not None
    assert text.stopped.reason == "language"
    assert text._present.replacements.end


class Undescribed(SegmentEngine):
    """Judges at once, but does not say in time which aligner it has."""

    async def info(self) -> AlignerInfo:
        await asyncio.sleep(60)
        return self.about


@pytest.mark.parametrize("policy", [RELEASED, BLOCKING])
async def test_an_engine_that_does_not_describe_itself_in_time_holds_nothing_up(policy: Policy) -> None:
    """A description was once awaited without a deadline, three times an answer."""
    hurried = replace(policy, deadline_s=0.1)
    slow = Pipeline(Undescribed(lambda text: 4.0 if text == INSULT else -4.0))
    async with asyncio.timeout(10):
        whole = await slow.align(replace(FACTS, answer=f"{ENGLISH} {INSULT}"), hurried)
        text = GrowingAnswer(slow, hurried, lambda: FACTS, lambda: None)
        for piece in (f"{ENGLISH} ", INSULT):
            await text.feed(piece)
        await text.end()
        await text.wait_until_over()
        await text.aclose()
    blocked = policy is BLOCKING
    for outcome in (whole, text.outcome()):
        # an answer that must be in a language that the aligner knows does not go out without this being known
        wanted = (Status.FAILED, "timeout") if blocked else (Status.CORRECTED, None)
        assert (outcome.status, outcome.reason) == wanted


async def test_a_sentence_in_another_language_is_enough() -> None:
    pieces = [f"{ENGLISH} ", "Du bist ein dummer Mensch und das wissen alle. ", f"{ENGLISH} "]
    outcome = (await corrected(pieces)).outcome()
    assert (outcome.status, outcome.reason) == (Status.NOT_JUDGED, "language")
    text = await corrected(pieces, BLOCKING)
    assert text.stopped is not None
    assert (text.stopped.reason, blocks(text.stopped)) == ("language", True)
    assert "dummer" not in text.render(0, text._present.replacements.end)
