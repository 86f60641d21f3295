"""Accelerator of a run: this process alone, or the processes that `accelerate launch` started.

    accelerate launch --config_file configs/accelerate/fsdp.yaml -m models.train configs/train/warmup.yaml

The batches of a step are dealt out and their gradients added up, so a step is the same step whoever computes it.
Whether weights are copied (DDP) or sharded (FSDP) is the launcher's business.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn

from .config import StageError

_LAUNCHED = "ACCELERATE_MIXED_PRECISION"  # every launcher of accelerate sets it


def open_accelerator(batches: int = 1) -> Accelerator:
    """The accelerator as launched; `batches` is how many of them a step accumulates, over all processes.

    Without a launcher it is this process, on the GPU if there is one. Raises `StageError` where the batches cannot be
    dealt out evenly.
    """
    accelerator = _make_accelerator()
    count = accelerator.num_processes
    if batches % count:
        raise StageError(
            f"accumulate: {batches} batches a step cannot be dealt out to {count} processes; "
            f"make it a multiple of {count}"
        )
    # One process adds up its batches by itself, without accelerate's division by their number.
    accelerator.gradient_accumulation_steps = batches // count if count > 1 else 1
    return accelerator


def prepare_network(accelerator: Accelerator, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    """Network and optimiser as this run needs them: on the device, copied or sharded."""
    # accelerate shards what is in the state dict as if all of it were parameters, so buffers are kept out meanwhile.
    modules = network.modules() if accelerator.num_processes > 1 else ()
    buffers = [(module, name) for module in modules for name in _saved_buffers(module)]
    for module, name in buffers:
        module.register_buffer(name, module.get_buffer(name), persistent=False)
    prepared = accelerator.prepare(network, optimizer)
    for module, name in buffers:
        module.register_buffer(name, module.get_buffer(name), persistent=True)
    return tuple(prepared)


def leave_group() -> None:
    """Leave the other processes, if there are any; nothing can be trained together afterwards."""
    PartialState().destroy_process_group()


def _saved_buffers(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_buffers(recurse=False) if name in module.state_dict()]


def _make_accelerator() -> Accelerator:
    """The accelerator, with FSDP on CPUs as well: accelerate itself would only copy the weights there.

    torch shards over gloo as it does over NCCL, so the config for GPUs can be tried, and is tested, on a laptop.
    """
    accelerator = Accelerator(cpu=_LAUNCHED not in os.environ and not torch.cuda.is_available())
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false") == "true"
    if sharded and accelerator.distributed_type is DistributedType.MULTI_CPU:
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        # Both hold it, and the one is copied into the other.
        PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
    return accelerator
