"""Which share of neutral segments and of mentioned examples a threshold lets a head flag."""

from __future__ import annotations

import random

from aligner_proxy.teaching.fit import MAX_FALSE, MAX_FALSE_UNSEEN, MAX_NEAR_UNSEEN, choose_threshold, find_half_way


def share_above(scores: list[float], line: float) -> float:
    return sum(score > line for score in scores) / len(scores)


def test_at_most_so_many_neutral_segments_lie_above_it() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        neutral = [rng.gauss(0, 1) for _ in range(rng.randrange(20, 900))]
        unseen = [score + abs(rng.gauss(0, 1)) for score in neutral]
        near = [rng.gauss(1, 2) for _ in range(rng.randrange(1, 40))]
        line = choose_threshold(0.0, neutral, unseen, near)
        assert share_above(neutral, line) <= MAX_FALSE, seed
        assert share_above(unseen, line) <= MAX_FALSE_UNSEEN, seed
        assert share_above(near, line) <= MAX_NEAR_UNSEEN, seed


def test_it_is_zero_where_little_lies_above_zero() -> None:
    assert choose_threshold(0.0, [-4.0] * 100, [-3.0] * 100, [-1.0] * 10) == 0.0
    assert choose_threshold(0.0, [-4.0] * 100, [-3.0] * 97 + [2.0] * 3, [1.0] * 4 + [-1.0] * 6) == 0.0


def test_a_few_of_many_may_lie_above_it() -> None:
    assert choose_threshold(0.0, [0.0] * 497 + [7.0] * 3, [0.0] * 485 + [3.0] * 15, []) == 7.0
    assert choose_threshold(0.0, [0.0] * 498 + [7.0] * 2, [0.0] * 485 + [3.0] * 15, []) == 0.0
    assert choose_threshold(0.0, [0.0] * 500, [0.0] * 484 + [3.0] * 16, []) == 3.0


def test_mentioned_examples_raise_it() -> None:
    far = [-3.0] * 100
    assert choose_threshold(0.0, far, far, [2.0] * 10) == 2.0
    assert choose_threshold(0.0, far, far, [2.0] * 4 + [-5.0] * 6) == 0.0


def test_where_zero_is_not_known_to_be_good_it_lies_half_way_to_the_examples() -> None:
    assert find_half_way([-3.0] * 100, [1.0, 5.0]) == -1.0
    assert find_half_way([-5.0] * 97 + [9.0] * 3, [1.0]) == -2.0
    assert find_half_way([-3.0] * 100, []) == -3.0
    assert find_half_way([], []) == 0.0
    assert choose_threshold(-1.0, [-4.0] * 100, [-3.0] * 100, []) == -1.0


def test_without_segments_it_is_zero() -> None:
    assert choose_threshold(0.0, [], [], []) == 0.0
