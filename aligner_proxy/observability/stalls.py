"""Watchdog of an event loop: reports how long it stalled, at which line, and which package the line belongs to. A
thread checks whether the loop still runs a scheduled callback, the beat; a longer pause between two beats is a stall.

A stall counts in a histogram, and a log line names the innermost frames by file and line, never texts or variables. On
Linux the log also says how long the loop's thread computed and how long it waited for a CPU, because a busy machine
stalls even an idle loop.
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
from collections.abc import Iterator
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
_OWNER_BY_PACKAGE = {
    "aligner_proxy": "aligner",
    "aligner_proxy_fleet": "aligner",
    "aligner_proxy_grounding": "aligner",
    "aligner_proxy_review": "aligner",
    "aligner_proxy_systems": "aligner",
    "litellm": "litellm",
}
_WAITING_FILES = frozenset({"threading.py", "thread.py", "queue.py", "selectors.py", "socket.py", "stalls.py"})
"""Files in which a thread waits rather than computes."""
_HALF = 0.5
"""Half of a stall's time, or of the largest count; what exceeds it decides about the owner."""
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
        stall: _Stall | None = None  # the stall that goes on now
        logged_at = -_LOG_PAUSE_S
        measured_beat = 0.0
        usage: ThreadUsage | None = None  # the usage of the loop's thread at `measured_beat`
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
            # Measured for the next stall, which may begin at this beat.
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
    interpreter is held. If the other thread starts a thread, the process hangs for good (python/cpython#106883). So
    this function prevents collections by setting the thresholds to 0, and not by `gc.disable()`, which
    gc_workaround.py uses.
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
    _loop_places: Counter[tuple[str, CodePlace]] = field(default_factory=Counter)
    """Number of times the loop's thread was seen, by owner and place."""
    _other_thread_places: Counter[tuple[str, CodePlace]] = field(default_factory=Counter)
    """Number of times that other threads were seen which were not waiting, by owner and place."""

    def record_positions(self, thread_id: int) -> None:
        """Count the lines at which the loop's thread `thread_id` and other threads that do not wait are now."""
        frames = current_frames()
        frame = frames.pop(thread_id, None)
        self._loop_places[find_line_owner(frame), tuple(list_line_places(frame))] += 1
        for other_frame in frames.values():
            if Path(other_frame.f_code.co_filename).name not in _WAITING_FILES:
                owner = find_line_owner(other_frame)
                self._other_thread_places[owner, tuple(list_line_places(other_frame))] += 1

    def end(self, ended_at: float, usage: ThreadUsage | None) -> None:
        """Set the stall's duration, usage and owner, from the monotonic time of its end and the `usage` until then."""
        self.seconds = ended_at - self.began
        self.usage = usage.subtract(self.usage) if usage and self.usage else None
        self.owner = self._find_owner()

    def _find_owner(self) -> str:
        """The owner of the blocking line, one of `OWNERS`.

        This is "machine" if the loop's thread waited for a CPU for more than half of the stall. Otherwise it is the
        owner whose lines were seen most: in other threads, if the loop's thread computed for less than half of the
        stall and others were active, else in the loop's thread. "aligner" wins with over half of the highest count.
        """
        if self.usage is not None and self.usage.queued_s > _HALF * self.seconds:
            return "machine"
        computed_little = self.usage is not None and self.usage.computed_s < _HALF * self.seconds
        blames_others = computed_little and bool(self._other_thread_places)
        counts = self._other_thread_places if blames_others else self._loop_places
        count_by_owner = Counter[str]()
        for (owner, _place), seen_count in counts.items():
            count_by_owner[owner] += seen_count
        # A library's thread is also seen while it waits in a read, our threads only while they compute. So a lower
        # count is enough for "aligner".
        highest_count = max(count_by_owner.values(), default=0)
        if count_by_owner["aligner"] > _HALF * highest_count:
            return "aligner"
        return max(count_by_owner, key=count_by_owner.__getitem__, default="other")

    def report(self) -> None:
        """Log the stall as one JSON object: its milliseconds, owner, places, and usage where this is known."""
        fields: dict[str, object] = {"event": "aligner_loop_stall", "ms": round(self.seconds * 1000)}
        fields |= {"owner": self.owner, "place": _commonest_place(self._loop_places)}
        if self.usage is not None:
            fields["computed_ms"] = round(self.usage.computed_s * 1000)
            fields["queued_ms"] = round(self.usage.queued_s * 1000)
        if self._other_thread_places:
            fields["other_thread"] = _commonest_place(self._other_thread_places)
        log.warning("event loop blocked: %s", json.dumps(fields))


def _commonest_place(counts: Counter[tuple[str, CodePlace]]) -> CodePlace:
    """The place that was seen most often, by counts of (owner, place); empty if none was seen."""
    if not counts:
        return ()
    (_owner, place), _count = counts.most_common(1)[0]
    return place


def find_line_owner(frame: FrameType | None) -> str:
    """The owner of a thread's current line: "aligner", "litellm" or "other".

    A line of another library belongs to the nearest caller in a known package, and to "other" if there is none.
    """
    for outer_frame in _walk_outwards(frame):
        for folder in reversed(Path(outer_frame.f_code.co_filename).parts[:-1]):
            if folder in _OWNER_BY_PACKAGE:
                return _OWNER_BY_PACKAGE[folder]
    return "other"


def list_line_places(frame: FrameType | None) -> list[str]:
    """Where a thread is, as file:line: its current line, then the innermost lines of this project, innermost first.

    At most `_MAX_FRAMES` lines of this project are listed.
    """
    if frame is None:
        return []
    own_places = [place for place in map(_own_place, _walk_outwards(frame)) if place is not None][:_MAX_FRAMES]
    if own_places[:1] == [_own_place(frame)]:  # the current line is in the list already
        return own_places
    path_end = Path(frame.f_code.co_filename).parts[-2:]
    return [f"{'/'.join(path_end)}:{frame.f_lineno}", *own_places]


def _walk_outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and the frames that called it, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _own_place(frame: FrameType) -> str | None:
    """The line of a frame as file:line, the file's path beginning at its package; None if it is not in this project."""
    parts = Path(frame.f_code.co_filename).parts
    package_indexes = [index for index, part in enumerate(parts[:-1]) if _OWNER_BY_PACKAGE.get(part) == "aligner"]
    if not package_indexes:
        return None
    path_in_package = "/".join(parts[package_indexes[-1] :])
    return f"{path_in_package}:{frame.f_lineno}"
