"""Figures of a method's answers beside the untrained policy's: gains, win/tie/lose, damage, fronts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.evaluate import measures
from models.evaluate.measures import MEASURES
from models.reporting.statistics import Rate
from models.systems.baselines.objectives import RULES, substance

DRAWS = 2000
MIN_SUBSTANCE = 5
_LOOKED_AT = [i for i, measure in enumerate(MEASURES) if measure.name != "chatter"]
"""Courtesies are asked for here, and that measure counts them as faults."""


@dataclass(frozen=True, slots=True)
class Gain:
    """A mean difference with its 95 % bootstrap interval, over questions and seeds; `n` counts questions."""

    mean: float
    low: float
    high: float
    n: int
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether the interval keeps clear of zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]" if self.n else "-"


def gain(differences: Sequence[Sequence[float]]) -> Gain:
    """Of [seed][question]: both are drawn anew, since another run would have others of either."""
    table = np.asarray(differences, dtype=float)
    seeds, n = table.shape
    if not n:
        return Gain(0.0, 0.0, 0.0, 0, seeds)
    rng = np.random.default_rng(20261124)
    means = np.empty(DRAWS)
    for i in range(DRAWS):
        rows = table[rng.integers(seeds, size=seeds)]
        means[i] = rows[:, rng.integers(n, size=n)].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return Gain(float(table.mean()), float(low), float(high), n, seeds)


def rewards(objective: str, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
    """By the rule, answer for answer."""
    score = RULES[objective].score
    return [score(question, answer) for question, answer in zip(questions, answers, strict=True)]


def gains(
    names: Sequence[str], questions: Sequence[str], before: Sequence[str], after: Sequence[Sequence[str]]
) -> dict[str, Gain]:
    """For each objective; `after` has one list of answers for each seed."""
    gains_by_name = {}
    for name in names:
        base = rewards(name, questions, before)
        gains_by_name[name] = gain(
            [[b - a for a, b in zip(base, rewards(name, questions, one), strict=True)] for one in after]
        )
    return gains_by_name


@dataclass(frozen=True, slots=True)
class FieldVerdicts:
    """By the offline measures, over all seeds."""

    win: Rate
    tie: Rate
    lose: Rate


def verdicts(questions: Sequence[str], before: Sequence[str], after: Sequence[Sequence[str]]) -> FieldVerdicts:
    """A win has less of something that a measure sees and more of nothing; facts may change: another policy writes."""
    results = []
    for answers in after:
        for question, one, other in zip(questions, before, answers, strict=True):
            signs = measures.compare(question, one, other, ()).signs
            counted_signs = [signs[i] for i in _LOOKED_AT]
            results.append("lose" if min(counted_signs) < 0 else "win" if max(counted_signs) > 0 else "tie")
    return FieldVerdicts(*(Rate.from_outcomes(one == result for one in results) for result in ("win", "tie", "lose")))


def is_sound(question: str, answer: str) -> bool:
    """No measure sees a fault, and more is said than courtesies."""
    faulty = any(MEASURES[i].amount(question, answer) for i in _LOOKED_AT)
    return not faulty and substance(answer) >= MIN_SUBSTANCE


def damage(questions: Sequence[str], before: Sequence[str], after: Sequence[Sequence[str]]) -> Rate:
    """Of the untrained policy's sound answers, the share that is sound no more."""
    good = [i for i, question in enumerate(questions) if is_sound(question, before[i])]
    return Rate.from_outcomes(not is_sound(questions[i], answers[i]) for answers in after for i in good)


@dataclass(frozen=True, slots=True)
class FrontPlace:
    """One weighting of a front: mean rewards of the two objectives."""

    share: float
    first: float
    second: float


def find_place(share: float, trade: tuple[str, str], questions: Sequence[str], answers: Sequence[str]) -> FrontPlace:
    """Where a weighting came to stand."""
    first, second = (float(np.mean(rewards(name, questions, answers))) for name in trade)
    return FrontPlace(share, first, second)


def list_undominated(places: Sequence[FrontPlace]) -> list[FrontPlace]:
    """Those that no other beats in both."""
    return [
        one
        for one in places
        if not any(
            other.first >= one.first
            and other.second >= one.second
            and other != one
            and (other.first, other.second) != (one.first, one.second)
            for other in places
        )
    ]


def hypervolume(places: Sequence[FrontPlace], worst: tuple[float, float] = (0.0, 0.0)) -> float:
    """The area that a front dominates, from `worst`; rewards lie in [0, 1]."""
    area = 0.0
    above = worst[1]
    for one in sorted(list_undominated(places), key=lambda place: -place.first):
        if one.second > above:
            area += max(0.0, one.first - worst[0]) * (one.second - above)
            above = one.second
    return area
