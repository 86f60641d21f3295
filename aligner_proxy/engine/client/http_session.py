"""Session of a remote engine: an answer is sent while it is being written, and corrected at its end.

A session sends one request at a time, each with all text that came during the request before. If anything goes wrong,
the session is given up. The whole answer is then sent at its end, as if nothing had been read ahead.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from pydantic import BaseModel

from aligner_proxy.concurrency import TimeSlice, enforce_deadline
from aligner_proxy.engine.api import AlignRequest, AlignResponse, Session, Span
from aligner_proxy.engine.client.head_supply import LACKING, HeadSupply
from aligner_proxy.engine.wire import JUDGED, VERDICTS, KnownVerdicts, SessionOpened, TextChunk, translate_parse_errors
from aligner_proxy.errors import CorrectionError, DeadlineExceeded, SessionLost
from aligner_proxy.observability.tracing import stage
from aligner_proxy.types import Correction, SegmentScore


class SessionServer(Protocol):
    """The client of the session's engine, as a session uses it (`HttpEngine`)."""

    heads: HeadSupply

    async def send(self, method: str, path: str, content: bytes | None) -> bytes:
        """Send one HTTP request and return the body of its answer. Raises the error that the engine reports."""

    def align(self, request: AlignRequest, path: str = ...) -> Coroutine[Any, Any, Correction]:
        """Correct one answer within `request.deadline_s`."""

    def close_session(self, opening: Awaitable[str]) -> None:
        """Close a session on the engine in the background, once `opening` has returned its name."""


class _Outbox:
    """Text that waits to be sent, and the task that sends it."""

    def __init__(self) -> None:
        self._text = ""  # waits to be sent
        self._has_ended = False  # whether no more text will come
        self._end_sent = False  # whether the engine was told that no more text will come
        self._task: asyncio.Task[None] | None = None  # sends until nothing is left; None before the first text

    def add(self, text: str, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Add text. If nothing is being sent, start `send`, which sends chunks while `has_more` is true.

        `send` is not stored: as a method of the session, it would make a reference cycle, and the session's texts would
        stay in memory until garbage collection.
        """
        self._text += text
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(send())

    def end(self) -> None:
        """Note that no more text will come; the next chunk tells the engine, too."""
        self._has_ended = True

    @property
    def has_more(self) -> bool:
        """Whether there is something to send: text, or the message that no more will come."""
        return bool(self._text) or (self._has_ended and not self._end_sent)

    def take(self, known_count: int) -> TextChunk:
        """Return a chunk with all text that waits, and empty the outbox.

        The engine answers the chunk with its verdicts, except the first `known_count`.
        """
        chunk = TextChunk(text=self._text, ended=self._has_ended, known=known_count)
        self._text = ""
        self._end_sent = self._has_ended
        return chunk

    def clear(self) -> None:
        """Give up the text that waits."""
        self._text = ""

    async def wait_until_sent(self, deadline_at: float) -> None:
        """Wait until all text is sent; raises `DeadlineExceeded` at `deadline_at`, in monotonic seconds."""
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=max(0.0, deadline_at - time.monotonic()))
        if not self._task.done():
            raise DeadlineExceeded("the deadline passed before the engine had the whole answer")

    async def stop(self) -> None:
        """Cancel the sending and wait until it has ended; text that waits is not sent."""
        task = self._task
        self._task = None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})


class HttpSession(Session):
    """A session on a remote engine, fed in the background.

    Its sending yields to other long work of the event loop, so that many streams send in turn.
    """

    def __init__(self, engine: SessionServer, request: AlignRequest) -> None:
        self._engine = engine
        self._request = request
        self._opening: asyncio.Task[str] | None = None  # opens the session and returns its name
        self._name: str | None = None  # on the engine; None before it is opened and after it has ended
        self._outbox = _Outbox()
        # the engine sends each verdict twice: in answer to text, and to `wait_for_verdicts`
        self._verdicts: tuple[SegmentScore, ...] = ()  # that came in answer to text
        self._awaited_verdicts: tuple[SegmentScore, ...] = ()  # that came in answer to `wait_for_verdicts`
        self._broken = False  # whether sending has failed: the answer is then sent whole at its end
        self._is_finishing = False  # whether `finish` was called
        self._opening_ended = asyncio.Event()  # set when the session is open, or lost
        self._failure: CorrectionError | None = None  # the error that broke the session, if it is one of ours
        self._time_slice = TimeSlice()

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """Add text, which is sent in the background, and return the verdicts received so far."""
        if not self._broken:
            self._outbox.add(text, self._send_gathered_text)
        return self._verdicts

    async def end(self) -> None:
        """Say that no more text will come; this is sent in the background, too."""
        self._outbox.end()
        await self.feed("")  # starts the sender if it has nothing to do

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """Ask the engine to wait for more than `known_count` verdicts, and return all verdicts.

        None means that the engine has no verdicts before the answer is finished. Raises the error that broke the
        session, or `SessionLost`.
        """
        known_verdicts = self._awaited_verdicts
        content = await self._post("judged", KnownVerdicts(known=known_count, received=len(known_verdicts)))
        with translate_parse_errors("the engine sent something that is no verdict"):
            new_verdicts = JUDGED.validate_json(content)
        if new_verdicts is None:
            return None
        self._awaited_verdicts = known_verdicts + new_verdicts
        return self._awaited_verdicts

    async def replace(self, span: Span) -> Correction:
        """Write a replacement for a flagged range within `span.deadline_s`; raises `SessionLost`."""
        with stage("engine", kind="CLIENT", gen_ai__operation__name="text_completion"):
            async with enforce_deadline(span.deadline_s):
                content = await self._post("replace", span)
        with translate_parse_errors("the engine sent something that is no correction"):
            return AlignResponse.model_validate_json(content).correction()

    async def finish(self, request: AlignRequest) -> Correction:
        """Let the engine correct the answer that it has read, or send the whole answer if the session is lost."""
        self._is_finishing = True
        deadline_at = time.monotonic() + request.deadline_s
        try:
            await self._outbox.wait_until_sent(deadline_at)
            if self._name is not None and not self._broken:
                path = f"/v1/read/{self._name}/finish"
                self._name = None  # the engine ends the session whether or not this succeeds
                self._opening = None
                # if the engine has lost the session, the whole answer is sent below
                with contextlib.suppress(SessionLost):
                    return await self._engine.align(request, path)
            return await self._engine.align(request.with_deadline(deadline_at - time.monotonic()))
        finally:
            await self._stop()

    async def aclose(self) -> None:
        """Stop sending and close the session on the engine, unless `finish` was called."""
        if not self._is_finishing:
            await self._stop()

    async def _post(self, action: str, body: BaseModel) -> bytes:
        """Wait until the session is open, send a request about it, and return the response's body.

        Raises `SessionLost`, or the error that broke the session.
        """
        await self._opening_ended.wait()
        await self._time_slice.pause()
        if self._name is None or self._broken:
            raise self._failure or SessionLost("the engine does not read this answer")
        return await self._engine.send("POST", f"/v1/read/{self._name}/{action}", body.model_dump_json().encode())

    async def _stop(self) -> None:
        """Stop sending, and close the session on the engine unless the engine ends it itself (`finish`)."""
        try:
            await self._outbox.stop()
        finally:
            opening = self._opening
            self._opening = None
            self._name = None
            # the error's traceback refers to this session, so the conversation would stay in memory
            self._failure = None
            if opening is not None:
                self._engine.close_session(opening)

    async def _open(self) -> str:
        """Open the session on the engine, uploading heads that it lacks; return the session's name."""
        request = self._engine.heads.drop_absent_heads(self._request)
        try:
            session = await self._request_session(request)
        except LACKING:
            session = await self._request_session(await self._engine.heads.upload_heads(request))
        with translate_parse_errors("the engine sent something that is no name of a reading"):
            return SessionOpened.model_validate_json(session).reading

    async def _request_session(self, request: AlignRequest) -> bytes:
        """Ask the engine to open a session; return the response's body."""
        return await self._engine.send("POST", "/v1/read", request.model_dump_json().encode())

    async def _send_gathered_text(self) -> None:
        """Open the session if needed, then send gathered text until none is left; an error breaks the session."""
        try:
            if self._name is None:
                self._opening = asyncio.create_task(self._open())
                # shielded, because an opening must not be cancelled; see `close_session`
                self._name = await asyncio.shield(self._opening)
                self._opening_ended.set()
            # also without text, if the engine must still be told that no more will come
            while self._outbox.has_more:
                await self._time_slice.pause()
                chunk = self._outbox.take(len(self._verdicts))
                content = await self._engine.send("POST", f"/v1/read/{self._name}", chunk.model_dump_json().encode())
                with translate_parse_errors("the engine sent something that is no verdict"):
                    self._verdicts += VERDICTS.validate_json(content)
        except (CorrectionError, ValueError) as error:
            self._broken = True
            self._outbox.clear()
            self._failure = error if isinstance(error, CorrectionError) else None
            self._opening_ended.set()  # requests that wait for the session now fail
