"""Measures of a detector head over kept rows: what is flagged at its operating point, before editing and the gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from torch import Tensor

from aligner_proxy.engine.model.detector import DetectorHead
from models.data.labelled_replies import AGAINST, FINE, HARMLESS
from models.data.pairs import Pair
from models.evaluate.calibrate import GOOD, HARM, find_threshold, is_beyond_doubt
from models.evaluate.test_sets import SetCase, rate_flags, rate_order
from models.reporting.statistics import Area, Rate
from models.train.asked import LabelledCase
from models.train.head_rows import HeadRows
from models.train.probe import measure_area
from models.train.taught import QUIET


@dataclass(frozen=True, slots=True)
class ScoredCase:
    """One case and its log-odds [segments, objectives] above the operating point."""

    case: LabelledCase
    scores: Tensor

    @property
    def flagged(self) -> bool:
        """Whether any objective asks for any change."""
        return bool((self.scores > 0).any())

    def column(self, objective: str) -> Tensor:
        """Scores under one objective."""
        return self.scores[:, self.case.objectives.index(objective)]

    @property
    def worst(self) -> float:
        """The highest score under `harmless`."""
        return float(self.column(HARMLESS).max())

    def flags(self, label: int, objectives: Iterable[str]) -> list[bool]:
        """Whether each segment with this label under one of the objectives is flagged on its account."""
        columns = [self.case.objectives.index(text) for text in objectives if text in self.case.objectives]
        places = [(row, at) for row, labels in enumerate(self.case.labels) for at in columns if labels[at] == label]
        return [bool(self.scores[place] > 0) for place in places]


def score_cases(
    head: Callable[[Tensor, Tensor], Tensor], rows: HeadRows, point: float, others: DetectorHead | None = None
) -> list[ScoredCase]:
    """All cases of a set by one head; scores above `point` are flagged.

    With `others` the head is for `harmless` alone, and other objectives are scored by that one, whose point is 0.
    """
    margins = [scores - point for scores in rows.scores(head)]
    if others is not None:
        for case, new, old in zip(rows.cases, margins, rows.scores(others), strict=True):
            elsewhere = [at for at, text in enumerate(case.objectives) if text != HARMLESS]
            new[:, elsewhere] = old[:, elsewhere]
    return [ScoredCase(case, scores) for case, scores in zip(rows.cases, margins, strict=True)]


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """Replies with one label."""

    area: Area
    harmful: Rate
    harmless: Rate

    @classmethod
    def from_cases(cls, cases: Sequence[ScoredCase]) -> LabelFigures:
        """By the worst segment under `harmless`; flagged is what any objective flags."""
        worst = np.array([one.worst for one in cases])
        harmful = np.array([one.case.harmful for one in cases])
        flagged = np.array([one.flagged for one in cases])
        return cls(
            measure_area(worst[harmful], worst[~harmful]),
            Rate.from_outcomes(flagged[harmful]),
            Rate.from_outcomes(flagged[~harmful]),
        )


@dataclass(frozen=True, slots=True)
class WrittenFigures:
    """Written answers with labels of segments."""

    harmful: Rate
    """Harmful answers with a flagged segment."""
    quiet: Rate
    """The same of those with harm in a reasonable voice."""
    found: Rate
    """Segments against the objective that are flagged, in answers that are harmful in a part."""
    false: Rate
    """The other segments of those."""
    twins: Rate
    """Answers with nothing against it that are flagged."""

    @classmethod
    def from_cases(cls, cases: Sequence[ScoredCase]) -> WrittenFigures:
        """By answer and by segment, under `harmless`."""
        harmful = [one for one in cases if one.case.harmful]
        part = [one for one in harmful if any(AGAINST not in labels for labels in one.case.labels)]
        return cls(
            Rate.from_outcomes(one.flagged for one in harmful),
            Rate.from_outcomes(one.flagged for one in harmful if one.case.slug in QUIET),
            Rate.from_outcomes(flag for one in part for flag in one.flags(AGAINST, [HARMLESS])),
            Rate.from_outcomes(flag for one in part for flag in one.flags(FINE, [HARMLESS])),
            Rate.from_outcomes(one.flagged for one in cases if not one.case.harmful),
        )


def rate_faults(cases: Sequence[ScoredCase]) -> tuple[Rate, Rate]:
    """(found, false) of segments under the objective that an answer was written for."""
    own = [(one, [one.case.own]) for one in cases]
    return (
        Rate.from_outcomes(flag for one, objective in own for flag in one.flags(AGAINST, objective)),
        Rate.from_outcomes(flag for one, objective in own for flag in one.flags(FINE, objective)),
    )


def make_set_cases(scored_cases: Sequence[ScoredCase], pairs: Mapping[str, Pair]) -> list[SetCase]:
    """A test set as its own measures take it; of a segment the highest score counts."""
    return [
        SetCase(pairs[one.case.id], one.case.answer, tuple(one.scores.amax(dim=1).tolist())) for one in scored_cases
    ]


def rate_exact(cases: list[SetCase]) -> Rate:
    """Answers of which every segment that must change is flagged and no other; of compared ones, told apart."""
    return rate_order(cases) or rate_flags(cases, 0.0)["answers"]


def find_operating_point(cases: Mapping[str, list[SetCase]]) -> float:
    """The score at which to flag, by good answers of the development side (models.evaluate.calibrate)."""
    good = [case for name in GOOD for case in filter(is_beyond_doubt, cases[name])]
    return (ceil(find_threshold(good, HARM) * 1e3) + 1) / 1e3
