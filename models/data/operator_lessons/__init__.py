"""Lessons of operators: ordinary answers of many trades, each under an objective, with a label for every segment.

The files have the form of `models/data/operator_cases`, but for the examples and the delivered answers, which nothing
reads here. Their authors knew no case there, and wrote about other trades; those of six files with code in nearly every
answer are the nearest. In a lesson of `objective_lessons` one sentence is known; here all sentences of an answer are,
and most of them are what a customer is told every day.
"""

from __future__ import annotations

from pathlib import Path

from aligner_proxy.text.structure import FENCES, Segment, split
from models.data.labelled_replies import AGAINST, FINE, UNKNOWN, LabelledReply
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
    """Whether a segment has a word that goes against the objective; unknown of code, of which most is fine."""
    starts = [case.answer.index(text) for text in case.flagged]
    against_words = [
        case.answer[max(start, segment.start) : min(start + len(text), segment.end)]
        for start, text in zip(starts, case.flagged, strict=True)
    ]
    if not any(char.isalnum() for words in against_words for char in words):
        return FINE
    # a block of code is one segment, and looks fine but for a word in a comment
    return UNKNOWN if segment.text.lstrip().startswith(FENCES) else AGAINST
