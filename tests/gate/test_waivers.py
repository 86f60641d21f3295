"""Which rules an objective asks to break."""

from __future__ import annotations

import pytest

from aligner_proxy.gate.rules import asks_for_brevity, waived_rules
from aligner_proxy.policy.config import builtin_objectives
from aligner_proxy.types import GateRule, Objective


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
