"""How many processes train together, and what does each of them do? One, unless `accelerate launch` started more.

    accelerate launch --config_file configs/accelerate/fsdp_7b.yaml -m models.train configs/train/warmup.yaml

The batches of a step are dealt out and the gradients added up, so a step is the same step whoever computes it. Whether
weights are copied (DDP) or sharded (FSDP, DeepSpeed) is the launcher's business; one process alone is left as it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor, nn

from models.stage import StageError

T = TypeVar("T")
SHARDS = "checkpoint"  # a folder, where one process alone writes a file
_STEP = "step"
_LAUNCHED = "ACCELERATE_MIXED_PRECISION"  # every launcher of accelerate sets it


class Processes:
    """The processes of a run; `batches` is how many of them a step accumulates, over all processes."""

    def __init__(self, batches: int = 1) -> None:
        self._accelerator = _accelerator()
        self.count = self._accelerator.num_processes
        if batches % self.count:
            raise StageError(
                f"accumulate: {batches} batches a step cannot be dealt out to {self.count} processes; "
                f"make it a multiple of {self.count}"
            )
        # Launchers divide a loss by the processes and by the batches of each; the losses here are sums, so multiply.
        self._scale = batches if self.count > 1 else 1
        self._accelerator.gradient_accumulation_steps = batches // self.count if self.count > 1 else 1

    @property
    def many(self) -> bool:
        """Whether there is more than one."""
        return self.count > 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and talks."""
        return bool(self._accelerator.is_main_process)

    def in_turn(self, make: Callable[[], T]) -> T:
        """What `make` gives, the first process before the others: it may write what they read."""
        with self._accelerator.main_process_first():
            return make()

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Both as this run needs them: on the device, copied or sharded."""
        if not self.many:
            return tuple(self._accelerator.prepare(network, optimizer))
        # accelerate shards what is in the state dict as if all of it were parameters: keep buffers out meanwhile.
        buffers = [(module, name) for module in network.modules() for name in _kept_buffers(module)]
        for module, name in buffers:
            module.register_buffer(name, module.get_buffer(name), persistent=False)
        prepared = self._accelerator.prepare(network, optimizer)
        for module, name in buffers:
            module.register_buffer(name, module.get_buffer(name), persistent=True)
        return tuple(prepared)

    def share(self, batches: Sequence[T]) -> Sequence[T]:
        """Those that this process computes."""
        return batches[self._accelerator.process_index :: self.count]

    def turn(self, network: nn.Module) -> AbstractContextManager[None]:
        """Around one batch; gradients travel after the last one of a step only."""
        context: AbstractContextManager[None] = self._accelerator.accumulate(network)
        return context

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one batch's part of a step's loss."""
        self._accelerator.backward(loss * self._scale if self.many else loss)

    def total(self, *values: float) -> tuple[float, ...]:
        """The sums over all processes."""
        if not self.many:
            return values
        here = torch.tensor(values, device=self._accelerator.device)
        return tuple(self._accelerator.reduce(here, reduction="sum").tolist())

    def clip(self, parameters: Sequence[Tensor], most: float) -> float:
        """Clip the gradients and say what their norm was."""
        return float(self._accelerator.clip_grad_norm_(parameters, most))

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """All weights by name, whole, in the first process; every process has to ask."""
        state: dict[str, Tensor] = self._accelerator.get_state_dict(network)
        return state

    # ---------------------------------------------------------------- checkpoints of many

    def checkpoint(self, folder: Path, step: int, beside: Mapping[str, str]) -> None:
        """Everything that a resumed run needs, in shards; the checkpoint before stays until this one is whole."""
        partial, kept, before = (folder / f"{SHARDS}{end}" for end in (".partial", "", ".before"))
        self._accelerator.save_state(str(partial))
        self._accelerator.wait_for_everyone()
        if self.first:
            for name, text in beside.items():
                (partial / name).write_text(text)
            (partial / _STEP).write_text(str(step))
            shutil.rmtree(before, ignore_errors=True)
            if kept.exists():
                kept.rename(before)
            partial.rename(kept)
            shutil.rmtree(before, ignore_errors=True)
        self._accelerator.wait_for_everyone()

    def last(self, folder: Path) -> Path | None:
        """The last whole checkpoint of a run, if there is one."""
        return next((path for end in ("", ".before") if ((path := folder / f"{SHARDS}{end}") / _STEP).exists()), None)

    def resume(self, kept: Path) -> int:
        """Load a checkpoint; returns the step to go on from."""
        self._accelerator.load_state(str(kept))
        return int((kept / _STEP).read_text())


def part() -> None:
    """Leave the other processes, if there are any; nothing can be trained together afterwards."""
    PartialState().destroy_process_group()


def _kept_buffers(module: nn.Module) -> list[str]:
    """The names of a module's own buffers that are saved with it."""
    return [name for name, _ in module.named_buffers(recurse=False) if name in module.state_dict()]


def _accelerator() -> Accelerator:
    """The accelerator as launched. Without a launcher it is this process on the CPU, whatever the machine has.

    FSDP is also for CPUs, where accelerate itself would only copy the weights: torch shards over gloo as it does over
    NCCL, so the configs for many GPUs can be tried on a laptop.
    """
    accelerator = Accelerator(cpu=_LAUNCHED not in os.environ)
    if accelerator.distributed_type is DistributedType.DEEPSPEED:
        # It asks for the size of a batch; ours differ, and nothing but its logs depends on it.
        accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = 1
    wanted = os.environ.get("ACCELERATE_USE_FSDP", "false") == "true"
    if wanted and accelerator.distributed_type is DistributedType.MULTI_CPU:
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        # Both hold it, and the one is copied into the other.
        PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
    return accelerator
