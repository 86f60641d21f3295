"""Answers as they happen: one reader asks the audit store for new entries and hands them to every page that is open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cachetools import LRUCache

from aligner_proxy.console.reading import handle
from aligner_proxy.errors import AlignerProxyError
from aligner_proxy.plugins.api import Entry

log = logging.getLogger(__name__)

PAUSE_S = 0.4
"""Between two looks; an answer is on the page within a second."""
_OVERLAP_S = 15.0
"""Entries are written behind their answers, not in order: so far back every look goes."""
_MOST_AT_ONCE = 2000
_MOST_WAITING = 500
"""Entries that wait for one slow page; beyond them it is told that some are missing."""
MISSED: Final = None

Read = Callable[[float, int], Sequence[Entry]]
"""The newest entries since a moment, oldest first; blocks."""


class Follower:
    """Reader of new entries. It rests while no page is open."""

    def __init__(self, read: Read, pause_s: float = PAUSE_S, clock: Callable[[], float] = time.time) -> None:
        self._read = read
        self._pause_s = pause_s
        self._clock = clock
        self._pages: set[asyncio.Queue[Entry | None]] = set()
        self._somebody = asyncio.Event()
        self._known: dict[str, float] = {}
        """When the entries of the last seconds happened, by handle."""
        self._failing = False
        self.rendered: LRUCache[str, str] = LRUCache(_MOST_AT_ONCE)
        """Events by the handles of their entries: every page that shows one shows the same."""

    async def run(self) -> None:
        """Hand out new entries until cancelled."""
        while True:
            await self._somebody.wait()
            await self.look()
            await asyncio.sleep(self._pause_s)

    @contextlib.contextmanager
    def page(self) -> Iterator[asyncio.Queue[Entry | None]]:
        """A queue of what happens from now on; `MISSED` in it stands for entries that it had no room for."""
        queue: asyncio.Queue[Entry | None] = asyncio.Queue(_MOST_WAITING)
        self._pages.add(queue)
        self._somebody.set()
        try:
            yield queue
        finally:
            self._pages.discard(queue)
            if not self._pages:
                self._somebody.clear()
                self._known.clear()

    @property
    def pages(self) -> int:
        """How many pages follow."""
        return len(self._pages)

    async def look(self) -> None:
        """Look once, and hand out what is new."""
        since = self._clock() - _OVERLAP_S
        try:
            entries = await asyncio.to_thread(self._read, since, _MOST_AT_ONCE)
        except (AlignerProxyError, sqlite3.Error, OSError) as error:
            if not self._failing:
                log.warning("console: the audit store cannot be read (%s); it is tried again", type(error).__name__)
            self._failing = True
            return
        self._failing = False
        known = {name: at for name, at in self._known.items() if at >= since}
        new = [entry for entry in entries if handle(entry) not in known]
        self._known = known | {handle(entry): entry.at for entry in new}
        for entry in new:
            self._hand_out(entry)

    async def lately(self) -> Sequence[Entry]:
        """What a page may have missed between its list and its queue, and may have seen."""
        return await asyncio.to_thread(self._read, self._clock() - _OVERLAP_S, _MOST_WAITING)

    def _hand_out(self, entry: Entry) -> None:
        for queue in self._pages:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(MISSED)
            queue.put_nowait(entry)
