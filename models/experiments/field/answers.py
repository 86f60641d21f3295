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
from models.systems.baselines.questions import draw_questions
from models.systems.baselines.task import BaselineTask

from .config import FieldComparison, TrainingJob


@dataclass(frozen=True, slots=True)
class JobAnswers:
    """The answers that one training or one editor gave, by weighting."""

    answers: Mapping[str, Sequence[str]]
    """By `format_weights`; under the empty key where there is one weighting only."""
    cost: TrainingCost
    """Of the training, without the answers that it learned from."""
    answering: TrainingCost
    """Of writing the answers, all weightings together."""


def format_weights(weights: Mapping[str, float]) -> str:
    """A weighting as a key, whatever the order of its objectives: `fair=0.500 helpful=0.500`."""
    return " ".join(f"{name}={weight:.3f}" for name, weight in sorted(weights.items()) if weight)


class AnswerWorkshop:
    """Makes answers, and keeps them in `out`/kept: what is there is never made again."""

    def __init__(self, comparison: FieldComparison, out: Path) -> None:
        self.comparison = comparison
        self.out = out
        self.folder = out / "kept"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / ".gitignore").write_text("*\n")
        (out / ".gitignore").write_text("/kept/\n")

    @cached_property
    def questions(self) -> list[str]:
        """The questions of the table."""
        return draw_questions("test", self.comparison.test)

    def policy(self, *, other: bool = False) -> PolicyModel:
        """Load the untrained policy, or the `other` one. A training changes it in place."""
        comparison = self.comparison
        base = comparison.other_base if other and comparison.other_base else comparison.base
        return PolicyModel.load(base, self.folder, comparison.precision, comparison.new_tokens)

    def base(self, *, other: bool = False) -> JobAnswers:
        """The untrained policy's answers to the questions of the table."""

        def make() -> JobAnswers:
            policy = self.policy(other=other)
            meter = Meter()
            with meter.measure(policy.model):
                answers = policy.write([policy.prompt(question) for question in self.questions])
            return JobAnswers({"": answers}, TrainingCost(), meter.cost)

        return self._make_once("base-other" if other else "base", [], make, other=other)

    def pool(self, seed: int, *, other: bool = False) -> tuple[list[ScoredAnswer], TrainingCost]:
        """(answers to train on, what it cost to write them), read from the folder, or sampled and stored there."""
        comparison = self.comparison
        path = (
            self.folder
            / f"pool-{seed}{'-other' if other else ''}-{self.fingerprint([comparison.each], other=other)}.json"
        )
        if not path.exists():
            policy = self.policy(other=other)
            meter = Meter()
            with meter.measure(policy.model):
                answers = sample_answers(
                    policy, draw_questions("train", comparison.train, seed), comparison.each, seed, RULES
                )
            write_atomically(path, {"cost": asdict(meter.cost), "pool": [asdict(answer) for answer in answers]})
        document = json.loads(path.read_text())
        return [ScoredAnswer(**answer) for answer in document["pool"]], TrainingCost(**document["cost"])

    def is_done(self, job: TrainingJob) -> bool:
        """Whether the answers of a job are kept."""
        return self._path(job.name, self._list_settings(job), other=job.other_base).exists()

    def answer_job(self, job: TrainingJob) -> JobAnswers:
        """The answers of a job, kept or made now by training."""
        return self._make_once(job.name, self._list_settings(job), lambda: self._train(job), other=job.other_base)

    def _train(self, job: TrainingJob) -> JobAnswers:
        """Train the policy, and let it answer under each weighting of the job."""
        pool, _ = self.pool(job.seed, other=job.other_base)
        policy = self.policy(other=job.other_base)
        meter = Meter()
        folder = self.folder / "trained" / job.name
        task = BaselineTask(
            policy,
            pool,
            RULES,
            weights=job.weights,
            training=self.comparison.training,
            seed=job.seed,
            folder=folder,
            meter=meter,
        )
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
        """An editor's kept answers; None where there are none."""
        return self._read(self._path(name, settings)) if self._path(name, settings).exists() else None

    def make_edited(self, name: str, settings: Any, make: Callable[[], JobAnswers]) -> JobAnswers:
        """An editor's answers, kept or made now by `make`."""
        return self._make_once(name, settings, make)

    def _list_settings(self, job: TrainingJob) -> list[Any]:
        """The settings that the answers of a job depend on, besides the policy and the questions."""
        return [
            self.comparison.training.model_dump(),
            self.comparison.each,
            [format_weights(weights) for weights in job.weightings],
        ]

    def fingerprint(self, settings: Any, *, other: bool = False) -> str:
        """A hash of all that decides answers: the policy, the questions and `settings`."""
        comparison = self.comparison
        parts = [
            comparison.base,
            comparison.other_base if other else None,
            comparison.precision,
            comparison.new_tokens,
            comparison.train,
            comparison.test,
            settings,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]

    def _path(self, name: str, settings: Any, *, other: bool = False) -> Path:
        slug = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in name)
        return self.folder / f"{slug}-{self.fingerprint(settings, other=other)}.json"

    def _make_once(
        self, name: str, settings: Any, make: Callable[[], JobAnswers], *, other: bool = False
    ) -> JobAnswers:
        """The kept answers under a name and settings, made first where there are none."""
        path = self._path(name, settings, other=other)
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
    """Write a file so that a crash leaves the old one, never half a file."""
    draft = path.with_suffix(f".{os.getpid()}.part")
    draft.write_text(json.dumps(document), encoding="utf-8")
    draft.replace(path)
