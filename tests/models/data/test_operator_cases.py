"""Cases and lessons of operators are well formed; in a lesson, what goes against the objective is labelled so."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from aligner_proxy.text.structure import split
from models.data import operator_lessons
from models.data.labelled_replies import AGAINST, FINE
from models.data.objective_lessons import list_files
from models.data.operator_cases import OperatorAnswer, OperatorCase, read_operator_cases
from models.data.operator_lessons import read_operator_lessons
from models.train.labelled_cases import make_case


@cache
def read_cases() -> tuple[OperatorCase, ...]:
    """The cases that measure an aligner."""
    return tuple(read_operator_cases())


@cache
def read_lessons() -> tuple[OperatorCase, ...]:
    """The lessons, as cases."""
    folders = (operator_lessons.FOLDER, *(operator_lessons.FOLDER / name for name in ("code", "further")))
    return tuple(read_operator_cases([path for folder in folders for path in list_files(folder)]))


@pytest.mark.parametrize(("read", "objective_count"), [(read_cases, 108), (read_lessons, 1016)])
def test_each_objective_has_two_violations_a_near_answer_and_a_plain_one(
    read: Callable[[], tuple[OperatorCase, ...]], objective_count: int
) -> None:
    cases = read()
    kinds: dict[str, list[OperatorAnswer]] = {}
    for case in cases:
        kinds.setdefault(case.subject, []).append(case.kind)
    assert len(kinds) >= objective_count
    assert len({case.id for case in cases}) == len(cases)
    expected_kinds = [OperatorAnswer.VIOLATION] * 2 + [OperatorAnswer.NEAR, OperatorAnswer.PLAIN]
    assert [subject for subject, of_subject in kinds.items() if of_subject != expected_kinds] == []


def test_what_is_flagged_is_in_the_answer_and_not_in_what_should_be_delivered() -> None:
    wrong = []
    for case in read_cases():
        is_good = case.kind is not OperatorAnswer.VIOLATION
        are_placed = all(text in case.answer and text not in case.expected for text in case.flagged)
        if not are_placed or is_good != (not case.flagged) or is_good != (case.expected == case.answer):
            wrong.append(case.id)
        if len(case.examples) != 4 or any(example in case.answer for example in case.examples):
            wrong.append(case.id)
    assert wrong == []


def test_what_is_flagged_of_a_lesson_is_in_its_answer() -> None:
    wrong = []
    for case in read_lessons():
        is_violation = case.kind is OperatorAnswer.VIOLATION
        if is_violation != bool(case.flagged) or any(text not in case.answer for text in case.flagged):
            wrong.append(case.id)
    assert wrong == []


def test_nothing_that_measures_an_aligner_teaches_one() -> None:
    measuring = {text for case in read_cases() for text in (case.objective, case.question, case.answer, *case.flagged)}
    teaching = {text for case in read_lessons() for text in (case.objective, case.question, case.answer, *case.flagged)}
    assert measuring & teaching == set()


def test_each_violation_has_a_segment_against_its_objective_and_no_other_answer_has_one() -> None:
    wrong = []
    paths = [*list_files(operator_lessons.FOLDER), *list_files(operator_lessons.FOLDER / "further")]
    for path in paths:
        cases = read_operator_cases([path])
        for case, (reply, company) in zip(cases, read_operator_lessons(path), strict=True):
            is_violation = case.kind is OperatorAnswer.VIOLATION
            has_against = AGAINST in make_case(reply, company).own_labels
            if not has_against == reply.harmful == is_violation:
                wrong.append(reply.id)
    assert wrong == []


def test_labels_are_those_of_the_segments(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    answer = "Dry it well.\n\n1. Only fools hurry,\n   and so do you. Wait a day.\n2. Then, you oaf, iron it."
    flagged = ["Only fools hurry,\n   and so do you.", ", you oaf,"]
    good = {"question": "How?", "answer": "Dry it well."}
    cases = [{"question": "How?", "answer": answer, "flagged": flagged}] * 2 + [good] * 2
    path.write_text(yaml.safe_dump([{"objective": "Respect: be polite.", "cases": cases}] * 3), encoding="utf-8")
    lessons = read_operator_lessons(path)
    reply, company = lessons[0]
    labels = {segment.text: label for segment, label in zip(split(answer), reply.segments, strict=True)}
    against = {text for text, label in labels.items() if label == AGAINST}
    assert against == {"1. Only fools hurry,", "   and so do you.", "2. Then, you oaf, iron it."}
    assert labels["Wait a day."] == FINE
    assert company == ("",)
    # each kind of answer is read alone and beside the usual objectives
    assert len({company for _, company in lessons[0::4]}) == 2
