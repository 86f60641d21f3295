"""MODPO: DPO whose margin is what the other objectives' rewards say of the two answers.

    L(theta) = - E log sigma( (1/w_k) ( beta log (pi_theta(y+)/pi_ref(y+)) - beta log (pi_theta(y-)/pi_ref(y-))
                                        - w_-k^T (r_-k(y+) - r_-k(y-)) ) ),    y+ preferred to y- by objective k

The loss of Zhou et al. 2023 (arXiv 2310.03708) for an objective k and the reward models r_-k of the others. TRL's
DPOTrainer has no margin, and needs none: it is the loss of DPO with beta / w_k against the reference tilted by the
other rewards,

    log pi_ref(y) + (1/beta) w_-k^T r_-k(y),

so the precomputed log-probabilities of the reference are moved, and the trainer stays as it is. That this is the loss
above is checked, and its gradient against finite differences, in tests/models/systems/baselines/test_modpo.py. Rewards
are multiplied by `REWARD_SCALE`: in [0, 1] they would be small beside a log-ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Any

from .pool import ScoredAnswer, group_by_question
from .task import Ask, BaselineTask, arguments, lora, prompt_without_weights, run

REWARD_SCALE = 4.0


class NothingToPrefer(ValueError):
    """The pool has no two answers to a question that differ by the objective of the preferences."""


@dataclass(frozen=True, slots=True)
class RewardedComparison:
    """Two answers to a question, the first preferred by objective k.

    The rewards are weighted sums over all other objectives.
    """

    question: str
    better: str
    worse: str
    better_reward: float
    worse_reward: float


def heaviest_objective(weights: Mapping[str, float]) -> str:
    """Objective k, whose preferences are learned: the one with the largest weight, so that 1/w_k stays small."""
    return max(weights, key=lambda name: weights[name])


def list_comparisons(pool: Sequence[ScoredAnswer], weights: Mapping[str, float]) -> list[RewardedComparison]:
    """Every two answers to a question between which objective k prefers one; raises `NothingToPrefer`."""
    heaviest = heaviest_objective(weights)
    others = {name: REWARD_SCALE * weight for name, weight in weights.items() if name != heaviest}
    pairs = []
    for group in group_by_question(pool):
        for first, second in combinations(group, 2):
            if first.rewards[heaviest] == second.rewards[heaviest] or first.answer == second.answer:
                continue
            better, worse = (first, second) if first.rewards[heaviest] > second.rewards[heaviest] else (second, first)
            pairs.append(
                RewardedComparison(
                    first.question, better.answer, worse.answer, better.total(others), worse.total(others)
                )
            )
    if not pairs:
        raise NothingToPrefer(f"objective {heaviest!r} prefers none of the pool's answers to another; sample more")
    return pairs


def draw_affordable(pairs: Sequence[RewardedComparison], task: BaselineTask) -> list[RewardedComparison]:
    """Draw comparisons by the task's seed until the budget is spent.

    Each costs its tokens twice: the reference reads all of them before the first step, and the policy learns from them
    once.
    """
    tokens = task.training.tokens
    affordable = []
    for comparison in Random(task.seed).sample(list(pairs), len(pairs)):
        prompt = task.policy.prompt(comparison.question)
        pair = task.policy.tokenizer([prompt + comparison.better, prompt + comparison.worse])["input_ids"]
        tokens -= 2 * sum(map(len, pair))
        if tokens < 0 and len(affordable) >= task.training.batch:
            break
        affordable.append(comparison)
    return affordable


def make_trainer(task: BaselineTask) -> Any:
    """TRL's DPO trainer, made to compute MODPO's loss, which this module's docstring explains."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    beta = task.training.beta
    weight = task.weights[heaviest_objective(task.weights)]
    rows = [
        {
            "prompt": task.policy.prompt(comparison.question),
            "chosen": comparison.better,
            "rejected": comparison.worse,
            "tilt": (comparison.better_reward / beta, comparison.worse_reward / beta),
        }
        for comparison in draw_affordable(list_comparisons(task.pool, task.weights), task)
    ]
    batch = max(1, task.training.batch // 2)
    settings = DPOConfig(
        **arguments(task, "modpo") | {"per_device_train_batch_size": batch},
        beta=beta / weight,
        max_length=None,
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=2 * batch,
    )
    dpo_trainer = DPOTrainer(
        model=task.policy.model,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=task.policy.tokenizer,
        peft_config=lora(task.training),
    )
    dpo_trainer.train_dataset = dpo_trainer.train_dataset.map(_tilt_reference)
    return dpo_trainer


def _tilt_reference(row: Mapping[str, Any]) -> dict[str, float]:
    """Shift the reference's log-probabilities by the other objectives' rewards."""
    better_tilt, worse_tilt = row["tilt"]
    return {
        "ref_chosen_logps": row["ref_chosen_logps"] + better_tilt,
        "ref_rejected_logps": row["ref_rejected_logps"] + worse_tilt,
    }


def train(task: BaselineTask) -> Ask:
    """Train the policy within the whole budget. What the reference reads counts, too."""
    run(make_trainer(task), task, "modpo")
    return prompt_without_weights(task.policy)
