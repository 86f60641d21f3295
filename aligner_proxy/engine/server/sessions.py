"""Open sessions of a server, by name: answers that its engine reads while they are written.

A name is random and known only to the client that opened the session. A session is closed if it is idle for too long,
or if its client disconnects while it waits for verdicts or a replacement, because that client will not come back.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass

from aligner_proxy.engine.api import AlignRequest, Engine, Session, Span
from aligner_proxy.errors import SessionLost
from aligner_proxy.types import Correction, SegmentScore

IDLE_S = 120.0
"""Seconds after which an idle session is closed: its gateway is gone, because a gateway ends its own sessions."""


@dataclass(slots=True)
class _OpenSession:
    """An open session, and when it was last used, in monotonic seconds."""

    session: Session
    used_at: float


class EngineSessions:
    """The open sessions of one engine, by name."""

    def __init__(self, engine: Engine, idle_s: float = IDLE_S) -> None:
        self._engine = engine
        self._idle_s = idle_s
        self._open_sessions: dict[str, _OpenSession] = {}  # by name
        self._idle_check: asyncio.Task[None] | None = None  # closes idle sessions; None before the first session

    async def open(self, request: AlignRequest) -> str:
        """Open a session and return its name; closes idle sessions first."""
        await self._close_idle_sessions()
        session = await self._engine.read(request)
        name = secrets.token_urlsafe(16)
        self._open_sessions[name] = _OpenSession(session, time.monotonic())
        if self._idle_check is None or self._idle_check.done():
            self._idle_check = asyncio.create_task(self._keep_closing_idle_sessions())
        return name

    async def feed(self, name: str, text: str, *, text_ended: bool = False) -> tuple[SegmentScore, ...]:
        """Add text to an answer and return the verdicts so far; `text_ended` says whether the answer is complete now.

        Raises `SessionLost` for an unknown name.
        """
        session = self._touch_session(name)
        verdicts = await session.feed(text)
        if text_ended:
            await session.end()
        return verdicts

    async def wait_for_verdicts(
        self, name: str, known_count: int, received: int = 0
    ) -> tuple[SegmentScore, ...] | None:
        """Wait for more than `known_count` verdicts and return all verdicts but the first `received`.

        None if the session has no verdicts before its end. Raises `SessionLost` for an unknown name, and closes the
        session if the call is cancelled.
        """
        session = self._touch_session(name)
        try:
            verdicts = await session.wait_for_verdicts(known_count)
        except asyncio.CancelledError:
            await self.close(name)
            raise
        return None if verdicts is None else verdicts[received:]

    async def replace(self, name: str, span: Span) -> Correction:
        """Write a replacement for a flagged range; closes the session if the call is cancelled."""
        session = self._touch_session(name)
        try:
            return await session.replace(span)
        except asyncio.CancelledError:
            await self.close(name)
            raise

    async def finish(self, name: str, request: AlignRequest) -> Correction:
        """Correct the complete answer and end the session."""
        session = self._touch_session(name)
        self._forget(name)  # even if this fails, the session has ended
        return await session.finish(request)

    async def close(self, name: str) -> None:
        """Close a session; does nothing if the name is unknown."""
        entry = self._forget(name)
        if entry is not None:
            await entry.session.aclose()

    async def aclose(self) -> None:
        await asyncio.gather(*(self.close(name) for name in list(self._open_sessions)))

    def _touch_session(self, name: str) -> Session:
        """Return the open session of this name and note that it is used now; raises `SessionLost` for another name."""
        entry = self._open_sessions.get(name)
        if entry is None:
            raise SessionLost("no such reading; it was ended, or forgotten for too long")
        entry.used_at = time.monotonic()
        return entry.session

    def _forget(self, name: str) -> _OpenSession | None:
        """Remove a session from the open sessions and return it; None for an unknown name."""
        entry = self._open_sessions.pop(name, None)
        # the task that closes idle sessions must not cancel itself; without sessions its loop ends
        is_idle_check = self._idle_check is asyncio.current_task()
        if not self._open_sessions and self._idle_check is not None and not is_idle_check:
            self._idle_check.cancel()
        return entry

    async def _keep_closing_idle_sessions(self) -> None:
        """Close idle sessions regularly, as `open` closes them only while further sessions are opened."""
        while self._open_sessions:
            # twice per `idle_s`, so that an idle session stays open for at most one and a half times `idle_s`
            await asyncio.sleep(self._idle_s / 2)
            await self._close_idle_sessions()

    async def _close_idle_sessions(self) -> None:
        """Close the sessions that were not used for `idle_s` seconds."""
        idle_since = time.monotonic() - self._idle_s
        idle_names = [name for name, entry in self._open_sessions.items() if entry.used_at < idle_since]
        for name in idle_names:
            await self.close(name)
