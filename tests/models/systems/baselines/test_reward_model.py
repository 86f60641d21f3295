"""A reward model over pairs: which pairs, and that it learns what was preferred."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.systems.baselines import reward_model
from models.systems.baselines.reward_model import LONGEST, ComparedPair

from .conftest import MakeTask, needs_trl


def test_pairs_of_the_research_data_have_the_better_answer_first(data_dir: Path) -> None:
    pairs = reward_model.draw_pairs(data_dir, seed=1)
    assert pairs
    assert all(len(one.question) + len(one.better) <= LONGEST for one in pairs)
    assert all(one.better != one.worse for one in pairs)
    assert pairs == reward_model.draw_pairs(data_dir, seed=1)


@pytest.mark.full
@needs_trl
@pytest.mark.filterwarnings("ignore")
def test_it_learns_what_was_preferred(make_task: MakeTask, tiny_base: Path) -> None:
    nice = ("Bring a coat.", "Boil the water.", "The harbour opens at six.")
    rude = ("You are a fool.", "You are a fool if you take it.", "You fool.")
    pairs = [ComparedPair(f"Question {i}?", nice[i % 3], rude[i % 3]) for i in range(12)]
    task = make_task({"concise": 1.0})
    task.training = task.training.model_copy(update={"tokens": 12_000, "lr": 5e-3, "batch": 8})
    policy = task.policy.model
    made = reward_model.train(task, str(tiny_base), pairs)
    held_out = [ComparedPair(f"Another {i}?", nice[i % 3], rude[(i + 1) % 3]) for i in range(9)]
    assert made.accuracy(held_out).percent >= 75
    assert 0 < made.score("Why?", nice[0]) < 1
    assert task.policy.model is policy
    assert task.meter.cost.trained > 0
