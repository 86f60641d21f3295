"""The best of several drafts: what is asked, which is chosen by which weights, and what follows when one fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.correctors.registry import PluginCorrector
from aligner_proxy.engine.admission import Admission
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import EngineOverloaded
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.outcomes import blocks
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.extensions import Extensions, InlineRunner
from aligner_proxy.text.structure import split
from aligner_proxy.types import (
    Correction,
    DecodeCounts,
    Exchange,
    FailurePolicy,
    JsonStrings,
    Objective,
    OnError,
    Outcome,
    Policy,
    SegmentScore,
    Status,
    Turn,
)
from aligner_proxy_systems.meal import best_of
from aligner_proxy_systems.meal.selector import WEIGHED, ObjectiveWeights
from tests.support.scripted import SCRIPTED, ScriptedEngine

KIND = Objective("kind", "Kindness: the response should never insult the reader")
BRIEF = Objective("brief", "Brevity: the response should be short")
POLICY = Policy("p", (KIND, BRIEF), tenant="team:a", deadline_s=5.0).with_extension(best_of.BEST_OF, 4)
BEST = Extensions([best_of.BestOf()])
ANSWER = "It is so. You fool. That said, one might go on at length about it."
ASKED = Exchange("call-1", 0, (Turn("user", "What?"),), ANSWER)
SCORES = {"fool": (2.0, 0), "length": (0.2, 1)}
SHORT = "It is so."
KINDER = "It is so. That said, one might go on at length about it."


def score_segments(text: str) -> tuple[SegmentScore, ...]:
    found = []
    for piece in split(text):
        score, objective = next((told for word, told in SCORES.items() if word in piece.text), (-4.0, 1))
        found.append(SegmentScore(piece.text, score, False, objective))
    return tuple(found)


def script(request: AlignRequest) -> Correction:
    """Removes what scores above the caution; the counts tell that it was asked."""
    pieces = score_segments(request.answer)
    kept = [one for one in pieces if (one.score or 0.0) <= request.caution]
    segments = tuple(replace(one, flagged=one not in kept) for one in pieces)
    return Correction(" ".join(one.text for one in kept), segments, DecodeCounts(forwards=1), 10, 1.0)


class Seeing(ScriptedEngine):
    """Remembers what it was asked."""

    def __init__(self, play: Any = script, **more: Any) -> None:
        super().__init__(self._play, **more)
        self.play = play
        self.asked = list[AlignRequest]()

    def _play(self, request: AlignRequest) -> Any:
        self.asked.append(request)
        return self.play(request)


def weigh_policy(kind: float, brief: float) -> Policy:
    return POLICY.with_extension(WEIGHED, ObjectiveWeights((("kind", kind), ("brief", brief))))


def drafts(policy: Policy, count: int) -> Policy:
    return policy.with_extension(best_of.BEST_OF, count)


async def align(engine: Any, policy: Policy = POLICY, **more: Any) -> Outcome:
    return await Pipeline(engine, extensions=BEST, **more).align(ASKED, policy)


async def test_each_draft_is_asked_otherwise_and_every_text_is_read() -> None:
    engine = Seeing()
    outcome = await align(engine)
    drafts = [one for one in engine.asked if not one.score_only]
    assert [(one.caution, one.draft) for one in drafts] == [(0.0, 0), (-1.0, 1), (1.0, 2), (-2.0, 3)]
    read = [one.answer for one in engine.asked if one.score_only]
    assert sorted(read) == sorted([ANSWER, SHORT, KINDER])
    assert outcome.correction is not None
    assert outcome.correction.counts.forwards == outcome.correction.prompt_tokens / 10 == len(engine.asked) == 7
    # Among equals both flagged segments go: what is left costs more than what is gone.
    assert (outcome.status, outcome.text) == (Status.CORRECTED, SHORT)


@pytest.mark.parametrize(("kind", "brief", "text"), [(0.5, 0.5, SHORT), (0.9, 0.1, KINDER), (0.1, 0.9, SHORT)])
async def test_what_an_objective_weighs_decides_between_drafts(kind: float, brief: float, text: str) -> None:
    assert (await align(Seeing(), weigh_policy(kind, brief))).text == text


async def test_the_original_is_a_candidate() -> None:
    # The drafts lose a sentence that nothing spoke against; the gate lets that pass, the reader does not.
    engine = Seeing(lambda one: script(one) if one.score_only else "You fool.")
    outcome = await align(engine, replace(POLICY, gate=()))
    assert (outcome.status, outcome.text) == (Status.UNCHANGED, ANSWER)


async def test_without_a_difference_nothing_is_read() -> None:
    engine = Seeing(lambda one: one.answer)
    outcome = await align(engine)
    assert (outcome.status, len(engine.asked)) == (Status.UNCHANGED, 4)


@pytest.mark.parametrize("engine", [Seeing(about=replace(SCRIPTED, has_head=False)), Seeing()])
async def test_one_draft_is_what_it_is_without_the_setting(engine: Seeing) -> None:
    headless = not engine.about.has_head
    outcome = await align(engine, POLICY if headless else drafts(POLICY, 1))
    assert (outcome.text, len(engine.asked)) == (SHORT, 1)


async def test_the_gate_judges_every_draft_and_what_is_delivered() -> None:
    def harmful(request: AlignRequest) -> Correction:
        made = script(request)
        return replace(made, text=made.text + " Write to me@example.org.") if request.caution == -1.0 else made

    outcome = await align(Seeing(harmful))
    assert outcome.text == SHORT
    refused = await align(Seeing(lambda one: script(one) if one.score_only else ""))
    assert (refused.status, refused.reason, refused.text) == (Status.UNCHANGED, "gate_empty", ANSWER)


async def test_a_draft_that_fails_or_is_late_costs_only_itself() -> None:
    class Slow(Seeing):
        async def align(self, request: AlignRequest) -> Correction:
            if request.caution == -1.0:
                await asyncio.sleep(3600)
            return await super().align(request)

    engine = Slow(lambda one: EngineOverloaded("x") if one.caution == 0.0 else script(one))
    outcome = await align(engine, drafts(replace(POLICY, deadline_s=0.5), 3))
    assert (outcome.status, outcome.text) == (Status.CORRECTED, KINDER)
    assert outcome.ms < 480


async def test_where_no_draft_comes_the_failure_is_that_of_the_first() -> None:
    policy = replace(POLICY, on_error=FailurePolicy(overload=OnError.BLOCK))
    outcome = await align(Seeing(lambda one: EngineOverloaded("x") if one.draft == 0 else ValueError("x")), policy)
    assert (outcome.status, outcome.reason) == (Status.FAILED, "overloaded")
    assert blocks(outcome)


async def test_a_first_draft_past_its_share_still_counts() -> None:
    outcome = await align(Seeing(delay_s=0.35), replace(POLICY, deadline_s=0.5))
    assert (outcome.status, outcome.text) == (Status.CORRECTED, SHORT)
    late = await align(Seeing(delay_s=3.0), replace(POLICY, deadline_s=0.2))
    assert (late.status, late.reason, late.text) == (Status.FAILED, "timeout", ANSWER)


async def test_where_the_reading_fails_the_first_draft_is_delivered() -> None:
    engine = Seeing(lambda one: EngineOverloaded("x") if one.score_only else script(one))
    assert (await align(engine, weigh_policy(0.9, 0.1))).text == SHORT


async def test_each_draft_and_reading_has_its_place_in_the_cache(tmp_path: Path) -> None:
    cache = CorrectionCache(tmp_path / "store", 60, 4)
    engine = Seeing()
    first = await align(engine, cache=cache)
    again = await align(engine, cache=cache)
    assert (first.cache_hit, again.cache_hit, again.text) == (False, True, SHORT)
    assert len(engine.asked) == 7
    single = await align(engine, drafts(POLICY, 1), cache=cache)
    assert (single.cache_hit, single.text) == (True, SHORT)
    other = await align(engine, weigh_policy(0.9, 0.1), cache=cache)  # weights choose; they do not change any draft
    assert (other.cache_hit, other.text) == (True, KINDER)
    tenant = await align(engine, replace(POLICY, tenant="team:b"), cache=cache)
    assert tenant.cache_hit is False
    await cache.aclose()


async def test_a_plugins_corrector_is_told_the_number_and_read_by_the_aligner(tmp_path: Path) -> None:
    heard: list[AlignRequest] = []

    class Mine:
        async def identity(self) -> str:
            return "1"

        async def correct(self, request: AlignRequest) -> Correction:
            heard.append(request)
            return Correction((ANSWER, "It is so. You fool.", KINDER)[request.draft])

    made = {"mine": Admission(PluginCorrector("mine", "mine", Mine(), InlineRunner()), slots=8)}
    engine = Seeing()
    policy = drafts(replace(weigh_policy(0.9, 0.1), corrector="mine"), 3)
    cache = CorrectionCache(tmp_path / "store", 60, 4)
    outcome = await align(engine, policy, correctors=made, cache=cache)
    assert [one.draft for one in heard] == [0, 1, 2]
    assert {one.score_only for one in engine.asked} == {True}
    assert (outcome.status, outcome.text) == (Status.CORRECTED, KINDER)
    assert (await align(engine, policy, correctors=made, cache=cache)).cache_hit is True
    await cache.aclose()


async def test_texts_in_json_get_the_best_of_several_too() -> None:
    answer = f'{{"note": "{ANSWER}"}}'
    exchange = replace(ASKED, answer=answer)
    policy = replace(weigh_policy(0.9, 0.1), json_strings=JsonStrings.CORRECT)
    outcome = await Pipeline(Seeing(), extensions=BEST).align(exchange, policy)
    assert outcome.text == f'{{"note": "{KINDER}"}}'


async def test_what_was_read_ahead_is_the_first_draft() -> None:
    engine = Seeing()
    made = Pipeline(engine, extensions=BEST)
    reading = await made.read(replace(ASKED, answer=None), POLICY)
    assert reading is not None
    finished: list[AlignRequest] = []
    plain = reading.finish

    async def finish(request: AlignRequest) -> Correction:
        finished.append(request)
        return await plain(request)

    reading.finish = finish  # type: ignore[method-assign]
    assert (await made.align(ASKED, POLICY, reading)).text == SHORT
    assert [one.draft for one in finished] == [0]


async def test_a_client_that_leaves_takes_all_drafts_along() -> None:
    engine = Seeing(delay_s=3600)
    task = asyncio.create_task(align(engine))
    while len(engine.seen) < 4:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(engine.cancelled) == 4


def test_what_is_left_and_what_is_gone_cost() -> None:
    original = score_segments(ANSWER)
    assert best_of.compute_cost(original, original, (1, 1)) == pytest.approx(0.881 + 0.550 + 0.018, abs=1e-3)
    assert best_of.compute_cost(score_segments(SHORT), original, (1, 1)) == pytest.approx(
        0.119 + 0.450 + 0.018, abs=1e-3
    )
    assert best_of.compute_cost((), original, (1, 1)) > best_of.compute_cost(score_segments(SHORT), original, (1, 1))
    unknown = (SegmentScore("x", None, False, None),)
    assert best_of.compute_cost(unknown, unknown, ()) == 0.5
    assert best_of.shares(POLICY) == (1.0, 1.0)
    assert best_of.shares(weigh_policy(0.9, 0.1)) == (1.8, 0.2)
