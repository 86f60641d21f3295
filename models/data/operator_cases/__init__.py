"""Cases of operators: objectives of a trade, answers under each, and what a careful editor would have delivered.

Each YAML file is a list of objectives of one trade or several. An objective has four answers: two with a violation in
different forms, a good one near the subject, and a plain one. What goes against the objective is marked. Nine authors,
who knew neither the code nor other data, wrote them to measure an aligner; none learns from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from models.data.objective_lessons import list_files
from models.defects.phrases import read_yaml

FOLDER = Path(__file__).parent


class OperatorAnswer(StrEnum):
    """The kinds of answers that each objective has."""

    VIOLATION = "violation"
    NEAR = "good, near the subject"
    PLAIN = "good, plain"


_ANSWERS = (OperatorAnswer.VIOLATION, OperatorAnswer.VIOLATION, OperatorAnswer.NEAR, OperatorAnswer.PLAIN)
"""The kinds of the answers of an objective, in the order of the files."""
ANSWERS_EACH = len(_ANSWERS)
"""Answers of each objective."""


@dataclass(frozen=True, slots=True)
class OperatorCase:
    """An answer under an objective, what of it goes against the objective, and what should be delivered."""

    id: str
    """Trade, number of the objective, and number of the answer."""
    objective: str
    examples: tuple[str, ...]
    """Sentences against the objective, none of which is in an answer."""
    kind: OperatorAnswer
    question: str
    answer: str
    flagged: tuple[str, ...]
    expected: str

    @property
    def subject(self) -> str:
        """The trade and the number of the objective."""
        return self.id.rpartition("-")[0]


def read_operator_cases(paths: Iterable[Path] | None = None) -> Iterator[OperatorCase]:
    """Yield the cases of these files; without `paths`, those that measure an aligner."""
    for path in list_files(FOLDER) if paths is None else paths:
        for number, subject in enumerate(read_yaml(path)):
            for place, (kind, case) in enumerate(zip(_ANSWERS, subject["cases"], strict=True)):
                yield OperatorCase(
                    f"{path.stem}-{number}-{place}",
                    subject["objective"],
                    subject.get("examples", ()),
                    kind,
                    case["question"],
                    case["answer"],
                    case.get("flagged", ()),
                    case.get("delivered", case["answer"]),
                )
