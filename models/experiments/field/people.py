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
from models.systems.baselines.cost import Meter, TrainingCost
from models.systems.baselines.objectives import RULES, ScoredObjective
from models.systems.baselines.reward_model import NAME
from models.systems.baselines.task import BaselineTask

from . import figures
from .answers import AnswerWorkshop, write_atomically

HELD_OUT = 200
"""Pairs on which the reward model's accuracy is measured; those that it is trained on are others."""


@dataclass(frozen=True, slots=True)
class PeopleAnswers:
    """What one seed gave: the trained policy's answers, and how the reward model judges them."""

    seed: int
    answers: Sequence[str]
    before: Sequence[float]
    """Rewards of the untrained policy's answers."""
    after: Sequence[float]
    right: int
    """Held-out pairs in which the reward model prefers what people preferred."""
    pairs: int
    cost: TrainingCost
    reward_cost: TrainingCost


def find_path(workshop: AnswerWorkshop, seed: int) -> Path:
    """The file in which a seed is kept."""
    settings = workshop.comparison.training.model_dump()
    return workshop.folder / f"people-{seed}-{workshop.fingerprint(settings)}.json"


def train_by_people(workshop: AnswerWorkshop, data: Path, seed: int) -> PeopleAnswers:
    """Train a reward model on what people preferred, then the policy by that model."""
    comparison = workshop.comparison
    pairs = reward_model.draw_pairs(data, seed)
    held_out = pairs[:HELD_OUT]
    policy = workshop.policy()
    task = partial(
        BaselineTask,
        policy,
        training=comparison.training,
        seed=seed,
        folder=workshop.folder / "trained" / f"people-{seed}",
    )
    rewarding = Meter()
    model = reward_model.train(task([], RULES, {}, meter=rewarding), comparison.base, pairs[HELD_OUT:])
    accuracy = model.accuracy(held_out)
    objective = ScoredObjective(NAME, "", model.score)
    pool = [
        replace(answer, rewards={**answer.rewards, NAME: model.score(answer.question, answer.answer)})
        for answer in workshop.pool(seed)[0]
    ]
    meter = Meter()
    with meter.measure(policy.model):
        ask = rlhf.train(task(pool, {**RULES, NAME: objective}, {NAME: 1.0}, meter=meter))
    answers = policy.write([ask(question, {}) for question in workshop.questions])
    before, after = (
        [model.score(question, answer) for question, answer in zip(workshop.questions, texts, strict=True)]
        for texts in (workshop.base().answers[""], answers)
    )
    return PeopleAnswers(
        seed,
        answers,
        before,
        after=after,
        right=accuracy.hits,
        pairs=accuracy.n,
        cost=meter.cost,
        reward_cost=rewarding.cost,
    )


def train_unless_kept(workshop: AnswerWorkshop, data: Path, seed: int) -> None:
    """`train_by_people`, unless the seed is kept."""
    if not find_path(workshop, seed).exists():
        write_atomically(find_path(workshop, seed), asdict(train_by_people(workshop, data, seed)))


def read_kept(workshop: AnswerWorkshop) -> list[PeopleAnswers]:
    """All seeds that are kept."""
    files = [find_path(workshop, seed) for seed in workshop.comparison.seeds]
    documents: list[dict[str, Any]] = [json.loads(file.read_text()) for file in files if file.exists()]
    costs = ("cost", "reward_cost")
    return [
        PeopleAnswers(**document | {name: TrainingCost(**document[name]) for name in costs}) for document in documents
    ]


def format_table(workshop: AnswerWorkshop) -> str:
    """Markdown: gains by the own reward and by the rules, or a line that nothing was run."""
    results = read_kept(workshop)
    if not results:
        return "RLHF by a trained reward model: not run (`--data`)."
    own_gain = figures.compute_gain(
        [[new - old for old, new in zip(result.before, result.after, strict=True)] for result in results]
    )
    names = workshop.comparison.report
    before = workshop.base().answers[""]
    rules = figures.compute_gains(names, workshop.questions, before, [result.answers for result in results])
    right = Rate.from_counts(sum(result.right for result in results), sum(result.pairs for result in results))
    head = ("method", "n x seeds", "gain in its own reward", *names, "reward model right, held-out pairs")
    count = f"{own_gain.n} x {len(results)}"
    return output.table(head, [("RLHF, trained reward model", count, own_gain, *rules.values(), right)])
