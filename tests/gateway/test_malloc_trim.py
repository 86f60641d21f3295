"""Old garbage is collected by the clock, and freed memory goes back to the system."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
import weakref
from collections.abc import Callable

import pytest

from aligner_proxy.gateway import malloc_trim
from aligner_proxy.gateway.malloc_trim import find_trim


class Cycle:
    def __init__(self) -> None:
        self.own = self


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each time that memory is given back."""
    given = list[None]()
    monkeypatch.setattr(malloc_trim, "EVERY_S", 0.0)
    monkeypatch.setattr(malloc_trim, "find_trim", lambda: lambda: given.append(None))
    monkeypatch.setattr(malloc_trim, "_running", set())
    return given


def run(is_over: Callable[[], bool], begun: Callable[[], object] = lambda: None) -> None:
    """Give memory back in a loop, which first does what has `begun`, until it is over."""

    async def play() -> None:
        malloc_trim.trim_periodically()
        malloc_trim.trim_periodically()  # a second guardrail in the same process changes nothing
        assert len(malloc_trim._running) <= 1
        await asyncio.sleep(0)
        begun()
        while not is_over():
            await asyncio.sleep(0.001)

    already_frozen = gc.get_freeze_count()
    asyncio.run(asyncio.wait_for(play(), 20))
    assert gc.get_freeze_count() <= already_frozen


def left_behind() -> weakref.ref[Cycle]:
    """Garbage that has survived all collections while somebody held it, so that no count tells of it."""
    cycle = Cycle()
    gc.collect()
    return weakref.ref(cycle)


def test_old_garbage_goes_although_no_count_passes_its_threshold(trims: list[None]) -> None:
    """The texts of a client that had left once stayed until the next clients came."""
    garbage = list[weakref.ref[Cycle]]()
    run(lambda: garbage[0]() is None and bool(trims), lambda: garbage.append(left_behind()))


def test_a_threshold_of_zero_asks_for_no_collection(trims: list[None], monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter(range(50))
    monkeypatch.setattr(gc, "get_threshold", lambda: (700, 10, 0))
    run(lambda: next(rounds, None) is None)
    assert not trims


def test_who_collects_nothing_is_left_to_it(trims: list[None]) -> None:
    gc.disable()
    try:
        run(lambda: not malloc_trim._running)
    finally:
        gc.enable()
    assert not trims


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_glibc_can_give_memory_back() -> None:
    trim = find_trim()
    assert trim is not None
    trim()


def test_without_glibc_old_garbage_goes_all_the_same(trims: list[None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    monkeypatch.setattr(malloc_trim, "find_trim", find_trim)
    garbage = list[weakref.ref[Cycle]]()
    run(lambda: garbage[0]() is None, lambda: garbage.append(left_behind()))
    assert not trims


def test_without_a_loop_nothing_happens(trims: list[None]) -> None:
    malloc_trim.trim_periodically()
    assert not trims
    assert not malloc_trim._running
