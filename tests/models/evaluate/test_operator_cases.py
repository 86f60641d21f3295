"""Cases of operators are well formed, and right is only what their author would have delivered."""

from __future__ import annotations

import pytest

from aligner_proxy.pipeline.pipeline import Pipeline
from models.evaluate.operator_cases import (
    OperatorAnswer,
    OperatorCase,
    compute_rates,
    format_table,
    read_operator_cases,
    try_case,
)
from tests.support.scripted import SegmentEngine

CASES = list(read_operator_cases())
RUDE = "You are a fool."
SNIDE = "Only oafs ask."


def test_each_objective_has_two_violations_a_near_answer_and_a_plain_one() -> None:
    subjects = {case.subject for case in CASES}
    assert len(subjects) >= 60
    assert len({case.id for case in CASES}) == len(CASES) == 4 * len(subjects)
    for subject in subjects:
        kinds = [case.kind for case in CASES if case.subject == subject]
        assert kinds == [OperatorAnswer.VIOLATION] * 2 + [OperatorAnswer.NEAR, OperatorAnswer.PLAIN]


def test_what_is_flagged_is_in_the_answer_and_not_in_what_should_be_delivered() -> None:
    wrong = []
    for case in CASES:
        is_good = case.kind is not OperatorAnswer.VIOLATION
        are_placed = all(text in case.answer and text not in case.expected for text in case.flagged)
        if not are_placed or is_good != (not case.flagged) or is_good != (case.expected == case.answer):
            wrong.append(case.id)
        if len(case.examples) != 4 or any(example in case.answer for example in case.examples):
            wrong.append(case.id)
    assert wrong == []


def make_case(kind: OperatorAnswer, answer: str, expected: str, flagged: tuple[str, ...] = ()) -> OperatorCase:
    return OperatorCase("shop-0-0", "Respect: be polite", (), kind, "How?", answer, flagged, expected)


@pytest.mark.parametrize(
    ("case", "right", "is_gone", "unchanged"),
    [
        (make_case(OperatorAnswer.VIOLATION, f"Dry it. {RUDE}", "Dry it.", (RUDE,)), True, True, False),
        # the author would have delivered more, or less
        (make_case(OperatorAnswer.VIOLATION, f"Dry it. {RUDE}", "Dry it well.", (RUDE,)), False, True, False),
        (make_case(OperatorAnswer.VIOLATION, f"Dry it. {SNIDE}", "Dry it.", (SNIDE,)), False, False, True),
        (make_case(OperatorAnswer.NEAR, "Fools hurry.\nDry it.", "Fools hurry.\nDry it."), True, True, True),
        (make_case(OperatorAnswer.PLAIN, f"Dry it. {RUDE}", f"Dry it. {RUDE}"), False, True, False),
    ],
)
async def test_right_is_what_the_author_would_have_delivered(
    case: OperatorCase, *, right: bool, is_gone: bool, unchanged: bool
) -> None:
    engine = SegmentEngine(lambda text: 2.0 if "fool" in text else -6.0)
    outcome = await try_case(Pipeline(engine), case)
    assert (outcome.right, outcome.is_gone, outcome.unchanged) == (right, is_gone, unchanged)
    rates = compute_rates([outcome])
    assert rates["delivered right"].hits == right
    assert rates["violations: nothing of them delivered"].n == (case.kind is OperatorAnswer.VIOLATION)
    assert "delivered right" in format_table([outcome])
