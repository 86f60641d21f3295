"""Rank statistics of a weighting over prompts, with intervals by a bootstrap over wordings.

Two sets of prompts: probes of the training's kinds in wordings that were kept back, and fresh ones (`fresh.yaml`), each
written by itself after the net was made, on which no setting was chosen.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import TypeAdapter

from models.reporting.statistics import Rate

from . import bilevel, data

KEPT = 3
DRAWS = 2000
Probes = Literal["kept back", "fresh"]
PROBES: tuple[Probes, ...] = ("kept back", "fresh")
_FRESH = Path(__file__).with_name("fresh.yaml")


class GroupTotal(NamedTuple):
    """The sum of the values of a group, which a bootstrap draws thousands of times, and their number."""

    total: float
    count: int


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % bootstrap interval over groups."""

    n: int
    mean: float
    low: float
    high: float

    @classmethod
    def from_groups(cls, values: Mapping[str, Sequence[float]]) -> Mean:
        """The mean of values in groups. The bootstrap draws whole groups."""
        rng = random.Random(0)
        groups = [GroupTotal(sum(group), len(group)) for group in values.values()]
        means = sorted(_mean(rng.choices(groups, k=len(groups))) for _ in range(DRAWS))
        low = means[int(0.025 * DRAWS)]
        high = means[int(0.975 * DRAWS)]
        return cls(sum(group.count for group in groups), _mean(groups), low, high)

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}], n = {self.n}"


def _mean(groups: Sequence[GroupTotal]) -> float:
    return sum(group.total for group in groups) / sum(group.count for group in groups)


@dataclass(frozen=True, slots=True)
class RankProbe:
    """One prompt. The probes of one group have the same wording."""

    kind: str
    group: str
    prompt: str


@dataclass(frozen=True, slots=True)
class ProbeRank:
    """How one weighting ranks the objectives of one probe."""

    group: str
    reciprocal_rank: float
    spearman: float
    is_kept: bool
    """Whether what matters most stays among the heaviest, ties by the order of the file as in the gateway."""


@dataclass(frozen=True, slots=True)
class RankRow:
    """One weighting over one set of probes, under one wording of the objectives."""

    weights: str
    probes: str
    texts: str
    reciprocal_rank: Mean
    spearman: Mean
    kept: Rate


@cache
def fresh_prompts() -> dict[str, tuple[str, ...]]:
    """The prompts of `fresh.yaml` by kind; nothing is trained on them."""
    return TypeAdapter(dict[str, tuple[str, ...]]).validate_python(yaml.safe_load(_FRESH.read_text(encoding="utf-8")))


def list_probes(which: Probes) -> Iterator[RankProbe]:
    """All probes of a set."""
    if which == "fresh":
        yield from (RankProbe(kind, prompt, prompt) for kind, prompts in fresh_prompts().items() for prompt in prompts)
        return
    for name, kind in data.material().kinds.items():
        for ask in kind.probes.asks:
            yield from (RankProbe(name, ask, ask.format(x=thing)) for thing in kind.probes.about)


def rank_probes(which: Probes, wording: str, weigh: bilevel.Weigh) -> list[ProbeRank]:
    """Rank the objectives of each probe of a set by one weighting."""
    material = data.material()
    rows = []
    names = list(material.objectives)
    texts = [facet.texts[0 if wording == "trained" else -1] for facet in material.objectives.values()]
    probe_list = list(list_probes(which))
    for probe, row in zip(probe_list, weigh([probe.prompt for probe in probe_list], texts).tolist(), strict=True):
        first, second = (names.index(name) for name in material.kinds[probe.kind].matters)
        truth = [0.0] * len(names)
        truth[first] = 2.0
        truth[second] = 1.0
        order = sorted(range(len(row)), key=lambda i: -row[i])
        rows.append(ProbeRank(probe.group, reciprocal_rank(row, first), spearman(row, truth), first in order[:KEPT]))
    return rows


def make_row(name: str, which: Probes, wording: str, rows: Sequence[ProbeRank]) -> RankRow:
    """The figures of one weighting."""
    first = Mean.from_groups(_group_values(rows, [item.reciprocal_rank for item in rows]))
    second = Mean.from_groups(_group_values(rows, [item.spearman for item in rows]))
    return RankRow(name, which, wording, first, second, Rate.from_outcomes(item.is_kept for item in rows))


def compare_ranks(ranks_before: Sequence[ProbeRank], ranks_after: Sequence[ProbeRank]) -> tuple[Mean, Mean]:
    """(reciprocal rank, Spearman) of `one` minus those of `other`, probe by probe."""
    first = [
        before.reciprocal_rank - after.reciprocal_rank for before, after in zip(ranks_before, ranks_after, strict=True)
    ]
    second = [before.spearman - after.spearman for before, after in zip(ranks_before, ranks_after, strict=True)]
    return Mean.from_groups(_group_values(ranks_before, first)), Mean.from_groups(_group_values(ranks_before, second))


def _group_values(rows: Sequence[ProbeRank], values: Sequence[float]) -> dict[str, list[float]]:
    """The values by the group of their probe."""
    groups: dict[str, list[float]] = {}
    for item, value in zip(rows, values, strict=True):
        groups.setdefault(item.group, []).append(value)
    return groups


def ranks(values: Sequence[float]) -> list[float]:
    """1 for the largest; equal values share the mean of their ranks: 0.5, 0.2, 0.2 have 1, 2.5, 2.5."""
    return [
        sum(other > value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """The rank correlation; 0 where one of them is constant."""
    first_ranks = ranks(first)
    second_ranks = ranks(second)
    middle = (len(first_ranks) + 1) / 2
    up = sum((x - middle) * (y - middle) for x, y in zip(first_ranks, second_ranks, strict=True))
    down = (sum((x - middle) ** 2 for x in first_ranks) * sum((y - middle) ** 2 for y in second_ranks)) ** 0.5
    return up / down if down else 0.0


def reciprocal_rank(values: Sequence[float], which: int) -> float:
    """1 over the rank of the value `which`; among equal values the mean over their orders."""
    above = sum(value > values[which] for value in values)
    same = sum(value == values[which] for value in values)
    return sum(1 / (above + 1 + i) for i in range(same)) / same
