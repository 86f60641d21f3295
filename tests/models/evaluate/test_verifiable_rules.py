"""Rules that a program can verify: the texts obey or break them as they say, and the figures of known answers."""

from __future__ import annotations

import pytest

from models.evaluate.verifiable_rules import (
    EXAMPLES,
    RULES,
    TEXTS,
    compute_area,
    format_table,
    list_answers,
    list_cases,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.objective.partition(":")[0])
def test_texts_and_examples_obey_or_break_the_rule_as_they_say(rule: object) -> None:
    (rule,) = (one for one in RULES if one is rule)
    for by_examples in (False, True):
        cases = list(list_cases(rule, by_examples=by_examples))
        assert [rule.holds(case.text) for case in cases] == [not case.breaks for case in cases]
        assert sum(case.breaks for case in cases) == TEXTS / 2
    criteria = cases[0].criteria
    assert [len(texts) for texts in criteria.values()] == [EXAMPLES, EXAMPLES]
    assert not any(map(rule.holds, criteria["true"]))
    assert all(map(rule.holds, criteria["false"]))
    assert not {text for texts in criteria.values() for text in texts} & {case.text for case in cases}


def test_figures_of_known_answers() -> None:
    assert len(set(list_answers())) >= TEXTS + 2 * EXAMPLES
    cases = [case for way in (False, True) for rule in RULES for case in list_cases(rule, by_examples=way)]
    knowing = [0.9 if case.breaks else 0.1 for case in cases]
    assert compute_area(cases, knowing).auc == 1
    assert compute_area(cases, [0.5] * len(cases)).auc == 0.5
    half = len(cases) // 2
    assert f"| with examples | all | {half}/{half}" in format_table(cases, knowing)
    assert f"| by its text | all | {half // 2}/{half}" in format_table(cases, [0.1] * len(cases))
