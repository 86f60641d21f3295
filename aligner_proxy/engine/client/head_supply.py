"""Supply of taught heads to an engine that lacks them: upload, ask again, and go on without those that it cannot have.

An engine forgets heads when it starts anew, or when too many others were used since. A request that names a head which
nobody has, or which the engine refuses (it serves another aligner by now), is judged by the general head alone: the
answer goes out, a metric counts it, and once a minute the log says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

from cachetools import TTLCache

from aligner_proxy.engine.api import (
    AlignerInfo,
    AlignRequest,
    DeferredSession,
    Engine,
    HeadSource,
    RowsRequest,
    RowsResponse,
    StatesRequest,
    text_states,
    with_heads,
)
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import HeadRefused, HeadsUnavailable, MalformedHead, UnknownHead
from aligner_proxy.observability.metrics import UNTAUGHT
from aligner_proxy.types import Correction

log = logging.getLogger(__name__)

LACKING = (UnknownHead, HeadRefused)
"""What an engine says to a request whose heads it cannot use."""
_AGAIN_S = 30.0
"""A head that an engine could not be given is offered to it again after this."""
_MOST = 4096
_LOG_S = 60.0
_LEAST_S = 0.001


class HeadSupply:
    """Gives one engine the heads that it lacks. `put` uploads one; without a source there is none to give."""

    def __init__(
        self,
        source: HeadSource | None,
        put: Callable[[bytes], Awaitable[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._put = put
        self._clock = clock
        self._absent: TTLCache[str, str] = TTLCache(_MOST, _AGAIN_S, timer=clock)
        """Why a head could not be given, by its hash."""
        self._logged = float("-inf")

    def drop_absent_heads(self, request: AlignRequest) -> AlignRequest:
        """The request without the heads that the engine could not be given lately."""
        return drop_heads(request, [name for name in request.heads if name in self._absent])

    async def upload_heads(self, request: AlignRequest) -> AlignRequest:
        """Upload the request's heads; the request without those that the engine cannot have."""
        for name, objective in zip(request.heads, request.objectives, strict=True):
            if name and name not in self._absent and (reason := await self._upload(name, objective)):
                self._absent[name] = reason
        return self.drop_absent_heads(request)

    async def supply_and_correct(
        self, request: AlignRequest, ask: Callable[[AlignRequest], Awaitable[Correction]], until: float
    ) -> Correction:
        """The correction of a request whose heads the engine lacks, by `ask`, before `until` by the clock."""
        sent_request = await self.upload_heads(request)
        try:
            done = await ask(self._in_time(sent_request, until))
        except LACKING:
            # They were forgotten again, or are not what the request takes them for.
            sent_request = drop_heads(sent_request, sent_request.heads)
            done = await ask(self._in_time(sent_request, until))
        return self.count_untaught(done, request, sent_request)

    def count_untaught(self, done: Correction, request: AlignRequest, sent_request: AlignRequest) -> Correction:
        """The correction of `sent_request` as that of `request`: how many objectives were judged without their head."""
        sent_heads = sent_request.heads or ("",) * len(request.heads)
        lacked = [name for name, used in zip(request.heads, sent_heads, strict=True) if name and not used]
        for name in lacked:
            UNTAUGHT.labels(self._absent.get(name, "lost")).inc()
        now = self._clock()
        if lacked and now >= self._logged + _LOG_S:
            self._logged = now
            reason = self._absent.get(lacked[0], "lost")
            log.warning(
                "taught head %s cannot be used (%s): the general head judges its objective alone; teach it again",
                lacked[0][:8],
                reason,
            )
        return replace(done, untaught=len(lacked)) if lacked else done

    async def _upload(self, name: str, objective: str) -> str:
        """Give one head to the engine; why that was not possible, empty where it was."""
        data = self._source(name) if self._source else None
        if data is None:
            return "missing"
        try:
            head = TaughtHead.from_bytes(data)
        except MalformedHead:
            return "damaged"
        if head.content_hash != name:
            return "damaged"
        if head.objective != objective:
            return "objective"
        try:
            await self._put(data)
        except (HeadRefused, HeadsUnavailable) as error:
            return error.reason
        return ""

    def _in_time(self, request: AlignRequest, until: float) -> AlignRequest:
        return request.model_copy(update={"deadline_s": max(_LEAST_S, until - self._clock())})


def drop_heads(request: AlignRequest, names: Collection[str]) -> AlignRequest:
    """The request without these heads; the same one where it has none of them."""
    if not any(name and name in names for name in request.heads):
        return request
    heads = tuple("" if name in names else name for name in request.heads)
    return request.model_copy(update={"heads": heads if any(heads) else ()})


class SuppliedEngine:
    """An engine in this process with a source of taught heads, as a client has one for an engine elsewhere."""

    def __init__(self, engine: Engine, source: HeadSource) -> None:
        self._engine = engine
        self._supply = HeadSupply(source, self.put_head)

    async def info(self) -> AlignerInfo:
        """The aligner served."""
        return await self._engine.info()

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer, with its taught heads where there are such."""
        until = time.monotonic() + request.deadline_s
        sent_request = self._supply.drop_absent_heads(request)
        try:
            return self._supply.count_untaught(await self._engine.align(sent_request), request, sent_request)
        except LACKING:
            return await self._supply.supply_and_correct(request, self._engine.align, until)

    async def read(self, request: AlignRequest) -> DeferredSession:
        """Nothing is read ahead: who asks an engine in this process has the whole answer."""
        return DeferredSession(self)

    async def states(self, request: StatesRequest) -> list[list[float]]:
        """Hidden states of texts."""
        return await text_states(self._engine, request)

    async def put_head(self, data: bytes) -> str:
        """Keep a taught head."""
        return await with_heads(self._engine).put_head(data)

    async def rows(self, request: RowsRequest) -> RowsResponse:
        """Rows of segments."""
        return await with_heads(self._engine).rows(request)

    async def aclose(self) -> None:
        """Close the engine."""
        await self._engine.aclose()
