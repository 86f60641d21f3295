"""Garbage is collected between callbacks, all of it, and as before when the loop has ended."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref

import pytest

from aligner_proxy.gateway import gc_workaround

# A finaliser that sets context variables while others are set: CPython 3.11 dies of it, eight times of eight.
DEADLY = """
import asyncio, contextvars, gc
from aligner_proxy.gateway import gc_workaround

VARIABLES = [contextvars.ContextVar(f"v{i}") for i in range(40)]

class Cycle:
    def __init__(self):
        self.own = self
    def __del__(self):
        VARIABLES[id(self) // 64 % 40].set(id(self))

async def main():
    gc.set_threshold(10)
    gc_workaround.collect_between_callbacks()
    await asyncio.sleep(0)
    for i in range(1_000_000):
        Cycle()
        VARIABLES[i % 40].set(i)
        if i % 10_000 == 0:
            await asyncio.sleep(0)

asyncio.run(main())
print("alive")
"""


class Cycle:
    def __init__(self) -> None:
        self.own = self


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc_workaround, "IS_SAFE", False)
    monkeypatch.setattr(gc_workaround, "SHORTEST_S", 0.001)


def made_garbage() -> weakref.ref[Cycle]:
    """Cycles that nobody holds, enough of them that a collection stays due although the loop frees some objects."""
    for _ in range(2 * gc.get_threshold()[0]):
        last = Cycle()
    return weakref.ref(last)


@pytest.mark.usefixtures("old")
def test_garbage_waits_for_the_loop_and_no_longer() -> None:
    async def run() -> None:
        gc_workaround.collect_between_callbacks()
        gc_workaround.collect_between_callbacks()  # a second guardrail in the same process changes nothing
        await asyncio.sleep(0)
        assert not gc.isenabled()
        garbage = made_garbage()
        assert garbage() is not None
        while garbage() is not None:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("old")
def test_without_a_loop_nothing_changes() -> None:
    gc_workaround.collect_between_callbacks()
    assert gc.isenabled()


@pytest.mark.usefixtures("old")
def test_who_collects_nothing_is_left_to_it() -> None:
    async def run() -> None:
        gc_workaround.collect_between_callbacks()
        await asyncio.sleep(0)
        assert gc.get_freeze_count() <= already_frozen

    already_frozen = gc.get_freeze_count()
    gc.disable()
    try:
        asyncio.run(run())
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_where_python_waits_by_itself_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc_workaround, "IS_SAFE", True)

    async def run() -> None:
        gc_workaround.collect_between_callbacks()
        await asyncio.sleep(0)
        assert gc.isenabled()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("counts", "due"), [((700, 10, 10), None), ((701, 0, 0), 0), ((701, 11, 3), 1), ((5, 5, 11), None)]
)
def test_the_older_young_generation_past_its_threshold_is_due(
    counts: tuple[int, int, int], due: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "get_count", lambda: counts)
    monkeypatch.setattr(gc, "get_threshold", lambda: (700, 10, 10))
    assert gc_workaround.due_generation() == due


def test_a_threshold_of_zero_asks_for_no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "get_threshold", lambda: (0, 10, 10))
    monkeypatch.setattr(gc, "get_count", lambda: (10**6, 0, 0))
    assert gc_workaround.due_generation() is None


def test_finalisers_that_set_context_variables_kill_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", DEADLY], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-500:]
