"""Answers in a language that the aligner was not trained for: said, not hidden, blocked where the policy says so."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.pipeline.outcomes import blocks
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.pipeline.stages import language
from aligner_proxy.types import (
    Correction,
    Exchange,
    FailurePolicy,
    IfNothingRemains,
    Mode,
    Objective,
    OnError,
    OnSkip,
    Policy,
    SegmentScore,
    SkipPolicy,
    Status,
    Turn,
)
from tests.support.scripted import SCRIPTED, ScriptedEngine, SegmentEngine

KIND = Objective("kind", "Kindness: the response should never insult the reader")
POLICY = Policy("p", (KIND,))
GERMAN = "Der Kessel ist auf dem Herd und der Tee wird nicht kalt."
INSULT = "Du bist ein Idiot."
ENGLISH = "The kettle is on and the tea will be ready for you."
KNOWS_ENGLISH = replace(SCRIPTED, languages=("en",))


def pipeline(languages: tuple[str, ...] = ("en",)) -> Pipeline:
    engine = SegmentEngine(lambda text: 4.0 if text == INSULT else -4.0)
    engine.about = replace(SCRIPTED, languages=languages)
    return Pipeline(engine)


def asked(answer: str) -> Exchange:
    return Exchange("call-1", 0, (Turn("user", "What?"),), answer)


@pytest.mark.parametrize(
    ("answer", "languages", "status", "reason"),
    [
        (GERMAN, ("en",), Status.NOT_JUDGED, "language"),
        (GERMAN, ("en", "de"), Status.UNCHANGED, None),
        (GERMAN, (), Status.UNCHANGED, None),
        (ENGLISH, ("en",), Status.UNCHANGED, None),
        ("Ja, gut.", ("en",), Status.UNCHANGED, None),
        ("茶在厨房里。", ("en",), Status.NOT_JUDGED, "language"),
        (f"{GERMAN} {INSULT} {GERMAN}", ("en",), Status.CORRECTED, "language"),
        (f"{ENGLISH} {INSULT} {ENGLISH}", ("en",), Status.CORRECTED, None),
    ],
)
async def test_what_is_said(answer: str, languages: tuple[str, ...], status: Status, reason: str | None) -> None:
    outcome = await pipeline(languages).align(asked(answer), POLICY)
    assert (outcome.status, outcome.reason) == (status, reason)
    assert outcome.text == answer.replace(f"{INSULT} ", "")
    assert not blocks(outcome)


async def test_on_skip_blocks_before_the_engine_is_asked() -> None:
    blocking = replace(POLICY, on_skip=SkipPolicy(language=OnSkip.BLOCK))
    corrected = pipeline()
    outcome = await corrected.align(asked(f"{GERMAN} {INSULT}"), blocking)
    assert (outcome.status, outcome.reason, blocks(outcome)) == (Status.FAILED, "language", True)
    assert isinstance(corrected.engine, ScriptedEngine)
    assert corrected.engine.seen == []
    assert not blocks(await corrected.align(asked(ENGLISH), blocking))


async def test_it_counts_as_unjudged_where_a_policy_wants_it_judged() -> None:
    judging = replace(POLICY, on_skip=SkipPolicy(language=OnSkip.JUDGE))
    assert not blocks(await pipeline().align(asked(GERMAN), judging))
    strict = replace(judging, on_error=FailurePolicy(unjudged=OnError.BLOCK))
    assert blocks(await pipeline().align(asked(GERMAN), strict))
    assert not blocks(await pipeline().align(asked(GERMAN), replace(strict, on_skip=SkipPolicy())))


async def test_shadow_says_what_would_have_been() -> None:
    outcome = await pipeline().align(asked(GERMAN), replace(POLICY, mode=Mode.SHADOW))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SHADOW, "would_not_judge", GERMAN)


async def test_a_refusal_of_the_gate_that_blocks_goes_before_it() -> None:
    def emptied(request: AlignRequest) -> Correction:
        return Correction("", (SegmentScore(request.answer, 4.0, True, 0),))

    corrected = Pipeline(ScriptedEngine(emptied, about=KNOWS_ENGLISH))
    strict = replace(POLICY, on_error=FailurePolicy(gate=OnError.BLOCK))
    assert (await corrected.align(asked(GERMAN), strict)).reason == "gate_empty"
    assert (await corrected.align(asked(GERMAN), POLICY)).reason == "language"


async def test_a_text_in_place_of_the_answer_is_ours() -> None:
    declining = replace(POLICY, if_nothing_remains=IfNothingRemains.DECLINE)
    engine = SegmentEngine(lambda _: 4.0)
    engine.about = KNOWS_ENGLISH
    for tool_calls, reason in ((False, "declined"), (True, "emptied")):
        outcome = await Pipeline(engine).align(replace(asked(GERMAN), tool_calls=tool_calls), declining)
        assert (outcome.status, outcome.reason) == (Status.CORRECTED, reason)


@pytest.mark.parametrize(("times", "readings"), [(1, 1), (1000, 3)])
async def test_the_language_of_an_answer_that_comes_again_is_remembered_unless_it_is_long(
    times: int, readings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str | None] = []

    def note_text(answer: str | None, languages: Collection[str]) -> bool:
        texts.append(answer)
        return True

    monkeypatch.setattr(language, "is_unknown_as_whole", note_text)
    answer = f"{GERMAN} Nummer {times}. " * times
    for _ in range(3):
        outcome = await pipeline().align(asked(answer), POLICY)
        assert outcome.status is Status.NOT_JUDGED
    assert len(texts) == readings
    language._has_unknown_text.cache_clear()  # it remembers what `note_text` said
