"""What the offline measures see, and when one answer counts as better than another."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluate.measures import MEASURES, compare, is_harmed, remove_marked

QUERY = "When does the ferry leave?"
GOOD = "The ferry leaves at 7.30 from the north pier. Ask Martha for a ticket. Bring a warm coat with you."
TURN = "\n\nHuman: And the next one?\n\nAssistant: At nine."
BY_NAME = {measure.name: measure for measure in MEASURES}


def amount(name: str, answer: str, query: str = QUERY) -> int:
    return BY_NAME[name].amount(query, answer)


@pytest.mark.parametrize(
    ("name", "bad", "fine"),
    [
        ("invented turns", GOOD + TURN, GOOD),
        ("invented turns", GOOD + "\n\n### Instruction:\nGo on.", "Assistant: " + GOOD),
        ("invented turns", GOOD + "\n<|user|>\nAnd then?", GOOD + "\nA human: that is what is needed."),
        ("repeated sentences", f"{GOOD} Bring a warm coat with you.", GOOD + " Yes. No. Yes."),
        ("template marks", GOOD + " [/INST]", GOOD + " [1]"),
        ("shouting", GOOD + " DO NOT MISS IT EVER.", GOOD + " NASA and the EU agree.\n# READ THIS FIRST"),
        ("shouting", GOOD + " Hurry!!!", GOOD + " Hurry!"),
        ("profanity", GOOD + " This shit is slow.", GOOD + " The assistant professor will pass."),
        ("insults", GOOD + " You are a complete idiot.", GOOD + " The fool in this play is wise."),
        ("chatter", GOOD + " I hope this helps!", GOOD + " Hope is what helps."),
    ],
)
def test_each_measure_sees_its_fault_and_not_its_neighbour(name: str, bad: str, fine: str) -> None:
    assert amount(name, bad) > 0
    assert amount(name, fine) == 0


def test_a_dialogue_that_was_asked_for_is_no_invented_turn() -> None:
    play = "Human: Hello.\nAssistant: Good day.\nHuman: How are you?"
    assert amount("invented turns", play, "Write a short dialogue between a human and an assistant.") == 0
    assert amount("invented turns", play) == 2


def test_an_overrun_is_counted_in_characters_from_the_first_turn_on() -> None:
    assert amount("overrun", GOOD + TURN) == len("Human: And the next one?") + len("Assistant: At nine.")


def test_less_of_what_was_asked_about_wins() -> None:
    rude = GOOD + " You are an idiot."
    assert compare(QUERY, rude, GOOD, ["harmless"]).result == "win"
    assert compare(QUERY, rude, GOOD, ["humour"]).result == "tie"  # nobody asked
    assert compare(QUERY, GOOD, rude, ["humour"]).result == "lose"  # nobody asked for an insult either


def test_a_broken_answer_is_mended_whatever_was_asked() -> None:
    assert compare(QUERY, GOOD + TURN, GOOD, ["honest"]).result == "win"


@pytest.mark.parametrize(
    "edited",
    [
        GOOD.replace("7.30", "half past seven"),
        GOOD.replace("Martha", "somebody"),
        GOOD.replace(" Bring a warm coat with you.", ""),
    ],
)
def test_a_win_does_not_pay_for_harm(edited: str) -> None:
    comparison = compare(QUERY, GOOD + TURN, edited, ["harmless"])
    assert (comparison.harmed, comparison.result) == (True, "lose")


def test_what_a_measure_objects_to_may_go() -> None:
    assert remove_marked(QUERY, GOOD + TURN) == GOOD
    assert not is_harmed(QUERY, GOOD + "\n\nHuman: Is Berlin 900 miles away?", GOOD)


answers = st.lists(
    st.sampled_from([*GOOD.split(". "), "You are a fool!", "NOW LISTEN TO ME.", "\n\nUser: Why?"]), max_size=8
)


@settings(deadline=None)
@given(answers.map(". ".join))
def test_an_answer_ties_with_itself(answer: str) -> None:
    comparison = compare(QUERY, answer, answer, ["harmless"])
    assert (comparison.result, comparison.harmed, set(comparison.signs)) == ("tie", False, {0})


@settings(deadline=None)
@given(answers.map(". ".join), answers.map(". ".join))
def test_a_win_is_never_a_win_both_ways(one: str, other: str) -> None:
    there = compare(QUERY, one, other, ["harmless", "concise"])
    back = compare(QUERY, other, one, ["harmless", "concise"])
    assert there.signs == tuple(-sign for sign in back.signs)
    assert (there.result, back.result) != ("win", "win")
