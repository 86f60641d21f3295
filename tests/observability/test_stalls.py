"""The watchdog: a loop that does not answer is counted, and the log names our line."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import sys
import threading
import time
from types import FrameType

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.observability import stalls
from aligner_proxy.observability.stalls import LoopWatchdog, list_line_places
from aligner_proxy.text.structure import split


def stalls_counted(*owners: str) -> float:
    name = "aligner_loop_stall_seconds_count"
    return sum(REGISTRY.get_sample_value(name, {"owner": owner}) or 0.0 for owner in owners or stalls.OWNERS)


async def until_counted(more_than: float, *owners: str) -> None:
    async with asyncio.timeout(30):
        while stalls_counted(*owners) <= more_than:
            await asyncio.sleep(0.01)


async def test_a_stall_is_counted_and_its_place_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    before = stalls_counted()
    watchdog = LoopWatchdog(longest_s=0.05, beat_s=0.01)
    watchdog.watch()
    await asyncio.sleep(0.05)
    with caplog.at_level(logging.WARNING, logger=stalls.__name__):
        time.sleep(0.5)
        await until_counted(before)
        await asyncio.sleep(0.05)
    assert "test_stalls.py" in caplog.text
    assert '"event": "aligner_loop_stall"' in caplog.text


async def test_a_loop_is_watched_once() -> None:
    watchdog = LoopWatchdog()
    watchdog.watch()
    watched = watchdog._loop
    watchdog.watch()
    assert watchdog._loop is watched is asyncio.get_running_loop()


def test_the_place_is_our_innermost_line_and_no_text() -> None:
    caught: list[FrameType] = []

    def catch(frame: FrameType, _event: str, _argument: object) -> None:
        if frame.f_code.co_name == "cut":
            caught.append(frame)

    before = sys.getprofile()
    sys.setprofile(catch)
    try:
        split("A secret. Told.")
    finally:
        sys.setprofile(before)
    place, *_ = list_line_places(caught[0])
    assert place.startswith("aligner_proxy/text/structure.py:")
    assert "secret" not in str(list_line_places(caught[0]))


async def test_whose_line_it_was_is_counted(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall in our code counts as ours, also where a library was called from there."""
    monkeypatch.setattr(stalls._Pulse, "usage", lambda _: None)  # a busy machine would be the one that stalls
    before = stalls_counted("aligner")
    watchdog = LoopWatchdog(longest_s=0.05, beat_s=0.01)
    watchdog.watch()
    await asyncio.sleep(0.05)
    with caplog.at_level(logging.WARNING, logger=stalls.__name__):
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            split("A sentence. Another one. " * 2_000)
        await until_counted(before, "aligner")
    assert stalls_counted("aligner") > before
    assert '"owner": "aligner"' in caplog.text


def test_a_thread_that_waits_for_a_processor_stalls_nobody() -> None:
    stall = stalls._Stall(began=10.0, usage=stalls.ThreadUsage(1.0, 1.0))
    stall.record_positions(threading.get_ident())
    stall.end(11.0, stalls.ThreadUsage(1.1, 1.8))
    assert (stall.seconds, stall.owner) == (1.0, "machine")


def test_a_thread_that_has_the_interpreter_is_named() -> None:
    """The loop neither computed nor waited for a processor: whoever computed beside it kept it."""
    computing = threading.Event()
    leave = threading.Event()

    def compute() -> None:
        computing.set()
        numbers = itertools.count()
        while not leave.is_set():
            for _ in range(20):  # an event that is asked counts as a thread that waits
                split(f"Sentence {next(numbers)}. Another one. " * 100)

    thread = threading.Thread(target=compute)
    thread.start()
    computing.wait()
    stall = stalls._Stall(began=10.0, usage=stalls.ThreadUsage(1.0, 1.0))
    for _ in range(20):
        time.sleep(0.002)  # the other one needs the interpreter to get to its work
        stall.record_positions(threading.get_ident())
    leave.set()
    thread.join()
    stall.end(11.0, stalls.ThreadUsage(1.0, 1.0))
    assert stall.owner == "aligner"


def test_no_garbage_is_collected_while_frames_are_taken() -> None:
    """A collection there may stop the process for good (CPython 3.11)."""
    begun: list[str] = []
    where: list[str] = []

    def collected(phase: str, _: object) -> None:
        begun.extend(where)

    class Frames(dict[int, object]):
        pass

    def taken() -> dict[int, object]:
        where.append("taking")
        made = [Frames() for _ in range(2000)]  # more than a collection needs to start
        where.clear()
        return made[0]

    thresholds = gc.get_threshold()
    gc.callbacks.append(collected)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "_current_frames", taken)
            stalls.current_frames()
            assert begun == []
            taken()
            assert begun, "the same outside of it collects"
    finally:
        gc.callbacks.remove(collected)
    assert gc.get_threshold() == thresholds
