"""Lets a runner on an NVIDIA GPU compute with kernels and CUDA graphs of our own, where everything for it is there.

Elsewhere the runner computes with the library's modules, as on a CPU, and one line in the log says why.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable

import torch

from aligner_proxy.engine.gpu.graphs import CudaRecorder
from aligner_proxy.engine.model.runner import ModelRunner

log = logging.getLogger(__name__)

_OLDEST = (8, 0)
"""Lowest compute capability: earlier GPUs have no bf16."""
_ROOM_FOR_COPY = 1.25
"""Free memory, in multiples of a bf16 copy of the weights, from which on the copy is kept."""


def find_missing_part() -> str | None:
    """What this machine lacks for kernels and graphs of our own, in a few words; None if nothing."""
    if not torch.cuda.is_available():
        return "no NVIDIA GPU"
    if torch.version.hip:
        return "ROCm in place of CUDA"
    if torch.cuda.get_device_capability() < _OLDEST:
        return f"a GPU of compute capability below {_OLDEST[0]}.{_OLDEST[1]}"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "no package triton"
    return None


def accelerate(runner: ModelRunner, progress: Callable[[str], None] = lambda _: None) -> bool:
    """Record the runner's forwards as CUDA graphs; return whether it was done. Takes seconds, at the first time more."""
    obstacle = find_missing_part() or _record(runner, progress)
    if obstacle:
        log.warning("corrections are the same, but slower: no CUDA graphs with %s", obstacle)
    return obstacle is None


def _record(runner: ModelRunner, progress: Callable[[str], None]) -> str | None:
    """Record the forwards; return what was in the way."""
    from aligner_proxy.engine.gpu import triton_kernels

    try:
        if obstacle := runner.use_recorded(triton_kernels, CudaRecorder()):
            return obstacle
    # what Triton raises without a C compiler, or with one that fails
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        return f"kernels that cannot be compiled ({type(error).__name__}); a C compiler such as gcc is needed"
    recorded = runner.recorded
    assert recorded is not None
    free_bytes, _ = torch.cuda.mem_get_info()
    if _ROOM_FOR_COPY * recorded.stack.copy_bytes <= free_bytes:
        for product in recorded.stack.products:
            product.copy_weights()
    recorded.record_all(lambda done, count: progress(f"recording forward {done + 1} of {count}"))
    return None
