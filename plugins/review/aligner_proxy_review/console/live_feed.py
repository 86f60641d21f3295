"""Live feed: one reader polls the audit store for new entries and passes them to every open page.

Each poll passes on one batch, so the cost grows with the number of pages and not with the traffic. Pages with the same
filters share the rendered bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from cachetools import LRUCache

from aligner_proxy.errors import AlignerProxyError
from aligner_proxy.plugins.api import Entry

log = logging.getLogger(__name__)

PAUSE_S = 0.4
"""Seconds between two polls; an answer appears within a second."""
_BEFORE_S = 15.0
"""How many seconds back a new page gets entries, since its list was rendered a little before."""
_MAX_AT_ONCE = 500
"""Largest batch; pages are told if there were more entries."""
_MAX_WAITING = 20
"""How many batches may wait for a slow page; with more, the page is told that some are missing."""
_MAX_RENDERED = 2000
"""How many rendered events are cached."""
MISSED: Final = None
"""In a queue, in place of a batch that was left out."""


class AnswerSource(Protocol):
    """The audit store as the feed needs it; every call may block."""

    def last_row(self) -> int:
        """The id of the newest row, 0 if there is none; ids only grow."""

    def entries_after(self, known_row: int, limit: int) -> tuple[int, Sequence[Entry]]:
        """The id of the newest row, and the newest entries after row `known_row`, oldest first."""

    def entries_since(self, since: float, limit: int) -> Sequence[Entry]:
        """The newest entries since a time, oldest first."""


@dataclass(frozen=True, slots=True)
class Batch:
    """New entries, oldest first."""

    entries: Sequence[Entry]
    _rendered: dict[Hashable, str] = field(default_factory=dict)
    """The rendered batch by kind of page."""

    def render(self, kind: Hashable, make: Callable[[Sequence[Entry]], str]) -> str:
        """Return the batch as rendered by `make`, which is called only once for all pages of the same kind."""
        if kind not in self._rendered:
            self._rendered[kind] = make(self.entries)
        return self._rendered[kind]


class LiveFeed:
    """Reads new entries; pauses while no page is open."""

    def __init__(self, source: AnswerSource, pause_s: float = PAUSE_S, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._pause_s = pause_s
        self._clock = clock
        self._pages: set[asyncio.Queue[Batch | None]] = set()
        """The queue of each open page."""
        self._has_pages = asyncio.Event()
        """Set while a page is open."""
        self._last: int | None = None
        """The last row that was passed on; None while no page is open."""
        self._failing = False
        """Whether the last poll failed, so that a series of failures is logged once."""
        self.rendered: LRUCache[str, str] = LRUCache(_MAX_RENDERED)
        """Rendered events by the answer's handle, shared by all pages."""

    async def run(self) -> None:
        """Pass on new entries until cancelled."""
        while True:
            await self._has_pages.wait()
            await self.poll()
            await asyncio.sleep(self._pause_s)

    @contextlib.contextmanager
    def open_page(self) -> Iterator[asyncio.Queue[Batch | None]]:
        """Yield a queue of new batches for a page; `MISSED` in it means that some entries did not fit."""
        queue: asyncio.Queue[Batch | None] = asyncio.Queue(_MAX_WAITING)
        self._pages.add(queue)
        self._has_pages.set()
        try:
            yield queue
        finally:
            self._pages.discard(queue)
            if not self._pages:
                self._has_pages.clear()
                self._last = None

    @property
    def page_count(self) -> int:
        """Number of open pages."""
        return len(self._pages)

    async def poll(self) -> None:
        """Poll once and pass on new entries; logs the first of several failures."""
        try:
            last_row = await self._first_row()
            newest, entries = await asyncio.to_thread(self._source.entries_after, last_row, _MAX_AT_ONCE)
        except (AlignerProxyError, sqlite3.Error, OSError) as error:
            if not self._failing:
                log.warning("console: the audit store cannot be read (%s); retrying", type(error).__name__)
            self._failing = True
            return
        self._failing = False
        if not self._pages:
            return
        # Not the maximum of both: after an erasure, new entries may reuse row ids.
        self._last = newest
        if len(entries) == _MAX_AT_ONCE:
            self._hand_out(MISSED)
        if entries:
            self._hand_out(Batch(entries))

    async def recent_entries(self) -> Sequence[Entry]:
        """Recent entries, oldest first, that a page may have missed between rendering its list and opening its queue.

        The page may have some of them already.
        """
        # Fix the row first: entries added after it come through the queue.
        await self._first_row()
        return await asyncio.to_thread(self._source.entries_since, self._clock() - _BEFORE_S, _MAX_AT_ONCE)

    async def _first_row(self) -> int:
        """Return the row after which entries are new; sets it on first use."""
        if self._last is None:
            last = await asyncio.to_thread(self._source.last_row)
            if self._last is None:  # another page may have set it meanwhile
                self._last = last
        return self._last

    def _hand_out(self, batch: Batch | None) -> None:
        """Put a batch into every page's queue; a full queue is emptied and gets `MISSED` first."""
        for queue in self._pages:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                if batch is not MISSED:
                    queue.put_nowait(MISSED)
            queue.put_nowait(batch)
