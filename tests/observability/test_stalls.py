"""The watchdog: a loop that does not answer is counted, and the log names our line."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from types import FrameType

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.observability import stalls
from aligner_proxy.observability.stalls import LoopWatchdog, places
from aligner_proxy.text.structure import split


def stalls_counted() -> float:
    return REGISTRY.get_sample_value("aligner_loop_stall_seconds_count") or 0.0


async def until_counted(more_than: float) -> None:
    async with asyncio.timeout(30):
        while stalls_counted() <= more_than:
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
        if frame.f_code.co_name == "_boundaries":
            caught.append(frame)

    before = sys.getprofile()
    sys.setprofile(catch)
    try:
        split("A secret. Told.")
    finally:
        sys.setprofile(before)
    place, *_ = places(caught[0])
    assert place.startswith("aligner_proxy/text/structure.py:")
    assert "secret" not in str(places(caught[0]))
