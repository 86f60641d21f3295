"""Measures of a detector head over kept rows: what is flagged at its operating point, before editing and the gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
from torch import Tensor

from aligner_proxy.engine.model.detector import DetectorHead
from models.data.labelled_replies import AGAINST, FINE, HARMLESS
from models.data.pairs import Pair
from models.evaluate.calibrate import GOOD, HARM, find_threshold, is_beyond_doubt
from models.evaluate.test_sets import SetCase, rate_flags, rate_order
from models.reporting.statistics import Area, Rate
from models.train.head_rows import HeadRows
from models.train.labelled_cases import LabelledCase
from models.train.probe import measure_area
from models.train.taught import QUIET


@dataclass(frozen=True, slots=True)
class ScoredCase:
    """One case and its scores [segments, objectives]: nats above the operating point."""

    case: LabelledCase
    scores: Tensor

    @property
    def flagged(self) -> bool:
        """Whether any segment is flagged under any objective."""
        return bool((self.scores > 0).any())

    def column(self, objective: str) -> Tensor:
        """The scores [segments] under one objective."""
        return self.scores[:, self.case.objectives.index(objective)]

    @property
    def worst(self) -> float:
        """The highest score under `harmless`."""
        return float(self.column(HARMLESS).max())

    def flags(self, label: int, objectives: Iterable[str]) -> list[bool]:
        """For each segment and objective with this label: whether the segment is flagged under it."""
        columns = [self.case.objectives.index(text) for text in objectives if text in self.case.objectives]
        places = [(row, at) for row, labels in enumerate(self.case.labels) for at in columns if labels[at] == label]
        return [bool(self.scores[place] > 0) for place in places]


def score_cases(
    head: Callable[[Tensor, Tensor], Tensor], rows: HeadRows, point: float, others: DetectorHead | None = None
) -> list[ScoredCase]:
    """Score all cases of a set; scores above `point` are flagged.

    With `others`, `head` scores only `harmless`, and `others` scores all other objectives at the point 0.
    """
    margins = [scores - point for scores in rows.scores(head)]
    if others is not None:
        for case, new, old in zip(rows.cases, margins, rows.scores(others), strict=True):
            elsewhere = [at for at, text in enumerate(case.objectives) if text != HARMLESS]
            new[:, elsewhere] = old[:, elsewhere]
    return [ScoredCase(case, scores) for case, scores in zip(rows.cases, margins, strict=True)]


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """How well a head tells harmful replies of a set from harmless ones."""

    area: Area
    harmful: Rate
    """Harmful replies that are flagged."""
    harmless: Rate
    """Harmless replies that are flagged."""

    @classmethod
    def from_cases(cls, cases: Sequence[ScoredCase]) -> LabelFigures:
        """The AUC of the worst segments under `harmless`, and the flags under all objectives."""
        worst = np.array([scored.worst for scored in cases])
        harmful = np.array([scored.case.harmful for scored in cases])
        flagged = np.array([scored.flagged for scored in cases])
        return cls(
            measure_area(worst[harmful], worst[~harmful]),
            Rate.from_outcomes(flagged[harmful]),
            Rate.from_outcomes(flagged[~harmful]),
        )


@dataclass(frozen=True, slots=True)
class WrittenFigures:
    """What a head flags in written answers, whose segments are labelled."""

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
        """Count flagged answers, and flagged segments under `harmless`."""
        harmful = [scored for scored in cases if scored.case.harmful]
        harmful_in_part = [scored for scored in harmful if any(AGAINST not in labels for labels in scored.case.labels)]
        return cls(
            Rate.from_outcomes(scored.flagged for scored in harmful),
            Rate.from_outcomes(scored.flagged for scored in harmful if scored.case.slug in QUIET),
            Rate.from_outcomes(flag for scored in harmful_in_part for flag in scored.flags(AGAINST, [HARMLESS])),
            Rate.from_outcomes(flag for scored in harmful_in_part for flag in scored.flags(FINE, [HARMLESS])),
            Rate.from_outcomes(scored.flagged for scored in cases if not scored.case.harmful),
        )


class FaultRates(NamedTuple):
    """Flagged segments of answers under the objective that each was written for."""

    found: Rate
    """Of those against the objective."""
    false: Rate
    """Of the others."""


def rate_faults(cases: Sequence[ScoredCase]) -> FaultRates:
    """Rate each answer under the objective that it was written for."""
    with_objective = [(scored, [scored.case.own]) for scored in cases]
    return FaultRates(
        Rate.from_outcomes(flag for scored, objective in with_objective for flag in scored.flags(AGAINST, objective)),
        Rate.from_outcomes(flag for scored, objective in with_objective for flag in scored.flags(FINE, objective)),
    )


def make_set_cases(scored_cases: Sequence[ScoredCase], pairs: Mapping[str, Pair]) -> list[SetCase]:
    """The cases as models.evaluate.test_sets takes them, each segment with its highest score."""
    return [
        SetCase(pairs[scored.case.id], scored.case.answer, tuple(scored.scores.amax(dim=1).tolist()))
        for scored in scored_cases
    ]


def rate_exact(cases: list[SetCase]) -> Rate:
    """Answers in which exactly the segments that must change are flagged; for compared replies `rate_order`."""
    return rate_order(cases) or rate_flags(cases, 0.0)["answers"]


def find_operating_point(cases: Mapping[str, list[SetCase]]) -> float:
    """The score above which to flag, by good answers of the development side (models.evaluate.calibrate)."""
    good = [case for name in GOOD for case in filter(is_beyond_doubt, cases[name])]
    return (ceil(find_threshold(good, HARM) * 1e3) + 1) / 1e3
