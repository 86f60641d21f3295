"""Child processes of the end-to-end tests: started, waited for, and stopped by their own process object."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeVar

import httpx
import pytest

from tests.e2e.warm_litellm import WarmProcess

HERE = Path(__file__).parent
IMPORTABLE = {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])}
START_S = 120.0
_T = TypeVar("_T")
_STARTED = pytest.StashKey[tuple[dict[str, Any], contextlib.ExitStack]]()


def once(config: pytest.Config, name: str, start: Callable[[contextlib.ExitStack], _T]) -> _T:
    """What the session has of this name, started now if it is asked for first; the stack ends it with the session.

    A fixture would start another one for each folder that imports it.
    """
    if _STARTED not in config.stash:
        stack = contextlib.ExitStack()
        config.add_cleanup(stack.close)
        config.stash[_STARTED] = ({}, stack)
    known, stack = config.stash[_STARTED]
    if name not in known:
        known[name] = start(stack)
    started: _T = known[name]
    return started


def stop_proxies(config: pytest.Config) -> None:
    """Stop those of the session, if there are any: each takes a hundredth of a core while nobody asks it."""
    known, _ = config.stash.get(_STARTED, ({}, None))
    if "proxies" in known:
        known["proxies"].close()


def free_port() -> int:
    """A port nobody listens on right now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Process:
    """A child process, its output in a file, stopped by its own id."""

    command: list[str]
    output: Path
    env: dict[str, str] = field(default_factory=dict)
    warm: bool = False
    """Forked from a process that has imported LiteLLM (warm_litellm.py)."""
    child: subprocess.Popen[bytes] | WarmProcess | None = None
    sink: TextIO | None = None

    def start(self) -> None:
        """Start it."""
        self.sink = self.output.open("a")
        env = {**os.environ, **self.env}
        if self.warm:
            self.child = WarmProcess(self.command, env, self.output)
            return
        self.child = subprocess.Popen(self.command, env=env, stdout=self.sink, stderr=self.sink, start_new_session=True)

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Stop it and wait."""
        if self.child is None:
            return
        self.child.send_signal(how)
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        assert self.sink is not None
        self.sink.close()
        self.child = None

    def wait_for(self, url: str, uds: Path | None = None, within_s: float = START_S) -> None:
        """Until `url` answers 200."""
        assert self.child is not None
        until = time.monotonic() + within_s
        transport = httpx.HTTPTransport(uds=str(uds) if uds else None)
        with httpx.Client(transport=transport, trust_env=False) as client:
            while time.monotonic() < until and self.child.poll() is None:
                time.sleep(0.1)
                if uds and not _listens(uds):
                    continue  # httpcore leaves its socket open when it cannot connect
                with contextlib.suppress(httpx.TransportError):
                    if client.get(url, timeout=5).status_code == httpx.codes.OK:
                        return
        self.stop()
        pytest.fail(f"{self.command} did not start:\n{self.output.read_text()[-4000:]}")


def _listens(uds: Path) -> bool:
    """Whether somebody takes connections there; the file alone is there before."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(uds)) == 0


@dataclass
class EngineProcess:
    """The scripted engine, which tests may kill and start again."""

    process: Process
    socket: Path
    log: Path

    def start(self) -> None:
        """Start and wait until it can work."""
        self.socket.unlink(missing_ok=True)
        self.process.start()
        self.process.wait_for("http://engine/ready", self.socket)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.stop(signal.SIGKILL)

    @contextlib.contextmanager
    def holding(self) -> Iterator[Callable[[], None]]:
        """Questions that begin with `held` wait until what this gives is called, or until the block ends."""
        gate = self.log.with_suffix(".open")
        gate.unlink(missing_ok=True)
        try:
            yield gate.touch
        finally:
            gate.touch()

    def calls(self, event: str = "asked") -> list[dict[str, Any]]:
        """Everything that it was asked, or what of that was `cancelled`."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [call for call in map(json.loads, lines) if call["event"] == event]


def scripted_engine(folder: Path, name: str, *template: str, env: Mapping[str, str] | None = None) -> EngineProcess:
    """A scripted engine on the socket NAME.sock of a folder; `template` names another one than its own."""
    address = folder / f"{name}.sock"
    log = folder / f"{name}.calls"
    command = [sys.executable, str(HERE / "scripted_engine.py"), str(address), str(log), *template]
    return EngineProcess(Process(command, folder / f"{name}.log", dict(env or {})), address, log)
