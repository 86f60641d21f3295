"""RiC: the prompt's form, what is asked for under weights, and which answers are kept, by hand."""

from __future__ import annotations

import pytest

from models.systems.baselines import ric
from models.systems.baselines.pool import ScoredAnswer

from .conftest import MakeTask, needs_trl

POOL = [ScoredAnswer(f"{i}?", "a", {"concise": i / 10, "courteous": float(i == 3)}) for i in range(11)]


def test_the_form_of_the_prompt() -> None:
    assert ric.question_with_rewards("What is a kettle for?", {"concise": 0.849, "courteous": 1}) == (
        "What is a kettle for? <concise> 0.8 <courteous> 1.0"
    )


@pytest.mark.parametrize(
    ("weights", "asked"),
    [
        ((1.0, 0.0), (0.9, 0.0)),
        ((0.5, 0.5), (0.9, 1.0)),
        ((0.25, 0.75), (0.5, 1.0)),
        ((0.0, 1.0), (0.1, 1.0)),
    ],
)
def test_preferences_become_rewards_within_the_bounds(weights: tuple[float, float], asked: tuple[float, float]) -> None:
    named = dict(zip(("concise", "courteous"), weights, strict=True))
    ranges = {"concise": (0.1, 0.9), "courteous": (0.0, 1.0)}
    assert tuple(ric.desired_rewards(named, ranges).values()) == pytest.approx(asked)


def test_the_bounds_are_those_of_the_pool() -> None:
    assert ric.find_bounds(POOL, ("concise", "courteous")) == {"concise": (0.0, 1.0), "courteous": (0.0, 1.0)}


def test_kept_are_answers_high_in_something() -> None:
    # The bar of `concise` is 0.7. That of `courteous` is 0, where nothing would be left out: it keeps none by itself.
    assert [one.question for one in ric.best_answers(POOL, ("concise", "courteous"))] == [
        "7?",
        "8?",
        "9?",
        "10?",
    ]


def test_goals_leave_one_reward_free_and_the_others_high() -> None:
    made = ric.draw_goals(40, {"concise": (0.1, 0.9), "courteous": (0.0, 1.0)}, seed=1)
    assert all(goal["courteous"] == 1.0 and 0.1 <= goal["concise"] <= 0.9 for goal in made[::2])
    assert all(goal["concise"] == 0.9 and 0.0 <= goal["courteous"] <= 1.0 for goal in made[1::2])
    assert len({goal["concise"] for goal in made[::2]}) > 10


@needs_trl
@pytest.mark.filterwarnings("ignore")
def test_one_training_is_asked_for_any_weights(make_task: MakeTask) -> None:
    task = make_task({"concise": 0.5, "courteous": 0.5})
    with task.meter.measure(task.policy.model):
        ask = ric.train(task)
    assert (task.folder / "offline" / "log.jsonl").exists()
    assert (task.folder / "online" / "log.jsonl").exists()
    assert "<concise> 1.0 <courteous> 0.0" in ask("Why?", {"concise": 1.0, "courteous": 0.0})
    assert "<courteous> 1.0" in ask("Why?", {"concise": 0.0, "courteous": 1.0})
    assert task.meter.cost.generated > 0
