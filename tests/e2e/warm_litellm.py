"""LiteLLM imported once, and forked from there: a proxy of the tests starts without ten seconds of imports.

Python's own fork server (multiprocessing) imports this module when the first proxy is asked for, and every proxy is a
process of its own with its own environment, files and sockets, as if `litellm` had been started. What is read from the
environment during the import is what all proxies of the tests have in common.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

COMMON = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "true",
}
"""In the environment of every proxy, and read while LiteLLM is imported."""


def warm_context() -> ForkServerContext:
    """What starts processes that have imported LiteLLM."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.e2e.warm_imports"])
    return context


class WarmProcess:
    """A forked `litellm`, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], output: Path) -> None:
        self._process = warm_context().Process(target=_run, args=(list(command), dict(env), str(output)), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self._process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        self._process.join(0)
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("litellm", timeout or 0.0)
        return self._process.exitcode


def _run(command: list[str], env: dict[str, str], output: str) -> None:
    """In the forked process: become `litellm` with these arguments."""
    os.setsid()
    with open(output, "ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    os.environ.clear()
    os.environ.update(env)
    if env.get("PYTHON_GC_THRESHOLD") == "0,0,0":
        gc.disable()
    sys.path[:0] = [place for place in env.get("PYTHONPATH", "").split(os.pathsep) if place not in ("", *sys.path)]
    sys.argv = command
    from litellm.proxy.proxy_cli import run_server

    run_server()
