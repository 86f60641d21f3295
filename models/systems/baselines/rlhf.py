"""RLHF: a policy that SFT has begun, and that then maximises one reward within reach of where it began.

    max_theta  E_(x, y ~ pi_theta) [ r(x, y) ] - beta KL(pi_theta || pi_SFT)

Ouyang et al. 2022 (arXiv 2203.02155), without the pretraining term. The estimator is not PPO but RLOO (Ahmadian et al.
2024, arXiv 2402.14740): of k answers to a question, each is held to the mean reward of the other k - 1,

    (1/k) sum_i [ R(x, y_i) - 1/(k-1) sum_(j != i) R(x, y_j) ] grad log pi_theta(y_i | x),

    R(x, y) = r(x, y) - beta log (pi_theta(y | x) / pi_SFT(y | x)),

which needs no critic. The reward is that of one objective: all weight on it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .objectives import weighted_score
from .sft import examples, imitate
from .task import Ask, BaselineTask, arguments, lora, prompt_without_weights, run


class SeveralRewards(ValueError):
    """RLHF takes one reward; MORLHF takes several."""


def train(task: BaselineTask) -> Ask:
    """SFT with its share of the budget, then RLOO with the rest."""
    if sum(weight > 0 for weight in task.weights.values()) != 1:
        raise SeveralRewards(f"weights: RLHF takes one objective, and there are {dict(task.weights)}; take MORLHF")
    return train_online(task)


def train_online(task: BaselineTask) -> Ask:
    """Both stages, with the weighted reward whatever it is."""
    imitate(task, examples(task), "sft", task.training.first)
    task.policy.merge_adapter()
    reinforce(task)
    return prompt_without_weights(task.policy)


def reinforce(task: BaselineTask) -> None:
    """RLOO from the policy as it is, which is also the reference."""
    _hide_our_vllm()
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    training = task.training
    questions = task.questions
    data = Dataset.from_list(
        [{"prompt": task.policy.prompt(question_text), "question": question_text} for question_text in questions]
    )
    trainer_arguments = arguments(task, "online") | {"learning_rate": training.lr_online}
    settings = RLOOConfig(
        **trainer_arguments,
        beta=training.beta_online,
        num_generations=training.drafts,
        max_completion_length=task.policy.new_tokens,
        temperature=1.0,
    )
    score = weighted_score(task.objectives, task.weights)

    def reward(completions: list[str], question: list[str], **more: Any) -> list[float]:
        return [
            score(question_text, answer.strip()) for question_text, answer in zip(question, completions, strict=True)
        ]

    trainer = RLOOTrainer(
        model=task.policy.model,
        reward_funcs=reward,
        args=settings,
        train_dataset=data,
        processing_class=task.policy.tokenizer,
        peft_config=lora(training),
    )
    run(trainer, task, "online")


def _hide_our_vllm() -> None:
    """Hide the folder plugins/vllm, which is on the path, from TRL: it takes the folder for the package vllm."""
    spec = find_spec("vllm")
    if spec is not None and spec.origin is None:
        vars(import_module("trl.import_utils"))["is_vllm_available"] = lambda min_version=None: False
