"""A reward model trained on answers that people compared, as an objective beside those of the rules.

    L(theta) = - E log sigma( r_theta(x, y+) - r_theta(x, y-) )

Ouyang et al. 2022 (arXiv 2203.02155): the loss of Bradley and Terry over pairs, here with one pair a question. The
policy's own weights with a scalar head and an adapter; TRL's RewardTrainer. Its accuracy on pairs of other questions
stands beside whatever was trained by it: a policy can be no better than what rewards it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification

from models.data.preference_sets import RankedResponses, load_judged
from models.reporting.statistics import Rate
from models.train.base_model import prepare_source

from .policy import PolicyModel
from .task import BaselineTask, arguments, run

NAME = "preferred"
"""The objective that such a model is the reward of."""
SET = "hh_rlhf_harmless_pairs"
LONGEST = 600
"""Characters of question and answer together; longer pairs are left out."""


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """Two answers to a question; people preferred the first."""

    question: str
    better: str
    worse: str


def draw_pairs(data: Path, seed: int) -> list[ComparedPair]:
    """The research data's pairs about harmlessness, shuffled by the seed."""
    ranked = [item for item in load_judged(data, SET, {"harmless": NAME}) if len(item.responses) == 2]
    pairs = [_make_pair(item) for item in ranked]
    short = [pair for pair in pairs if len(pair.question) + max(len(pair.better), len(pair.worse)) <= LONGEST]
    Random(f"preferred:{seed}").shuffle(short)
    return short


def _make_pair(item: RankedResponses) -> ComparedPair:
    worse, better = sorted(item.responses, key=lambda response: next(iter(response.scores.values())))
    return ComparedPair(item.query, better.text, worse.text)


class RewardModel:
    """A model that scores answers. `policy` writes the prompt around a question."""

    def __init__(self, model: Any, policy: PolicyModel) -> None:
        self._model = model.eval()
        self._policy = policy

    @torch.no_grad()
    def score(self, question: str, answer: str) -> float:
        """The reward in [0, 1]: the logistic function of the model's output."""
        tokenizer = self._policy.tokenizer
        text = self._policy.prompt(question) + answer + tokenizer.eos_token
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        return float(torch.sigmoid(self._model(**inputs).logits[0, 0].float()))

    def accuracy(self, pairs: Sequence[ComparedPair]) -> Rate:
        """How often the preferred answer scores above the other."""
        return Rate.from_outcomes(
            self.score(pair.question, pair.better) > self.score(pair.question, pair.worse) for pair in pairs
        )


def train(task: BaselineTask, base: str, pairs: Sequence[ComparedPair]) -> RewardModel:
    """Train a reward model within the task's budget. The task's policy only lends its tokenizer and prompts."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    tokenizer = task.policy.tokenizer
    torch.manual_seed(task.seed)  # the score's weights are new, and must not depend on what was drawn before
    model = AutoModelForSequenceClassification.from_pretrained(
        prepare_source(base, task.folder.parent), num_labels=1, dtype=task.policy.model.dtype
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    rows = [
        {"prompt": task.policy.prompt(pair.question), "chosen": pair.better, "rejected": pair.worse} for pair in pairs
    ]
    batch = max(1, task.training.batch // 2)
    adapter = LoraConfig(
        r=task.training.rank,
        lora_alpha=2 * task.training.rank,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        modules_to_save=["score"],
        task_type="SEQ_CLS",
    )
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(**arguments(task, "reward") | {"per_device_train_batch_size": batch}, max_length=None),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    policy = task.policy.model
    with task.meter.measure(model):
        run(trainer, task, "reward")
    task.policy.model = policy
    return RewardModel(trainer.model, task.policy)
