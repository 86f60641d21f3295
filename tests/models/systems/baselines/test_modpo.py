"""MODPO's loss: that of the paper, written out here once more, and its gradient by finite differences."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
import torch

from models.systems.baselines import modpo
from models.systems.baselines.modpo import (
    REWARD_SCALE,
    NothingToPrefer,
    RewardedComparison,
    draw_affordable,
    heaviest_objective,
    list_comparisons,
)
from models.systems.baselines.objectives import RULES
from models.systems.baselines.pool import ScoredAnswer, score_answer

from .conftest import MakeTask, needs_trl

WEIGHTS = {"concise": 0.4, "courteous": 0.6}


def test_comparisons_of_a_hand_worked_pool() -> None:
    pool = [
        ScoredAnswer("Q?", "a", {"concise": 0.5, "courteous": 1.0}),
        ScoredAnswer("Q?", "b", {"concise": 1.0, "courteous": 0.0}),
        ScoredAnswer("Q?", "c", {"concise": 0.0, "courteous": 1.0}),
        ScoredAnswer("Other?", "d", {"concise": 0.0, "courteous": 0.0}),
    ]
    assert heaviest_objective(WEIGHTS) == "courteous"
    scale = REWARD_SCALE * 0.4
    assert list_comparisons(pool, WEIGHTS) == [
        RewardedComparison("Q?", "a", "b", pytest.approx(0.5 * scale), pytest.approx(1.0 * scale)),
        RewardedComparison("Q?", "c", "b", pytest.approx(0.0), pytest.approx(1.0 * scale)),
    ]


def test_a_pool_in_which_nothing_is_preferred() -> None:
    same = [score_answer("Q?", "It boils water for tea.", RULES), score_answer("Q?", "It heats water for tea.", RULES)]
    with pytest.raises(NothingToPrefer, match="courteous"):
        list_comparisons(same, WEIGHTS)


def test_so_many_comparisons_as_the_budget_holds_for_two_readings(make_task: MakeTask) -> None:
    task = make_task(WEIGHTS)
    found = list_comparisons(task.pool, WEIGHTS)

    def read_twice(some: list[RewardedComparison]) -> int:
        told = [task.policy.prompt(one.question) + text for one in some for text in (one.better, one.worse)]
        return 2 * sum(len(ids) for ids in task.policy.tokenizer(told)["input_ids"])

    whole = replace(task, training=task.training.model_copy(update={"tokens": read_twice(found), "batch": 2}))
    assert sorted(draw_affordable(found, whole), key=found.index) == found
    half = replace(task, training=task.training.model_copy(update={"tokens": read_twice(found) // 2, "batch": 2}))
    some = draw_affordable(found, half)
    assert 2 <= len(some) < len(found)
    assert read_twice(some) <= half.training.tokens
    assert some == draw_affordable(found, half)
    none = replace(task, training=task.training.model_copy(update={"tokens": 1, "batch": 2}))
    assert len(draw_affordable(found, none)) == 2


def by_hand(model: Any, tokenizer: Any, found: RewardedComparison, prompt: str, beta: float) -> torch.Tensor:
    """The loss of one comparison, from log-probabilities summed token by token; nothing of TRL is in it."""

    def log_probability(answer: str) -> torch.Tensor:
        asked = tokenizer(prompt)["input_ids"]
        whole = tokenizer(prompt + answer + tokenizer.eos_token)["input_ids"]
        assert whole[: len(asked)] == asked
        logits = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        return torch.stack([logits[i - 1, whole[i]] for i in range(len(asked), len(whole))]).sum()

    with torch.no_grad(), model.disable_adapter():
        reference = [log_probability(found.better), log_probability(found.worse)]
    chosen = beta * (log_probability(found.better) - reference[0])
    rejected = beta * (log_probability(found.worse) - reference[1])
    margin = found.better_reward - found.worse_reward
    return -torch.nn.functional.logsigmoid((chosen - rejected - margin) / WEIGHTS["courteous"])


@pytest.mark.full
@needs_trl
@pytest.mark.filterwarnings("ignore")
def test_the_trainers_loss_is_the_papers_and_so_is_its_gradient(make_task: MakeTask) -> None:
    task = make_task(WEIGHTS)
    trainer = modpo.make_trainer(task)
    model = trainer.model
    torch.manual_seed(3)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    with torch.no_grad():  # away from the start, where the adapter adds nothing and half of its gradients are zero
        for _, parameter in trained:
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.eval()
    rows = [trainer.train_dataset[i] for i in range(4)]
    batch = trainer.data_collator(rows)
    loss = trainer.compute_loss(model, dict(batch))

    found = draw_affordable(list_comparisons(task.pool, WEIGHTS), task)[:4]
    prompts = [task.policy.prompt(one.question) for one in found]
    ours = [
        by_hand(model, task.policy.tokenizer, one, prompt, task.training.beta)
        for one, prompt in zip(found, prompts, strict=True)
    ]
    assert loss.item() == pytest.approx(torch.stack(ours).mean().item(), rel=1e-4)
    assert max(abs(one.better_reward - one.worse_reward) for one in found) > 0.1  # the margin has a say

    loss.backward()
    for name, parameter in trained[:: max(1, len(trained) // 4)]:
        direction = torch.randn_like(parameter)
        expected = (parameter.grad * direction).sum().item()
        step = 2e-3
        with torch.no_grad():
            parameter.add_(step * direction)
            above = trainer.compute_loss(model, dict(batch)).item()
            parameter.sub_(2 * step * direction)
            below = trainer.compute_loss(model, dict(batch)).item()
            parameter.add_(step * direction)
        assert (above - below) / (2 * step) == pytest.approx(expected, rel=0.03, abs=2e-3), name


@needs_trl
@pytest.mark.filterwarnings("ignore")
def test_training_lowers_the_loss(make_task: MakeTask) -> None:
    task = make_task(WEIGHTS)
    task.training = task.training.model_copy(update={"tokens": 8000})
    with task.meter.measure(task.policy.model):
        modpo.train(task)
    log = [json.loads(line) for line in (task.folder / "modpo" / "log.jsonl").read_text().splitlines()]
    assert len(log) > 8
    assert fmean(row["loss"] for row in log[-3:]) < fmean(row["loss"] for row in log[:3])
    assert task.training.tokens <= task.meter.fed_so_far < 1.2 * task.training.tokens
