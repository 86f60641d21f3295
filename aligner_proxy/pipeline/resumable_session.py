"""Session in which an engine reads an answer while it is being written, and which is reopened if the engine lost it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aligner_proxy.correctors.judged_engine import JudgedSession
from aligner_proxy.engine.api import DeferredSession, Session, Span
from aligner_proxy.engine.client.retry import NotReady, retry
from aligner_proxy.errors import CorrectionError, EngineOverloaded, EngineUnavailable, SessionLost
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Correction, Exchange, JudgeUse, Policy, SegmentScore

Result = TypeVar("Result")
LOST = (SessionLost, EngineUnavailable, EngineOverloaded)
"""Errors after which the engine can be asked again; any other error would recur."""
WAIT_S = 5.0
"""Seconds for which a session is tried again while the engine is unreachable or full, as for a whole answer."""


def _raise_session_over() -> Exchange:
    """Takes the place of `get_exchange` in a closed session; always raises."""
    raise SessionLost("this answer is over")


class ResumableSession:
    """A session that survives failures of the engine. `get_exchange` returns the exchange with the answer so far.

    `feed` and `end` raise no engine error. The next question (`wait_for_verdicts`, `replace`) raises it, or opens a new
    session.
    """

    def __init__(self, pipeline: Pipeline, policy: Policy, get_exchange: Callable[[], Exchange]) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._get_exchange = get_exchange
        self._text = ""
        """All text fed so far, which a new session needs after a lost one."""
        self._has_ended = False
        self._session: Session | None = None
        """The engine's session; None before `begin`, after `aclose`, and if none could be opened."""
        self._failure: CorrectionError | None = None
        """The error by which the session was lost; None if it was not."""
        self._past_judge_use: JudgeUse | None = None
        """What judges were asked in earlier sessions, and what that cost."""

    @property
    def judge_cost(self) -> Correction:
        """The use of judges so far, as a correction without text, to be added to the answer's cost."""
        session = self._session
        use = session.use if isinstance(session, JudgedSession) else None
        return Correction("", judge=use).with_judge(self._past_judge_use)

    async def begin(self) -> bool:
        """Open a session; False if the answer may not be edited, or only as a whole. A lost session counts as open."""
        try:
            self._session = await self._pipeline.read(self._get_exchange(), self._policy)
        except LOST as error:
            self._failure = error
        return self._session is not None or self._failure is not None

    async def hold(self) -> Session:
        """The session for an answer that is corrected as a whole; one that reads only then if the session is lost."""
        if self._failure is not None or self._session is None:
            await self._release()
            return DeferredSession(self._pipeline.engine_of(self._policy))
        return self._session

    async def feed(self, text: str) -> None:
        """Pass more of the answer on to the engine."""
        self._text += text
        await self._pass_on(lambda session: session.feed(text))

    async def end(self) -> None:
        """Tell the engine that the answer has ended."""
        self._has_ended = True
        await self._pass_on(lambda session: session.end())

    async def wait_for_verdicts(self, known_count: int, *, may_reopen: bool) -> tuple[SegmentScore, ...] | None:
        """All verdicts, once there are more than `known_count`; None if this engine gives none before the end.

        A lost session is reopened if `may_reopen`; otherwise raises one of the `LOST` errors.
        """
        return await self._ask(lambda session: session.wait_for_verdicts(known_count), may_reopen=may_reopen)

    async def replace(self, span: Span, *, may_reopen: bool) -> Correction:
        """The replacement of a flagged passage; a lost session is reopened as in `wait_for_verdicts`."""
        return await self._ask(lambda session: session.replace(span), may_reopen=may_reopen)

    async def aclose(self) -> None:
        """Close the session and drop references to the text, which would otherwise stay until garbage collection."""
        await self._release()
        self._get_exchange = _raise_session_over
        self._failure = None

    async def _release(self) -> None:
        """Close the session, if there is one, and add its use of judges to that of earlier sessions."""
        self._past_judge_use = self.judge_cost.judge
        session = self._session
        self._session = None
        if session is not None:
            await session.aclose()

    async def _pass_on(self, tell: Callable[[Session], Awaitable[object]]) -> None:
        """Call `tell` with the session, if there is one; an error is kept for the next question."""
        session = self._session
        if session is None:
            return
        try:
            await tell(session)
        except CorrectionError as error:
            # the error of a session that was replaced meanwhile no longer matters
            if session is self._session:
                self._failure = error

    async def _ask(self, ask: Callable[[Session], Awaitable[Result]], *, may_reopen: bool) -> Result:
        """The result of `ask` with the session; if the session is lost and `may_reopen`, with a new session.

        Opening a new session is tried until `WAIT_S` or the deadline is over. Raises the error of the last try.
        """
        try:
            if self._failure is not None or self._session is None:
                raise self._failure or SessionLost("nobody reads this answer")
            return await ask(self._session)
        except LOST as error:
            self._failure = error
            if not may_reopen:
                raise
        return await retry(lambda _: self._ask_new_session(ask), self._policy.deadline_s, WAIT_S)

    async def _ask_new_session(self, ask: Callable[[Session], Awaitable[Result]]) -> Result:
        """The result of `ask` with a new session; raises `NotReady` if it is None, so that `retry` asks once more."""
        await self._reopen()
        assert self._session is not None
        result = await ask(self._session)
        if result is None:
            raise NotReady("the engine is in doubt and reads nothing ahead")
        return result

    async def _reopen(self) -> None:
        """Open a new session in place of the lost one and feed it the whole text so far; raises `CorrectionError`."""
        await self._release()
        session = await self._pipeline.read(self._get_exchange(), self._policy)
        if session is None:
            raise SessionLost("this answer may not be edited any more")
        fed_chars = 0
        try:
            # a loop, because more text may arrive while the new session reads
            while fed_chars < len(self._text):
                unread_text = self._text[fed_chars:]
                fed_chars = len(self._text)
                await session.feed(unread_text)
            self._session = session
            self._failure = None
            if self._has_ended:
                await session.end()
        except BaseException:
            await session.aclose()
            raise
