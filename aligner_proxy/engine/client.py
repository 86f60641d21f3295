"""An engine in another process, over a unix socket or HTTP: pooled, patient only where patience helps.

Sent again is only what the engine has not begun: a connection that was not made, an engine that is still loading, a
full queue; all within the request's deadline and a bounded patience. A request that was lost on the way is reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Mapping

import httpx
from pydantic import TypeAdapter

from aligner_proxy import tracing
from aligner_proxy.engine import version
from aligner_proxy.engine.patience import NotYet, patiently
from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest, AlignResponse, WeighRequest
from aligner_proxy.engine.remote import RemoteReading
from aligner_proxy.engine.wire import WEIGHTS, parsing, raised
from aligner_proxy.errors import (
    ConfigError,
    CorrectionError,
    EngineUnavailable,
    InvalidOutput,
)
from aligner_proxy.stages import ENGINE_UP, stage
from aligner_proxy.types import Correction

_Timed = AlignRequest | WeighRequest
_INFO = TypeAdapter(AlignerInfo)
_INFO_S = 5.0
"""How long an engine may take to say what needs no model, patience aside."""
_MOST_BYTES = 32 << 20


class HttpEngine:
    """Satisfies `Engine`. `address` is "unix:/path/to/socket" or "http(s)://host:port".

    `patience_s` bounds how long a request waits for an engine that is down, loading or full; `info_ttl_s` how long a
    description is believed, `pool` how many idle connections are kept. Connections belong to the event
    loop in which they are first used.
    """

    def __init__(self, address: str, *, patience_s: float = 5.0, info_ttl_s: float = 3.0, pool: int = 64) -> None:
        self._base, self._socket = _parse(address)
        self.address = address
        self._patience_s, self._info_ttl_s, self._pool = patience_s, info_ttl_s, pool
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._info: tuple[float, AlignerInfo] | None = None
        self._forgetting: set[asyncio.Task[None]] = set()

    async def info(self) -> AlignerInfo:
        """The aligner served there; asked again after `info_ttl_s` and after every lost connection."""
        if self._info and time.monotonic() - self._info[0] < self._info_ttl_s:
            return self._info[1]
        content = await self._patiently("GET", "/info", None, max(_INFO_S, self._patience_s))
        with parsing("the engine's /info is none of ours; check the address"):
            about = _INFO.validate_json(content)
        self._info = (time.monotonic(), about)
        return about

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer within `request.deadline_s`, waiting for the engine included."""
        return await self._align(request, None)

    async def weigh(self, request: WeighRequest) -> tuple[float, ...]:
        """What the objectives weigh for a prompt, as the engine's net says."""
        content = await self._patiently("POST", "/v1/weigh", request, request.deadline_s)
        with parsing("the engine sent something that is no weights"):
            weights = WEIGHTS.validate_json(content)
        if len(weights) != len(request.objectives):
            raise InvalidOutput("the engine weighed other objectives than these")
        return weights

    async def read(self, request: AlignRequest) -> RemoteReading:
        """Let the engine read an answer that is still being written; nothing is sent before the first text."""
        return RemoteReading(request, self._send, self._align, self._forget)

    async def _align(self, request: AlignRequest, reading: str | None) -> Correction:
        path = "/v1/align" if reading is None else f"/v1/read/{reading}/finish"
        with stage("engine", kind="CLIENT", gen_ai__operation__name="text_completion"):
            content = await self._patiently("POST", path, request, request.deadline_s)
        with parsing("the engine sent something that is no correction"):
            return AlignResponse.model_validate_json(content).correction()

    async def aclose(self) -> None:
        """Close the pooled connections."""
        for task in self._forgetting:
            task.cancel()
        await asyncio.gather(*self._forgetting, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _forget(self, reading: Awaitable[str]) -> None:
        """Tell the engine in the background; one that does not hear it forgets by itself, later."""
        task = asyncio.create_task(self._tell_to_forget(reading))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def _tell_to_forget(self, reading: Awaitable[str]) -> None:
        with contextlib.suppress(CorrectionError, ValueError, TimeoutError):  # one that was never opened needs nothing
            async with asyncio.timeout(_INFO_S):
                await self._send("DELETE", f"/v1/read/{await reading}", None)

    async def _patiently(self, method: str, path: str, request: _Timed | None, deadline_s: float) -> bytes:
        """Send until the engine begins; each attempt carries the time left."""
        return await patiently(
            lambda left: self._send(method, path, _with_time_left(request, left)), deadline_s, self._patience_s
        )

    async def _send(self, method: str, path: str, content: bytes | None) -> bytes:
        try:
            async with self._pooled().stream(method, path, content=content, headers=_headers(content)) as response:
                said = await _limited(response)
            ENGINE_UP.set(1)
        except httpx.ConnectError as error:
            raise self._lost(NotYet(f"no engine answers at {self.address}")) from error
        except httpx.TransportError as error:
            message = f"the engine at {self.address} went away in mid-request ({type(error).__name__})"
            raise self._lost(EngineUnavailable(message)) from error
        except httpx.DecodingError:
            raise InvalidOutput("the engine's answer is not what its headers say") from None
        version.check(response.status_code, response.headers)
        if response.status_code == httpx.codes.OK:
            return said
        failure = raised(response.status_code, said, response.headers)
        raise NotYet(str(failure)) if isinstance(failure, EngineUnavailable) else failure

    def _lost(self, error: CorrectionError) -> CorrectionError:
        """What was known of the engine may not be true of the one that answers next."""
        self._info = None
        ENGINE_UP.set(0)
        return error

    def _pooled(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # As many connections as requests: who waits, and who is turned away, is decided by the engine, which sees
            # all tenants of all workers. A bound here would be a queue in which nobody looks at shares.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._pool)
            transport = httpx.AsyncHTTPTransport(uds=self._socket, limits=limits)
            # No timeouts of its own: the request's deadline covers every phase.
            self._client = httpx.AsyncClient(transport=transport, base_url=self._base, timeout=None, trust_env=False)
            self._loop = loop
        return self._client


async def _limited(response: httpx.Response) -> bytes:
    """The body as it was sent, up to what an honest engine says; nothing is unpacked, so a bomb stays one."""
    parts, size = [], 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > _MOST_BYTES:
            raise InvalidOutput(f"the engine's answer is longer than {_MOST_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _parse(address: str) -> tuple[str, str | None]:
    """(base URL, socket path)."""
    if address.startswith("unix:/"):
        return "http://engine", address.removeprefix("unix:")
    if address.startswith(("http://", "https://")):
        return address.rstrip("/"), None
    raise ConfigError(f"{address!r} is no engine address; use unix:/path/to/engine.sock or http(s)://host:port")


def _headers(content: bytes | None) -> Mapping[str, str]:
    kind = {"content-type": "application/json"} if content is not None else {}
    return {"accept-encoding": "identity", **version.TOLD, **tracing.headers(), **kind}


def _with_time_left(request: _Timed | None, left: float) -> bytes | None:
    return None if request is None else request.model_copy(update={"deadline_s": left}).model_dump_json().encode()
