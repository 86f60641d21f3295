"""Client programs in other languages: their packages installed, and each run as one process that answers batches."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

from tests.clients.readings import Case, ReadBatch, Reading

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / ".build" / "clients"
INSTALL_S = 120


@contextmanager
def run_node(name: str, base: str, key: str) -> Iterator[ReadBatch]:
    """A program in `node/`. Skips, or fails, where its packages cannot be installed."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    failure = f"{' and '.join(missing)} not found: apt-get install nodejs npm" if missing else _install_packages()
    if failure is not None:
        _give_up(failure)
    with run_program("node", BUILD / f"{name}.mjs", base, key) as read_batch:
        yield read_batch


@contextmanager
def run_go(base: str, key: str) -> Iterator[ReadBatch]:
    """The program in `go/`. Skips where it cannot be compiled: a Go and its modules are not everywhere to be had."""
    if shutil.which("go") is None:
        pytest.skip("go not found: needs Go 1.22 or later")
    failure = _compile()
    if failure is not None:
        pytest.skip(failure)
    with run_program(BUILD / "go" / "client", base, key) as read_batch:
        yield read_batch


@contextmanager
def run_program(*command: str | Path) -> Iterator[ReadBatch]:
    """A program that answers each line, a list of cases, with one, a list of readings."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def read_batch(cases: Sequence[Case]) -> list[Reading]:
            stdin.write(json.dumps([asdict(case) for case in cases]) + "\n")
            stdin.flush()
            line = stdout.readline()
            assert line, f"{command[0]} ended"  # what it wrote to standard error says why
            return [Reading(**reading) for reading in json.loads(line)]

        try:
            yield read_batch
        finally:
            process.kill()  # it may wait for an answer that nobody needs any more


def _give_up(reason: str) -> NoReturn:
    if os.environ.get("CLIENTS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def _install_packages() -> str | None:
    """Make `.build/clients` what the lock file says, and say what went wrong. The stamp is written last."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for file in (HERE / "package.json", HERE / "package-lock.json", *(HERE / "node").iterdir()):
        shutil.copy(file, BUILD)
    stamp = BUILD / "installed"
    fingerprint = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == fingerprint:
        return None
    failure = _failure_of(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"], BUILD)
    if failure is None:
        stamp.write_text(fingerprint)
    return failure


@cache
def _compile() -> str | None:
    """Compile the program in `go/`, with the modules that its go.mod names, and say what went wrong."""
    folder = BUILD / "go"
    shutil.copytree(HERE / "go", folder, dirs_exist_ok=True)
    # No other Go than the one that is here; without a go.sum, which it writes.
    env = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    return _failure_of(["go", "build", "-o", "client", "."], folder, env)


def _failure_of(command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> str | None:
    """Run a command that may need the network, and say what went wrong."""
    what = f"{' '.join(command[:2])} in {folder}"
    env = {**os.environ, **(env or {})}
    try:
        subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        return f"{what} took more than {INSTALL_S} s"
    except subprocess.CalledProcessError as error:
        return f"{what} failed: {error.stderr[:500]}"
    return None
