"""JSON answers through the pipeline: left alone by default; where a route asks, corrected text by text."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.pipeline import json_answers
from aligner_proxy.pipeline.outcomes import class_of
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.pipeline.stages import eligibility
from aligner_proxy.text.structure import split
from aligner_proxy.types import (
    Correction,
    Exchange,
    FailureClass,
    JsonStrings,
    Mode,
    Objective,
    OnSkip,
    Outcome,
    Policy,
    SegmentScore,
    SkipPolicy,
    Status,
    Turn,
)
from tests.support.scripted import ScriptedEngine

KIND = Objective("kind", "Kindness: the response should never insult the reader")
POLICY = Policy("p", (KIND,), json_strings=JsonStrings.CORRECT)
RUDE = "Boil the rice for a quarter of an hour. You oaf!"
GOOD = "Let it rest under a cloth, then serve it hot."
ANSWER = json.dumps({"steps": [RUDE, GOOD, RUDE], "minutes": 15, "You oaf!": "You oaf!"}, indent=1)
ASKED = Exchange("call-1", 0, (Turn("user", "How?"),), ANSWER, structured=True)


def polite(request: AlignRequest) -> Correction:
    """Removes what is rude, and says so as a head would."""
    pieces = split(request.answer)
    segments = tuple(SegmentScore(p.text, 1.0 if "oaf" in p.text else -1.0, "oaf" in p.text) for p in pieces)
    return Correction(request.answer.replace(" You oaf!", ""), segments, prompt_tokens=5)


async def align(exchange: Exchange = ASKED, policy: Policy = POLICY, script: Any = polite) -> tuple[Outcome, list[str]]:
    engine = ScriptedEngine(script)
    return await Pipeline(engine).align(exchange, policy), engine.seen


@pytest.mark.parametrize("policy", [POLICY, replace(POLICY, on_skip=SkipPolicy(structured_output=OnSkip.JUDGE))])
async def test_an_answer_is_parsed_once(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    read = eligibility.reads_as_json
    monkeypatch.setattr(eligibility, "reads_as_json", lambda answer: parsed.append(answer) or read(answer))
    outcome, _ = await align(policy=policy, exchange=replace(ASKED, structured=False))
    assert outcome.status is Status.CORRECTED
    assert parsed == [ANSWER]


async def test_by_default_json_is_never_looked_at() -> None:
    for exchange in (ASKED, replace(ASKED, structured=False)):
        outcome, seen = await align(exchange, replace(POLICY, json_strings=JsonStrings.KEEP))
        assert (outcome.status, outcome.reason, outcome.text) == (Status.SKIPPED, "structured_output", ANSWER)
        assert seen == []


async def test_long_texts_are_corrected_and_nothing_else_moves() -> None:
    outcome, seen = await align()
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, None)
    assert outcome.text == ANSWER.replace(". You oaf!", ".")
    assert len(seen) == 3
    assert (outcome.edits, outcome.dropped, outcome.violated_objectives) == (2, (), [])
    assert outcome.correction is not None
    assert (outcome.correction.text, outcome.correction.prompt_tokens) == (outcome.text, 15)
    assert len(outcome.correction.segments) == 5


async def test_an_answer_that_is_json_although_nobody_asked_for_it_is_json() -> None:
    outcome, _ = await align(replace(ASKED, structured=False))
    assert outcome.text == ANSWER.replace(". You oaf!", ".")


class Dropped:
    """What was read ahead of a JSON answer: nobody asks it, and it is let go of."""

    closed = 0

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        raise AssertionError("not fed")

    async def finish(self, request: AlignRequest) -> Correction:
        raise AssertionError("not asked")

    async def aclose(self) -> None:
        self.closed += 1


async def test_what_was_read_ahead_is_of_no_use_for_single_texts() -> None:
    reading = Dropped()
    outcome = await Pipeline(ScriptedEngine(polite)).align(replace(ASKED, structured=False), POLICY, reading)
    assert (outcome.text, reading.closed) == (ANSWER.replace(". You oaf!", "."), 1)


async def test_shadow_delivers_the_original() -> None:
    outcome, _ = await align(policy=replace(POLICY, mode=Mode.SHADOW))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SHADOW, "would_correct", ANSWER)


async def test_a_good_answer_is_the_same_bytes() -> None:
    answer = '{"a" :"\\u0041lways ' + GOOD + '" }'
    outcome, seen = await align(replace(ASKED, answer=answer))
    assert (outcome.status, outcome.text, len(seen)) == (Status.UNCHANGED, answer, 1)


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        ({"type": "object", "properties": {"steps": {"type": "array", "items": {"type": "string"}}}}, True),
        ({"properties": {"steps": {"items": {"enum": [RUDE, GOOD]}}}}, False),
        ({"properties": {"steps": {"items": {"minLength": 45}}}}, False),
    ],
)
async def test_the_schema_of_the_request_must_be_met(schema: dict[str, Any], fits: bool) -> None:
    outcome, _ = await align(replace(ASKED, json_schema=json.dumps(schema)))
    if fits:
        assert outcome.status is Status.CORRECTED
    else:
        assert (outcome.status, outcome.reason, outcome.text) == (Status.UNCHANGED, "gate_json_schema", ANSWER)
        assert outcome.dropped == ("json_schema", "json_schema")


async def test_a_schema_is_checked_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def noted(*_: object) -> bool:
        threads.append(threading.get_ident())
        return True

    monkeypatch.setattr(json_answers, "meets_schema", noted)
    await align(replace(ASKED, json_schema="{}"))
    assert threads
    assert threading.get_ident() not in threads


async def test_each_text_passes_the_gate_alone() -> None:
    def careless(request: AlignRequest) -> Correction:
        made = polite(request)
        return replace(made, text=made.text.replace("a quarter of an hour", "9 minutes"))

    first = ANSWER.replace("a quarter of an hour", "a while, but not for longer", 1)
    outcome, _ = await align(replace(ASKED, answer=first), script=careless)
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, "gate_partly:unflagged_changed")
    assert outcome.text == first.replace(". You oaf!", ".", 1)


async def test_nothing_to_correct_and_too_much_to_correct() -> None:
    outcome, _ = await align(replace(ASKED, answer='{"a": "short"}'))
    assert (outcome.status, outcome.reason) == (Status.SKIPPED, "structured_output")
    many = json.dumps([f"{i} {RUDE}" for i in range(eligibility.MAX_JSON_TEXTS + 1)])
    outcome, seen = await align(replace(ASKED, answer=many))
    assert (outcome.status, outcome.reason, seen) == (Status.SKIPPED, "too_long", [])


@pytest.mark.parametrize(
    "exchange",
    [
        replace(ASKED, constrained=True),
        replace(ASKED, answer=f"No JSON: {RUDE}"),
        replace(ASKED, answer=json.dumps(RUDE)),
        replace(ASKED, logprobs=True),
        replace(ASKED, finish_reason="length"),
        replace(ASKED, answer=json.dumps({"a": "I'm sorry, but I can't help with that request."})),
    ],
)
async def test_what_is_left_alone_all_the_same(exchange: Exchange) -> None:
    outcome, seen = await align(exchange)
    assert (outcome.status, outcome.text, seen) == (Status.SKIPPED, exchange.answer, [])


async def test_an_engine_that_fails_at_one_text_fails_the_answer() -> None:
    def script(request: AlignRequest) -> Correction | Exception:
        return RuntimeError("x") if request.answer == GOOD else polite(request)

    outcome, _ = await align(script=script)
    assert (outcome.status, outcome.reason, outcome.text) == (Status.FAILED, "engine_error", ANSWER)


async def test_nothing_is_added_behind_a_text_inside_json() -> None:
    asked: list[bool] = []

    def script(request: AlignRequest) -> str:
        asked.append(request.open_ended)
        return request.answer

    await align(script=script)
    await Pipeline(ScriptedEngine(script)).align(replace(ASKED, answer=GOOD, structured=False), POLICY)
    assert asked == [False, False, False, True]


JUDGED = Policy("p", (KIND,), on_skip=SkipPolicy(structured_output=OnSkip.JUDGE))


@pytest.mark.parametrize("structured", [True, False])
async def test_where_json_is_judged_only_strings_with_a_flagged_segment_are_corrected(structured: bool) -> None:
    answer = json.dumps({"a": RUDE, "b": GOOD, "c": "ok", "d": [1, "Rest. You oaf!"], "e": "\ud800 half"})
    outcome, seen = await align(replace(ASKED, answer=answer, structured=structured), JUDGED)
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, None)
    assert outcome.text == answer.replace(" You oaf!", "")
    assert len(seen) == 3, "all strings as one text, then the two with something flagged"
    assert sum(segment.flagged for segment in outcome.segments) == 2


async def test_a_clean_json_answer_is_scored_once() -> None:
    answer = json.dumps([GOOD] * 200)
    outcome, seen = await align(replace(ASKED, answer=answer), JUDGED)
    assert (outcome.status, outcome.text, len(seen)) == (Status.UNCHANGED, answer, 1)


@pytest.mark.parametrize("text", ["{}", "[1, 2, null]", '{"1": "2"}'])
async def test_json_without_words_is_left_alone(text: str) -> None:
    outcome, seen = await align(replace(ASKED, answer=text), JUDGED)
    assert (outcome.status, outcome.text, seen) == (Status.UNCHANGED, text, [])


@pytest.mark.parametrize(
    "exchange",
    [
        replace(ASKED, answer=json.dumps({"You oaf! You oaf!": 1, "b": GOOD})),
        replace(ASKED, answer=json.dumps({"a": RUDE}), constrained=True),
        replace(ASKED, answer=f"Yes. {RUDE}", constrained=True),
        replace(ASKED, answer='{"a": "' + RUDE),
    ],
    ids=["key", "grammar", "form", "torn"],
)
async def test_an_edit_that_breaks_the_form_is_a_failure_of_the_gate(exchange: Exchange) -> None:
    outcome, _ = await align(exchange, JUDGED)
    assert (outcome.status, outcome.reason, outcome.text) == (Status.UNCHANGED, "gate_json_schema", exchange.answer)
    assert class_of(outcome.reason) is FailureClass.GATE


@pytest.mark.parametrize("before", ['{"a": "', "[" * 5_000, "[" + " " * eligibility.LONGEST_JSON])
async def test_a_form_that_nobody_asked_for_is_a_text(before: str) -> None:
    policy = replace(JUDGED, max_answer_chars=1_000_000)
    answer = f"{before}{RUDE}"
    outcome, _ = await align(replace(ASKED, answer=answer, structured=False), policy)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, answer.replace(" You oaf!", ""))


async def test_too_many_strings_to_correct_are_not_judged() -> None:
    many = json.dumps([f"{i} {RUDE}" for i in range(eligibility.MAX_JSON_TEXTS + 1)])
    outcome, seen = await align(replace(ASKED, answer=many), JUDGED)
    assert (outcome.status, outcome.reason, len(seen)) == (Status.SKIPPED, "too_long", 1)


@pytest.mark.parametrize("policy", [POLICY, replace(POLICY, on_skip=SkipPolicy(structured_output=OnSkip.JUDGE))])
async def test_the_texts_of_a_long_answer_are_looked_for_beside_the_loop(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them disguised, they take two thirds of a second."""
    threads = list[int]()

    def noted(answer: str) -> Any:
        threads.append(threading.get_ident())
        return plain(answer)

    plain = eligibility.text_literals
    every = json_answers.string_literals
    monkeypatch.setattr(eligibility, "text_literals", noted)
    monkeypatch.setattr(
        json_answers, "string_literals", lambda answer: threads.append(threading.get_ident()) or every(answer)
    )
    long = json.dumps([RUDE, *([GOOD] * 20), "x" * 3_000])
    outcome, _ = await align(replace(ASKED, answer=long), policy)
    assert outcome.status is Status.CORRECTED
    assert threads
    assert threading.get_ident() not in threads
