"""A tiny policy, a pool of its answers, and tasks over them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from models.systems.baselines.cost import Meter
from models.systems.baselines.objectives import RULES
from models.systems.baselines.policy import PolicyModel
from models.systems.baselines.pool import ScoredAnswer, score_answer
from models.systems.baselines.task import BaselineTask, TrainingSettings
from tests.support import tiny

MakeTask = Callable[[Mapping[str, float]], BaselineTask]
ANSWERS = (
    "Thank you for asking. It boils water.",
    "It boils water, and a good one does so for many years if you keep it clean, dry and away from small children.",
    "It boils water.",
    "I am happy to help with that. It boils water in a short time, and it turns itself off when the water is hot.",
)

needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs the extra `trl`")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a folder."""
    return tiny.save(tmp_path_factory.mktemp("policy") / "base")


@pytest.fixture
def pool() -> list[ScoredAnswer]:
    """Four answers of ours to each of three questions."""
    things = ("kettle", "bicycle", "lamp")
    return [score_answer(f"What is a {thing} for?", answer, RULES) for thing in things for answer in ANSWERS]


@pytest.fixture
def make_task(tiny_base: Path, pool: list[ScoredAnswer], tmp_path: Path) -> MakeTask:
    """A task of these weights; its adapter is small, and its budget a few steps."""

    def make(weights: Mapping[str, float]) -> BaselineTask:
        policy = PolicyModel.load(str(tiny_base), tmp_path, "fp32", 8)
        training = TrainingSettings(tokens=1200, rank=2, batch=4, drafts=2, lr=1e-2, beta=0.5)
        return BaselineTask(policy, pool, RULES, weights, training, 1, tmp_path / "trained", Meter())

    return make
