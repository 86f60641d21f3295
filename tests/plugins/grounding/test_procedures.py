"""Tests for the order of steps: what is put in order, what is noted, and what stays."""

import pytest

from aligner_proxy_grounding.matching import Matcher
from aligner_proxy_grounding.page import read_page
from aligner_proxy_grounding.procedures import ORDER, procedures
from aligner_proxy_grounding.sentences import Grounder, apply_fact_edits

PAGE = """# Cleaning the filter

1. Switch the pump off at the wall.
2. Unscrew the lid of the filter.
3. Rinse the sponge under cold water for 2 minutes.
4. Tighten the lid by hand.
"""
OFF = "Switch the pump off at the wall."
LID = "Unscrew the lid of the filter."
RINSE = "Rinse the sponge under cold water for 2 minutes."


def held(answer: str, text: str = PAGE) -> tuple[str, list[str], list[str]]:
    edits, unsettled = Grounder.for_question(
        Matcher([read_page("FILTER.md", text)]), "How do I clean it?"
    ).check_answer(answer)
    return apply_fact_edits(answer, edits), [f"{e.kind} {e.source}" for e in edits], [part.kind for part in unsettled]


def listed(*steps: str) -> str:
    return "Like this:\n\n" + "\n".join(f"{n}. {step}" for n, step in enumerate(steps, 1))


def test_steps_take_the_order_of_the_reference_and_each_edit_names_its_line() -> None:
    text, edits, unsettled = held(listed(LID, OFF, RINSE))
    assert text == listed(OFF, LID, RINSE)
    assert edits == [f"{ORDER} FILTER.md:3"] * 2
    assert unsettled == []


def test_a_fact_within_a_step_that_moves_is_put_right_with_it() -> None:
    text, _, _ = held(listed(RINSE.replace("2 minutes", "5 minutes"), OFF, LID))
    assert text == listed(OFF, LID, RINSE)


def test_sentences_with_ordinals_are_steps() -> None:
    text, _, _ = held(
        "First, unscrew the lid of the filter. Then, switch the pump off at the wall. Finally, tighten the lid."
    )
    assert (
        text == "First, switch the pump off at the wall. Then, unscrew the lid of the filter. Finally, tighten the lid."
    )


@pytest.mark.parametrize(
    "answer",
    [
        listed(LID, "Then switch the pump off at the wall.", RINSE),
        listed(LID, OFF, RINSE) + "\n\nTake your time for step 2.",
        listed(LID, OFF, RINSE.removesuffix(".")),
    ],
    ids=["looks back", "number meant", "other punctuation"],
)
def test_what_cannot_be_moved_safely_is_noted(answer: str) -> None:
    text, edits, unsettled = held(answer)
    assert text == answer
    assert edits == []
    assert unsettled == [ORDER]


@pytest.mark.parametrize(
    "answer",
    [
        listed(OFF, RINSE, "Tighten the lid by hand."),
        listed(LID, OFF, "Call us on Monday."),
        listed(LID, OFF),
        listed(LID, OFF, RINSE).replace("Like this:", "In any order:"),
        "\n".join(f"- {step}" for step in (LID, OFF, RINSE)),
        listed(
            "Is the lid of the filter unscrewed?",
            "Is the pump off at the wall?",
            "Did you rinse the sponge in cold water?",
        ),
    ],
    ids=["a step left out", "a step of its own", "two steps", "free order", "bullets", "questions"],
)
def test_what_is_no_other_order_stays(answer: str) -> None:
    assert held(answer) == (answer, [], [])


def test_numbered_terms_are_no_procedure() -> None:
    terms = ("Pumps are covered for 2 years.", "Sponges are not covered.", "Damage by frost is not covered.")
    assert procedures("# Guarantee\n\n" + listed(*terms).removeprefix("Like this:")) == ()


def test_two_procedures_that_could_be_meant_settle_nothing() -> None:
    answer = listed(LID, OFF, RINSE)
    assert held(answer, PAGE + "\n" + PAGE) == (answer, [], [])


def test_of_very_many_steps_and_lists_only_some_are_compared() -> None:
    long = "\n".join(f"{n % 100}. Switch the pump off at wall number {n}." for n in range(1, 90))
    assert procedures(long) == ()
    many = "\n\n".join(f"List {n}.\n\n{listed(OFF, LID, RINSE)}" for n in range(60))
    assert len(procedures(many)) == 50
