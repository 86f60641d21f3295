"""How does a gateway let an engine elsewhere read along? In the background, and never in the way.

Text is sent as it comes, one request at a time, whatever has gathered meanwhile together. When anything goes wrong the
reading is given up, and the whole answer is sent at its end, as if nobody had read ahead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aligner_proxy.engine.protocol import AlignRequest
from aligner_proxy.engine.wire import OPENED, VERDICTS, More
from aligner_proxy.errors import CorrectionError, DeadlineExceeded, ReadingLost
from aligner_proxy.types import Correction, SegmentScore

Send = Callable[[str, str, bytes | None], Awaitable[bytes]]
Align = Callable[[AlignRequest, str | None], Awaitable[Correction]]


class RemoteReading:
    """Satisfies `Reading`. `send` is one HTTP request, `align` the patient one that ends a reading if given one."""

    def __init__(self, request: AlignRequest, send: Send, align: Align) -> None:
        self._request, self._send, self._align = request, send, align
        self._name: str | None = None
        self._unsent = ""
        self._verdicts: tuple[SegmentScore, ...] = ()
        self._broken = self._ending = False
        self._pump: asyncio.Task[None] | None = None

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer; it is sent in the background."""
        self._unsent += text
        if not self._broken and (self._pump is None or self._pump.done()):
            self._pump = asyncio.create_task(self._send_on())
        return self._verdicts

    async def finish(self, request: AlignRequest) -> Correction:
        """The correction, of what the engine has read if it has, else of the whole."""
        self._ending = True
        try:
            return await self._align(request, await self._read_so_far(request.deadline_s))
        except ReadingLost:
            return await self._align(request, None)
        finally:
            self._name = None

    async def aclose(self) -> None:
        """Stop sending, and tell the engine; one that is being finished belongs to whoever waits for that."""
        if self._ending:
            return
        await self._stop()
        if self._name is not None:
            with contextlib.suppress(CorrectionError):
                await self._send("DELETE", f"/v1/read/{self._name}", None)
            self._name = None

    async def _read_so_far(self, deadline_s: float) -> str | None:
        """Wait for what is on its way, within the deadline; the reading's name if it can be gone on with."""
        if self._pump is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline_s):
                    await asyncio.shield(self._pump)
            if not self._pump.done():
                await self._stop()
                raise DeadlineExceeded(f"the deadline of {deadline_s:g} s passed")
        return None if self._broken else self._name

    async def _stop(self) -> None:
        if self._pump is not None and not self._pump.done():
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump

    async def _send_on(self) -> None:
        """Send what has gathered until nothing is left."""
        try:
            if self._name is None:
                opened = await self._send("POST", "/v1/read", self._request.model_dump_json().encode())
                self._name = OPENED.validate_json(opened).reading
            while self._unsent:
                text, self._unsent = self._unsent, ""
                told = await self._send("POST", f"/v1/read/{self._name}", More(text=text).model_dump_json().encode())
                self._verdicts = VERDICTS.validate_json(told)
        except (CorrectionError, ValueError):
            self._broken = True
