"""An engine in another process, over a unix socket or HTTP: pooled, patient only where patience helps.

Sent again is only what the engine has not begun: a connection that was not made, an engine that is still loading, a
full queue; all within the request's deadline and a bounded patience. A request that was lost on the way is reported.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential, wait_random

from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest, AlignResponse
from aligner_proxy.engine.remote import RemoteReading
from aligner_proxy.engine.wire import raised
from aligner_proxy.errors import (
    ConfigError,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
)
from aligner_proxy.types import Correction

_INFO = TypeAdapter(AlignerInfo)
_backoff = wait_exponential(multiplier=0.05, max=1.0) + wait_random(0, 0.05)


class _NotYet(EngineUnavailable):
    """The engine has not begun: nothing listens, or the aligner is still loading."""


class HttpEngine:
    """Satisfies `Engine`. `address` is "unix:/path/to/socket" or "http(s)://host:port".

    `patience_s` bounds how long a request waits for an engine that is down, loading or full; `info_ttl_s` how long a
    description is believed. Connections belong to the event loop in which they are first used.
    """

    def __init__(self, address: str, *, patience_s: float = 5.0, info_ttl_s: float = 3.0, pool: int = 64) -> None:
        self._base, self._socket = _parse(address)
        self.address = address
        self._patience_s, self._info_ttl_s, self._pool = patience_s, info_ttl_s, pool
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._info: tuple[float, AlignerInfo] | None = None

    async def info(self) -> AlignerInfo:
        """The aligner served there; asked again after `info_ttl_s` and after every lost connection."""
        if self._info and time.monotonic() - self._info[0] < self._info_ttl_s:
            return self._info[1]
        content = await self._patiently("GET", "/info", None, self._patience_s)
        try:
            about = _INFO.validate_json(content)
        except ValidationError:
            raise EngineFault("the engine's /info is none of ours; check the address") from None
        self._info = (time.monotonic(), about)
        return about

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer within `request.deadline_s`, waiting for the engine included."""
        return await self._align(request, None)

    async def read(self, request: AlignRequest) -> RemoteReading:
        """Let the engine read an answer that is still being written; nothing is sent before the first text."""
        return RemoteReading(request, self._send, self._align)

    async def _align(self, request: AlignRequest, reading: str | None) -> Correction:
        path = "/v1/align" if reading is None else f"/v1/read/{reading}/finish"
        content = await self._patiently("POST", path, request, request.deadline_s)
        try:
            return AlignResponse.model_validate_json(content).correction()
        except ValidationError:
            raise EngineFault("the engine sent something that is no correction") from None

    async def aclose(self) -> None:
        """Close the pooled connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _patiently(self, method: str, path: str, request: AlignRequest | None, deadline_s: float) -> bytes:
        """Send until the engine begins, but no longer than the deadline; each attempt carries the time left."""
        until = time.monotonic() + deadline_s
        patience = time.monotonic() + min(deadline_s, self._patience_s)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((_NotYet, EngineOverloaded)),
            wait=_wait,
            stop=lambda state: time.monotonic() + (state.upcoming_sleep or 0.0) >= patience,
            reraise=True,
        )
        try:
            async with asyncio.timeout(deadline_s):
                async for attempt in retrying:
                    with attempt:
                        return await self._send(method, path, _with_time_left(request, until))
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline of {deadline_s:g} s passed") from None
        raise EngineUnavailable("the engine was not asked")

    async def _send(self, method: str, path: str, content: bytes | None) -> bytes:
        try:
            response = await self._pooled().request(method, path, content=content, headers=_headers(content))
        except httpx.ConnectError as error:
            raise self._lost(_NotYet(f"no engine answers at {self.address}")) from error
        except httpx.TransportError as error:
            message = f"the engine at {self.address} went away in mid-request ({type(error).__name__})"
            raise self._lost(EngineUnavailable(message)) from error
        if response.status_code == httpx.codes.OK:
            return response.content
        failure = raised(response.status_code, response.content, response.headers.get("retry-after"))
        raise _NotYet(str(failure)) if isinstance(failure, EngineUnavailable) else failure

    def _lost(self, error: CorrectionError) -> CorrectionError:
        """What was known of the engine may not be true of the one that answers next."""
        self._info = None
        return error

    def _pooled(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            transport = httpx.AsyncHTTPTransport(
                uds=self._socket, limits=httpx.Limits(max_connections=self._pool, max_keepalive_connections=self._pool)
            )
            # No timeouts of its own: the request's deadline covers every phase.
            self._client = httpx.AsyncClient(transport=transport, base_url=self._base, timeout=None, trust_env=False)
            self._loop = loop
        return self._client


def _parse(address: str) -> tuple[str, str | None]:
    """(base URL, socket path)."""
    if address.startswith("unix:/"):
        return "http://engine", address.removeprefix("unix:")
    if address.startswith(("http://", "https://")):
        return address.rstrip("/"), None
    raise ConfigError(f"{address!r} is no engine address; use unix:/path/to/engine.sock or http(s)://host:port")


def _headers(content: bytes | None) -> Mapping[str, str]:
    return {"content-type": "application/json"} if content is not None else {}


def _with_time_left(request: AlignRequest | None, until: float) -> bytes | None:
    if request is None:
        return None
    left = max(0.001, until - time.monotonic())
    return request.model_copy(update={"deadline_s": left}).model_dump_json().encode()


def _wait(state: RetryCallState) -> float:
    """As long as a full engine asked for, otherwise a little longer each time."""
    error: Any = state.outcome.exception() if state.outcome else None
    return float(error.retry_after_s) if isinstance(error, EngineOverloaded) else _backoff(state)
