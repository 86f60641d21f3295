"""The calibration of decisions: the curve that is fitted, and the figures that say how good it is."""

from __future__ import annotations

import pytest

from models.evaluate.decisions import QUESTIONS, fit, list_cases, measure
from models.evaluate.taught.kinds import read_kinds

pytestmark = pytest.mark.model
SCORED = [(-3.0, False), (-2.0, False), (-1.5, True), (-0.5, False), (0.5, True), (2.0, True)]


def test_fit_finds_the_curve_that_loses_least() -> None:
    slope, shift = fit(SCORED)
    best = measure(SCORED, slope, shift)
    for other in ((slope * 1.5, shift), (slope / 1.5, shift), (slope, shift + 0.5), (slope, shift - 0.5)):
        assert measure(SCORED, *other)["log_loss"] > best["log_loss"]
    assert shift > 0, "the threshold spares good texts"


def test_measure_gives_known_figures() -> None:
    sure = measure([(50.0, True), (-50.0, False)], 1.0, 0.0)
    assert (sure["brier"], sure["ece"], sure["auc"]) == (pytest.approx(0), pytest.approx(0), 1)
    unsure = measure([(0.0, True), (0.0, False)], 1.0, 0.0)
    assert (unsure["brier"], unsure["ece"], unsure["auc"]) == (0.25, 0, 0.5)


def test_cases_are_even_and_about_kinds_that_exist() -> None:
    for kind in read_kinds(slugs=list(QUESTIONS)):
        cases = list(list_cases(kind, ["A host.", "Another."]))
        assert sum(violates for _, violates in cases) * 2 == len(cases) == 6
        assert not {text for text, _ in cases} & set(kind.teaching)
