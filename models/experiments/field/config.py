"""The comparison as a YAML file, and the jobs that it comes to, in the order in which they say most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.systems.baselines.objectives import RULES
from models.systems.baselines.task import TrainingSettings
from models.train.base_model import Precision

Method = Literal["sft", "rlhf", "morlhf", "modpo", "ric"]
METHODS: tuple[Method, ...] = ("sft", "modpo", "ric", "rlhf", "morlhf")
ONE_FOR_ALL: tuple[Method, ...] = ("ric",)
"""One training of these serves every weighting."""
FRONTS: tuple[Method, ...] = ("morlhf", "modpo", "ric")
Part = Literal["table", "front", "new objective", "new policy"]


class FieldError(ValueError):
    """A comparison that cannot be made. The message names the file, the place and what is wrong."""


class _FieldBlock(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Editor(_FieldBlock):
    """A method that leaves the policy alone: a route of the gateway, or objectives in the policy's prompt."""

    name: str
    route: dict[str, Any] = {}
    prompted: bool = False
    needs: Path | None = None
    """A folder without which the row is left out, and said to be."""
    every: int = Field(default=1, ge=1)
    """Only every so many answers: for what is slow. The table says how many they were."""


class FieldComparison(_FieldBlock):
    """The YAML file of a comparison; unknown keys are errors."""

    base: str
    precision: Precision = "bf16"
    new_tokens: int = Field(default=48, ge=1)
    train: int = Field(ge=2)
    """Questions to train on."""
    test: int = Field(ge=1)
    """Questions of the table, of other things."""
    each: int = Field(default=4, ge=2)
    """Answers a question in the pool."""
    training: TrainingSettings
    report: tuple[str, ...]
    """Objectives whose rewards the table has."""
    trade: tuple[str, str]
    """The two that are asked for, and between which the fronts are drawn."""
    rlhf: str
    """The objective that RLHF has for its one reward."""
    new_objective: str
    shares: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25, 0.0)
    """Of the first of the two objectives, along a front."""
    seeds: tuple[int, ...] = Field(min_length=1)
    methods: tuple[Method, ...] = METHODS
    editors: tuple[Editor, ...] = ()
    aligner: Path
    single_purpose: Path | None = None
    deadline_s: float = 60.0
    other_base: str | None = None
    """Another policy model, to which the methods are brought once they stand."""

    @model_validator(mode="after")
    def _check_objectives(self) -> FieldComparison:
        for name in (*self.report, *self.trade, self.rlhf, self.new_objective):
            if name not in RULES:
                raise ValueError(f"no objective {name!r}; known: {', '.join(RULES)}")
        if self.new_objective in self.trade:
            raise ValueError(f"new_objective: {self.new_objective} is asked for from the start")
        return self

    @property
    def even(self) -> dict[str, float]:
        """The weighting of the table: half of each of the two objectives."""
        return dict.fromkeys(self.trade, 0.5)

    @property
    def with_new(self) -> dict[str, float]:
        """The weighting with the new objective: a third of each."""
        return dict.fromkeys((*self.trade, self.new_objective), 1 / 3)

    def make_weighting(self, share: float) -> dict[str, float]:
        """The weighting with this share of the first objective: one place on a front."""
        return dict(zip(self.trade, (share, 1 - share), strict=True))

    @classmethod
    def read(cls, path: Path) -> FieldComparison:
        """Read a YAML file; raises `FieldError` that names the first mistake."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError) as error:
            raise FieldError(f"{path} cannot be read ({type(error).__name__})") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise FieldError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training, and the weightings under which its result answers."""

    method: Method
    seed: int
    weights: Mapping[str, float]
    """What the training weighs each objective with."""
    weightings: tuple[Mapping[str, float], ...]
    """What is asked of the trained policy, in turn."""
    other_base: bool = False

    @property
    def name(self) -> str:
        """The name for files and the progress bar: `modpo-fair0.50-helpful0.50-seed1`."""
        weights = "-".join(f"{name}{weight:.2f}" for name, weight in self.weights.items() if weight)
        return f"{self.method}-{weights}-seed{self.seed}{'-other' if self.other_base else ''}"


def make_job(
    comparison: FieldComparison, method: Method, seed: int, weights: Mapping[str, float], *, other: bool = False
) -> TrainingJob:
    """The job of one method under these weights.

    A method in `ONE_FOR_ALL` serves every weighting, so it has one job for all of them.
    """
    if method == "rlhf":
        weights = {comparison.rlhf: 1.0}
    fronts = tuple(comparison.make_weighting(share) for share in comparison.shares)
    if method in ONE_FOR_ALL and comparison.new_objective not in weights:
        weightings = [comparison.even, *(weights for weights in fronts if weights != comparison.even)]
        return TrainingJob(method, seed, comparison.even, tuple(weightings), other)
    return TrainingJob(method, seed, weights, (weights,), other)


def list_jobs(comparison: FieldComparison) -> list[TrainingJob]:
    """All jobs, each once: the first seed, fronts, further seeds, a new objective, another policy."""
    first, *others = comparison.seeds
    planned_jobs = [make_job(comparison, method, first, comparison.even) for method in comparison.methods]
    for share in comparison.shares:
        for method in comparison.methods:
            if method in FRONTS:
                planned_jobs.append(make_job(comparison, method, first, comparison.make_weighting(share)))
    for seed in others:
        planned_jobs += [make_job(comparison, method, seed, comparison.even) for method in comparison.methods]
    several = [method for method in comparison.methods if method != "rlhf"]
    for seed in comparison.seeds:
        planned_jobs += [make_job(comparison, method, seed, comparison.with_new) for method in several]
        if comparison.other_base:
            planned_jobs += [
                make_job(comparison, method, seed, comparison.even, other=True) for method in comparison.methods
            ]
    return list({job.name: job for job in planned_jobs}.values())
