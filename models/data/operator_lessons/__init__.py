"""Lessons of operators: ordinary answers of many trades, each under an objective, with a label for every segment.

The files have the form of `models/data/operator_cases`, but for the examples and the delivered answers, which nothing
reads here. Their authors wrote about trades that no case there is about. In a lesson of `objective_lessons` one
sentence is known; here all sentences of an answer are, and most of them are what a customer is told every day.

Two folders have more answers, from which no head learns yet. Those in `code` are of technical teams, with code in
nearly each: a head that learnt from them found no fault in code that others miss, and took more fine sentences for
faults (docs/lab/2026-11-30-answers-with-code.md). Those in `further` are of 64 trades: a head that learnt from them was
better for operators of whom it had seen nothing, but forgot kinds of objectives
(docs/lab/2026-12-01-more-operators.md).
"""

from __future__ import annotations

from pathlib import Path

from aligner_proxy.text.structure import Segment, split
from models.data.labelled_replies import AGAINST, FINE, LabelledReply
from models.data.objective_lessons import COMPANIES, Company
from models.data.operator_cases import ANSWERS_EACH, OperatorCase, read_operator_cases

FOLDER = Path(__file__).parent


def read_operator_lessons(path: Path) -> list[tuple[LabelledReply, Company]]:
    """The answers of one file, each with the company of objectives in which it is read."""
    # an answer of each kind is read in each company: (0, 1, 2, 3) for the first objective, (1, 2, 3, 0) for the second
    return [
        (_label_answer(case, path.stem), COMPANIES[(number + number // ANSWERS_EACH) % len(COMPANIES)])
        for number, case in enumerate(read_operator_cases([path]))
    ]


def _label_answer(case: OperatorCase, author: str) -> LabelledReply:
    labels = tuple(_label_segment(segment, case) for segment in split(case.answer))
    return LabelledReply(
        case.id,
        author,
        case.id,
        question=case.question,
        answer=case.answer,
        objective=case.objective,
        harmful=AGAINST in labels,
        segments=labels,
        slug=case.subject,
    )


def _label_segment(segment: Segment, case: OperatorCase) -> int:
    """Whether a segment has a word that goes against the objective."""
    starts = [case.answer.index(text) for text in case.flagged]
    against_words = [
        case.answer[max(start, segment.start) : min(start + len(text), segment.end)]
        for start, text in zip(starts, case.flagged, strict=True)
    ]
    return AGAINST if any(char.isalnum() for words in against_words for char in words) else FINE
