"""Session in which an engine reads an answer while it is being written; reopened if the engine lost it."""

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
"""How long in seconds to retry while the engine is unreachable or full, as for a whole answer."""


def _raise_session_over() -> Exchange:
    """Replaces the `exchange` callback of a closed session; always raises."""
    raise SessionLost("this answer is over")


class ResumableSession:
    """A session that survives engine failures: `feed` and `end` raise no engine error, but the next question does.

    `exchange` returns the answer so far.
    """

    def __init__(self, pipeline: Pipeline, policy: Policy, exchange: Callable[[], Exchange]) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._exchange = exchange
        self._text = ""
        """All text fed so far, which a new session needs after a lost one."""
        self._has_ended = False
        self._session: Session | None = None
        """The open session, which may be lost (`_failure`); None before `begin` and once it is closed."""
        self._failure: CorrectionError | None = None
        """The error that the session raised; the next question raises it, or opens a new session."""
        self._past_judge_use: JudgeUse | None = None
        """Use of a judge in sessions that were lost."""

    @property
    def judge_cost(self) -> Correction:
        """Use of a judge so far, as a correction without text."""
        session = self._session
        use = session.use if isinstance(session, JudgedSession) else None
        return Correction("", judge=use).with_judge(self._past_judge_use)

    async def begin(self) -> bool:
        """Open a session; return False if the answer may not be edited, or only as a whole."""
        try:
            self._session = await self._pipeline.read(self._exchange(), self._policy)
        except LOST as error:
            self._failure = error
        return self._session is not None or self._failure is not None

    async def hold(self) -> Session:
        """The session for an answer that is held from now on; a deferred one if the engine's session is lost."""
        if self._failure is not None or self._session is None:
            await self._release()
            return DeferredSession(self._pipeline.engine_of(self._policy))
        return self._session

    async def feed(self, text: str) -> None:
        """Pass on more of the answer."""
        self._text += text
        await self._pass_on(lambda session: session.feed(text))

    async def end(self) -> None:
        """Tell the engine that the answer has ended."""
        self._has_ended = True
        await self._pass_on(lambda session: session.end())

    async def wait_for_verdicts(self, known_count: int, *, again: bool) -> tuple[SegmentScore, ...] | None:
        """All verdicts, once there are more than `known_count`; None if this engine gives none before the end.

        With `again`, reopens a lost session. Otherwise raises one of the `LOST` errors.
        """
        return await self._ask(lambda session: session.wait_for_verdicts(known_count), again)

    async def replace(self, span: Span, *, again: bool) -> Correction:
        """The replacement of a flagged passage. With `again`, reopens a lost session, else raises a `LOST` error."""
        return await self._ask(lambda session: session.replace(span), again)

    async def aclose(self) -> None:
        """Close the session and drop references to the text, which would otherwise stay until garbage collection."""
        await self._release()
        self._exchange = _raise_session_over
        self._failure = None

    async def _release(self) -> None:
        """Close the session, if any, and keep what its judge cost."""
        self._past_judge_use = self.judge_cost.judge
        session = self._session
        self._session = None
        if session is not None:
            await session.aclose()

    async def _pass_on(self, call: Callable[[Session], Awaitable[object]]) -> None:
        """Tell the session something; an error is kept for the next question."""
        session = self._session
        if session is None:
            return
        try:
            await call(session)
        except CorrectionError as error:
            # the error of a session that was replaced meanwhile no longer matters
            if session is self._session:
                self._failure = error

    async def _ask(self, call: Callable[[Session], Awaitable[Result]], again: bool) -> Result:
        """The answer of the session to `call`; if the session is lost and `again`, that of a new one.

        A new session is tried until `WAIT_S` or the deadline is over. Raises the error of the last try.
        """
        try:
            if self._failure is not None or self._session is None:
                raise self._failure or SessionLost("nobody reads this answer")
            return await call(self._session)
        except LOST as error:
            self._failure = error
            if not again:
                raise
        return await retry(lambda _: self._ask_again(call), self._policy.deadline_s, WAIT_S)

    async def _ask_again(self, call: Callable[[Session], Awaitable[Result]]) -> Result:
        """The answer of a new session; raises `NotReady` if the session gives none, so that `retry` asks once more."""
        await self._begin_again()
        assert self._session is not None
        result = await call(self._session)
        if result is None:
            raise NotReady("the engine is in doubt and reads nothing ahead")
        return result

    async def _begin_again(self) -> None:
        """Open a new session in place of the lost one and feed it the whole text so far; raises `CorrectionError`."""
        await self._release()
        session = await self._pipeline.read(self._exchange(), self._policy)
        if session is None:
            raise SessionLost("this answer may not be edited any more")
        fed_chars = 0
        try:
            # more text may arrive while the new session reads
            while fed_chars < len(self._text):
                more = self._text[fed_chars:]
                fed_chars = len(self._text)
                await session.feed(more)
            self._session = session
            self._failure = None
            if self._has_ended:
                await session.end()
        except BaseException:
            await session.aclose()
            raise
