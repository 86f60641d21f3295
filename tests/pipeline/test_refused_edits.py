"""What the gate refuses of the aligner's own text: removed where objectives are enforced, else the original stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Exchange, IfNothingRemains, Objective, Policy, Status, StreamMode, Turn
from tests.support.growing import grown
from tests.support.pruning import correct_in_all_ways
from tests.support.scripted import SegmentEngine

POLICY = Policy("p", (Objective("kind", "Kindness: the response should never insult the reader"),))
ENFORCED = replace(POLICY, if_nothing_remains=IfNothingRemains.DECLINE)
ASKED = Exchange("c", 0, (Turn("user", "How do I paint a fence?"),), None)
ANSWER = "Take a brush. You fool. Then paint it."


def pipeline() -> Pipeline:
    """The engine writes an address in place of what it flags."""
    return Pipeline(SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0, lambda _: "Write to ann@example.org."))


async def test_where_objectives_are_enforced_it_is_removed() -> None:
    outcome = await pipeline().align(replace(ASKED, answer=ANSWER), ENFORCED)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "Take a brush. Then paint it.")
    assert outcome.correction is not None
    assert outcome.correction.editor is None


async def test_elsewhere_the_original_stays() -> None:
    outcome = await pipeline().align(replace(ASKED, answer=ANSWER), POLICY)
    assert (outcome.text, outcome.reason) == (ANSWER, "gate_new_personal_data")


@pytest.mark.parametrize("held", [False, True])
async def test_a_stream_gets_the_same(held: bool) -> None:
    policy = replace(ENFORCED, stream=StreamMode.SENTENCE)
    made = GrowingAnswer(pipeline(), policy, lambda: ASKED, lambda: None, hold_until_end=held)
    outcome = await grown(made, ANSWER)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "Take a brush. Then paint it.")


async def test_a_refused_removal_leaves_a_good_replacement() -> None:
    interview = "Ada: What is tea?\nBob: You are a fool.\n\nAda: What is coffee?\nBob: A drink of beans.\n\n"
    delivered = await correct_in_all_ways(interview + "```js\n// You fool!\nconst a = 1;\n```")
    assert set(delivered.values()) == {interview + "```js\nconst a = 1;\n```"}
