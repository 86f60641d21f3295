"""Has a file changed, and is what it says now any good? One value read from files, the last good one staying in force.

A change counts when the files have been still from one look to the next (nobody is writing any more) and when they can
be read as a whole. The value is swapped in one assignment: whoever asks gets the old one or the new one, never a part
of each. Looked at by a thread of its own, because a file may be slow to read and LiteLLM's workers share no signal.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from aligner_proxy.errors import AlignerProxyError

LOOK_S = 1.0
"""Seconds between two looks; a change counts after one to two of them."""

# What a file can do to whoever parses it (a deep nest, say); nothing in a file may end the watching.
_PARSERS_STUMBLE = (OSError, RuntimeError, MemoryError, ValueError, TypeError, LookupError, AttributeError)

_T = TypeVar("_T")
Signature = tuple[tuple[int, int, int] | None, ...]
Listener = Callable[[str | None], None]


class Watched(Generic[_T]):
    """`read` returns the value and the files that it came from; what it raises refuses the value.

    `changed` is told what became of a change: None for a value that was taken, else why it was refused, once.
    """

    def __init__(self, read: Callable[[], tuple[_T, tuple[Path, ...]]], changed: Listener = lambda _: None) -> None:
        self._read, self._changed = read, changed
        self.current, self._files = read()
        self.refusal: str | None = None
        # Nothing is taken for read yet: the files may have changed between being read and being looked at.
        self._taken: Signature = ()
        self._seen = self._signature()

    def look(self) -> None:
        """Take a change that has settled. Called by one thread at a time."""
        now = self._signature()
        still, self._seen = now == self._seen, now
        # What was refused is read again: it may have named a file that was not there yet.
        if still and (now != self._taken or self.refusal):
            self._take(now)

    def _take(self, now: Signature) -> None:
        try:
            value, files = self._read()
        except AlignerProxyError as error:
            self._refuse(str(error))
            return
        except _PARSERS_STUMBLE as error:
            self._refuse(f"cannot be read: {type(error).__name__}")
            return
        if self._signature() != now:
            return  # written to while it was read; the next looks see
        new = value != self.current or self.refusal is not None
        self.current, self._files, self.refusal = value, files, None
        self._taken = self._seen = self._signature()
        if new:
            self._changed(None)

    def _refuse(self, why: str) -> None:
        if why != self.refusal:
            self.refusal = why
            self._changed(why)

    def keep_looking(self, every_s: float = LOOK_S) -> None:
        """Look from now on, for as long as anybody holds this."""
        watching = threading.Thread(
            target=_look_again_and_again, args=(weakref.ref(self), every_s), name="aligner-proxy-watch", daemon=True
        )
        watching.start()

    def _signature(self) -> Signature:
        return tuple(_signed(path) for path in self._files)


def _look_again_and_again(watched: weakref.ref[Watched[_T]], every_s: float) -> None:
    pause = threading.Event()
    while not pause.wait(every_s):
        there = watched()
        if there is None:
            return
        there.look()
        del there


def _signed(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from what it was: a new inode is a new file even if size and time were kept."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
