"""Rewards by rule, on answers of which it is plain what they deserve."""

from __future__ import annotations

import pytest

from models.systems.baselines.objectives import LONG_WORDS, RULES, SHORT_WORDS, substance, weighted_score
from models.systems.baselines.questions import draw_questions

Q = "What is a kettle used for?"


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("concise", "A kettle boils water for tea and coffee.", "word " * LONG_WORDS),
        ("concise", "A kettle boils water for tea and coffee.", "Water."),
        ("courteous", "Thank you for asking. It boils water.", "It boils water."),
        ("unrepeated", "It boils water for tea.", "It boils water. It boils water. It boils water."),
        ("inoffensive", "It boils water for tea.", "You are a fool. It boils water."),
        ("finished", "It boils water for tea.", "It boils water for"),
        ("unhedged", "It boils water.", "It is typically used for water."),
    ],
)
def test_each_rule_tells_a_good_answer_from_a_bad_one(name: str, good: str, bad: str) -> None:
    score = RULES[name].score
    assert 0 <= score(Q, bad) < score(Q, good) == 1


def test_concise_falls_evenly_between_its_bounds() -> None:
    middle = (SHORT_WORDS + LONG_WORDS) // 2
    assert RULES["concise"].score(Q, "word " * middle) == pytest.approx(0.5)


def test_a_weighted_reward_is_the_sum_by_hand() -> None:
    score = weighted_score(RULES, {"concise": 0.25, "courteous": 0.75, "finished": 0.0})
    assert score(Q, "Thank you for asking about this kettle.") == pytest.approx(1.0)
    assert score(Q, "A kettle boils water for tea.") == pytest.approx(0.25)


def test_courtesies_alone_have_no_substance() -> None:
    assert substance("Thank you! Please feel free, I am happy to help.") < 3
    assert substance("Thank you. Kettles boil water quickly over strong heat.") >= 5


def test_no_thing_of_the_test_is_trained_on() -> None:
    train = draw_questions("train", 288)
    test = draw_questions("test", 208)
    assert len(set(train)) == 288
    assert len(set(test)) == 208
    assert not set(train) & set(test)
    assert draw_questions("test", 5, seed=2) == draw_questions("test", 5, seed=2) != draw_questions("test", 5, seed=3)
    with pytest.raises(ValueError, match="209 of test"):
        draw_questions("test", 209)
