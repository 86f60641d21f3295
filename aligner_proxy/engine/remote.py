"""How does a gateway let an engine elsewhere read along? In the background, and never in the way.

Text is sent as it comes, one request at a time, whatever has gathered meanwhile together. When anything goes wrong the
reading is given up, and the whole answer is sent at its end, as if nobody had read ahead.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from aligner_proxy.engine.protocol import AlignRequest, AlignResponse, Span
from aligner_proxy.engine.wire import JUDGED, OPENED, VERDICTS, Known, More, parsing
from aligner_proxy.errors import CorrectionError, DeadlineExceeded, ReadingLost
from aligner_proxy.stages import stage
from aligner_proxy.types import Correction, SegmentScore

Send = Callable[[str, str, bytes | None], Awaitable[bytes]]
Align = Callable[[AlignRequest, str | None], Awaitable[Correction]]
Forget = Callable[[Awaitable[str]], None]


class RemoteReading:
    """Satisfies `Reading`. `send` is one HTTP request, `align` the patient one that ends a reading if given one.

    `forget` tells the engine, without anybody waiting for it, that a reading is not wanted any more, once its name is
    known: an opening that is on its way is never cut off, or the engine would keep a reading that nobody can name.
    """

    def __init__(self, request: AlignRequest, send: Send, align: Align, forget: Forget) -> None:
        self._request, self._send, self._align, self._forget = request, send, align, forget
        self._opening: asyncio.Task[str] | None = None
        self._name: str | None = None
        self._unsent = ""
        self._verdicts: tuple[SegmentScore, ...] = ()
        self._broken = self._ending = False
        self._ended = self._end_sent = False
        self._opened = asyncio.Event()
        self._failure: CorrectionError | None = None
        self._pump: asyncio.Task[None] | None = None

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer; it is sent in the background."""
        if not self._broken:
            self._unsent += text
            if self._pump is None or self._pump.done():
                self._pump = asyncio.create_task(self._send_on())
        return self._verdicts

    async def end(self) -> None:
        """There is no more; sent in the background like the text."""
        self._ended = True
        await self.feed("")

    async def judged(self, known: int) -> tuple[SegmentScore, ...] | None:
        """Wait at the engine for more verdicts."""
        told = await self._asked("judged", Known(known=known))
        with parsing("the engine sent something that is no verdict"):
            return JUDGED.validate_json(told)

    async def replace(self, span: Span) -> Correction:
        """What stands in place of a flagged stretch, within `span.deadline_s`."""
        try:
            with stage("engine", kind="CLIENT", gen_ai__operation__name="text_completion"):
                async with asyncio.timeout(span.deadline_s):
                    told = await self._asked("replace", span)
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline of {span.deadline_s:g} s passed") from None
        with parsing("the engine sent something that is no correction"):
            return AlignResponse.model_validate_json(told).correction()

    async def finish(self, request: AlignRequest) -> Correction:
        """The correction, of what the engine has read if it has, else of the whole."""
        self._ending = True
        until = time.monotonic() + request.deadline_s
        try:
            await self._sent(until)
            if self._name is not None and not self._broken:
                name, self._name, self._opening = self._name, None, None  # the engine ends it, whatever comes of it
                with contextlib.suppress(ReadingLost):
                    return await self._align(request, name)
            return await self._align(_by(request, until), None)
        finally:
            await self._stop()

    async def aclose(self) -> None:
        """Stop sending, and tell the engine; one that is being finished belongs to whoever waits for that."""
        if not self._ending:
            await self._stop()

    async def _asked(self, what: str, body: BaseModel) -> bytes:
        """Ask about what the engine reads; the reading has to be open for that."""
        await self._opened.wait()
        if self._name is None or self._broken:
            raise self._failure or ReadingLost("the engine does not read this answer")
        return await self._send("POST", f"/v1/read/{self._name}/{what}", body.model_dump_json().encode())

    async def _sent(self, until: float) -> None:
        """Wait for what is on its way."""
        if self._pump is None:
            return
        await asyncio.wait({self._pump}, timeout=max(0.0, until - time.monotonic()))
        if not self._pump.done():
            raise DeadlineExceeded("the deadline passed before the engine had heard the whole answer")

    async def _stop(self) -> None:
        """Send no more, and let the engine forget what it has not been asked to finish."""
        pump, self._pump = self._pump, None
        try:
            if pump is not None and not pump.done():
                pump.cancel()
                await asyncio.wait({pump})
        finally:
            opening, self._opening, self._name = self._opening, None, None
            if opening is not None:
                self._forget(opening)

    async def _open(self) -> str:
        """Let the engine begin; the name that it gives."""
        opened = await self._send("POST", "/v1/read", self._request.model_dump_json().encode())
        with parsing("the engine sent something that is no name of a reading"):
            return OPENED.validate_json(opened).reading

    async def _send_on(self) -> None:
        """Send what has gathered until nothing is left."""
        try:
            if self._name is None:
                self._opening = asyncio.create_task(self._open())
                self._name = await asyncio.shield(self._opening)
                self._opened.set()
            while self._unsent or self._ended > self._end_sent:
                more, self._unsent, self._end_sent = More(text=self._unsent, ended=self._ended), "", self._ended
                told = await self._send("POST", f"/v1/read/{self._name}", more.model_dump_json().encode())
                with parsing("the engine sent something that is no verdict"):
                    self._verdicts = VERDICTS.validate_json(told)
        except (CorrectionError, ValueError) as error:
            self._broken, self._unsent = True, ""
            self._failure = error if isinstance(error, CorrectionError) else None
            self._opened.set()


def _by(request: AlignRequest, until: float) -> AlignRequest:
    """The same request with the time that is left."""
    return request.model_copy(update={"deadline_s": max(0.001, until - time.monotonic())})
