"""A real PostgreSQL for tests, from Debian's package postgresql, in a folder of its own."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from aligner_proxy_fleet.location import Database
from demo.processes import free_port

_FOLDERS = os.pathsep.join((*glob.glob("/usr/lib/postgresql/*/bin"), *os.get_exec_path()))
PROGRAM = shutil.which("postgres", path=_FOLDERS)
_INIT = shutil.which("initdb", path=_FOLDERS)
needs_postgres = pytest.mark.skipif(
    PROGRAM is None or _INIT is None, reason="needs postgres: apt-get install postgresql"
)
_STARTS_IN_S = 30.0


class PostgresProcess:
    """One server process. `url` is its address over TCP."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # PostgreSQL does not run as root.
        self._owner = "postgres" if os.getuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"postgresql://aligner:secret-word@127.0.0.1:{self.port}/postgres"
        self.database = Database(self.url, "AUDIT_DATABASE", wait_s=2.0)
        if self._owner is not None:
            shutil.chown(folder, self._owner)
        command = [str(_INIT), "-D", str(folder / "data"), "-U", "aligner", "-A", "trust", "--no-sync"]
        subprocess.run(command, user=self._owner, check=True, stdout=subprocess.DEVNULL, cwd=folder)

    def start(self) -> None:
        """Start it, or start it again with what it has; returns when it answers."""
        options = ["-D", str(self._folder / "data"), "-p", str(self.port), "-k", str(self._folder)]
        options += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with (self._folder / "log").open("ab") as log:
            command = [str(PROGRAM), *options]
            self._process = subprocess.Popen(command, user=self._owner, stdout=log, stderr=log, cwd=self._folder)
        until = time.monotonic() + _STARTS_IN_S
        while True:
            try:
                self.run("SELECT 1")
            except psycopg.OperationalError:
                assert time.monotonic() < until, (self._folder / "log").read_text()
                time.sleep(0.05)
            else:
                return

    def run(self, statement: str) -> None:
        """Run a statement, by a client of the tests."""
        with psycopg.connect(self.url, autocommit=True) as client:
            client.execute(statement.encode())

    def stop(self) -> None:
        """End it with all its connections."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)


@contextmanager
def postgres_process() -> Iterator[PostgresProcess]:
    """A server that runs."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # a folder of pytest's is its owner's alone
    made = PostgresProcess(folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
