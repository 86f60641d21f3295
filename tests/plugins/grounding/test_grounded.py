"""Answers held to references on their way through the pipeline: whole, in streams, in JSON, in shadow mode."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.gate.judge import judge
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import (
    Correction,
    Exchange,
    GateRule,
    JsonStrings,
    Mode,
    Objective,
    Outcome,
    Policy,
    SegmentScore,
    Status,
    StreamMode,
    Turn,
)
from aligner_proxy_grounding.references import Reference, ReferenceKind
from tests.plugins.grounding.held import EXTENSIONS, held
from tests.support.growing import grown
from tests.support.scripted import SegmentEngine

PAGE = "# Returns\n\nOnline orders can be returned within 28 days of delivery. Posting a return costs £2.95.\n"
FILE = Reference(ReferenceKind.FILE, "pages/POLICY.md", PAGE)
ONLY = held(Policy("p"), FILE)
KIND = replace(ONLY, objectives=(Objective("kind", "Kind: no insults"),))
ASKED = Exchange("c", 0, (Turn("user", "How do I send this back?"),), None)
WRONG = "Gladly. Online orders can be returned within thirty days of delivery."
RIGHT = "Gladly. Online orders can be returned within twenty-eight days of delivery."


class NoEngine(SegmentEngine):
    """An engine that must not be asked."""

    async def align(self, request: AlignRequest) -> Correction:
        raise AssertionError("asked")


def engine() -> SegmentEngine:
    return SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0, lambda _: "")


def pipeline(policy: Policy) -> Pipeline:
    return Pipeline(engine() if policy.objectives else NoEngine(lambda _: 0.0, lambda _: ""), extensions=EXTENSIONS)


async def whole(answer: str, policy: Policy) -> Outcome:
    return await pipeline(policy).align(replace(ASKED, answer=answer), policy)


@pytest.mark.parametrize("policy", [ONLY, KIND])
async def test_a_wrong_fact_is_replaced_with_and_without_objectives(policy: Policy) -> None:
    outcome = await whole(WRONG, policy)
    assert (outcome.status, outcome.reason, outcome.text) == (Status.CORRECTED, None, RIGHT)
    assert [(edit.kind, edit.source) for edit in outcome.findings] == [("duration", "POLICY.md:3")]
    assert outcome.findings_record["grounded"]["edits"] == 1
    assert WRONG[outcome.findings[0].start :].startswith("thirty days")


@pytest.mark.parametrize("policy", [ONLY, KIND])
async def test_an_answer_that_agrees_goes_out_as_it_is(policy: Policy) -> None:
    outcome = await whole(RIGHT, policy)
    assert (outcome.status, outcome.text, outcome.findings_record) == (Status.UNCHANGED, RIGHT, {})


async def test_what_remains_of_a_corrected_answer_is_held_to_the_page() -> None:
    outcome = await whole(f"{WRONG} You are a fool.", KIND)
    assert outcome.text == RIGHT
    assert outcome.flagged_count == 1


async def test_shadow_says_what_it_would_do() -> None:
    outcome = await whole(WRONG, replace(ONLY, mode=Mode.SHADOW))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SHADOW, "would_correct", WRONG)
    assert outcome.edited == RIGHT


async def test_texts_in_json_are_held_to_the_page() -> None:
    answer = '{"reply": "Online orders can be returned within thirty days of delivery."}'
    policy = replace(ONLY, json_strings=JsonStrings.CORRECT)
    assert (await whole(answer, policy)).text == answer.replace("thirty", "twenty-eight")
    assert (await whole(answer, ONLY)).text == answer


async def test_an_answer_to_another_client_is_not_held_to_their_page() -> None:
    other = replace(FILE, text=PAGE.replace("28", "21"))
    first, second = await asyncio.gather(whole(WRONG, ONLY), whole(WRONG, held(ONLY, other)))
    assert first.text == RIGHT
    assert second.text == WRONG.replace("thirty", "twenty-one")


async def streamed(answer: str, policy: Policy, *, held: bool = False) -> Outcome:
    policy = replace(policy, stream=StreamMode.SENTENCE)
    made = GrowingAnswer(pipeline(policy), policy, lambda: ASKED, lambda: None, hold_until_end=held)
    return await grown(made, answer)


@pytest.mark.parametrize("policy", [ONLY, KIND])
@pytest.mark.parametrize("held", [False, True])
async def test_streams_are_held_to_the_page(policy: Policy, held: bool) -> None:
    outcome = await streamed(f"{WRONG} Posting a return costs £2.95.", policy, held=held)
    assert outcome.text == f"{RIGHT} Posting a return costs £2.95."
    assert (outcome.status, len(outcome.findings)) == (Status.CORRECTED, 1)
    assert WRONG[outcome.findings[0].start :].startswith("thirty days")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_words_are_not_certain_enough_of_stays_and_is_counted(stream: bool) -> None:
    policy = ONLY.with_extension("replace_facts_from", 1.0)
    outcome = await streamed(WRONG, policy) if stream else await whole(WRONG, policy)
    assert (outcome.status, outcome.text) == (Status.UNCHANGED, WRONG)
    assert outcome.findings_record["grounded"]["unsettled"] == [{"kind": "duration", "source": "POLICY.md:3"}]


async def test_a_stream_that_agrees_goes_out_as_it_is() -> None:
    outcome = await streamed(RIGHT, ONLY)
    assert (outcome.status, outcome.text, outcome.findings_record) == (Status.UNCHANGED, RIGHT, {})


def test_to_the_gate_a_reference_is_a_source_of_facts() -> None:
    before = "You pay nothing, fool. Good luck with it."
    after = "You pay £2.95 to post it. Good luck with it."
    scores = (
        SegmentScore("You pay nothing, fool.", 2.0, flagged=True),
        SegmentScore("Good luck with it.", -2.0, False),
    )
    correction = Correction(after, scores)
    assert judge(before, correction, KIND).text == after
    refused = judge(before, correction, KIND.without_requirements())
    assert (refused.text, refused.dropped) == (before, (GateRule.INVENTED_FACT.value,))
