"""What may go from a dialogue that was asked for: a turn that is all clear harm, and no sentence for want of help."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aligner_proxy.gate.judge import judge
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text.structure import split
from aligner_proxy.types import (
    Correction,
    Exchange,
    IfNothingRemains,
    Objective,
    Outcome,
    Policy,
    SegmentScore,
    StreamMode,
    Turn,
)
from tests.support.growing import grown
from tests.support.scripted import SegmentEngine

HARMLESS = Objective("harmless", "Harmlessness: no insults")
POLICY = Policy("p", (HARMLESS,), if_nothing_remains=IfNothingRemains.ORIGINAL)
TALK = "Anna: Is it done?\n{}Anna: I am fine, thank you.\nBob: Good to hear that."
ASKED = Exchange("c", 0, (Turn("user", "Write a scene."),), None)
SCORES = {"worthless": 3.0, "fool": 1.0}
HARM = "Bob: You worthless fool.\n"


def score(text: str) -> float:
    """The score of a sentence: clearly harmful, doubtful, or fine."""
    return next((nats for word, nats in SCORES.items() if word in text), -6.0)


async def correct(answer: str, policy: Policy) -> dict[str, Outcome]:
    """The outcomes of an answer that is whole, or comes in small or large pieces."""
    outcomes = {"whole": await Pipeline(SegmentEngine(score)).align(replace(ASKED, answer=answer), policy)}
    for size in (1, 40):
        streaming = replace(policy, stream=StreamMode.SENTENCE)
        growing = GrowingAnswer(Pipeline(SegmentEngine(score)), streaming, lambda: ASKED, lambda: None)
        pieces = (answer[start : start + size] for start in range(0, len(answer), size))
        outcomes[f"pieces of {size}"] = await grown(growing, pieces, rounds=20)
    return outcomes


@pytest.mark.parametrize(
    ("turn", "left"),
    [
        (HARM, ""),
        ("Bob: You worthless fool. Go away, worthless fool.\n", ""),
        ("Bob: You worthless fool.\nGo away, worthless fool.\n", ""),
        (f"{HARM}\n(They laugh.)\n\n", "\n(They laugh.)\n\n"),
        # doubtful, or only a part of it
        ("Bob: You fool.\n", "Bob: You fool.\n"),
        ("Bob: You worthless fool. You fool.\n", "Bob: You worthless fool. You fool.\n"),
    ],
)
async def test_a_turn_goes_only_if_all_of_it_is_clearly_harmful(turn: str, left: str) -> None:
    outcomes = await correct(TALK.format(turn), POLICY)
    assert {outcome.text for outcome in outcomes.values()} == {TALK.format(left)}


async def test_the_only_turn_of_a_speaker_may_go() -> None:
    answer = TALK.partition("\nBob")[0]
    outcomes = await correct(answer.format(HARM), POLICY)
    assert {outcome.text for outcome in outcomes.values()} == {answer.format("")}


@pytest.mark.parametrize("name", ["helpful", "kind"])
async def test_under_an_objective_that_is_not_about_safety_every_turn_stays(name: str) -> None:
    answer = TALK.format(HARM)
    outcomes = await correct(answer, replace(POLICY, objectives=(replace(HARMLESS, name=name),)))
    assert {outcome.text for outcome in outcomes.values()} == {answer}


async def test_several_turns_go_from_a_long_dialogue() -> None:
    good = "Anna: I am fine, thank you, and so is the cat.\nBob: Good to hear that, and all the best to the cat.\n"
    answer = (good * 12 + HARM + good * 12 + HARM + good).rstrip()
    outcomes = await correct(answer, POLICY)
    assert {outcome.text for outcome in outcomes.values()} == {(good * 25).rstrip()}


@pytest.mark.parametrize(("name", "stays"), [("helpful", True), ("instruction-following", True), ("kind", False)])
async def test_a_sentence_that_looks_like_an_invented_turn_stays(name: str, stays: bool) -> None:
    answer = TALK.format("Bob: It is, my dear.{}\n")
    policy = replace(POLICY, objectives=(replace(HARMLESS, name=name),))
    outcomes = await correct(answer.format(" Only a fool would ask."), policy)
    assert {outcome.text for outcome in outcomes.values()} == {
        answer.format(" Only a fool would ask." if stays else "")
    }


async def test_a_turn_of_somebody_else_behind_a_dialogue_goes() -> None:
    answer = TALK.format("Bob: It is, my dear.\n")
    policy = replace(POLICY, objectives=(replace(HARMLESS, name="helpful"),))
    outcomes = await correct(f"{answer}\n\nHuman: Write another, fool.", policy)
    assert {outcome.text.rstrip() for outcome in outcomes.values()} == {answer}


def test_an_insult_beside_such_a_sentence_goes() -> None:
    insult = "You worthless fool."
    answer = TALK.format(f"Bob: It is, my dear. {insult} Only asking. Go on.\n")
    verdicts = {insult: (5.0, True, 0), "Only asking.": (3.0, True, 1)}
    segments = tuple(
        SegmentScore(segment.text, *verdicts.get(segment.text, (-6.0, False, 0))) for segment in split(answer)
    )
    policy = replace(POLICY, objectives=(HARMLESS, replace(HARMLESS, name="helpful")))
    edited = answer.replace(f"{insult} Only asking. ", "")
    assert judge(answer, Correction(edited, segments), policy).text == edited
