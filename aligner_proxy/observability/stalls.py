"""Watchdog of an event loop: how long it did not answer, and which of our lines it was in.

A thread looks whether the loop still runs what is due. Where it did not for too long, the length counts in a histogram
and a log line names the innermost frames of ours by file and line. No text and no variable is looked at.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from aligner_proxy.observability.metrics import LOOP_STALLS

log = logging.getLogger(__name__)

LONGEST_S = 0.1
"""A loop that does not answer for longer stalls everybody who waits for it."""
_BEAT_S = 0.025
_QUIET_S = 5.0
"""Seconds between two log lines; every stall counts, not every one is written down."""
_FRAMES = 3
_OURS = ("aligner_proxy", "aligner_proxy_systems")


class LoopWatchdog:
    """Watches the loop that it is started in; starts again where another loop has taken its place."""

    def __init__(self, longest_s: float = LONGEST_S, beat_s: float = _BEAT_S) -> None:
        self._longest_s = longest_s
        self._beat_s = beat_s
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self) -> None:
        """Watch the running loop, once; raises `RuntimeError` where none runs."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        self._loop = loop
        pulse = _Pulse(loop, self._beat_s)
        pulse.beat()
        thread = threading.Thread(target=self._watch, args=(pulse,), name="loop-watchdog", daemon=True)
        thread.start()

    def __deepcopy__(self, memo: object) -> LoopWatchdog:
        """The same object: it belongs to the worker."""
        return self

    def _watch(self, pulse: _Pulse) -> None:
        place: list[str] = []
        began: float | None = None
        logged = -_QUIET_S
        while not pulse.loop.is_closed() and pulse.loop is self._loop:
            time.sleep(self._beat_s)
            beaten = pulse.beaten
            if began is None and time.monotonic() - beaten > self._longest_s:
                began = beaten
                place = places(sys._current_frames().get(pulse.thread))
            elif began is not None and beaten > began:
                LOOP_STALLS.observe(beaten - began)
                if beaten - logged >= _QUIET_S:
                    logged = beaten
                    _report(beaten - began, place)
                began = None


class _Pulse:
    """The loop's sign of life: when it last ran what was due."""

    def __init__(self, loop: asyncio.AbstractEventLoop, every_s: float) -> None:
        self.loop = loop
        self.thread = threading.get_ident()
        self.beaten = time.monotonic()
        self._every_s = every_s

    def beat(self) -> None:
        """The loop runs; look again soon."""
        self.beaten = time.monotonic()
        self.loop.call_later(self._every_s, self.beat)


def places(frame: FrameType | None) -> list[str]:
    """Our innermost frames as file:line, the innermost first; of foreign code alone its innermost frame."""
    frames = list(_outwards(frame))
    ours = [place for place in map(_place, frames) if place is not None][:_FRAMES]
    if ours or not frames:
        return ours
    code = frames[0].f_code
    return [f"{Path(code.co_filename).name}:{frames[0].f_lineno}"]


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _place(frame: FrameType) -> str | None:
    path = Path(frame.f_code.co_filename)
    parts = path.parts
    names = [at for at, part in enumerate(parts[:-1]) if part in _OURS]
    return f"{'/'.join(parts[names[-1] :])}:{frame.f_lineno}" if names else None


def _report(seconds: float, place: list[str]) -> None:
    line = {"event": "aligner_loop_stall", "ms": round(seconds * 1000), "place": place}
    log.warning("the event loop did not answer: %s", json.dumps(line))
