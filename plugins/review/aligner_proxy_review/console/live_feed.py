"""Live feed: one reader polls the audit store for new entries, and passes them to every open page.

Each poll passes on one batch, so the cost grows with the number of pages and not with the traffic. Pages with the same
filters share the rendered text.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache

from aligner_proxy.errors import AlignerProxyError
from aligner_proxy.plugins.api import Entry
from aligner_proxy_review.console.answer_queries import AnswerQueries

log = logging.getLogger(__name__)

PAUSE_S = 0.4
"""Seconds between two polls; an answer appears within a second."""
_RECENT_S = 15.0
"""A new page also gets the entries of the last seconds, since its list was rendered a little before."""
_MAX_BATCH_ENTRIES = 500
"""Size of the largest batch; pages are told if there were more entries."""
_MAX_QUEUED_BATCHES = 20
"""How many batches may wait for a slow page; if there are more, the page is told that some are missing."""
_MAX_RENDERED = 2000
"""How many rendered events are cached."""
MISSED: Final = None
"""What a page's queue has in place of a batch that was left out, so that the page says that entries are missing."""


@dataclass(frozen=True, slots=True)
class Batch:
    """New entries, oldest first."""

    entries: Sequence[Entry]
    _rendered: dict[Hashable, str] = field(default_factory=dict)
    """The rendered batch by kind of page."""

    def render(self, kind: Hashable, render_entries: Callable[[Sequence[Entry]], str]) -> str:
        """Return the rendered batch; `render_entries` is called only once for all pages of the same kind."""
        if kind not in self._rendered:
            self._rendered[kind] = render_entries(self.entries)
        return self._rendered[kind]


class LiveFeed:
    """Reader of new entries for all open pages; it pauses while no page is open."""

    def __init__(
        self, answers: AnswerQueries, pause_s: float = PAUSE_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._answers = answers
        self._pause_s = pause_s
        self._clock = clock
        self._page_queues: set[asyncio.Queue[Batch | None]] = set()
        """For each open page, the batches that it has not read; None is `MISSED`."""
        self._has_pages = asyncio.Event()
        """Set while a page is open."""
        self._last_row: int | None = None
        """The id of the last row that was passed on; None while no page is open."""
        self._is_failing = False
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
        """Yield a queue from which a page gets new batches until the block ends; None in it is `MISSED`."""
        queue: asyncio.Queue[Batch | None] = asyncio.Queue(_MAX_QUEUED_BATCHES)
        self._page_queues.add(queue)
        self._has_pages.set()
        try:
            yield queue
        finally:
            self._page_queues.discard(queue)
            if not self._page_queues:
                self._has_pages.clear()
                self._last_row = None

    @property
    def page_count(self) -> int:
        """Number of open pages."""
        return len(self._page_queues)

    async def poll(self) -> None:
        """Poll the audit store once, and pass on new entries; log the first of several failures."""
        try:
            known_row = await self._find_last_row()
            newest_row, entries = await asyncio.to_thread(self._answers.entries_after, known_row, _MAX_BATCH_ENTRIES)
        except (AlignerProxyError, sqlite3.Error, OSError) as error:
            if not self._is_failing:
                log.warning("console: the audit store cannot be read (%s); retrying", type(error).__name__)
            self._is_failing = True
            return
        self._is_failing = False
        # the last page may have been closed meanwhile
        if not self._page_queues:
            return
        # not the larger row of both: after an erasure, new entries may reuse row ids
        self._last_row = newest_row
        if len(entries) == _MAX_BATCH_ENTRIES:
            self._hand_out(MISSED)
        if entries:
            self._hand_out(Batch(entries))

    async def recent_entries(self) -> Sequence[Entry]:
        """Return entries that a page may have missed between rendering its list and opening its queue, oldest first.

        The page may have some of them already.
        """
        # The last row is set first, so that all entries after it come through the queue.
        await self._find_last_row()
        since = self._clock() - _RECENT_S
        return await asyncio.to_thread(self._answers.entries_since, since, _MAX_BATCH_ENTRIES)

    async def _find_last_row(self) -> int:
        """Return the id of the last row that was passed on; at first, set it to the newest row of the store."""
        if self._last_row is None:
            newest_row = await asyncio.to_thread(self._answers.last_row)
            # another page may have set it meanwhile
            if self._last_row is None:
                self._last_row = newest_row
        return self._last_row

    def _hand_out(self, batch: Batch | None) -> None:
        """Put a batch into every page's queue, or `MISSED`, which tells the page that entries are missing.

        A full queue, whose page does not read, is emptied and gets `MISSED` first.
        """
        for queue in self._page_queues:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                if batch is not MISSED:
                    queue.put_nowait(MISSED)
            queue.put_nowait(batch)
