"""What a training costs: tokens through the model, floating-point operations, seconds of CPU, memory at its peak."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """`fed`: tokens through a forward, padding included; `trained`: those of them that a backward follows.

    `generated` are the tokens of `fed` that were fed one at a time. FLOPs follow from the tokens (`flops_a_token`);
    `peak_mb` is the resident memory of the whole process.
    """

    fed: int = 0
    trained: int = 0
    generated: int = 0
    flops: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_mb: float = 0.0

    def __add__(self, other: TrainingCost) -> TrainingCost:
        summed = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return TrainingCost(**summed | {"peak_mb": max(self.peak_mb, other.peak_mb)})


def flops_a_token(model: Any) -> tuple[float, float]:
    """FLOPs of one token's forward and of its backward: 2 for a weight that is multiplied with.

    The embedding is looked up, not multiplied, unless it is also the head. A backward costs 2 a weight for the gradient
    of the activations, and 2 a trainable weight for that of the weight. Attention over the context is left out; at a
    hundred tokens it is a few percent (tests/models/systems/test_baseline_cost.py).
    """
    weights = 0
    trainable = 0
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    tied = head is not None and embedding is head.weight
    for parameter in model.parameters():
        if parameter is embedding and not tied:
            continue
        weights += parameter.numel()
        trainable += parameter.numel() if parameter.requires_grad else 0
    return 2.0 * weights, 2.0 * weights + 2.0 * trainable


class Meter:
    """Counts while it measures a model; one meter adds up the stages of a method."""

    def __init__(self, before: TrainingCost | None = None) -> None:
        self.cost = before or TrainingCost()
        self._fed_tokens = 0
        self._trained = 0
        self._generated = 0
        self._began = (0.0, 0.0)
        self._model: Any = None

    @property
    def fed_so_far(self) -> int:
        """Tokens fed so far, of the stage that runs and of those before."""
        return self.cost.fed + self._fed_tokens

    @contextmanager
    def measure(self, model: Any) -> Iterator[None]:
        """Count what passes through this causal LM, which may get an adapter in the meantime."""
        # PEFT and TRL call `forward` of what is outside, past its hooks; the decoder inside is called as a module.
        handle = model.get_decoder().register_forward_pre_hook(self._count, with_kwargs=True)
        self._model = model
        self._began = (time.process_time(), time.perf_counter())
        _forget_peak()
        try:
            yield
        finally:
            handle.remove()
            self.cost = self.cost_so_far()
            self._fed_tokens = 0
            self._trained = 0
            self._generated = 0

    def cost_so_far(self) -> TrainingCost:
        """What was spent up to now."""
        forward, backward = flops_a_token(self._model)
        flops = self._fed_tokens * forward + self._trained * backward
        cpu, wall = (now - began for now, began in zip(_read_clocks(), self._began, strict=True))
        return self.cost + TrainingCost(self._fed_tokens, self._trained, self._generated, flops, cpu, wall, _peak_mb())

    def document(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self.cost_so_far())

    def _count(self, module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        ids = keywords.get("input_ids", arguments[0] if arguments else None)
        shape = (ids if ids is not None else keywords["inputs_embeds"]).shape[:2]
        tokens = shape[0] * shape[1]
        self._fed_tokens += tokens
        if torch.is_grad_enabled() and module.training:
            self._trained += tokens
        if shape[1] == 1:
            self._generated += tokens


def _read_clocks() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _forget_peak() -> None:
    """Let the kernel count the peak from here on; elsewhere than on Linux it is that of the process's whole life."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def _peak_mb() -> float:
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)
