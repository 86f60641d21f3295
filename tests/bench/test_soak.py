"""What a soak run calls wrong."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from bench.resources import ResourceCount, count, list_processes
from bench.soak import list_faults, list_losses

TWO_CHILDREN = """
import subprocess, sys
sleep = "import time; print('up', flush=True); time.sleep(60)"
kept = [subprocess.Popen([sys.executable, "-c", sleep, name, "-"], stdout=-1) for name in ("engine", "other")]
for one in kept:
    one.stdout.readline()
print("up", flush=True)
kept[0].wait()
"""
FLAT = ResourceCount(0.0, 300.0, 600.0, 30, 20, 12, 0, 0)


def test_what_stays_as_it_was_is_not_wrong() -> None:
    assert list_faults([FLAT] * 40, FLAT, FLAT) == []


@pytest.mark.parametrize("name", ["gateway_mb", "engine_mb"])
def test_memory_that_grows_is_found(name: str) -> None:
    counts = [replace(FLAT, **{name: 300.0 * 1.01**number}) for number in range(40)]
    (said,) = list_faults(counts, FLAT, FLAT)
    assert said.startswith(f"{name} grew")


@pytest.mark.parametrize("name", ["tasks", "gateway_fds", "engine_fds", "blocks", "sequences"])
def test_what_is_held_in_the_end_is_found(name: str) -> None:
    (said,) = list_faults([FLAT] * 40, FLAT, replace(FLAT, **{name: 50}))
    assert said.startswith(name)


def test_an_engine_that_is_away_in_the_end_is_found() -> None:
    assert len(list_faults([FLAT] * 40, FLAT, replace(FLAT, blocks=None, sequences=None))) == 2


def test_a_connection_that_is_lost_is_an_answer_that_is_lost() -> None:
    told = Counter({"200 corrected": 9, "0 - ReadError (cut off)": 2})
    assert list_losses(told, 9) == ["0 - ReadError (cut off): 2"]


def test_an_answer_that_was_looked_at_has_an_entry_in_the_audit_store() -> None:
    told = Counter({"200 corrected": 4, "200 shadow": 2, "200 failed timeout": 1, "200 skipped shadow_full": 5})
    assert list_losses(told, 7) == []
    assert list_losses(told, 6) == ["audit: 7 answers were looked at, 6 entries"]


def test_processes_below_one_are_counted(tmp_path: Path) -> None:
    """A parent with two children, one of which is called an engine."""
    (tmp_path / "7.tasks").write_text("9")  # of a process that has ended
    with subprocess.Popen([sys.executable, "-c", TWO_CHILDREN], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        gateways, engines = list_processes(parent.pid)
        (tmp_path / f"{gateways[0].pid}.tasks").write_text("4")
        found = count(parent.pid, tmp_path / "none.sock", tmp_path, 1.5)
        for process in (*gateways, *engines):
            process.kill()
        parent.wait()
    assert (len(gateways), len(engines)) == (1, 1)
    assert found.engine_mb > 1
    assert found.gateway_mb == found.worker_mb > 1
    assert found.engine_fds >= 1
    assert (found.tasks, found.blocks, found.sequences, found.at) == (4, None, None, 1.5)
