"""Checkpoints: trained tensors, moments, step and settings, from which a stopped run goes on exactly.

A checkpoint is written beside the one before and put in its place when it is whole: a disk that fills up costs the
steps since then, nothing else. One of another base, other data or other settings is refused by name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from aligner_proxy.engine.weights.manifest import sha256

from .config import StageConfig, StageError
from .network import Network

FILE = "checkpoint.pt"
"""The checkpoint of a run by one process, a file."""
SHARDS = "checkpoint"
"""The checkpoint of a run by several processes: a folder, to which each writes its part (shard) of the weights."""
_SETTINGS = "settings.json"
"""In the folder of shards: the settings of the run."""
_STEP = "step"
"""In the folder of shards: the step. Written last, so a folder with it is complete."""
_FREE = {"out", "steps", "checkpoint_every", "compile", "gradient_checkpointing", "max_seconds", "base_folder"}
_FREE |= {"workers", "snapshots", "blends", "watch"}
"""Settings that may change when a run goes on: where it is, how far it goes, how it is computed."""


def list_settings(stage: StageConfig) -> dict[str, Any]:
    """The settings that decide which steps a run makes, with the hashes of its files of pairs."""
    values = {name: value for name, value in stage.model_dump(mode="json").items() if name not in _FREE}
    files = {name: sha256(path) for name in ("data", "bags") if (path := getattr(stage, name))}
    return values | {"sha256": files}


def write_checkpoint(stage: StageConfig, network: Network, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write the checkpoint of a run by one process; raises `StageError` if the disk is full."""
    trained = {name: parameter for name, parameter in network.model.named_parameters() if parameter.requires_grad}
    state = {"step": step, "model": trained, "head": network.head.state_dict(), "optimizer": optimizer.state_dict()}
    _write_whole(stage.out, step, lambda partial: torch.save(state | {"settings": list_settings(stage)}, partial))


def _write_whole(folder: Path, step: int, write: Callable[[Path], object]) -> None:
    """Let `write` make the checkpoint beside the one before, then put it in its place."""
    target = folder / FILE
    partial = folder / "checkpoint.partial"
    try:
        write(partial)
        partial.replace(target)
    except (OSError, RuntimeError) as error:  # torch's writer of archives raises the second one
        partial.unlink(missing_ok=True)
        before = "the one before is whole" if target.exists() else "there is none before it"
        raise StageError(
            f"out: the checkpoint of step {step} could not be written to {folder} ({error}); {before}. "
            "Make room and run the same command again: it goes on from there"
        ) from error


def resume(stage: StageConfig, network: Network, optimizer: torch.optim.Optimizer) -> int:
    """Load the last checkpoint if there is one; returns the step to go on from."""
    path = stage.out / FILE
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if "settings" in state:  # not in those of runs that began before checkpoints said whose they are
        refuse_another(stage, path, state["settings"])
    try:
        network.model.load_state_dict(state["model"], strict=False)
        network.head.load_state_dict(state["head"])
    except RuntimeError as error:
        raise StageError(f"out: {path} does not fit {stage.base}; what is there now is another base") from error
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def refuse_another(stage: StageConfig, path: Path, saved: Mapping[str, Any]) -> None:
    """Raise `StageError` that names the first setting in which `saved`, of a checkpoint, differ from the stage."""
    now = list_settings(stage)
    for name in ("base", *now):
        if saved.get(name) != now[name]:
            changed = "the files of pairs have changed" if name == "sha256" else f"{saved.get(name)}, not {now[name]}"
            raise StageError(f"out: {path} is of another {name} ({changed}); name another folder, or remove it")


# ---------------------------------------------------------------- one process or many


def keep_checkpoint(stage: StageConfig, accelerator: Accelerator, network: Any, optimizer: Any, step: int) -> None:
    """Write a checkpoint; of several processes that train together, each writes a shard."""
    if accelerator.num_processes > 1:
        _keep_shards(stage, accelerator, step)
    else:
        write_checkpoint(stage, network, optimizer, step)


def _keep_shards(stage: StageConfig, accelerator: Accelerator, step: int) -> None:
    """Write the shards of all processes; the checkpoint before stays until this one is complete."""
    partial, shards, before = (stage.out / f"{SHARDS}{end}" for end in (".partial", "", ".before"))
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / _SETTINGS).write_text(json.dumps(list_settings(stage)))
        (partial / _STEP).write_text(str(step))
        shutil.rmtree(before, ignore_errors=True)
        if shards.exists():
            shards.rename(before)
        partial.rename(shards)
        shutil.rmtree(before, ignore_errors=True)
    accelerator.wait_for_everyone()


def find_start(stage: StageConfig, accelerator: Accelerator, network: Any, optimizer: Any) -> int:
    """Load the last checkpoint and return the step to go on from, 0 without one.

    Several processes cannot read the checkpoint of one, nor the other way round: that raises `StageError`.
    """
    is_distributed = accelerator.num_processes > 1
    foreign_checkpoint = stage.out / (FILE if is_distributed else SHARDS)
    if foreign_checkpoint.exists():
        its_kind = "one process" if is_distributed else "several processes"
        raise StageError(
            f"out: {foreign_checkpoint} is of a run by {its_kind}; go on as it began, or name another folder"
        )
    if not is_distributed:
        return resume(stage, network, optimizer)
    complete_checkpoints = [
        path for end in ("", ".before") if ((path := stage.out / f"{SHARDS}{end}") / _STEP).exists()
    ]
    if not complete_checkpoints:
        return 0
    refuse_another(stage, complete_checkpoints[0], json.loads((complete_checkpoints[0] / _SETTINGS).read_text()))
    accelerator.load_state(str(complete_checkpoints[0]))
    return int((complete_checkpoints[0] / _STEP).read_text())
