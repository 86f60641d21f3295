"""Typed Decisions: how its questions are asked, which cases are, and the figures of known answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.evaluate.typed_decisions import (
    divide_cases,
    format_table,
    guess_answers,
    make_answer,
    make_questions,
    read_probabilities,
    read_typed_cases,
    squared_distance,
)

QUESTIONS = {
    "late": {"type": "noul", "instructions": "The parcel is late."},
    "next": {"type": "choice", "instructions": "What next?", "criteria": {"wait": "Wait.", "ask": "Ask the sender."}},
    "haste": {"type": "score", "instructions": "How urgent?", "criteria": ["No haste.", "Today."]},
}
GOLD = {"late": {"true": 0.9, "false": 0.1}, "next": {"wait": 0.2, "ask": 0.8}, "haste": {"0": 0.4, "1": 0.6}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    gold = {name: {"probabilities": shares} for name, shares in GOLD.items()}
    row = {"state": {"note": "Still not here."}, "questions": QUESTIONS, "gold": gold}
    lines = (json.dumps({**row, "workflow": workflow}) for workflow in ("post", "post", "rail", "post"))
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_cases_are_divided_by_workflow_and_levels_become_labels(file: Path) -> None:
    first, others = divide_cases(read_typed_cases(file), 1)
    assert ([case.workflow for case in first], [case.workflow for case in others]) == (["post", "rail"], ["post"] * 2)
    questions = make_questions(first[0])
    assert questions["late"] == {"type": "noul", "instructions": "The parcel is late.", "criteria": None}
    assert questions["haste"]["type"] == "choice"
    assert questions["haste"]["criteria"] == {"0": "No haste.", "1": "Today."}


def test_figures_of_known_answers(file: Path) -> None:
    first, others = divide_cases(read_typed_cases(file), 1)
    case = first[0]
    late = read_probabilities({"type": "noul", "noul": 0.9})
    answers = [make_answer(case, "late", late), make_answer(case, "next", {"wait": 0.6, "ask": 0.4})]
    assert [answer.is_right for answer in answers] == [True, False]
    assert squared_distance(answers[0]) == pytest.approx(0)
    assert squared_distance(answers[1]) == pytest.approx(0.32)
    guesses = guess_answers([case], others)
    assert all(answer.is_right for answer in guesses["the most frequent answer"])
    assert {max(answer.probabilities.values()) for answer in guesses["equal probabilities"]} == {0.5}
    assert "| the most frequent answer | all | 3/3" in format_table(guesses)
