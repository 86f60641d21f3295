"""Seconds of work on a device that computes asynchronously, and its memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch


def time_work(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds from the end of what was started before to the end of this work, and its result."""
    _wait()
    began = time.perf_counter()
    result = work()
    _wait()
    return time.perf_counter() - began, result


def free_memory() -> None:
    """Collect garbage, and give the memory of a GPU that nothing holds back to its driver."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
