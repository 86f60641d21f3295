"""Answers of every method to the same questions, each made once: a stopped run goes on, with what it had cost.

What is kept lies under `out`/kept, which git does not see: answers, costs, pools and adapters.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from models.systems.baselines.cost import Meter, TrainingCost
from models.systems.baselines.objectives import RULES
from models.systems.baselines.policy import PolicyModel
from models.systems.baselines.pool import ScoredAnswer, sample_answers
from models.systems.baselines.questions import questions
from models.systems.baselines.task import BaselineTask

from .config import FieldComparison, TrainingJob


@dataclass(frozen=True, slots=True)
class JobAnswers:
    """What one job, or one editor, came to: its answers by weighting, and its cost without that of the pool."""

    answers: Mapping[str, Sequence[str]]
    cost: TrainingCost
    answering: TrainingCost
    """Of writing the answers, all weightings together."""


def format_weights(weights: Mapping[str, float]) -> str:
    """A weighting as a word; the order of the objectives is no part of it."""
    return " ".join(f"{name}={weight:.3f}" for name, weight in sorted(weights.items()) if weight)


class AnswerWorkshop:
    """Where answers are made and kept."""

    def __init__(self, comparison: FieldComparison, out: Path) -> None:
        self.comparison = comparison
        self.out = out
        self.folder = out / "kept"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / ".gitignore").write_text("*\n")
        (out / ".gitignore").write_text("/kept/\n")

    @cached_property
    def questions(self) -> list[str]:
        """Those of the table."""
        return questions("test", self.comparison.test)

    def policy(self, other: bool = False) -> PolicyModel:
        """The untrained policy, loaded anew: a training changes it in place."""
        c = self.comparison
        base = c.other_base if other and c.other_base else c.base
        return PolicyModel.load(base, self.folder, c.precision, c.new_tokens)

    def base(self, other: bool = False) -> JobAnswers:
        """The untrained policy's answers."""

        def make() -> JobAnswers:
            policy = self.policy(other)
            meter = Meter()
            with meter.measure(policy.model):
                answers = policy.write([policy.prompt(question) for question in self.questions])
            return JobAnswers({"": answers}, TrainingCost(), meter.cost)

        return self._make_once("base-other" if other else "base", [], make, other)

    def pool(self, seed: int, other: bool = False) -> tuple[list[ScoredAnswer], TrainingCost]:
        """Answers to train on, and what it cost to write them."""
        c = self.comparison
        path = self.folder / f"pool-{seed}{'-other' if other else ''}-{self.fingerprint([c.each], other)}.json"
        if not path.exists():
            policy = self.policy(other)
            meter = Meter()
            with meter.measure(policy.model):
                answers = sample_answers(policy, questions("train", c.train, seed), c.each, seed, RULES)
            write_atomically(path, {"cost": asdict(meter.cost), "pool": [asdict(one) for one in answers]})
        document = json.loads(path.read_text())
        return [ScoredAnswer(**one) for one in document["pool"]], TrainingCost(**document["cost"])

    def is_done(self, job: TrainingJob) -> bool:
        """Whether a job is kept."""
        return self._path(job.name, self._settings(job), job.other_base).exists()

    def answer_job(self, job: TrainingJob) -> JobAnswers:
        """The answers of what a job trains; trained unless it is kept."""
        return self._make_once(job.name, self._settings(job), lambda: self._train(job), job.other_base)

    def _train(self, job: TrainingJob) -> JobAnswers:
        pool, _ = self.pool(job.seed, job.other_base)
        policy = self.policy(job.other_base)
        meter = Meter()
        folder = self.folder / "trained" / job.name
        task = BaselineTask(policy, pool, RULES, job.weights, self.comparison.training, job.seed, folder, meter)
        method = import_module(f"models.systems.baselines.{job.method}")
        with meter.measure(policy.model):
            ask = method.train(task)
        answering = Meter()
        answers = {}
        with answering.measure(_decoder_owner(policy.model)):
            for weights in job.weightings:
                prompts = [ask(question, weights) for question in self.questions]
                answers[format_weights(weights)] = policy.write(prompts)
        policy.model.save_pretrained(str(folder / "adapter"))
        return JobAnswers(answers, meter.cost, answering.cost)

    def find_edited(self, name: str, settings: Any) -> JobAnswers | None:
        """What an editor has made, None where it has not."""
        return self._read(self._path(name, settings)) if self._path(name, settings).exists() else None

    def make_edited(self, name: str, settings: Any, make: Callable[[], JobAnswers]) -> JobAnswers:
        """What an editor makes, unless it is kept."""
        return self._make_once(name, settings, make)

    def _settings(self, job: TrainingJob) -> list[Any]:
        return [
            self.comparison.training.model_dump(),
            self.comparison.each,
            [format_weights(one) for one in job.weightings],
        ]

    def fingerprint(self, settings: Any, other: bool = False) -> str:
        """A hash of all that decides answers: policy (and the `other` one, where it answers), questions, settings."""
        c = self.comparison
        parts = [c.base, c.other_base if other else None, c.precision, c.new_tokens, c.train, c.test, settings]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]

    def _path(self, name: str, settings: Any, other: bool = False) -> Path:
        slug = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in name)
        return self.folder / f"{slug}-{self.fingerprint(settings, other)}.json"

    def _make_once(self, name: str, settings: Any, make: Callable[[], JobAnswers], other: bool = False) -> JobAnswers:
        path = self._path(name, settings, other)
        if not path.exists():
            answers = make()
            write_atomically(path, {"name": name, "made_at": time.time(), **asdict(answers)})
        return self._read(path)

    def _read(self, path: Path) -> JobAnswers:
        document = json.loads(path.read_text())
        return JobAnswers(document["answers"], TrainingCost(**document["cost"]), TrainingCost(**document["answering"]))


def _decoder_owner(model: Any) -> Any:
    """The causal LM inside an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def write_atomically(path: Path, document: object) -> None:
    """Write a file that is either there or not."""
    draft = path.with_suffix(f".{os.getpid()}.part")
    draft.write_text(json.dumps(document), encoding="utf-8")
    draft.replace(path)
