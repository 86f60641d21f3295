"""Budget of bytes that streams hold back: for each stream, and for all of a worker together.

A stream that holds too much is not read on until some of it went out. Where all together hold too much, a tenant that
holds more than an equal share is refused first, and one that holds less than half of it is not held up at all. Sizes
are estimates: what LiteLLM and we keep of a chunk is not its text but the objects around it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

from aligner_proxy.formats.base import StreamEvent
from aligner_proxy.formats.packing import PackedChunk
from aligner_proxy.observability.metrics import STREAM_BYTES

_EVENT_BYTES = 800
"""Our own objects around one event."""
_CHUNK_BYTES = 3_300
"""One of LiteLLM's chunks, its text aside."""
_KEPT_BYTES = 12
"""Of each character, until its stream is over: for the log, the audit and the events that repeat the text; 9 to 15 were
counted in streams of two million characters."""
_SMALL = 0.5
"""The part of an equal share below which a tenant is not held up."""
_MIB = 1 << 20


def size_of(event: StreamEvent) -> int:
    """Bytes that an event in line takes up, about."""
    if isinstance(event.item, bytes | str):
        return _EVENT_BYTES + len(event.item)
    around = 0 if isinstance(event.item, PackedChunk) else _CHUNK_BYTES
    return _EVENT_BYTES + around + sum(len(piece) for _, piece in event.pieces)


class StreamBudget:
    """What the streams of one worker may hold, in MiB."""

    def __init__(self, max_mb: int = 512, stream_mb: int = 16) -> None:
        self.most = max_mb * _MIB
        self.most_each = stream_mb * _MIB
        self.held_bytes = 0
        self._by_tenant: Counter[str] = Counter()
        self._waiting: set[asyncio.Event] = set()

    def open(self, tenant: str) -> StreamAccount:
        """The account of a stream that begins."""
        STREAM_BYTES.set(self.held_bytes)
        return StreamAccount(self, tenant)

    @property
    def full(self) -> bool:
        """Whether all streams together hold too much."""
        return self.held_bytes > self.most

    def add(self, tenant: str, size: int) -> None:
        """A stream of this tenant holds more, or less."""
        self.held_bytes += size
        self._by_tenant[tenant] += size
        if not self._by_tenant[tenant]:
            del self._by_tenant[tenant]
        if size < 0:
            for freed in self._waiting:
                freed.set()

    def shares(self, tenant: str) -> float:
        """How many equal shares of all that may be held a tenant has."""
        return self._by_tenant[tenant] * max(1, len(self._by_tenant)) / self.most

    async def wait_for_room(self, within_s: float) -> bool:
        """Wait until some stream holds less; False when none did for so long."""
        STREAM_BYTES.set(self.held_bytes)
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await event.wait()
        finally:
            self._waiting.discard(event)
        return event.is_set()


class StreamAccount:
    """What one stream holds."""

    def __init__(self, budget: StreamBudget, tenant: str) -> None:
        self._budget = budget
        self._tenant = tenant
        self.held_bytes = 0
        self._kept_bytes = 0

    def hold(self, size: int) -> None:
        """More is in line."""
        self.held_bytes += size
        self._budget.add(self._tenant, size)

    def keep(self, chars: int) -> None:
        """More text has come, of which something is kept until the stream is over."""
        self._kept_bytes += chars * _KEPT_BYTES
        self._budget.add(self._tenant, chars * _KEPT_BYTES)

    def free(self, size: int) -> None:
        """Something went out."""
        self.hold(-size)

    @property
    def too_long(self) -> bool:
        """Whether this stream holds too much."""
        return self.held_bytes > self._budget.most_each

    @property
    def full(self) -> bool:
        """Whether there is no room for more, in this stream or in all of them."""
        return self.too_long or (self._budget.full and self._budget.shares(self._tenant) > _SMALL)

    @property
    def over_share(self) -> bool:
        """Whether all streams together hold too much, and those of this tenant more than their share."""
        return self._budget.full and self._budget.shares(self._tenant) > 1

    async def wait_for_room(self, within_s: float) -> bool:
        """Wait for some room; False when there was none for so long, and other streams are the reason."""
        freed = await self._budget.wait_for_room(within_s)
        return freed or not self._budget.full

    def close(self) -> None:
        """The stream is over."""
        self.hold(-self.held_bytes)
        self._budget.add(self._tenant, -self._kept_bytes)
        self._kept_bytes = 0
        STREAM_BYTES.set(self._budget.held_bytes)
