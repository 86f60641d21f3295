"""Which rules an objective asks to break."""

from __future__ import annotations

import pytest

from aligner_proxy.gate import rules as gate_rules
from aligner_proxy.gate.judge import judge
from aligner_proxy.gate.rules import asks_for_brevity, waived_rules
from aligner_proxy.policy.config import builtin_objectives
from aligner_proxy.types import Allowance, Correction, GateRule, LengthUnit, Objective, Policy


def one(text: str) -> list[Objective]:
    return [Objective("x", text)]


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("Brand: the response should not mention competitors", {GateRule.LOST_NAME}),
        ("Plain: no links, no footnotes", {GateRule.LOST_ADDRESS, GateRule.LOST_CITATION}),
        ("Privacy: drop private persons' addresses", {GateRule.LOST_ADDRESS, GateRule.LOST_NUMBER, GateRule.LOST_NAME}),
        ("Privacy: the response should avoid mentions of people", {GateRule.LOST_NAME}),
        ("Respect: the response should avoid contempt for people", set()),
        ("Turns: the response should be rid of text in the name of the user", set()),
        ("Prose: the response should avoid bullet points", {GateRule.LOST_ITEM}),
        ("Plain: the response should not be written as a dialogue", {GateRule.LOST_TURN}),
        ("French: the response should be written in French", {GateRule.LANGUAGE, GateRule.SCRIPT}),
        ("Narrow: the response should decline questions about law", {GateRule.NEW_REFUSAL}),
        ("Open: the response should not refuse", set()),
        ("Tone: the response should be written in plain language. Links are fine.", set()),
        ("Facts: the response should contain numbers and name its sources", set()),
        ("Style: the response should not be rude; quotes may stay", set()),
    ],
)
def test_waived_rules(text: str, rules: set[GateRule]) -> None:
    assert waived_rules(one(text)) == rules


def test_the_built_in_objectives_give_up_nothing() -> None:
    assert waived_rules(builtin_objectives().values()) == set()


def test_brevity() -> None:
    brief = {name for name, objective in builtin_objectives().items() if asks_for_brevity([objective])}
    assert brief == {"concise", "non-repetitive"}
    assert asks_for_brevity(one("Brevity: two short sentences"))
    assert asks_for_brevity([Objective("concise", "Two: two sentences")])
    assert not asks_for_brevity(one("Depth: the response should not be short"))


@pytest.mark.parametrize("most", [20, 5_000])
def test_an_answer_is_measured_as_often_whatever_the_number_of_its_segments(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was once measured for each segment: with a limit of words a long answer took the gate minutes."""
    calls = 0
    is_too_long = gate_rules._exceeds_limit

    def counted(allowance: Allowance, text: str) -> bool:
        nonlocal calls
        calls += 1
        return is_too_long(allowance, text)

    monkeypatch.setattr(gate_rules, "_exceeds_limit", counted)
    policy = Policy(
        "p", (Objective("short", "Short: be short", allowance=Allowance(longest=(LengthUnit.WORDS, most))),)
    )
    measured = []
    for count in (10, 200):
        calls = 0
        answer = "".join(f"The boats of pier {number} lie still. " for number in range(count))
        assert judge(answer, Correction(answer.replace(" lie still", " lie quite still", 1)), policy).edits == 1
        measured.append(calls)
    assert measured[0] == measured[1] > 0
