"""Supply of taught heads to an engine that lacks them: upload them, ask again, and go on without missing heads.

A taught head judges one objective of a request, which names it by its content hash. An engine loses heads when it
restarts, or when too many other heads were used since. If no process has a head that a request names, or the engine
refuses it (because it serves another aligner by now), the general head alone judges the objective. The answer is still
corrected; a metric counts the missing head, and the log reports it at most once a minute.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

from cachetools import TTLCache

from aligner_proxy.engine.api import AlignRequest, DeferredSession, Engine, ForwardingEngine, HeadSource
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import HeadRefused, HeadsUnavailable, MalformedHead, UnknownHead
from aligner_proxy.observability.metrics import UNTAUGHT
from aligner_proxy.types import Correction

log = logging.getLogger(__name__)

LACKING = (UnknownHead, HeadRefused)
"""The errors by which an engine rejects a request whose heads it cannot use."""
_RETRY_S = 30.0
"""Seconds after which a head that could not be uploaded is tried again."""
_MAX_ABSENT = 4096
"""Most heads whose failed upload is remembered."""
_LOG_S = 60.0
"""Seconds between two warnings in the log."""


class HeadSupply:
    """Uploads to one engine the taught heads that it lacks.

    `put_head` uploads a head's bytes and returns its hash. `find_head` returns the bytes for a hash, or None; without
    `find_head`, no head can be uploaded.
    """

    def __init__(
        self,
        find_head: HeadSource | None,
        put_head: Callable[[bytes], Awaitable[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find_head = find_head
        self._put_head = put_head
        self._clock = clock
        self._absence_reasons: TTLCache[str, str] = TTLCache(_MAX_ABSENT, _RETRY_S, timer=clock)
        """Reasons why heads could not be uploaded recently, by the heads' hashes."""
        self._logged_at = float("-inf")  # time of the latest warning, by the clock

    def drop_absent_heads(self, request: AlignRequest) -> AlignRequest:
        """The request without the heads that could not be uploaded in the last `_RETRY_S` seconds."""
        return drop_heads(request, [name for name in request.heads if name in self._absence_reasons])

    async def upload_heads(self, request: AlignRequest) -> AlignRequest:
        """Upload the request's heads, and return the request without the heads that could not be uploaded."""
        for name, objective in zip(request.heads, request.objectives, strict=True):
            if not name or name in self._absence_reasons:
                continue
            reason = await self._upload(name, objective)
            if reason:
                self._absence_reasons[name] = reason
        return self.drop_absent_heads(request)

    async def correct(self, request: AlignRequest, ask: Callable[[AlignRequest], Awaitable[Correction]]) -> Correction:
        """Let `ask`, which sends a request to the engine, correct an answer; upload heads that the engine lacks.

        If the engine rejects the heads again after the upload, the request is sent without any.
        """
        deadline_at = self._clock() + request.deadline_s
        sent_request = self.drop_absent_heads(request)
        try:
            correction = await ask(sent_request)
        except LACKING:
            sent_request = await self.upload_heads(request)
            try:
                correction = await ask(sent_request.with_deadline(deadline_at - self._clock()))
            except LACKING:
                # the engine has lost the heads again, or they do not fit the request
                sent_request = drop_heads(sent_request, sent_request.heads)
                correction = await ask(sent_request.with_deadline(deadline_at - self._clock()))
        return self._count_untaught(correction, request, sent_request)

    def _count_untaught(self, correction: Correction, request: AlignRequest, sent_request: AlignRequest) -> Correction:
        """Set the correction's `untaught` to the number of heads that `sent_request` lacks; count and log them, too."""
        # if all heads were dropped, the tuple of the sent request is empty
        sent_heads = sent_request.heads or ("",) * len(request.heads)
        lacking_heads = [
            name for name, sent_name in zip(request.heads, sent_heads, strict=True) if name and not sent_name
        ]
        for name in lacking_heads:
            # a "lost" head was uploaded, and then the engine rejected it once more
            UNTAUGHT.labels(self._absence_reasons.get(name, "lost")).inc()
        now = self._clock()
        if lacking_heads and now >= self._logged_at + _LOG_S:
            self._logged_at = now
            reason = self._absence_reasons.get(lacking_heads[0], "lost")
            log.warning(
                "taught head %s cannot be used (%s): the general head judges its objective alone; teach it again",
                lacking_heads[0][:8],
                reason,
            )
        return replace(correction, untaught=len(lacking_heads)) if lacking_heads else correction

    async def _upload(self, name: str, objective: str) -> str:
        """Upload the head with the hash `name` to the engine; return why that failed, or "" if it succeeded.

        The reasons are "missing", "damaged", "objective" (the head is for another objective), or the engine's reason.
        """
        data = self._find_head(name) if self._find_head else None
        if data is None:
            return "missing"
        try:
            head = TaughtHead.from_bytes(data)
        except MalformedHead:
            return "damaged"
        if head.content_hash != name:
            return "damaged"
        if head.objective != objective:
            return "objective"  # the head is for another one
        try:
            await self._put_head(data)
        except (HeadRefused, HeadsUnavailable) as error:
            return error.reason
        return ""


def drop_heads(request: AlignRequest, names: Collection[str]) -> AlignRequest:
    """The request without the heads in `names` (content hashes); the same object if it has none of them."""
    if not any(name and name in names for name in request.heads):
        return request
    heads = tuple("" if name in names else name for name in request.heads)
    return request.model_copy(update={"heads": heads if any(heads) else ()})


class SuppliedEngine(ForwardingEngine):
    """An engine in this process that gets taught heads from `source`, as `HttpEngine` does for a remote engine."""

    def __init__(self, engine: Engine, source: HeadSource) -> None:
        super().__init__(engine)
        self._supply = HeadSupply(source, self.put_head)

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer, supplying taught heads that the engine lacks."""
        return await self._supply.correct(request, self.inner.align)

    async def read(self, request: AlignRequest) -> DeferredSession:
        """Return a session that corrects at the end, because callers in this process have the whole answer."""
        return DeferredSession(self)
