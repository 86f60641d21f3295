"""Streaming prefill: the engine reads a held answer while the upstream still writes it.

The verdicts are then there when the answer ends, and only its last words remain to be read. What is not used is let go
of: an answer that turns out to be cached, skipped or cut off was read for nothing, at the price of a prefill.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from aligner_proxy.engine.api import Session
from aligner_proxy.errors import AlignerProxyError
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.pipeline.replacements import ReplacementMap
from aligner_proxy.types import Exchange, Policy

log = logging.getLogger(__name__)


class PrefilledText:
    """One text of a held stream, and the engine's session on it: none where it may not be read, or that failed once.

    Satisfies `StreamText`. `exchange` is the text as far as it has come.
    """

    def __init__(self, pipeline: Pipeline, policy: Policy, index: int, exchange: Callable[[], Exchange]) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._index = index
        self._exchange = exchange
        self._session: Session | None = None
        self._replacements = ReplacementMap()
        self.length = 0
        self.changed = False

    async def feed(self, piece: str) -> None:
        """More of the original. Session ahead may cost no stream, so this raises nothing."""
        first = self.length == 0
        self.length += len(piece)
        if self.length > self._policy.max_answer_chars:
            return  # it will not be corrected as a whole, so nobody will ask for what was read
        try:
            if first:
                self._session = await self._pipeline.read(self._exchange(), self._policy)
            if self._session is not None:
                await self._session.feed(piece)
        except Exception as error:  # noqa: BLE001 - part of the pipeline's boundary
            log.warning("choice %d is not read ahead (%s)", self._index, type(error).__name__)
            with contextlib.suppress(AlignerProxyError):
                await self.aclose()

    def take_session(self) -> Session | None:
        """The engine's session, which the caller closes."""
        session = self._session
        self._session = None
        return session

    def replace(self, length: int, text: str) -> None:
        """`text` goes out in place of the original, which has this length."""
        self._replacements.add(length, text)
        self.length = length
        self.changed = True

    def render(self, start: int, end: int) -> str:
        """What goes out in place of these characters."""
        return self._replacements.render(start, end, "")

    async def aclose(self) -> None:
        """Let the engine go."""
        session = self.take_session()
        if session is not None:
            await session.aclose()
