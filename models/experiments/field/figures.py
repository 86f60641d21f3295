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
"""Draws of the bootstrap."""
MIN_SUBSTANCE = 5
"""Words besides courtesies that a sound answer has at least."""
_LOOKED_AT = [i for i, measure in enumerate(MEASURES) if measure.name != "chatter"]
"""Courtesies are asked for here, and that measure counts them as faults."""


@dataclass(frozen=True, slots=True)
class Gain:
    """A mean difference with its 95 % bootstrap interval over questions and seeds."""

    mean: float
    low: float
    high: float
    n: int
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]" if self.n else "-"


def compute_gain(differences: Sequence[Sequence[float]]) -> Gain:
    """The mean of differences [seed][question].

    The bootstrap draws seeds and questions anew, since another run would have other ones.
    """
    matrix = np.asarray(differences, dtype=float)
    seeds, question_count = matrix.shape
    if not question_count:
        return Gain(0.0, 0.0, 0.0, 0, seeds)
    rng = np.random.default_rng(20261124)
    means = np.empty(DRAWS)
    for i in range(DRAWS):
        rows = matrix[rng.integers(seeds, size=seeds)]
        means[i] = rows[:, rng.integers(question_count, size=question_count)].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return Gain(float(matrix.mean()), float(low), float(high), question_count, seeds)


def compute_rewards(objective: str, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
    """The reward of each answer by the rule of the objective."""
    score = RULES[objective].score
    return [score(question, answer) for question, answer in zip(questions, answers, strict=True)]


def compute_gains(
    names: Sequence[str], questions: Sequence[str], before: Sequence[str], after: Sequence[Sequence[str]]
) -> dict[str, Gain]:
    """How much a method raises the reward under each objective, by its name.

    `before` has the untrained policy's answer to each question, and `after` the method's, a list for each seed.
    """
    gains_by_name = {}
    for name in names:
        rewards_before = compute_rewards(name, questions, before)
        differences_by_seed = []
        for answers in after:
            rewards_after = compute_rewards(name, questions, answers)
            differences_by_seed.append([new - old for old, new in zip(rewards_before, rewards_after, strict=True)])
        gains_by_name[name] = compute_gain(differences_by_seed)
    return gains_by_name


@dataclass(frozen=True, slots=True)
class FieldVerdicts:
    """Wins, ties and losses by the offline measures, over all seeds."""

    win: Rate
    tie: Rate
    lose: Rate


def compare_answers(questions: Sequence[str], before: Sequence[str], after: Sequence[Sequence[str]]) -> FieldVerdicts:
    """Compare answers before and after by the measures.

    A win has less of some fault and more of none. Facts may differ, because another policy writes them.
    """
    results = []
    for answers in after:
        for question, old, new in zip(questions, before, answers, strict=True):
            signs = measures.compare(question, old, new, ()).signs
            counted_signs = [signs[i] for i in _LOOKED_AT]
            results.append("lose" if min(counted_signs) < 0 else "win" if max(counted_signs) > 0 else "tie")
    return FieldVerdicts(*(Rate.from_outcomes(old == result for old in results) for result in ("win", "tie", "lose")))


def is_sound(question: str, answer: str) -> bool:
    """Whether no measure sees a fault, and the answer has more than courtesies."""
    faulty = any(MEASURES[i].amount(question, answer) for i in _LOOKED_AT)
    return not faulty and substance(answer) >= MIN_SUBSTANCE


def measure_damage(questions: Sequence[str], before: Sequence[str], after: Sequence[Sequence[str]]) -> Rate:
    """The share of the untrained policy's sound answers that are no longer sound."""
    good = [i for i, question in enumerate(questions) if is_sound(question, before[i])]
    return Rate.from_outcomes(not is_sound(questions[i], answers[i]) for answers in after for i in good)


@dataclass(frozen=True, slots=True)
class FrontPlace:
    """The mean rewards of both objectives under one weighting."""

    share: float
    first: float
    second: float


def find_place(share: float, trade: tuple[str, str], questions: Sequence[str], answers: Sequence[str]) -> FrontPlace:
    """The place of one weighting's answers on the front."""
    first, second = (float(np.mean(compute_rewards(name, questions, answers))) for name in trade)
    return FrontPlace(share, first, second)


def list_undominated(places: Sequence[FrontPlace]) -> list[FrontPlace]:
    """The Pareto front: the places that no other place beats in one reward and at least equals in the other."""
    return [
        place
        for place in places
        if not any(
            other.first >= place.first
            and other.second >= place.second
            and (other.first, other.second) != (place.first, place.second)
            for other in places
        )
    ]


def hypervolume(places: Sequence[FrontPlace], worst: tuple[float, float] = (0.0, 0.0)) -> float:
    """The area between `worst` and the front; rewards lie in [0, 1].

    The one place (0.5, 0.4) has the area 0.2.
    """
    area = 0.0
    height = worst[1]
    for place in sorted(list_undominated(places), key=lambda place: -place.first):
        if place.second > height:
            area += max(0.0, place.first - worst[0]) * (place.second - height)
            height = place.second
    return area
