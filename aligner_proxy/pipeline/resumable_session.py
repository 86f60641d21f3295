"""Session of an engine that reads an answer as it is written, begun again where the engine lost it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aligner_proxy.engine.api import DeferredSession, Session, Span
from aligner_proxy.engine.client.retry import NotReady, retry
from aligner_proxy.errors import CorrectionError, EngineOverloaded, EngineUnavailable, SessionLost
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Correction, Exchange, Policy, SegmentScore

Result = TypeVar("Result")
LOST = (SessionLost, EngineUnavailable, EngineOverloaded)
"""The engine does not read the answer; what else goes wrong would go wrong again."""
PATIENCE_S = 5.0
"""How long an engine that is away or full is asked to read again, like one that is asked for a whole answer."""


def _nothing() -> Exchange:
    """What is known of an answer that is over."""
    raise SessionLost("this answer is over")


class ResumableSession:
    """`exchange` is the answer so far. `feed` and `end` raise no error of the engine: the next question does."""

    def __init__(self, pipeline: Pipeline, policy: Policy, exchange: Callable[[], Exchange]) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._exchange = exchange
        self._text = ""
        self._has_ended = False
        self._session: Session | None = None
        self._failure: CorrectionError | None = None

    async def begin(self) -> bool:
        """Let the engine read along; False where the answer may not be edited, or only as a whole."""
        try:
            self._session = await self._pipeline.read(self._exchange(), self._policy)
        except LOST as error:
            self._failure = error
        return self._session is not None or self._failure is not None

    async def hold(self) -> Session:
        """The engine's session for an answer that is held from here on, as long as there is one."""
        if self._failure is not None or self._session is None:
            await self._release()
            return DeferredSession(self._pipeline.engine_of(self._policy))
        return self._session

    async def feed(self, text: str) -> None:
        """More of the answer."""
        self._text += text
        await self._pass_on(lambda session: session.feed(text))

    async def end(self) -> None:
        """There is no more."""
        self._has_ended = True
        await self._pass_on(lambda session: session.end())

    async def wait_for_verdicts(self, known_count: int, *, again: bool) -> tuple[SegmentScore, ...] | None:
        """More verdicts than `known`; None: this engine has none before the end. `again`: read again what is lost."""
        return await self._ask(lambda session: session.wait_for_verdicts(known_count), again)

    async def replace(self, span: Span, *, again: bool) -> Correction:
        """What stands in place of a flagged stretch."""
        return await self._ask(lambda session: session.replace(span), again)

    async def aclose(self) -> None:
        """Let the engine go, and everything that knows the text: with it, it would wait for the garbage collector."""
        await self._release()
        self._exchange = _nothing
        self._failure = None

    async def _release(self) -> None:
        session = self._session
        self._session = None
        if session is not None:
            await session.aclose()

    async def _pass_on(self, call: Callable[[Session], Awaitable[object]]) -> None:
        session = self._session
        if session is None:
            return
        try:
            await call(session)
        except CorrectionError as error:
            if session is self._session:
                self._failure = error

    async def _ask(self, call: Callable[[Session], Awaitable[Result]], again: bool) -> Result:
        try:
            if self._failure is not None or self._session is None:
                raise self._failure or SessionLost("nobody reads this answer")
            return await call(self._session)
        except LOST as error:
            self._failure = error
            if not again:
                raise
        return await retry(lambda _: self._ask_again(call), self._policy.deadline_s, PATIENCE_S)

    async def _ask_again(self, call: Callable[[Session], Awaitable[Result]]) -> Result:
        await self._begin_again()
        assert self._session is not None
        result = await call(self._session)
        if result is None:
            raise NotReady("the engine is in doubt and reads nothing ahead")
        return result

    async def _begin_again(self) -> None:
        """Another session in place of the lost one, fed with everything that there is so far."""
        await self._release()
        session = await self._pipeline.read(self._exchange(), self._policy)
        if session is None:
            raise SessionLost("this answer may not be edited any more")
        fed_chars = 0
        try:
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
