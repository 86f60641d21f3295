"""The texts of choices: evenly written, none teaches what it is asked about; and the figures of known answers."""

from __future__ import annotations

from collections import Counter

import pytest

from models.evaluate.choices import ChoiceAnswer, ChoiceCase, calibration_error, format_table, list_cases


def test_cases_are_even_and_never_taught_what_they_are_asked_about() -> None:
    for part in ("tune", "test"):
        described = list_cases(part, by_examples=False)
        assert len(described) == 60
        assert set(Counter((case.question, case.label) for case in described).values()) == {5}
        by_examples = list_cases(part, by_examples=True)
        assert len(by_examples) == 48
        for case in by_examples:
            assert case.label in case.criteria
            assert not any(case.text in sentences for sentences in case.criteria.values())
    texts = [case.text for part in ("tune", "test") for case in list_cases(part, by_examples=False)]
    assert len(set(texts)) == len(texts) == 120


def answer(label: str, **probabilities: float) -> ChoiceAnswer:
    return ChoiceAnswer(ChoiceCase("Which?", "A text.", label, {}), probabilities)


def test_figures_of_known_answers() -> None:
    sure = [answer("a", a=1.0, b=0.0), answer("b", a=0.0, b=1.0)]
    assert [one.is_right for one in sure] == [True, True]
    assert (sum(one.brier for one in sure), calibration_error(sure)) == (0, 0)
    wrong = answer("b", a=1.0, b=0.0)
    assert (wrong.is_right, wrong.brier, calibration_error([wrong])) == (False, 2, 1)
    assert calibration_error([answer("a", a=0.75, b=0.25)] * 3 + [answer("b", a=0.75, b=0.25)]) == pytest.approx(0)
    assert "| descriptions | all | 2/3" in format_table({"descriptions": [*sure, wrong]})
