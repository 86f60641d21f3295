"""SFT: the policy imitates, for every question, the answer of the pool that is best by the weighted reward.

    L(theta) = - E_(x, y*) sum_t log pi_theta(y*_t | x, y*_<t),   y* = argmax_y w^T r(x, y)

The first step of Ouyang et al. 2022 (arXiv 2203.02155); choosing the best of several answers by a reward is rejection
sampling as in Touvron et al. 2023 (arXiv 2307.09288). In MetaAligner's Table 3 SFT imitates the data's golden answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from .pool import group_by_question
from .task import Ask, BaselineTask, arguments, lora, prompt_without_weights, run


def examples(task: BaselineTask) -> list[tuple[str, str]]:
    """(prompt, answer) for the best answer to each question."""
    best = [max(group, key=lambda answer: answer.total(task.weights)) for group in group_by_question(task.pool)]
    return [(task.policy.prompt(answer.question), answer.answer) for answer in best]


def imitate(task: BaselineTask, rows: Sequence[tuple[str, str]], stage: str, share: float) -> None:
    """Train on the answers of (prompt, answer) pairs; the prompts are not learned."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list([{"prompt": prompt, "completion": answer} for prompt, answer in rows])
    settings = SFTConfig(**arguments(task, stage), max_length=None)
    trainer = SFTTrainer(
        model=task.policy.model,
        args=settings,
        train_dataset=data,
        processing_class=task.policy.tokenizer,
        peft_config=lora(task.training),
    )
    run(trainer, task, stage, share)


def train(task: BaselineTask) -> Ask:
    """SFT with the whole budget."""
    imitate(task, examples(task), "sft", 1.0)
    return prompt_without_weights(task.policy)
