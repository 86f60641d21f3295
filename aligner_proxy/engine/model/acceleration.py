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
from aligner_proxy.engine.weights.memory import ROOM_FOR_COPY

log = logging.getLogger(__name__)

_LEAST_CAPABILITY = (8, 0)
"""Lowest compute capability: earlier GPUs have no bf16."""
_COMPILING_FAILED = (RuntimeError, OSError, AssertionError, subprocess.CalledProcessError)
"""What Triton raises without a C compiler, with one that fails, or where it does not find the driver's library."""


def find_missing_part() -> str | None:
    """What this machine lacks for kernels and graphs of our own, in a few words; None if nothing."""
    if not torch.cuda.is_available():
        return "no NVIDIA GPU"
    if torch.version.hip:
        return "ROCm in place of CUDA"
    if torch.cuda.get_device_capability() < _LEAST_CAPABILITY:
        return f"a GPU of compute capability below {_LEAST_CAPABILITY[0]}.{_LEAST_CAPABILITY[1]}"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "no package triton"
    return None


def try_kernel() -> str | None:
    """Compile and run one of our kernels; return why that does not work, in a few words, or None."""
    try:
        from aligner_proxy.engine.gpu import triton_kernels

        triton_kernels.gate(torch.ones(1, 1, 2, device="cuda"), torch.float32).cpu()
    except Exception as error:  # noqa: BLE001 - whatever Triton raises is the finding
        return f"kernels that cannot be compiled ({type(error).__name__}: {error})"[:200]
    return None


def accelerate(runner: ModelRunner, progress: Callable[[str], None] = lambda _: None) -> bool:
    """Record the runner's passes as CUDA graphs; return whether it was done. The first time, kernels are compiled."""
    obstacle = find_missing_part() or _record(runner, progress)
    if obstacle:
        log.warning("corrections are the same, but slower: no CUDA graphs with %s", obstacle)
    return obstacle is None


def _record(runner: ModelRunner, progress: Callable[[str], None]) -> str | None:
    """Record a forward of every size for the runner; return what prevented it, in a few words, or None."""
    from aligner_proxy.engine.gpu import triton_kernels

    try:
        if obstacle := runner.use_recorded(triton_kernels, CudaRecorder()):
            return obstacle
    except _COMPILING_FAILED as error:
        return f"kernels that cannot be compiled ({type(error).__name__}); a C compiler such as gcc is needed"
    recorded = runner.recorded
    assert recorded is not None
    free_bytes, _ = torch.cuda.mem_get_info()
    if ROOM_FOR_COPY * recorded.stack.copy_bytes <= free_bytes:
        for product in recorded.stack.products:
            product.copy_weights()
    recorded.record_all(lambda index, count: progress(f"recording forward {index + 1} of {count}"))
    return runner.check_recorded()
