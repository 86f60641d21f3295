"""Lets a runner on an NVIDIA GPU compute with kernels and CUDA graphs of our own, where the machine has all they need.
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

_MIN_CAPABILITY = (8, 0)
"""Lowest compute capability, as (major, minor), because earlier GPUs have no bf16."""
_COMPILER_ERRORS = (RuntimeError, OSError, AssertionError, subprocess.CalledProcessError)
"""What Triton raises if the C compiler is missing or fails, or if it does not find the driver's library."""


def find_missing_part() -> str | None:
    """Return what this machine lacks for kernels and graphs of our own, in a few words; None if it lacks nothing."""
    if not torch.cuda.is_available():
        return "no NVIDIA GPU"
    if torch.version.hip:
        return "ROCm in place of CUDA"
    if torch.cuda.get_device_capability() < _MIN_CAPABILITY:
        return f"a GPU of compute capability below {_MIN_CAPABILITY[0]}.{_MIN_CAPABILITY[1]}"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "no package triton"
    return None


def try_kernel() -> str | None:
    """Compile and run one of our kernels; return why this fails, in a few words, or None if it works."""
    try:
        from aligner_proxy.engine.gpu import triton_kernels

        triton_kernels.gate(torch.ones(1, 1, 2, device="cuda"), torch.float32).cpu()
    except Exception as error:  # noqa: BLE001 - whatever Triton raises is the finding
        return f"kernels that cannot be compiled ({type(error).__name__}: {error})"[:200]
    return None


def accelerate(runner: ModelRunner, report_progress: Callable[[str], None] = lambda _: None) -> bool:
    """Record the runner's forward passes as CUDA graphs, if possible; return whether they were recorded.

    The kernels are compiled the first time. `report_progress` is called with a line of text for each recording.
    """
    obstacle = find_missing_part() or _record_forwards(runner, report_progress)
    if obstacle:
        log.warning("corrections are the same, but slower: no CUDA graphs with %s", obstacle)
    return obstacle is None


def _record_forwards(runner: ModelRunner, report_progress: Callable[[str], None]) -> str | None:
    """Record a forward pass of every size for the runner; return what prevented this, in a few words, or None."""
    from aligner_proxy.engine.gpu import triton_kernels

    try:
        obstacle = runner.use_recorded(triton_kernels, CudaRecorder())
    except _COMPILER_ERRORS as error:
        return f"kernels that cannot be compiled ({type(error).__name__}); a C compiler such as gcc is needed"
    if obstacle:
        return obstacle
    recorded = runner.recorded
    assert recorded is not None
    free_bytes, _ = torch.cuda.mem_get_info()
    if ROOM_FOR_COPY * recorded.stack.copy_bytes <= free_bytes:
        for product in recorded.stack.products:
            product.copy_weights()
    recorded.record_all(lambda index, count: report_progress(f"recording forward {index + 1} of {count}"))
    return runner.check_recorded()
