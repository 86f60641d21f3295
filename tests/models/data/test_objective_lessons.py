"""Lessons for the general head: many kinds, each sentence one segment, none with a subject or sentence of the tests."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from aligner_proxy.text.structure import split
from models.data import objective_lessons
from models.data.answers import PoolAnswer
from models.data.labelled_replies import AGAINST, FINE, UNKNOWN, USUAL
from models.data.objective_lessons import ObjectiveLesson, list_files, plant_lessons, read_lessons
from models.evaluate.taught.kinds import read_kinds
from models.train.labelled_cases import make_case

LESSONS = list(chain.from_iterable(map(read_lessons, list_files())))
ANSWER = PoolAnswer(
    "What is lava?", "Lava is molten rock. It flows downhill. It cools into basalt.", "own", harmless=True
)


def test_each_kind_has_three_wordings_ten_sentences_against_it_and_more_that_are_allowed() -> None:
    assert len(LESSONS) == 508
    counts = Counter((len(kind.objectives), len(kind.against), len(kind.fine)) for kind in LESSONS)
    assert counts == {(3, 10, 13): 220, (3, 10, 12): 288}


def test_no_kind_and_no_sentence_stands_there_twice() -> None:
    counts = Counter(kind.slug for kind in LESSONS)
    counts += Counter(text for kind in LESSONS for text in (*kind.objectives, *kind.against, *kind.fine))
    assert [text for text, count in counts.items() if count > 1] == []


def test_each_sentence_is_one_segment() -> None:
    assert [text for kind in LESSONS for text, _ in kind.sentences if len(split(text)) != 1] == []


def test_nothing_of_the_test_of_taught_kinds_stands_there() -> None:
    tests = read_kinds()
    assert not {kind.slug for kind in tests} & {kind.slug for kind in LESSONS}
    texts = {text for kind in tests for text in (kind.objective, *kind.against, *kind.fine)}
    assert not texts & {text for kind in LESSONS for text in (*kind.objectives, *kind.against, *kind.fine)}


def test_a_planted_sentence_is_labelled_under_its_own_objective_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective_lessons, "list_hosts", lambda _data: [ANSWER])
    sentences = [f"Your number {number} is a great one." for number in range(18)]
    wordings = ("No praise.", "Never praise.", "Praise is unwanted.")
    lesson = ObjectiveLesson("praise", wordings, tuple(sentences[:10]), tuple(sentences[10:]))
    cases = [make_case(*reply) for reply in plant_lessons(Path(), [lesson])]
    assert len(cases) == 18
    assert {case.own for case in cases} == set(lesson.objectives)
    assert {len(case.objectives) for case in cases} == {1, 1 + len(USUAL)}
    for case, (sentence, label) in zip(cases, lesson.sentences, strict=True):
        column = case.objectives.index(case.own)
        texts = [segment.text for segment in split(case.answer)]
        labels = [of_segment[column] for of_segment in case.labels]
        assert labels == [label if text == sentence else UNKNOWN for text in texts]
        assert label in (AGAINST, FINE)
