"""Memory budget for held streams: for each stream, and for all streams of a worker together.

If a stream holds too much, its upstream is not read further until some of it is delivered. If all streams together hold
too much, a tenant with more than an equal share is refused first, and a tenant with less than half of it does not have
to wait. Sizes are estimates, because most of a chunk's memory is not its text but the objects of LiteLLM and this
package around it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

from aligner_proxy.formats.packing import PackedChunk
from aligner_proxy.formats.stream_events import StreamEvent
from aligner_proxy.observability.metrics import STREAM_BYTES

_EVENT_BYTES = 800
"""Bytes of our own objects for one event."""
_CHUNK_BYTES = 3_300
"""Bytes of one LiteLLM chunk without its text."""
_KEPT_BYTES = 12
"""Bytes kept for each character until its stream ends, for log, audit and repeating events; 9 to 15 were measured."""
_SMALL_SHARE = 0.5
"""Part of an equal share up to which a tenant does not have to wait when all streams together hold too much."""
_MIB = 1 << 20


def estimate_event_bytes(event: StreamEvent) -> int:
    """Approximate bytes that a queued event takes."""
    return estimate_bytes(event.item, sum([len(piece) for _, piece in event.pieces]))


def estimate_bytes(item: object, chars: int) -> int:
    """Approximate bytes that an event takes in memory; `chars` is the length of the text in it, unless it is bytes."""
    if isinstance(item, bytes | str):
        return _EVENT_BYTES + len(item)
    chunk_bytes = 0 if isinstance(item, PackedChunk) else _CHUNK_BYTES  # a packed chunk keeps only its values
    return _EVENT_BYTES + chunk_bytes + chars


class StreamBudget:
    """Counts the memory that the streams of one worker hold. Its limits are `max_mb` for all streams together and
    `stream_mb` for one stream, both in MiB; the streams themselves stop reading at the limits.
    """

    def __init__(self, max_mb: int = 512, stream_mb: int = 16) -> None:
        self.max_bytes = max_mb * _MIB
        """Bytes that all streams together may hold."""
        self.max_stream_bytes = stream_mb * _MIB
        self.held_bytes = 0
        self._bytes_by_tenant: Counter[str] = Counter()
        self._freed_events: set[asyncio.Event] = set()
        """For each stream that waits for memory, an event that is set when any stream frees bytes."""

    def open(self, tenant: str) -> StreamAccount:
        """An empty account for a new stream of this tenant."""
        STREAM_BYTES.set(self.held_bytes)
        return StreamAccount(self, tenant)

    @property
    def is_full(self) -> bool:
        """Whether all streams together hold more than `max_bytes`."""
        return self.held_bytes > self.max_bytes

    def add(self, tenant: str, size: int) -> None:
        """Add `size` bytes (negative if freed) to a tenant's streams; wake waiting streams if bytes were freed."""
        self.held_bytes += size
        self._bytes_by_tenant[tenant] += size
        # A tenant that holds nothing must not count in `shares_used_by`.
        if not self._bytes_by_tenant[tenant]:
            del self._bytes_by_tenant[tenant]
        if size < 0:
            for freed_event in self._freed_events:
                freed_event.set()

    def shares_used_by(self, tenant: str) -> float:
        """A tenant's use in multiples of an equal share: if four tenants have streams, a quarter of the budget is 1."""
        tenant_count = max(1, len(self._bytes_by_tenant))
        return self._bytes_by_tenant[tenant] * tenant_count / self.max_bytes

    async def wait_for_freed_bytes(self, within_s: float) -> bool:
        """Wait until some stream frees bytes; return False if none did within `within_s` seconds."""
        STREAM_BYTES.set(self.held_bytes)
        freed_event = asyncio.Event()
        self._freed_events.add(freed_event)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await freed_event.wait()
        finally:
            self._freed_events.discard(freed_event)
        return freed_event.is_set()


class StreamAccount:
    """The bytes that one stream takes of the budget: those of its queued events, and those that stay until it ends."""

    def __init__(self, budget: StreamBudget, tenant: str) -> None:
        self._budget = budget
        self._tenant = tenant
        self.held_bytes = 0
        """Bytes of queued events, which delivery frees."""
        self._kept_bytes = 0
        """Bytes that stay until the stream ends, for example for the log."""

    def add_queued_bytes(self, size: int) -> None:
        """Add bytes of a queued event."""
        self.held_bytes += size
        self._budget.add(self._tenant, size)

    def add_kept_chars(self, chars: int) -> None:
        """Add the bytes that each arrived character takes until the stream ends."""
        # Not in `held_bytes`, since delivery does not free them.
        self._kept_bytes += chars * _KEPT_BYTES
        self._budget.add(self._tenant, chars * _KEPT_BYTES)

    def free_queued_bytes(self, size: int) -> None:
        """Subtract bytes of a delivered event."""
        self.add_queued_bytes(-size)

    @property
    def is_too_long(self) -> bool:
        """Whether this stream alone holds too much."""
        return self.held_bytes > self._budget.max_stream_bytes

    @property
    def is_crowded(self) -> bool:
        """Whether all streams together hold too much, and this tenant's more than `_SMALL_SHARE` of an equal share."""
        return self._budget.is_full and self._budget.shares_used_by(self._tenant) > _SMALL_SHARE

    @property
    def is_full(self) -> bool:
        """Whether this stream must not read on: it holds too much, or all streams together do."""
        return self.is_too_long or self.is_crowded

    @property
    def is_over_share(self) -> bool:
        """Whether all streams together hold too much, and this tenant's streams more than an equal share."""
        return self._budget.is_full and self._budget.shares_used_by(self._tenant) > 1

    async def wait_for_freed_bytes(self, within_s: float) -> bool:
        """Wait until some stream frees bytes; return False if none did within `within_s` seconds and all streams
        together still hold too much.
        """
        has_freed = await self._budget.wait_for_freed_bytes(within_s)
        return has_freed or not self._budget.is_full

    def close(self) -> None:
        """Give all bytes of this stream back to the budget; called when the stream ends."""
        self.free_queued_bytes(self.held_bytes)
        self._budget.add(self._tenant, -self._kept_bytes)
        self._kept_bytes = 0
        STREAM_BYTES.set(self._budget.held_bytes)
