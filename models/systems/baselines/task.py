"""What a method is given to train on, the settings that all of them share, and the budget at which a training ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig
from pydantic import BaseModel, ConfigDict, Field
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from .cost import Meter, TrainingCost
from .objectives import ScoredObjective
from .policy import PolicyModel
from .pool import ScoredAnswer

_METER = "meter.json"
_WITHOUT_END = 10_000_000
"""Steps: it is the budget that ends a training."""


class TrainingSettings(BaseModel):
    """Settings of every training, and of single methods."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int = Field(ge=1)
    """Through the policy in one training, padding included: the same for every method."""
    rank: int = Field(default=8, ge=1)
    batch: int = Field(default=8, ge=1)
    """Sequences in a step: of RLHF and MORLHF a multiple of `drafts`, of MODPO two a comparison."""
    lr: float = Field(default=5e-4, gt=0)
    lr_online: float = Field(default=5e-4, gt=0)
    beta: float = Field(default=0.1, gt=0)
    """Weight of the divergence from the reference, of MODPO."""
    beta_online: float = Field(default=0.02, ge=0)
    """The same of RLHF and MORLHF."""
    drafts: int = Field(default=4, ge=2)
    """Answers a question in a step of RLHF and MORLHF."""
    first: float = Field(default=0.4, gt=0, lt=1)
    """Share of the budget for the stage of SFT that RLHF, MORLHF and RiC begin with."""
    save_steps: int = Field(default=0, ge=0)
    """Steps between checkpoints within a stage; 0: none, a stage that was stopped begins anew."""


class NoStep(ValueError):
    """A training whose budget was spent before its first step."""


@dataclass
class BaselineTask:
    """One training: what it starts from, what it learns, and where its files go. The policy is changed in place."""

    policy: PolicyModel
    pool: Sequence[ScoredAnswer]
    objectives: Mapping[str, ScoredObjective]
    weights: Mapping[str, float]
    training: TrainingSettings
    seed: int
    folder: Path
    meter: Meter

    @property
    def questions(self) -> list[str]:
        """The questions that the pool answers."""
        return list(dict.fromkeys(answer.question for answer in self.pool))


Ask = Callable[[str, Mapping[str, float]], str]
"""The prompt of a trained policy for (question, weights)."""


def prompt_without_weights(policy: PolicyModel) -> Ask:
    """A prompt without weights: most methods have trained the weights into the policy."""
    return lambda question, _: policy.prompt(question)


def lora(training: TrainingSettings) -> LoraConfig:
    """The adapter that every method trains."""
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return LoraConfig(r=training.rank, lora_alpha=2 * training.rank, target_modules=layers, task_type="CAUSAL_LM")


def arguments(task: BaselineTask, stage: str) -> dict[str, Any]:
    """The arguments that every trainer of TRL gets."""
    training = task.training
    return {
        "output_dir": str(task.folder / stage),
        "per_device_train_batch_size": training.batch,
        "max_steps": _WITHOUT_END,
        "learning_rate": training.lr,
        "lr_scheduler_type": "constant",
        "seed": task.seed,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "steps" if training.save_steps else "no",
        "save_steps": training.save_steps or _WITHOUT_END,
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }


def run(trainer: Any, task: BaselineTask, stage: str, share: float = 1.0) -> None:
    """Train until the share `share` of the budget is spent; the policy then is the trained one, with its adapter.

    A stage that was stopped goes on from its last checkpoint, and its earlier cost counts.
    """
    folder = task.folder / stage
    last = get_last_checkpoint(str(folder)) if folder.exists() else None
    if last:
        task.meter.cost = TrainingCost(**json.loads((Path(last) / _METER).read_text()))
    trainer.remove_callback(_printer())
    trainer.add_callback(_TokenBudget(task.meter, round(share * task.training.tokens)))
    trainer.train(resume_from_checkpoint=last)
    if not trainer.state.global_step:
        raise NoStep(f"{stage}: a step of batch {task.training.batch} needs more questions than the pool has")
    task.policy.model = trainer.model
    log = [row for row in trainer.state.log_history if "loss" in row]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))


def _printer() -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


class _TokenBudget(TrainerCallback):  # type: ignore[misc]
    """Ends a training once it has fed so many tokens, and keeps their count in every checkpoint."""

    def __init__(self, meter: Meter, tokens: int) -> None:
        self._meter = meter
        self._tokens = tokens

    def on_step_end(self, arguments: Any, state: Any, control: Any, **more: Any) -> None:
        control.should_training_stop = self._meter.fed_so_far >= self._tokens

    def on_save(self, arguments: Any, state: Any, control: Any, **more: Any) -> None:
        folder = Path(arguments.output_dir) / f"checkpoint-{state.global_step}"
        (folder / _METER).write_text(json.dumps(self._meter.document()))
