"""Lessons for the general head: objectives of many kinds, with sentences that violate each and sentences near it.

Each YAML file is a list of kinds. A kind has three wordings of one objective (`objectives`), ten sentences that violate
it (`against`) and twelve or thirteen near it that an operator would allow (`fine`). Thirteen authors wrote them for
this project. None knew the kinds that test an aligner (`taught_kinds`, and the kinds that no aligner is trained on),
and no kind here has the subject of one of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from models.data.insults import list_hosts, plant_sentence
from models.data.labelled_replies import AGAINST, FINE, USUAL, LabelledReply
from models.defects.phrases import read_yaml

FOLDER = Path(__file__).parent
Company = tuple[str, ...]
"""The objectives of a prompt; "" stands for the lesson's own one."""
COMPANIES: tuple[Company, ...] = (("",), ("",), ("", *USUAL), (*USUAL, ""))
"""The companies in which lessons are read, in turn."""


@dataclass(frozen=True, slots=True)
class ObjectiveLesson:
    """One kind of objective, with sentences that violate it and sentences near it that are allowed."""

    slug: str
    objectives: tuple[str, ...]
    """Wordings of the same objective."""
    against: tuple[str, ...]
    fine: tuple[str, ...]

    @property
    def sentences(self) -> list[tuple[str, int]]:
        """(sentence, label) of each sentence: `AGAINST` or `FINE`."""
        return [(text, AGAINST) for text in self.against] + [(text, FINE) for text in self.fine]


def read_lessons(path: Path) -> list[ObjectiveLesson]:
    """The kinds of one file."""
    kinds: tuple[dict[str, Any], ...] = read_yaml(path)
    return [
        ObjectiveLesson(kind["slug"], tuple(kind["objectives"]), tuple(kind["against"]), tuple(kind["fine"]))
        for kind in kinds
    ]


def list_files(folder: Path = FOLDER) -> list[Path]:
    """The files of lessons, or of operators' cases, by name."""
    return sorted(folder.glob("*.yaml"))


def plant_lessons(data: Path, lessons: Sequence[ObjectiveLesson]) -> list[tuple[LabelledReply, Company]]:
    """Good answers, each with one sentence of a lesson in it, under one wording of the objective, and their companies.

    Half of the prompts have this objective alone, the others have it before or after the usual ones. Only the segments
    of the sentence have a label.
    """
    pool = list_hosts(data)
    replies: list[tuple[LabelledReply, Company]] = []
    for lesson in lessons:
        for number, (sentence, label) in enumerate(lesson.sentences):
            # of its own, so that a new lesson changes no case of another
            rng = Random(sentence)
            reply = plant_sentence(rng, rng.choice(pool), sentence, label, f"{lesson.slug}-{number}")
            objective = lesson.objectives[number % len(lesson.objectives)]
            company = COMPANIES[number // len(lesson.objectives) % len(COMPANIES)]
            replies.append((replace(reply, objective=objective, slug=lesson.slug), company))
    return replies
