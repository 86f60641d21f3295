"""RLHF by a reward model that was trained on what people preferred: its own reward, how often it is right, the rules'.

Needs the research data; all other methods are rewarded by rules, and need none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from models.reporting import output
from models.reporting.statistics import Rate
from models.systems.baselines import reward_model, rlhf
from models.systems.baselines.cost import Cost, Meter
from models.systems.baselines.objectives import RULES, Objective
from models.systems.baselines.reward_model import NAME
from models.systems.baselines.task import Task

from . import figures
from .answers import Workshop, written_whole

HELD_OUT = 200
"""Pairs on which the reward model's accuracy is measured; those that it is trained on are others."""


@dataclass(frozen=True, slots=True)
class ByPeople:
    """One seed: answers, their rewards and those of the untrained policy's, the pairs that the model tells apart."""

    seed: int
    answers: Sequence[str]
    before: Sequence[float]
    after: Sequence[float]
    right: int
    pairs: int
    cost: Cost
    reward_cost: Cost


def path(workshop: Workshop, seed: int) -> Path:
    """Where a seed is kept."""
    settings = workshop.comparison.training.model_dump()
    return workshop.kept / f"people-{seed}-{workshop.fingerprint(settings)}.json"


def make(workshop: Workshop, data: Path, seed: int) -> ByPeople:
    """Train the reward model, then the policy by it."""
    c = workshop.comparison
    pairs = reward_model.preferred(data, seed)
    held_out = pairs[:HELD_OUT]
    policy = workshop.policy()
    task = partial(Task, policy, training=c.training, seed=seed, folder=workshop.kept / "trained" / f"people-{seed}")
    rewarding = Meter()
    model = reward_model.train(task([], RULES, {}, meter=rewarding), c.base, pairs[HELD_OUT:])
    right = model.accuracy(held_out)
    objective = Objective(NAME, "", model.score)
    pool = [
        replace(one, rewards={**one.rewards, NAME: model.score(one.question, one.answer)})
        for one in workshop.pool(seed)[0]
    ]
    meter = Meter()
    with meter.on(policy.model):
        ask = rlhf.train(task(pool, {**RULES, NAME: objective}, {NAME: 1.0}, meter=meter))
    answers = policy.write([ask(question, {}) for question in workshop.questions])
    before, after = (
        [model.score(question, answer) for question, answer in zip(workshop.questions, written, strict=True)]
        for written in (workshop.base().answers[""], answers)
    )
    return ByPeople(seed, answers, before, after, right.hits, right.n, meter.cost, rewarding.cost)


def trained(workshop: Workshop, data: Path, seed: int) -> None:
    """The same, unless it is kept."""
    if not path(workshop, seed).exists():
        written_whole(path(workshop, seed), asdict(make(workshop, data, seed)))


def found(workshop: Workshop) -> list[ByPeople]:
    """All seeds that are there."""
    files = [path(workshop, seed) for seed in workshop.comparison.seeds]
    told: list[dict[str, Any]] = [json.loads(file.read_text()) for file in files if file.exists()]
    costs = ("cost", "reward_cost")
    return [ByPeople(**one | {name: Cost(**one[name]) for name in costs}) for one in told]


def table(workshop: Workshop) -> str:
    """Markdown; a line that it was not run where it was not."""
    made = found(workshop)
    if not made:
        return "RLHF by a trained reward model: not run (`--data`)."
    own = figures.gain([[b - a for a, b in zip(one.before, one.after, strict=True)] for one in made])
    names = workshop.comparison.report
    before = workshop.base().answers[""]
    rules = figures.gains(names, workshop.questions, before, [one.answers for one in made])
    right = Rate.from_counts(sum(one.right for one in made), sum(one.pairs for one in made))
    head = ("method", "n x seeds", "gain in its own reward", *names, "reward model right, held-out pairs")
    n = f"{own.n} x {len(made)}"
    return output.table(head, [("RLHF, trained reward model", n, own, *rules.values(), right)])
