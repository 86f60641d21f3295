"""Spans that people marked as wrong in real answers, as labelled segments (FineGrainedRLHF, Apache-2.0).

A segment counts as marked if marks of one sort cover most of it. If they cover a part of it, its label is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from aligner_proxy.text.structure import Segment, join, split
from models.defects import ObjectiveWording
from models.defects.objectives import built_in_objective, draw_clean_objective, draw_theme_objective

from .labels import MARKED, MIXED, joint_relation
from .pairs import CHANGES, STAYS, UNKNOWN, Pair

_SORTS = {
    "Irrelevant": "marked-irrelevant",
    "Unverifiable": "marked-unverified",
    "Wrong-Grounding": "marked-unverified",
    "Redundant": "marked-redundant",
}
"""Sorts of marks, by their names in the data. Incoherent spans (11 in all) are too few to learn from."""
MOST = 0.6
"""Share of a segment that one sort has to cover for the segment to be marked."""
LEAST = 0.1
"""Share up to which a segment counts as not marked."""


@dataclass(frozen=True, slots=True)
class MarkedAnswer:
    """One real answer; `kinds` has an entry for each of its segments, "" for one that is not marked."""

    query: str
    text: str
    kinds: tuple[str, ...]


def read_marked_answers(rows: Iterable[dict[str, Any]]) -> Iterator[MarkedAnswer]:
    """Yield the first prediction of each question, which is the one that people marked."""
    questions: set[str] = set()
    for row in rows:
        if 1 in row["pair"] and row["prompt"] not in questions:
            questions.add(row["prompt"])
            text = row["response_1"] if row["pair"][0] == 1 else row["response_2"]
            kinds = tuple(_find_kind(segment, row["prediction_1_errors"]) for segment in split(text))
            yield MarkedAnswer(row["prompt"], text, kinds)


def _find_kind(segment: Segment, errors: Iterable[dict[str, Any]]) -> str:
    """The sort of marks that covers most of a segment, `MIXED` if they cover a part, "" if hardly any."""
    covered: dict[str, int] = {}
    for error in errors:
        shared = min(error["end"], segment.end) - max(error["start"], segment.start)
        if shared > 0:
            sort = _SORTS.get(error["error type"], MIXED)
            covered[sort] = covered.get(sort, 0) + shared
    sort, size = max(covered.items(), key=lambda item: item[1], default=("", 0))
    share = size / max(1, len(segment.text))
    return sort if share >= MOST else MIXED if share > LEAST else ""


def make_marked_pair(rng: Random, answer: MarkedAnswer) -> Pair | None:
    """The marked answer under objectives that ask for the removal of some marks, or of none; None if it is unclear."""
    present = sorted(set(answer.kinds) & set(MARKED))
    objectives = _draw_objectives(rng, present)
    themes = [objective.theme for objective in objectives]
    labels = [joint_relation(kind, themes) for kind in answer.kinds]
    if UNKNOWN in labels and CHANGES not in labels:
        return None
    return _make_pair(answer, objectives, labels, "marked:" + ("+".join(present) if CHANGES in labels else "none"))


def make_error_pair(rng: Random, answer: MarkedAnswer, theme: str) -> Pair | None:
    """The marked answer under one objective of this theme; every mark counts as going against it. For measuring."""
    labels = [UNKNOWN if kind == MIXED else CHANGES if kind else STAYS for kind in answer.kinds]
    return _make_pair(answer, [draw_theme_objective(rng, theme)], labels, f"marked:any-under-{theme}")


def _make_pair(answer: MarkedAnswer, objectives: list[ObjectiveWording], labels: list[int], source: str) -> Pair | None:
    """The pair whose target is the answer without the segments that have to change; None if nothing would be left."""
    pieces = zip(split(answer.text), labels, strict=True)
    target = join([("" if label == CHANGES else segment.text, segment.gap) for segment, label in pieces])
    if not target.strip():
        return None
    return Pair(
        answer.query,
        tuple(objective.text for objective in objectives),
        answer.text,
        target,
        tuple(labels),
        source,
        kinds=answer.kinds,
        themes=tuple(objective.theme for objective in objectives),
    )


def _draw_objectives(rng: Random, present: list[str]) -> list[ObjectiveWording]:
    """One to three objectives, of which mostly one asks for the removal of a sort of marks in `present`."""
    objectives = []
    if present and rng.random() < 0.7:
        objectives.append(draw_theme_objective(rng, rng.choice(sorted(MARKED[rng.choice(present)][0]))))
    while len(objectives) < rng.choice((1, 2, 2, 3)):
        objectives.append(built_in_objective("harmless") if rng.random() < 0.4 else draw_clean_objective(rng))
    unique = list({objective.text: objective for objective in objectives}.values())
    rng.shuffle(unique)
    return unique
