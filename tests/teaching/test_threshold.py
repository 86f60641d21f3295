"""Where the line is drawn between neutral segments and examples, neither of which a head had seen."""

from __future__ import annotations

import random

import pytest

from aligner_proxy.teaching.fit import MAX_FALSE, MAX_FALSE_UNSEEN, MAX_NEAR_UNSEEN, choose_threshold


def above(scores: list[float], line: float) -> float:
    return sum(score > line for score in scores) / len(scores)


@pytest.mark.parametrize("seed", range(20))
def test_at_most_so_many_neutral_segments_lie_above_it(seed: int) -> None:
    rng = random.Random(seed)
    neutral = [rng.gauss(-5, 1) for _ in range(rng.randrange(20, 900))]
    unseen = [score + abs(rng.gauss(0, 1)) for score in neutral]
    near = [rng.gauss(-2, 2) for _ in range(rng.randrange(1, 40))]
    against = [rng.gauss(0, 3) for _ in range(rng.randrange(13))]
    line = choose_threshold(neutral, unseen, near, against)
    assert above(neutral, line) <= MAX_FALSE
    assert above(unseen, line) <= MAX_FALSE_UNSEEN
    assert above(near, line) <= MAX_NEAR_UNSEEN


def test_it_may_lie_below_zero() -> None:
    """A head whose scores are low as a whole would find nothing above zero."""
    neutral = [-9.0 + n / 100 for n in range(100)]
    assert choose_threshold(neutral, neutral, [], [-8.5, 2.0]) == pytest.approx(neutral[-1])
    assert choose_threshold(neutral, neutral, [], [-6.0, 2.0]) < 0


def test_between_neutral_segments_and_examples_that_are_all_higher_it_is_half_way() -> None:
    neutral = [-4.0] * 100
    assert choose_threshold(neutral, [-3.0] * 100, [], [1.0, 5.0]) == -1.0
    assert choose_threshold(neutral, [-3.0] * 100, [], [-3.5, 5.0]) == -3.0
    assert choose_threshold([0.0] * 100, [-3.0] * 100, [], [1.0, 5.0]) == 0.0


def test_a_threshold_that_is_good_for_any_objective_counts_in_place_of_half_way() -> None:
    far = [-3.0] * 100
    assert choose_threshold(far, far, [], [1.0, 9.0], usual=-0.4) == -0.4
    assert choose_threshold(far, [2.0] * 100, [], [9.0], usual=-0.4) == 2.0
    assert choose_threshold(far, far, [1.5] * 10, [9.0], usual=-0.4) == 1.5


def test_a_few_of_many_may_lie_above_it() -> None:
    neutral = [0.0] * 497 + [7.0] * 3
    unseen = [0.0] * 485 + [3.0] * 15
    assert choose_threshold(neutral, unseen, [], []) == 7.0
    assert choose_threshold([0.0] * 498 + [7.0] * 2, unseen, [], []) == 0.0
    assert choose_threshold([0.0] * 500, [0.0] * 484 + [3.0] * 16, [], []) == 3.0


def test_mentioned_examples_raise_it_as_far_neutral_segments_do() -> None:
    far = [-3.0] * 100
    assert choose_threshold(far, far, [2.0] * 10, [1.0, 9.0]) == 2.0
    assert choose_threshold(far, far, [2.0] * 4 + [-5.0] * 6, [1.0, 9.0]) == -1.0


def test_without_neutral_segments_it_is_zero() -> None:
    assert choose_threshold([], [], [], [3.0]) == 0.0
