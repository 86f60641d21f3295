"""Streaming prefill: the engine reads a held answer ahead, in a session, while the upstream is still writing it.

When the answer ends, the engine has only its last words to read before its verdicts are ready, and a judge has already
been asked about doubtful sentences. If the answer turns out to be cached, skipped or cut off, the session is closed
unused, at the cost of a prefill and of the judge's early calls. An answer that is there at once, as from an upstream's
own cache, is not read ahead: the correction reads it in one call, if it is not cached itself.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable

from aligner_proxy.engine.api import Session
from aligner_proxy.errors import AlignerProxyError
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.pipeline.replacements import ReplacementMap
from aligner_proxy.types import Exchange, Policy

log = logging.getLogger(__name__)
UNREAD_S = 0.03
"""Seconds after its first piece for which an answer is not read ahead, since it may be complete by then."""


class PrefilledText:
    """One text of a held stream, with the session in which the engine reads it ahead. Satisfies `StreamText`. There is
    no session if the text may not be read ahead or reading failed once. `get_exchange` is called when the session is
    opened, and returns the request's exchange without this text.
    """

    def __init__(self, pipeline: Pipeline, policy: Policy, index: int, get_exchange: Callable[[], Exchange]) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self._index = index
        self._get_exchange = get_exchange
        self._session: Session | None = None
        """The engine's open session; None if there is none, or after `take_session`."""
        self._unread_pieces: list[str] | None = []
        """The pieces that wait for a session; None once a session was opened, or could not be."""
        self._read_from = 0.0
        """The monotonic time from which the text is read ahead; an answer that ends before needs no session."""
        self._replacements = ReplacementMap()
        """The corrected text and its positions in the original; empty until `replace` sets it."""
        self.length = 0
        """Characters of the original so far."""
        self.changed = False
        """Whether a corrected text is delivered in place of the original."""

    async def feed(self, piece: str) -> None:
        """Add a piece of the original and pass it to the engine; never raises, since the text is corrected anyway."""
        if self.length == 0:
            self._read_from = time.monotonic() + UNREAD_S
        self.length += len(piece)
        if self.length > self._policy.max_answer_chars:
            return  # too long to be corrected as a whole, so a session would not be used
        try:
            if self._unread_pieces is not None:
                self._unread_pieces.append(piece)
                if time.monotonic() < self._read_from:
                    return
                piece = "".join(self._unread_pieces)
                self._unread_pieces = None
                self._session = await self._pipeline.read(self._get_exchange(), self._policy)
                if self._session is not None:
                    self._session.ask_early()
            if self._session is not None:
                await self._session.feed(piece)
        except Exception as error:  # noqa: BLE001 - part of the pipeline's boundary
            log.warning(
                "choice %d: reading ahead failed (%s); it is corrected without that", self._index, type(error).__name__
            )
            with contextlib.suppress(AlignerProxyError):
                await self.aclose()

    @property
    def has_output(self) -> bool:
        """Whether anything but white space is delivered."""
        return not self.changed or self._replacements.has_text

    def take_session(self) -> Session | None:
        """Hand over the engine's session, which the caller must close; None if there is none."""
        session = self._session
        self._session = None
        return session

    def replace(self, length: int, text: str) -> None:
        """Replace the whole original of this length with `text`."""
        self._replacements.add(length, text)
        self.length = length
        self.changed = True

    def render(self, start: int, end: int) -> str:
        return self._replacements.render(start, end, "")

    async def aclose(self) -> None:
        """Close the engine's session, if there is one."""
        session = self.take_session()
        if session is not None:
            await session.aclose()
