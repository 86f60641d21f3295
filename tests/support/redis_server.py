"""A real Redis for tests, from Debian's package redis-server, on a socket of its own; nothing is kept on disk."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.processes import free_port

PROGRAM = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(PROGRAM is None, reason="needs redis-server: apt-get install redis-server")
WELL_S = 10.0
"""Patience with a Redis that is well, on a machine that has other work; the gateway's own is for one that is not."""
_STARTS_IN_S = 20.0


class RedisProcess:
    """One server process. `url` is its address over TCP."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, or start it again, empty; returns when it answers."""
        command = [str(PROGRAM), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        command += [str(self._folder), *self._options]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + _STARTS_IN_S
        while not self._answers():
            assert time.monotonic() < until, (self._folder / "redis.log").read_text()
            time.sleep(0.02)

    def command(self, *words: str | bytes) -> Any:
        """The answer to one command, by a client of the tests."""
        import redis

        with redis.Redis(port=self.port, socket_timeout=10) as client:
            return client.execute_command(*words)

    def kill(self) -> None:
        """End it at once, as if its host were gone."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, such as SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()

    def _answers(self) -> bool:
        import redis

        try:
            return bool(self.command("PING"))
        except redis.RedisError:
            return False


@contextmanager
def redis_process(folder: Path, *options: str) -> Iterator[RedisProcess]:
    """A server that runs, with these options of its command line."""
    folder.mkdir(parents=True, exist_ok=True)
    made = RedisProcess(folder, *options)
    made.start()
    try:
        yield made
    finally:
        made.stop()
