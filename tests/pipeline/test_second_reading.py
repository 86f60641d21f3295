"""Second readings: echoes without the question, copies of what is flagged, edited answers, laid-out sentences."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text.structure import split
from aligner_proxy.types import (
    Correction,
    Exchange,
    FailurePolicy,
    JsonStrings,
    Mode,
    Objective,
    OnError,
    OnSkip,
    Outcome,
    Policy,
    SegmentScore,
    SkipPolicy,
    Status,
    StreamMode,
    Turn,
)
from tests.support.growing import grown
from tests.support.scripted import ScriptedSession, SegmentEngine

OPEN = Policy("p", (Objective("kind", "Kindness: the response should never insult the reader"),))
BLOCKING = FailurePolicy(**dict.fromkeys(FailurePolicy.__dataclass_fields__, OnError.BLOCK))
POLICY = replace(OPEN, on_error=BLOCKING)
QUESTION = "How do I paint a fence?"
INSULT = "You are a hopeless fool and always were."
WAYS = ("whole", "held", "sentence")


class ContextEngine(SegmentEngine):
    """Scores a segment by what stands before it and by the turns, as a detector head does."""

    def __init__(self, flags: Callable[[AlignRequest, str, str], bool]) -> None:
        super().__init__(lambda _: -2.0)
        self._flags = flags
        self.asked: list[AlignRequest] = []

    async def align(self, request: AlignRequest) -> Correction:
        """Remember what was asked."""
        self.asked.append(request)
        return await super().align(request)

    async def read(self, request: AlignRequest) -> ScriptedSession:
        """Read along; the session asks `verdicts` only, so that it knows the text before each segment."""
        session = _ContextSession(self, request)
        self.sessions.append(session)
        return session

    def verdicts(self, request: AlignRequest, *, ended: bool) -> tuple[SegmentScore, ...]:
        """On every segment that is finished."""
        segments = split(request.answer) if request.answer.strip() else []
        flags = [self._flags(request, request.answer[: segment.start], segment.text) for segment in segments]
        scores = [
            SegmentScore(segment.text, 2.0 if flag else -2.0, flag, 0)
            for segment, flag in zip(segments, flags, strict=True)
        ]
        return tuple(scores if ended else scores[:-1])


class _ContextSession(ScriptedSession):
    """A session whose verdicts depend on what stands before a segment."""

    def _verdicts(self) -> tuple[SegmentScore, ...]:
        request = self._request.model_copy(update={"answer": self._text})
        return self._scripts.verdicts(request, ended=self._ended)


def unless_quoted(request: AlignRequest, _before: str, text: str) -> bool:
    """A fool is flagged, unless a turn has one."""
    return "fool" in text and not any("fool" in turn.content for turn in request.turns)


def only_first(_request: AlignRequest, before: str, text: str) -> bool:
    """A fool is flagged, unless an insult stands before it: behind one the next scores lower."""
    return "fool" in text and "fool" not in before


def anywhere(_request: AlignRequest, _before: str, text: str) -> bool:
    """A fool is flagged."""
    return "fool" in text


async def outcome_of(
    engine: SegmentEngine, answer: str, way: str, question: str = QUESTION, policy: Policy = POLICY
) -> Outcome:
    """What becomes of an answer, whole or as a stream."""
    asked = Exchange("c", 0, (Turn("user", question),), None)
    pipeline = Pipeline(engine)
    if way == "whole":
        return await pipeline.align(replace(asked, answer=answer), policy)
    policy = replace(policy, stream=StreamMode.SENTENCE)
    made = GrowingAnswer(pipeline, policy, lambda: asked, lambda: None, hold_until_end=way == "held")
    outcome = await grown(made, [f"{word} " for word in answer.split(" ")])
    return replace(outcome, text=(outcome.text or "").rstrip())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "question",
    [
        f'He wrote "{INSULT}" to me. {QUESTION}',
        f"Tell me that I am a hopeless fool and always was. {QUESTION}",
    ],
    ids=["quoted", "asked for in words"],
)
async def test_an_echo_is_judged_without_the_question(way: str, question: str) -> None:
    engine = ContextEngine(unless_quoted)
    outcome = await outcome_of(engine, f"Take a brush. {INSULT} Then paint it.", way, question)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "Take a brush. Then paint it.")
    assert any(not request.turns for request in engine.asked)


@pytest.mark.parametrize("way", WAYS)
async def test_where_unjudged_answers_may_go_out_a_quotation_stays(way: str) -> None:
    engine = ContextEngine(unless_quoted)
    answer = f"You wrote: {INSULT}"
    outcome = await outcome_of(engine, answer, way, f'I wrote "{INSULT}" Quote what I wrote.', OPEN)
    assert (outcome.status, outcome.text) == (Status.UNCHANGED, answer)


@pytest.mark.parametrize("way", WAYS)
async def test_copies_of_a_flagged_segment_go_with_it(way: str) -> None:
    answer = (
        f"{INSULT} Take a brush. {INSULT} Then paint it. YOU are a hopeless f\u200bool, and always were! Let it dry."
    )
    outcome = await outcome_of(ContextEngine(only_first), answer, way)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "Take a brush. Then paint it. Let it dry.")
    assert outcome.flagged_count == 3


async def test_copies_before_a_flagged_segment_go_where_they_are_flagged_by_themselves() -> None:
    def later(_request: AlignRequest, before: str, text: str) -> bool:
        return "fool" in text and (not before or "dry" in before)

    answer = f"Take a brush. {INSULT} Let it dry. {INSULT}"
    outcome = await outcome_of(ContextEngine(later), answer, "whole")
    assert outcome.text == "Take a brush. Let it dry."


async def test_what_is_flagged_because_it_was_said_before_takes_nothing_along() -> None:
    def repeated(_request: AlignRequest, before: str, text: str) -> bool:
        return text in before

    outcome = await outcome_of(ContextEngine(repeated), "Take a brush. Paint it. Take a brush.", "whole")
    assert outcome.text == "Take a brush. Paint it."


@pytest.mark.parametrize("way", WAYS)
async def test_what_goes_out_in_place_of_a_flagged_answer_is_read_once_more(way: str) -> None:
    answer = f"Take a brush. {INSULT} Only a fool asks that. Then paint it."
    outcome = await outcome_of(ContextEngine(only_first), answer, way)
    assert outcome.text == "Take a brush. Then paint it."


async def test_what_was_written_in_place_is_read_where_it_goes_out() -> None:
    engine = ContextEngine(only_first)
    engine.write = lambda _: "Any fool can paint."
    outcome = await outcome_of(engine, f"Take a brush. {INSULT} Then paint it.", "whole")
    assert outcome.text == "Take a brush. Then paint it."


@pytest.mark.parametrize("way", WAYS)
async def test_a_sentence_laid_out_word_by_word_is_read_as_one(way: str) -> None:
    def sentence(_request: AlignRequest, _before: str, text: str) -> bool:
        return "you are a hopeless fool" in text.casefold()

    answer = "Take a brush.\n\n- You\n- are\n- a\n- hopeless\n- fool\n\nThen paint it."
    outcome = await outcome_of(ContextEngine(sentence), answer, way)
    assert "hopeless" not in (outcome.text or "") or outcome.status is Status.FAILED


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_without_flag_and_echo_has_one_reading(way: str) -> None:
    engine = ContextEngine(anywhere)
    answer = "Take a brush. Dip it in. Then let it dry overnight."
    outcome = await outcome_of(engine, answer, way)
    assert outcome.status is Status.UNCHANGED
    assert len(engine.asked) + sum(not request.score_only for request in engine.asked) <= 2
    assert not any(request.score_only for request in engine.asked)


async def test_copies_in_a_later_part_of_a_long_answer_go_too() -> None:
    policy = replace(POLICY, max_answer_chars=300, stream=StreamMode.SENTENCE, on_skip=judging())
    painted = "Then paint it. Let it dry. " * 9
    answer = f"{INSULT} Take a brush. {painted}{INSULT} {painted}{INSULT} Done."

    def first(request: AlignRequest, before: str, text: str) -> bool:
        return text == INSULT and not before and request.answer.startswith(f"{INSULT} Take")

    outcome = await outcome_of(ContextEngine(first), answer, "sentence", policy=policy)
    assert "fool" not in (outcome.text or "")


@pytest.mark.parametrize("every_string", [False, True])
async def test_texts_in_json_have_a_second_reading(every_string: bool) -> None:
    policy = replace(POLICY, on_skip=replace(judging(), structured_output=OnSkip.JUDGE) if every_string else judging())
    policy = policy if every_string else replace(policy, json_strings=JsonStrings.CORRECT)
    answer = json.dumps({"reply": f"Take a brush today. {INSULT} Then paint the whole fence."})
    question = f'He wrote "{INSULT}" to me. {QUESTION}'
    outcome = await outcome_of(ContextEngine(unless_quoted), answer, "whole", question, policy)
    assert json.loads(outcome.text or "") == {"reply": "Take a brush today. Then paint the whole fence."}


async def test_an_answer_from_the_cache_is_judged_no_less(tmp_path: Path) -> None:
    engine = ContextEngine(unless_quoted)
    cache = CorrectionCache(tmp_path, 600, 8)
    pipeline = Pipeline(engine, cache)
    asked = Exchange("c", 0, (Turn("user", f'He wrote "{INSULT}" {QUESTION}'),), f"Take a brush. {INSULT} Paint it.")
    try:
        assert (await pipeline.align(asked, OPEN)).status is Status.UNCHANGED
        first = await pipeline.align(asked, POLICY)
        count = len(engine.asked)
        again = await pipeline.align(asked, POLICY)
    finally:
        await cache.aclose()
    assert first.text == again.text == "Take a brush. Paint it."
    assert (again.cache_hit, len(engine.asked)) == (True, count)


async def test_in_shadow_mode_it_says_what_would_be_done() -> None:
    policy = replace(POLICY, mode=Mode.SHADOW)
    answer = f"Take a brush. {INSULT} Then paint it."
    outcome = await outcome_of(ContextEngine(unless_quoted), answer, "whole", f'He wrote "{INSULT}"', policy)
    assert (outcome.reason, outcome.edited) == ("would_correct", "Take a brush. Then paint it.")


async def test_what_has_no_place_blocks() -> None:
    class Rewriting(ContextEngine):
        """Rewrites the whole answer, flagged or not."""

        async def align(self, request: AlignRequest) -> Correction:
            correction = await super().align(request)
            return correction if request.score_only else replace(correction, text="Another answer.")

    answer = f"Take a brush. {INSULT} Then paint it."
    outcome = await outcome_of(Rewriting(unless_quoted), answer, "whole", f'He wrote "{INSULT}"')
    assert (outcome.status, outcome.reason) == (Status.FAILED, "not_placed")


def judging() -> SkipPolicy:
    """As enforced objectives have it."""
    names: Sequence[str] = tuple(SkipPolicy.__dataclass_fields__)
    return SkipPolicy(**{name: OnSkip.JUDGE for name in names if name != "structured_output"})


@pytest.mark.parametrize("way", WAYS)
async def test_what_looks_bad_out_of_its_place_only_stays(way: str) -> None:
    def misplaced(_request: AlignRequest, before: str, text: str) -> bool:
        return "you are a hopeless fool" in text.casefold() and "brush" not in before

    answer = "Take a brush.\n\n- You\n- are\n- a\n- hopeless\n- fool\n\nThen paint it."
    outcome = await outcome_of(ContextEngine(misplaced), answer, way)
    assert (outcome.status, outcome.text) == (Status.UNCHANGED, answer)
