"""RLHF and MORLHF: which reward is maximised, from where, and that a reward moves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from models.systems.baselines import morlhf, rlhf, sft
from models.systems.baselines.objectives import ScoredObjective
from models.systems.baselines.task import BaselineTask

from .conftest import ANSWERS, MakeTask, needs_trl


def test_rlhf_has_one_reward(make_task: MakeTask) -> None:
    with pytest.raises(rlhf.SeveralRewards, match="MORLHF"):
        rlhf.train(make_task({"concise": 0.5, "courteous": 0.5}))


def test_sft_imitates_the_best_answer_of_each_question(make_task: MakeTask) -> None:
    def best(weights: Mapping[str, float]) -> set[str]:
        return {answer for _, answer in sft.examples(make_task(weights))}

    assert best({"concise": 0.5, "courteous": 0.5}) == {ANSWERS[0]}
    assert best({"finished": 1.0, "unhedged": 0.0, "courteous": 0.0}) == {ANSWERS[0]}  # a tie: the first one
    assert len(sft.examples(make_task({"concise": 1.0}))) == 3


def log(task: BaselineTask, stage: str) -> list[dict[str, float]]:
    lines = (Path(task.folder) / stage / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.full
@needs_trl
@pytest.mark.filterwarnings("ignore")
def test_a_reward_that_can_be_had_is_had(make_task: MakeTask) -> None:
    """The rate of one letter grows under RLOO: the tiny model writes noise, in which this is easily learned."""
    task = make_task({"letters": 1.0})
    letters = ScoredObjective("letters", "", lambda _, answer: answer.count("e") / max(1, len(answer)))
    task.objectives = {"letters": letters}
    task.pool = [replace(one, rewards={"letters": letters.score("", one.answer)}) for one in task.pool]
    task.training = task.training.model_copy(
        update={"tokens": 30_000, "first": 0.05, "batch": 32, "drafts": 16, "lr_online": 3e-2, "beta_online": 0.0}
    )
    with task.meter.measure(task.policy.model):
        morlhf.train(task)
    rewards = [row["reward"] for row in log(task, "online")]
    assert len(rewards) > 8
    assert fmean(rewards[-3:]) > fmean(rewards[:3]) + 0.03
    assert task.meter.cost.generated > 0


@needs_trl
@pytest.mark.filterwarnings("ignore")
def test_both_stages_share_the_budget(make_task: MakeTask) -> None:
    task = make_task({"courteous": 1.0, "concise": 0.0})
    with task.meter.measure(task.policy.model):
        ask = rlhf.train(task)
    assert ask("Why?", {}) == task.policy.prompt("Why?")
    assert log(task, "sft")
    assert log(task, "online")
    assert task.training.tokens <= task.meter.cost.fed < 2 * task.training.tokens
