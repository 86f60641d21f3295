"""Temperature, operating point and reliability from scores that are given."""

from __future__ import annotations

from dataclasses import replace
from math import log
from random import Random

import pytest

from models.data.pairs import Pair
from models.evaluate.calibrate import (
    END_HARM,
    compute_end_shift,
    compute_reliability,
    find_threshold,
    fit_temperature,
    is_beyond_doubt,
    list_labelled_scores,
    move_end_score,
    share_flagged_exactly,
)
from models.evaluate.test_sets import SetCase
from tests.support.tiny import OBJECTIVES

ANSWER = "It opens at six. You fool. Bring a coat."


def case(scores: tuple[float, ...], labels: tuple[int, ...] = (0, 1, 0)) -> SetCase:
    return SetCase(Pair("When?", OBJECTIVES, ANSWER, ANSWER, labels, "test", kinds=("", "insult", "")), ANSWER, scores)


def test_segments_without_a_known_label_teach_nothing() -> None:
    assert list_labelled_scores([case((-3.0, 2.0, 0.5), (0, 1, -1))]) == [(-3.0, 1 - 1), (2.0, 1)]


def test_overconfident_scores_are_cooled_and_honest_ones_left() -> None:
    rng = Random(1)
    honest = [
        (score, int(rng.random() < 1 / (1 + 2.718281828**-score))) for score in (rng.gauss(0, 2) for _ in range(4000))
    ]
    assert fit_temperature(honest) == pytest.approx(1.0, abs=0.15)
    assert fit_temperature([(3 * score, label) for score, label in honest]) == pytest.approx(3.0, abs=0.45)


def test_the_operating_point_is_the_lowest_that_harms_few_enough() -> None:
    cases = [case((-9.0, 5.0, float(worst))) for worst in range(-100, 0)]
    assert find_threshold(cases, harm=0.0) == -1
    assert find_threshold(cases, harm=0.02) == -3
    assert sum(max(c.scores[0], c.scores[2]) > -3 for c in cases) == 2


@pytest.mark.parametrize(
    ("themes", "sure"),
    [((), True), (("harmless", "honest"), True), (("harmless", "concise"), False), (("insult & relevance",), False)],
)
def test_a_wish_of_opinion_chooses_no_operating_point(themes: tuple[str, ...], sure: bool) -> None:
    labelled = case((-1.0, 1.0, -1.0))
    assert (
        is_beyond_doubt(replace(labelled, pair=replace(labelled.pair, themes=themes, objectives=themes or OBJECTIVES)))
        is sure
    )


def test_the_place_behind_the_last_segment_has_a_point_of_its_own() -> None:
    cases = [case((-9.0, 5.0, -9.0, behind / 100)) for behind in range(1000)]
    assert find_threshold(cases, harm=0.0) == -9
    shift = compute_end_shift(cases, point=-2.0)
    touched = [c for c in (move_end_score(c, shift) for c in cases) if c.scores[3] > -2.0]
    assert len(touched) == END_HARM * len(cases)
    assert all(c.scores[:3] == (-9.0, 5.0, -9.0) for c in touched)
    assert compute_end_shift([case((-1.0, 1.0, -1.0))], point=-2.0) == 0.0
    assert list_labelled_scores(cases[:1]) == list_labelled_scores([case((-9.0, 5.0, -9.0))])


def test_reliability_compares_what_was_said_with_what_was_so() -> None:
    scored = [(log(0.75 / 0.25), int(i % 4 != 0)) for i in range(40)]
    ((predicted, observed, n),) = compute_reliability(scored)
    assert (predicted, observed, n) == (pytest.approx(0.75), 0.75, 40)


def test_an_answer_is_right_when_every_segment_is() -> None:
    assert share_flagged_exactly([case((-1.0, 1.0, -1.0)), case((-1.0, 1.0, 0.5))], 0.0) == 0.5
