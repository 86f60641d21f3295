"""Watchdog of an event loop: reports how long it stalled, at which line, and which package the line belongs to.

A thread checks whether the loop still runs scheduled callbacks. A stall above the limit counts in a histogram, and a
log line names the innermost frames by file and line, never texts or variables. On Linux the log also says how long the
loop's thread computed and how long it waited for a CPU, because a busy machine stalls even an idle loop.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from aligner_proxy.observability.metrics import LOOP_STALLS

log = logging.getLogger(__name__)
_THRESHOLDS_LOCK = threading.Lock()
"""Held while thresholds of the garbage collector are changed, because each loop has its own watchdog."""

LONGEST_S = 0.1
"""Seconds without a callback from which on a stall counts."""
EVERY_STALL = "ALIGNER_PROXY_EVERY_STALL"
"""Environment variable that makes every stall be logged, for measurements."""
OWNERS = ("aligner", "litellm", "other", "machine")
"""Owners of the line at which the loop stalled; `machine` means that the thread waited for a CPU."""
_BEAT_S = 0.025
"""Seconds between two beats of the loop, and between two checks of the thread."""
_LOG_PAUSE_S = 5.0
"""Least seconds between two log lines; every stall is counted, but not every one is logged."""
_MAX_FRAMES = 3
"""Most frames of this project in a log line."""
_PACKAGES = {
    "aligner_proxy": "aligner",
    "aligner_proxy_fleet": "aligner",
    "aligner_proxy_grounding": "aligner",
    "aligner_proxy_review": "aligner",
    "aligner_proxy_systems": "aligner",
    "litellm": "litellm",
}
_WAITING_FILES = frozenset({"threading.py", "thread.py", "queue.py", "selectors.py", "socket.py", "stalls.py"})
"""Files in which a thread waits rather than computes."""
_DECISIVE_SHARE = 0.5
"""Share of a stall's time, or of the largest count, from which on something decides about the owner."""
CodePlace = tuple[str, ...]
"""Frames as file:line, innermost first."""


class LoopWatchdog:
    """Watches the event loop in which it is started; can be started again if another loop replaces it."""

    def __init__(self, longest_s: float = LONGEST_S, beat_s: float = _BEAT_S) -> None:
        self._longest_s = longest_s
        """Seconds without a beat from which on a stall counts."""
        self._beat_s = beat_s
        """Seconds between two beats, and between two checks."""
        for owner in OWNERS:
            LOOP_STALLS.labels(owner)  # exported from the start, as a metric without labels would be
        self._log_pause_s = 0.0 if os.environ.get(EVERY_STALL) else _LOG_PAUSE_S
        """Least seconds between two log lines."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop that is watched; None until `watch`."""

    def watch(self) -> None:
        """Start watching the running loop, once; raises `RuntimeError` if none runs."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        self._loop = loop
        pulse = _Pulse(loop, self._beat_s)
        pulse.beat()
        thread = threading.Thread(target=self._watch, args=(pulse,), name="loop-watchdog", daemon=True)
        thread.start()

    def __deepcopy__(self, memo: object) -> LoopWatchdog:
        """Return the same object, because it belongs to the worker."""
        return self

    def _watch(self, pulse: _Pulse) -> None:
        """Check the loop until it is closed or replaced; count and report each stall when it ends."""
        stall: _Stall | None = None  # the one that goes on now
        logged_at = -_LOG_PAUSE_S
        measured_beat = 0.0
        usage: ThreadUsage | None = None  # that of the loop's thread at `measured_beat`
        while not pulse.loop.is_closed() and pulse.loop is self._loop:
            time.sleep(self._beat_s)
            last_beat = pulse.last_beat
            if stall is not None and last_beat > stall.began:
                stall.end(last_beat, pulse.usage())
                LOOP_STALLS.labels(stall.owner).observe(stall.seconds)
                if last_beat - logged_at >= self._log_pause_s:
                    logged_at = last_beat
                    stall.report()
                stall = None
            if stall is None and time.monotonic() - last_beat > self._longest_s:
                stall = _Stall(last_beat, usage)
            if stall is not None:
                stall.record_positions(pulse.thread)
            # Kept for the next stall, which begins at this beat.
            elif last_beat > measured_beat:
                measured_beat = last_beat
                usage = pulse.usage()


@dataclass(frozen=True, slots=True)
class ThreadUsage:
    """How many seconds a thread has computed (`computed_s`) and has waited for a CPU (`queued_s`) since it began."""

    computed_s: float = 0.0
    queued_s: float = 0.0

    def subtract(self, before: ThreadUsage) -> ThreadUsage:
        """The usage since an earlier measurement."""
        return ThreadUsage(self.computed_s - before.computed_s, self.queued_s - before.queued_s)


class _Pulse:
    """Heartbeat of the loop: the time at which it last ran a scheduled callback."""

    def __init__(self, loop: asyncio.AbstractEventLoop, every_s: float) -> None:
        self.loop = loop
        # The thread that runs the loop; the pulse must be made in it.
        self.thread = threading.get_ident()
        # Monotonic time of the last callback that ran.
        self.last_beat = time.monotonic()
        self._every_s = every_s
        # Where Linux counts what this thread computed and waited for.
        self._schedstat = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")

    def beat(self) -> None:
        """Record that the loop runs, and schedule the next beat."""
        self.last_beat = time.monotonic()
        self.loop.call_later(self._every_s, self.beat)

    def usage(self) -> ThreadUsage | None:
        """The loop thread's usage so far; None if the system does not report it."""
        try:
            computed, queued, _ = self._schedstat.read_text().split()
        except (OSError, ValueError):
            return None
        return ThreadUsage(int(computed) / 1e9, int(queued) / 1e9)  # the system counts nanoseconds


def current_frames() -> dict[int, FrameType]:
    """The current frame of each thread, by thread identifier.

    In CPython 3.11, a garbage collection that starts within this call may let another thread run while a lock of the
    interpreter is held. If that thread starts a thread, the process hangs for good (python/cpython#106883). Collections
    are therefore prevented here by setting the thresholds to 0, and not by `gc.disable()`, which gc_workaround.py uses.
    """
    with _THRESHOLDS_LOCK:
        thresholds = gc.get_threshold()
        gc.set_threshold(0)
        try:
            return sys._current_frames()
        finally:
            gc.set_threshold(*thresholds)


@dataclass(slots=True)
class _Stall:
    """A stall of the loop, and what was seen of it so far."""

    began: float
    """Monotonic time of the last beat before the stall."""
    usage: ThreadUsage | None
    """The loop thread's usage before the stall; after `end`, its usage during the stall."""
    seconds: float = 0.0
    owner: str = "other"
    """One of `OWNERS`; like `seconds` not known before `end`."""
    _places: Counter[tuple[str, CodePlace]] = field(default_factory=Counter)
    """Number of times the loop's thread was seen, by owner and position."""
    _others: Counter[tuple[str, CodePlace]] = field(default_factory=Counter)
    """Number of times that other threads were seen which were not waiting, by owner and position."""

    def record_positions(self, thread: int) -> None:
        """Count where the loop's thread is now, and where the other threads are that do not wait."""
        frames = current_frames()
        frame = frames.pop(thread, None)
        self._places[find_line_owner(frame), tuple(list_line_places(frame))] += 1
        for other in frames.values():
            if Path(other.f_code.co_filename).name not in _WAITING_FILES:
                self._others[find_line_owner(other), tuple(list_line_places(other))] += 1

    def end(self, at: float, usage: ThreadUsage | None) -> None:
        """Set the stall's duration, usage and owner; it ended at the monotonic time `at`, with `usage` until then."""
        self.seconds = at - self.began
        self.usage = usage.subtract(self.usage) if usage and self.usage else None
        self.owner = self._find_owner()

    def _find_owner(self) -> str:
        """The owner of the blocking line.

        This is `machine` if the thread mostly waited for a CPU. If the thread computed little and other threads were
        active, the owner of their lines is blamed; otherwise the owner of the loop's own lines.
        """
        if self.usage is not None and self.usage.queued_s > _DECISIVE_SHARE * self.seconds:
            return "machine"
        is_idle = self.usage is not None and self.usage.computed_s < _DECISIVE_SHARE * self.seconds
        counts = self._others if is_idle and self._others else self._places
        by_owner = Counter[str]()
        for (owner, _), looks in counts.items():
            by_owner[owner] += looks
        # Threads that wait in a library's read are seen at every check, our threads only while they compute. So a lower
        # count is enough for `aligner`.
        highest = max(by_owner.values(), default=0)
        if by_owner["aligner"] > _DECISIVE_SHARE * highest:
            return "aligner"
        return max(by_owner, key=by_owner.__getitem__, default="other")

    def report(self) -> None:
        """Log the stall as one JSON object: its milliseconds, owner, positions, and usage where it is known."""
        line: dict[str, object] = {"event": "aligner_loop_stall", "ms": round(self.seconds * 1000)}
        line |= {"owner": self.owner, "place": _commonest_place(self._places)}
        if self.usage is not None:
            line["computed_ms"] = round(self.usage.computed_s * 1000)
            line["queued_ms"] = round(self.usage.queued_s * 1000)
        if self._others:
            line["other_thread"] = _commonest_place(self._others)
        log.warning("event loop blocked: %s", json.dumps(line))


def _commonest_place(counts: Counter[tuple[str, CodePlace]]) -> CodePlace:
    """The position that was seen most often; empty if none was."""
    return counts.most_common(1)[0][0][1] if counts else ()


def find_line_owner(frame: FrameType | None) -> str:
    """The owner (one of `OWNERS`) of a thread's current line; for a library that of the nearest known caller."""
    for outer in _walk_outwards(frame):
        for folder in reversed(Path(outer.f_code.co_filename).parts[:-1]):
            if folder in _PACKAGES:
                return _PACKAGES[folder]
    return "other"


def list_line_places(frame: FrameType | None) -> list[str]:
    """The innermost frame as file:line if it is not ours, then our `_MAX_FRAMES` innermost ones, innermost first."""
    frames = list(_walk_outwards(frame))
    ours = [place for place in map(_own_place, frames) if place is not None][:_MAX_FRAMES]
    # If the innermost frame is ours, it is in the list already.
    if not frames or ours[:1] == [_own_place(frames[0])]:
        return ours
    code = frames[0].f_code
    parts: Sequence[str] = Path(code.co_filename).parts[-2:]
    return [f"{'/'.join(parts)}:{frames[0].f_lineno}", *ours]


def _walk_outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those that called it, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _own_place(frame: FrameType) -> str | None:
    """A frame as file:line if it is in this project; None otherwise."""
    path = Path(frame.f_code.co_filename)
    parts = path.parts
    indices = [index for index, part in enumerate(parts[:-1]) if _PACKAGES.get(part) == "aligner"]
    return f"{'/'.join(parts[indices[-1] :])}:{frame.f_lineno}" if indices else None
