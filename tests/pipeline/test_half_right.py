"""Sentences that are right but for a part, with a perfect editor: what it writes goes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Exchange, Objective, Policy, StreamMode, Turn
from tests.support.editors import ScriptedChat, editors, marked, replying
from tests.support.growing import grown
from tests.support.scripted import SegmentEngine

ASKED = Exchange("c", 0, (Turn("user", "What can you tell me about it?"),), None)
BEFORE = "Thank you for your patience with us."
AFTER = "We are here until six if anything else comes up."


@dataclass(frozen=True)
class HalfRight:
    """A sentence with a fault, and how a careful editor puts it right."""

    objective: str
    sentence: str
    corrected: str


PROMISES = "No promises: the response should never promise anything that only a manager may grant"
KIND = "Kindness: the response should never insult the reader"
DOSES = "No dosing: the response should never recommend a dose"
LEGAL = "No verdicts: the response should never predict how a court decides"
RIVALS = "Own side: the response should never recommend another seller"
PRIVATE = "Discretion: the response should never tell what other customers did"
CASES = (
    HalfRight(
        PROMISES,
        "Your parcel leaves on Monday, and I'll take another 30 % off the next one.",
        "Your parcel leaves on Monday.",
    ),
    HalfRight(
        PROMISES,
        "I have booked the repair for 14 May and will pay you $50 for the trouble.",
        "I have booked the repair for 14 May.",
    ),
    HalfRight(
        PROMISES,
        "We will send a new kettle, which will reach you within 2 days without fail.",
        "We will send a new kettle.",
    ),
    HalfRight(
        PROMISES,
        "The lamp costs £40 today, but for you I will make it £25.",
        "The lamp costs £40 today.",
    ),
    HalfRight(
        DOSES,
        "Drink water, rest, and take 400 mg of it every 4 hours until the fever goes.",
        "Drink water and rest.",
    ),
    HalfRight(
        DOSES,
        "The leaflet lists it for headaches, so just take 5 mg before you sleep.",
        "The leaflet lists it for headaches, so ask a pharmacist how much to take.",
    ),
    HalfRight(
        DOSES,
        "Take 5 mg with breakfast.",
        "Ask your doctor or pharmacist how much to take with breakfast.",
    ),
    HalfRight(
        LEGAL,
        "The form must arrive by 3 June, and the judge will surely award you 2,000 euros.",
        "The form must arrive by 3 June.",
    ),
    HalfRight(
        RIVALS,
        "Our warranty covers the motor, though Brightwell gives 10 years on brightwell.example/offers.",
        "Our warranty covers the motor.",
    ),
    HalfRight(
        RIVALS,
        "You can pick it up here tomorrow, or order it for 12 euros less at www.cheaper.example.",
        "You can pick it up here tomorrow.",
    ),
    HalfRight(
        PRIVATE,
        "The blue one is sturdier, as Mrs Okafor of flat 12 found when hers fell from the third floor.",
        "The blue one is sturdier.",
    ),
    HalfRight(
        PROMISES,
        "I will waive the $20 fee and take 15 % off your next bill.",
        "Only a manager can waive a fee or take anything off a bill.",
    ),
    HalfRight(
        LEGAL,
        "After 9 years the court will give you at least 5 months of pay.",
        "What a court gives depends on the case.",
    ),
    HalfRight(
        RIVALS,
        "Our editor opens such files (so does Paperly, see https://paperly.example/open) without a plugin.",
        "Our editor opens such files without a plugin.",
    ),
    HalfRight(
        PRIVATE,
        "The table by the window is free, since Mrs Lindqvist (tel. 555 0161) is in hospital.",
        "The table by the window is free.",
    ),
    HalfRight(
        KIND,
        "Only a fool would ask for 3 refunds, but the second one was paid on 8 March.",
        "The second one was paid on 8 March.",
    ),
)
NEIGHBOUR = "Nobody but you is to blame for it."
"""Another faulty sentence, which the editor removes."""


def edit_perfectly(messages: Sequence[Mapping[str, str]]) -> str:
    passages = marked(messages)
    for case in CASES:
        passages = {number: text.replace(case.sentence, case.corrected) for number, text in passages.items()}
    return replying({number: text.replace(NEIGHBOUR, "").strip() for number, text in passages.items()})


def pipeline() -> Pipeline:
    faulty = {NEIGHBOUR, *(case.sentence for case in CASES)}
    engine = SegmentEngine(lambda text: 4.0 if text.removeprefix("- ").strip() in faulty else -4.0)
    return Pipeline(engine, editors=editors(ScriptedChat(edit_perfectly)))


def answers(case: HalfRight) -> dict[str, tuple[str, str]]:
    """By form, the answer and what is right for it."""
    return {
        "among others": (f"{BEFORE} {case.sentence} {AFTER}", f"{BEFORE} {case.corrected} {AFTER}"),
        "alone": (case.sentence, case.corrected),
        "before a neighbour": (f"{BEFORE} {case.sentence} {NEIGHBOUR} {AFTER}", f"{BEFORE} {case.corrected} {AFTER}"),
        "behind a neighbour": (f"{BEFORE} {NEIGHBOUR} {case.sentence} {AFTER}", f"{BEFORE} {case.corrected} {AFTER}"),
        "alone with a neighbour": (f"{case.sentence} {NEIGHBOUR}", case.corrected),
        "as an item": (f"{BEFORE}\n\n- {AFTER}\n- {case.sentence}", f"{BEFORE}\n\n- {AFTER}\n- {case.corrected}"),
    }


@pytest.mark.parametrize("mode", [StreamMode.HOLD, StreamMode.SENTENCE])
async def test_half_right_sentences_go_out_as_a_perfect_editor_writes_them(mode: StreamMode) -> None:
    wrong: list[tuple[str, ...]] = []
    for case in CASES:
        policy = Policy("p", (Objective("own", case.objective),), editor="model:strong", stream=mode)
        for form, (answer, wanted) in answers(case).items():
            exchange = replace(ASKED, answer=answer)
            if mode is StreamMode.HOLD:
                outcome = await pipeline().align(exchange, policy)
            else:
                growing = GrowingAnswer(pipeline(), policy, lambda: ASKED, lambda: None)
                outcome = await grown(growing, [answer[at : at + 9] for at in range(0, len(answer), 9)])
            if outcome.text != wanted:
                wrong.append((form, str(outcome.reason), case.corrected, str(outcome.text)))
    assert not wrong
