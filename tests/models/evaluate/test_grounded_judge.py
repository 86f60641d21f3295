"""What a judge that is always right brings to the measured forms of outdated facts, and why facts are missed."""

from __future__ import annotations

import pytest

from models.evaluate.grounded import OUTDATED, GroundedCase
from models.evaluate.grounded_forms import FOLDER
from models.evaluate.grounded_judge import NOT_ON_PAGE, RIGHT, count_results, explain_miss, judge_answer
from tests.models.evaluate.test_grounded_forms import SETS

PAGE = "# Gifts\n\nWrapping a present costs £4 in paper and £6 in a box.\n"
QUESTION = "Can you wrap my present?"


def make_case(answer: str, right: str) -> GroundedCase:
    return GroundedCase("shop", PAGE, QUESTION, answer, OUTDATED, right)


def test_judged_writes_the_value_that_the_label_has() -> None:
    for streams in (False, True):
        result = judge_answer(
            make_case("Gladly, that will be £5. Bye.", "Gladly, that will be £6. Bye."), streams=streams
        )
        assert (result.text, result.is_asked, result.facts) == ("Gladly, that will be £6. Bye.", True, 1)
        right = GroundedCase("shop", PAGE, QUESTION, "Gladly, that will be £5.", "clean", "Gladly, that will be £5.")
        assert judge_answer(right, streams=streams).text == right.right


def test_why_missed_names_the_reason() -> None:
    assert explain_miss(make_case("That will be £5.", "That will be £3.")) == NOT_ON_PAGE
    computed = make_case("Altogether that makes £5.", "Altogether that makes £6.")
    assert explain_miss(computed).startswith("left alone")


@pytest.mark.covering("streams")
@pytest.mark.parametrize(("name", "streams"), SETS)
def test_nine_outdated_facts_in_ten_are_put_right_and_no_right_one_touched(name: str, streams: bool) -> None:
    counts = count_results(FOLDER / name, streams=streams, show=False)
    assert counts[RIGHT] >= 0.9 * counts[OUTDATED] > 0
    assert not counts["clean touched"]
    assert not counts["unknown touched"]
