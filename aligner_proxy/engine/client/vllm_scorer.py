"""Client of a scoring server: vLLM with the plugin aligner-proxy-vllm, which judges segments and writes nothing.

Every request carries the taught heads that it names. Therefore any of several servers behind one address can answer,
and servers need not store heads.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from dataclasses import replace
from typing import Any

import httpx
from cachetools import FIFOCache

from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.engine import wire
from aligner_proxy.engine.api import (
    AlignerInfo,
    AlignRequest,
    AlignResponse,
    DeferredSession,
    RowsRequest,
    RowsResponse,
)
from aligner_proxy.engine.client.completions import INFO_TTL_S, LooseModel, make_connection_error, parse_refusal
from aligner_proxy.engine.client.http import Connections
from aligner_proxy.engine.client.retry import retry
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import EngineFault, HeadsUnavailable, InvalidOutput, UnknownHead
from aligner_proxy.types import Correction

SCHEME = "vllm://"
_INFO_S = 5.0
"""Seconds that a server may take to describe its aligner."""
_MAX_HEADS = 4096
"""Most taught heads in memory; if there are more, the heads that were stored first are dropped."""


class _Data(LooseModel):
    """The field `data` of the plugin's answer; exactly one of its fields is set."""

    about: AlignerInfo | None = None
    response: AlignResponse | None = None
    error: wire.ErrorBody | None = None


class _Answer(LooseModel):
    """The body of a `/pooling` answer."""

    data: _Data


class VllmScorer:
    """An engine that judges answers and never edits them; for `EditedEngine`. `address` is vllm://host:port. A request
    waits at most `wait_s` seconds for a server that is not ready."""

    def __init__(self, address: str, *, wait_s: float = 5.0) -> None:
        self._base = "http://" + address.removeprefix(SCHEME).rstrip("/")
        self._wait_s = wait_s
        self._connections = Connections()
        self._cached_info: AlignerInfo | None = None  # the server's description
        self._confirmed_at = 0.0  # when the description came or was confirmed, in monotonic seconds
        self._info_task: asyncio.Task[AlignerInfo] | None = None  # the latest request for the description
        self._heads: FIFOCache[str, bytes] = FIFOCache(_MAX_HEADS)  # taught heads by content hash

    async def info(self) -> AlignerInfo:
        """Describe the aligner whose head judges on the server.

        Concurrent callers share one request. The server is asked again only if no verdict has come for a while,
        because in vLLM this request queues behind prompts.
        """
        if self._cached_info and time.monotonic() - self._confirmed_at < INFO_TTL_S:
            return self._cached_info
        if self._info_task is None or self._info_task.done():
            self._info_task = asyncio.create_task(self._fetch_info())
        return await asyncio.shield(self._info_task)

    async def _fetch_info(self) -> AlignerInfo:
        """Ask the server which aligner it serves; return and cache its description."""
        data = await self._ask({}, _INFO_S)
        if data.about is None:
            raise InvalidOutput(f"{self._base} does not say which aligner it serves; is aligner-proxy-vllm installed?")
        self._cached_info = data.about
        self._confirmed_at = time.monotonic()
        return data.about

    def _note_judge(self, expected: AlignerInfo, judged_by: str) -> None:
        """Confirm the cached description if a verdict comes from the expected aligner; otherwise drop it.

        `judged_by` is the content hash of the aligner that judged; "" if the server does not say.
        """
        if not judged_by:
            return
        if judged_by == expected.content_hash:
            self._confirmed_at = time.monotonic()
        else:
            self._cached_info = None

    async def align(self, request: AlignRequest) -> Correction:
        """Return the verdicts on an answer within `request.deadline_s`; raises `EngineFault` unless `score_only`."""
        started = time.perf_counter()
        if not request.score_only:
            raise EngineFault("a scoring server writes nothing; name it as scorer of a completions server")
        async with enforce_deadline(request.deadline_s):
            info = (await self.info()).find_aligner(request.aligner)
            if not request.answer.strip():
                return Correction(request.answer, aligner=info.content_hash)
            heads = {name: b64encode(self._find_head(name)).decode("ascii") for name in request.heads if name}
            data = await self._ask({"align": request.model_dump(mode="json"), "heads": heads}, request.deadline_s)
        if data.response is None:
            raise InvalidOutput(f"{self._base} sent no verdicts")
        self._note_judge(info, data.response.aligner)
        return replace(data.response.correction(), ms=(time.perf_counter() - started) * 1000)

    async def read(self, request: AlignRequest) -> DeferredSession:
        """Return a session that judges the whole answer at its end, because vLLM cannot read a growing prompt."""
        return DeferredSession(self)

    async def put_head(self, data: bytes) -> str:
        """Store a taught head in this client, to send it with requests that name it; raises `MalformedHead`."""
        name = TaughtHead.from_bytes(data).content_hash
        self._heads[name] = data
        return name

    async def rows(self, request: RowsRequest) -> RowsResponse:
        """Raise `HeadsUnavailable`: only our own engine provides rows to teach on."""
        raise HeadsUnavailable("a scoring server in vLLM gives no rows to teach on; teach with an aligner-proxy engine")

    async def aclose(self) -> None:
        """Cancel a pending description request and close the pooled connections."""
        if self._info_task is not None:
            self._info_task.cancel()
        await self._connections.aclose()

    def _find_head(self, name: str) -> bytes:
        """The bytes of a stored taught head; raises `UnknownHead`."""
        if name not in self._heads:
            raise UnknownHead(f"no taught head {name[:8]} is known here; give it to the engine and ask again")
        return self._heads[name]

    async def _ask(self, data: dict[str, Any], deadline_s: float) -> _Data:
        """Send `data` to the plugin, with retries, and return its answer; raises the error that the plugin reports."""
        body = {"data": data}
        content = await retry(lambda _: self._send(body), deadline_s, self._wait_s)
        with wire.translate_parse_errors(
            f"{self._base}/pooling sent something that is no verdict; is aligner-proxy-vllm installed?"
        ):
            answer = _Answer.model_validate_json(content).data
        if answer.error is not None:
            raise wire.restore_error(answer.error, headers={})
        return answer

    async def _send(self, body: dict[str, Any]) -> bytes:
        """Send one request to vLLM's `/pooling` and return the response's body; raises if its status is not 200."""
        try:
            response = await self._connections.fetch_response("POST", f"{self._base}/pooling", json=body)
        except (httpx.TransportError, httpx.DecodingError) as error:
            self._cached_info = None  # the server that answers next may serve another aligner
            raise make_connection_error(self._base, error) from None
        if response.status_code == httpx.codes.OK:
            return response.content
        raise parse_refusal(response.status_code, response.content, response.headers)
