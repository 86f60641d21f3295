"""Isolates measurements from each other: in a process of their own, or in a thread that ends with the work.

OpenMP gives every computing thread its own workers and keeps them. Once two threads have workers, the library counts
more workers than cores and puts all of them to sleep between any two layers. A forward of a small model then takes up
to twice as long (`docs/lab/2026-11-21-two-threads.md`). Workers end with their thread.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def wrap_in_thread(work: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Wrap `work` so that it runs in a new thread while the caller waits."""

    def run_in_thread(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(work, *arguments, **keywords).result()

    return run_in_thread


def start_worker() -> ProcessPoolExecutor:
    """Start a new process, which imports functions by name and keeps its globals between calls."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))
