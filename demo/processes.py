"""Processes of the demo: started side by side, and stopped when the demo ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx

START_S = 600.0
STOP_S = 40.0


class DemoError(Exception):
    """The demo cannot continue; the message says where to look."""


def free_port() -> int:
    """A free port."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def run_process(
    arguments: Sequence[str], log: Path, env: Mapping[str, str], python: str | Path = sys.executable
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m ARGUMENTS` with its output in `log`, and stop it afterwards.

    If the demo is killed, the kernel stops it.
    """
    command = [
        sys.executable,
        "-m",
        "aligner_proxy.gateway.process.die_with_parent",
        str(os.getpid()),
        str(python),
        "-m",
        *arguments,
    ]
    with log.open("wb") as output:
        # In its own session, so that Ctrl-C reaches only the demo, which then stops its processes in order.
        child = subprocess.Popen(command, stdout=output, stderr=output, env=env, start_new_session=True)
        try:
            yield child
        finally:
            stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM and wait; after the grace period, kill the process and its children."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def wait_for(url: str, child: subprocess.Popen[bytes] | None, log: Path, tell: Callable[[str], None]) -> None:
    """Wait until `url` answers 200, and pass the log's last line to `tell`; raises `DemoError` on exit or timeout."""
    until = time.monotonic() + START_S
    with httpx.Client(trust_env=False, timeout=5) as client:
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == httpx.codes.OK:
                    return
            if child is not None and child.poll() is not None:
                raise DemoError(f"a process ended with status {child.returncode}:\n{_tail(log, 15)}")
            tell(_tail(log, 1))
            time.sleep(0.2)
    raise DemoError(f"nothing answers at {url} after {START_S:g} s; see {log}:\n{_tail(log, 15)}")


def _tail(log: Path, count: int) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
