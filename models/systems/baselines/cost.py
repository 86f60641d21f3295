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
    """What a training cost."""

    fed: int = 0
    """Tokens through a forward, padding included."""
    trained: int = 0
    """Those of `fed` that a backward follows."""
    generated: int = 0
    """Those of `fed` that were fed one at a time."""
    flops: float = 0.0
    """Computed from the tokens (`flops_a_token`)."""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_mb: float = 0.0
    """Resident memory of the whole process."""

    def __add__(self, other: TrainingCost) -> TrainingCost:
        summed = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return TrainingCost(**summed | {"peak_mb": max(self.peak_mb, other.peak_mb)})


def flops_a_token(model: Any) -> tuple[float, float]:
    """(FLOPs of one token's forward, FLOPs of its backward).

    A forward costs 2 for each weight that is multiplied with. The embedding is looked up, so it only counts where it is
    also the head. A backward costs 2 a weight for the gradient of the activations, and 2 a trainable weight for that of
    the weight. Attention over the context is left out: at a hundred tokens it is a few percent
    (tests/models/systems/test_baseline_cost.py).
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
    """Counts tokens and time while it measures a model. One meter adds up the stages of a method."""

    def __init__(self, before: TrainingCost | None = None) -> None:
        self.cost = before or TrainingCost()
        self._fed_tokens = 0
        self._trained = 0
        self._generated = 0
        self._began = (0.0, 0.0)
        self._model: Any = None

    @property
    def fed_so_far(self) -> int:
        """The tokens fed so far, by this stage and by those before."""
        return self.cost.fed + self._fed_tokens

    @contextmanager
    def measure(self, model: Any) -> Iterator[None]:
        """Within the block count what passes through this causal LM. It may get an adapter in the meantime."""
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
        """The cost up to now, with the stage that runs."""
        forward, backward = flops_a_token(self._model)
        flops = self._fed_tokens * forward + self._trained * backward
        cpu, wall = (now - began for now, began in zip(_read_clocks(), self._began, strict=True))
        return self.cost + TrainingCost(
            self._fed_tokens, self._trained, self._generated, flops=flops, cpu_s=cpu, wall_s=wall, peak_mb=_peak_mb()
        )

    def document(self) -> dict[str, Any]:
        """The cost up to now as plain data, for a checkpoint."""
        return asdict(self.cost_so_far())

    def _count(self, module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Add the tokens of one forward; called by torch before each."""
        ids = keywords.get("input_ids", arguments[0] if arguments else None)
        shape = (ids if ids is not None else keywords["inputs_embeds"]).shape[:2]
        tokens = shape[0] * shape[1]
        self._fed_tokens += tokens
        if torch.is_grad_enabled() and module.training:
            self._trained += tokens
        if shape[1] == 1:
            self._generated += tokens


def _read_clocks() -> tuple[float, float]:
    """(seconds of CPU, seconds on the wall)."""
    return time.process_time(), time.perf_counter()


def _forget_peak() -> None:
    """Reset the kernel's peak of memory. Elsewhere than on Linux the peak is that of the process's whole life."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def _peak_mb() -> float:
    """The peak of the process's resident memory in MB."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)
