"""HTTP client of an engine in another process, over a unix socket or a port; its sessions are in `http_session.py`.

A request is sent again only if the engine has not begun it: no connection, an engine that is still loading, or a full
queue. Retries stay within the request's deadline and a limited wait. A request lost on the way is an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Awaitable, Coroutine, Mapping
from functools import partial
from typing import Any, Self, TypeVar

import httpx
from pydantic import TypeAdapter

from aligner_proxy.concurrency import enforce_deadline, join_chunks
from aligner_proxy.engine import wire
from aligner_proxy.engine.api import (
    AlignerInfo,
    AlignRequest,
    AlignResponse,
    HeadSource,
    RowsRequest,
    RowsResponse,
    StatesRequest,
    TokenLabels,
    TokenLabelsRequest,
)
from aligner_proxy.engine.client.head_supply import LACKING, HeadSupply
from aligner_proxy.engine.client.http_session import HttpSession
from aligner_proxy.engine.client.retry import NotReady, retry
from aligner_proxy.engine.wire import (
    STATES,
    parse_error,
    translate_parse_errors,
)
from aligner_proxy.errors import (
    ConfigError,
    CorrectionError,
    EngineUnavailable,
    InvalidOutput,
)
from aligner_proxy.observability import tracing
from aligner_proxy.observability.metrics import ENGINE_UP
from aligner_proxy.observability.tracing import stage
from aligner_proxy.types import Correction
from aligner_proxy.web_address import is_web_address

_TimedRequest = AlignRequest | StatesRequest | RowsRequest | TokenLabelsRequest
_INFO_ADAPTER = TypeAdapter(AlignerInfo)
_INFO_S = 5.0
"""Seconds that an engine may take for requests that need no model, apart from the wait until it begins."""
_MAX_BYTES = 32 << 20
"""Largest body of an engine's answer that is read."""


CONNECT_S = 2.0
"""Seconds allowed for connecting. A host that is gone refuses nothing, and time must be left for another engine."""
NOT_BEGUN = (httpx.ConnectError, httpx.ConnectTimeout)
"""Errors that happen before a request is sent."""
_NOTICED_S = 2
"""Seconds of silence of an engine's host, while we send or it works, after which the kernel drops the connection."""
_SENDING = "http11.send_request_headers.started"
"""The event of httpx after which a cancelled request closes its connection; see `PendingRequest`."""

_T = TypeVar("_T")


def _keep_alive_options() -> list[tuple[int, int, int]]:
    """TCP socket options that let the kernel detect that the host on the other side is gone."""
    # macOS has no TCP_USER_TIMEOUT, and another name for TCP_KEEPIDLE; there only the deadline applies.
    values = {"TCP_USER_TIMEOUT": _NOTICED_S * 1000, "TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": _NOTICED_S}
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in values.items():
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


class Connections:
    """Pooled connections to one server; when another event loop uses them, they are opened again."""

    def __init__(self, base_url: str = "", socket_path: str | None = None, *, max_idle: int = 64) -> None:
        self._base_url = base_url
        self._socket_path = socket_path  # of a unix socket; None for a TCP port
        self._max_idle = max_idle  # most idle connections that stay open
        self._client: httpx.AsyncClient | None = None  # None before the first use, and when closed
        self._loop: asyncio.AbstractEventLoop | None = None  # the event loop of `_client`
        self._ending: set[asyncio.Task[None]] = set()  # abandoned requests that have not ended

    @property
    def client(self) -> httpx.AsyncClient:
        """The HTTP client of the running event loop, created if needed."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # No limit on connections: the engine decides which requests wait or are refused, because it sees all
            # tenants of all workers. A limit here would be a queue that ignores the tenants' shares.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._max_idle)
            # a unix socket leads to this host, so its other side cannot disappear unnoticed
            options = None if self._socket_path else _keep_alive_options()
            # without TLS there; reading the certificates of all authorities takes a thirtieth of a second
            verify = self._socket_path is None
            transport = httpx.AsyncHTTPTransport(
                verify=verify, uds=self._socket_path, limits=limits, socket_options=options
            )
            # The request's deadline covers every phase. Only connecting has its own timeout.
            timeout = httpx.Timeout(None, connect=CONNECT_S)
            self._client = httpx.AsyncClient(
                transport=transport, base_url=self._base_url, timeout=timeout, trust_env=False
            )
            self._loop = loop
        return self._client

    def begin_request(self, method: str, url: str, **fields: Any) -> PendingRequest:
        """Prepare one request as a context manager; `fields` are arguments of httpx's `build_request`."""
        return PendingRequest(self.client, self._ending, self.client.build_request(method, url, **fields))

    async def fetch_response(self, method: str, url: str, **fields: Any) -> httpx.Response:
        """Send one request and return its response with the body read."""
        with self.begin_request(method, url, **fields) as pending:
            response = await pending.response()
            await pending.shield_reading(response.aread())
        return response

    async def aclose(self) -> None:
        """Close the connections, after abandoned requests have ended."""
        client = self._client
        self._client = None
        await asyncio.gather(*self._ending)
        if client is not None:
            await client.aclose()


class PendingRequest:
    """A context manager for one request; afterwards its connection is free or closed, however the block ends.

    If httpx is cancelled twice, or between connecting and the first request, it never closes the connection. The server
    would then continue work that nobody waits for, and hold its slot. Therefore httpx runs in a separate task, which is
    cancelled at most once, and not before the headers are sent.
    """

    def __init__(self, client: httpx.AsyncClient, ending: set[asyncio.Task[None]], request: httpx.Request) -> None:
        self._client = client
        self._ending = ending  # the tasks that end abandoned requests; shared by all requests of the `Connections`
        self._request = request
        self._task: asyncio.Task[Any] | None = None  # the latest task: sends the request, or reads the body
        self._response: asyncio.Task[httpx.Response] | None = None  # sends the request; None before and after
        self._sending = False  # whether the headers are being sent, so that cancelling closes the connection
        self._abandoned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._response is not None and not self._has_ended(self._response):
            ending = asyncio.create_task(self._abandon(self._response))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        self._task = None
        self._response = None  # breaks a reference cycle: the response refers to the request, and that to this object

    # These are no coroutines, so that no frame of ours is between the caller and the connection.

    def response(self) -> Awaitable[httpx.Response]:
        """Send the request; returns an awaitable of its response, with the body unread."""
        self._request.extensions["trace"] = self._trace
        self._response = asyncio.create_task(self._client.send(self._request, stream=True))
        self._task = self._response
        return asyncio.shield(self._response)

    def shield_reading(self, reading: Coroutine[Any, Any, _T]) -> Awaitable[_T]:
        """Run `reading` of the body in a shielded task; returns an awaitable of its result."""
        task = asyncio.create_task(reading)
        self._task = task
        return asyncio.shield(task)

    async def _trace(self, event: str, _: object) -> None:
        """Trace hook of httpx: note that headers are sent, and then cancel the task if it was abandoned before."""
        if event == _SENDING:
            self._sending = True
            if self._abandoned and (task := asyncio.current_task()):
                task.cancel()

    def _has_ended(self, response: asyncio.Task[httpx.Response]) -> bool:
        """Whether all tasks are done and the response is closed."""
        if self._task is None or not self._task.done() or not response.done():
            return False
        return response.cancelled() or response.exception() is not None or response.result().is_closed

    async def _abandon(self, response: asyncio.Task[httpx.Response]) -> None:
        """Abandon the request: cancel its running task once headers are sent, and close an open response.

        If headers are not sent yet, `_trace` cancels the task when they are.
        """
        task = self._task or response
        self._abandoned = True
        if self._sending and not task.done():
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # nobody else asks for it
        if not response.cancelled() and response.exception() is None:
            await response.result().aclose()


class HttpEngine:
    """An engine at an address: "unix:/path/to/socket" or "http(s)://host:port".

    `wait_s` limits how long a request waits for an engine that is down, loading or full. `info_ttl_s` is how long
    the engine's description is cached, and `pool` the number of idle connections that stay open. `head_source` provides
    the taught heads that the engine lacks.
    """

    def __init__(
        self,
        address: str,
        *,
        wait_s: float = 5.0,
        info_ttl_s: float = 3.0,
        pool: int = 64,
        head_source: HeadSource | None = None,
    ) -> None:
        self.address = address
        self.heads = HeadSupply(head_source, self.put_head)
        base_url, socket_path = _parse_address(address)
        self._connections = Connections(base_url, socket_path, max_idle=pool)
        self._wait_s = wait_s
        self._info_ttl_s = info_ttl_s
        self._info: tuple[float, AlignerInfo] | None = None  # when it came, and the engine's description
        self._closing: set[asyncio.Task[None]] = set()  # those that close sessions on the engine

    async def info(self) -> AlignerInfo:
        """Describe the aligner served; asks the engine again after `info_ttl_s` and after a lost connection."""
        if self._info and time.monotonic() - self._info[0] < self._info_ttl_s:
            return self._info[1]
        # the deadline must not end before the wait for an engine that is loading
        content = await self._send_with_retries("GET", "/info", None, max(_INFO_S, self._wait_s))
        with translate_parse_errors("the engine's /info is none of ours; check the address"):
            about = _INFO_ADAPTER.validate_json(content)
        self._info = (time.monotonic(), about)
        return about

    async def align(self, request: AlignRequest, path: str = "/v1/corrections") -> Correction:
        """Correct one answer within `request.deadline_s`, which includes waiting for the engine.

        Uploads taught heads that the engine lacks, and asks again.
        """
        deadline_at = time.monotonic() + request.deadline_s
        sent_request = self.heads.drop_absent_heads(request) if request.heads else request
        try:
            with stage("engine", kind="CLIENT", gen_ai__operation__name="text_completion"):
                content = await self._send_with_retries("POST", path, sent_request, request.deadline_s)
        except LACKING:
            return await self.heads.supply_and_correct(request, partial(self._correct, path), deadline_at)
        correction = _parse_correction(content)
        return self.heads.count_untaught(correction, request, sent_request) if request.heads else correction

    async def put_head(self, data: bytes) -> str:
        """Upload a taught head and return its content hash. Raises `HeadRefused`."""
        name = hashlib.sha256(data).hexdigest()
        async with enforce_deadline(_INFO_S):
            await self.send("PUT", f"/v1/heads/{name}", data)
        return name

    async def rows(self, request: RowsRequest) -> RowsResponse:
        """Return the rows of the answers within `request.deadline_s`; raises `InvalidOutput` unless each has some."""
        content = await self._send_with_retries("POST", "/v1/rows", request, request.deadline_s)
        with translate_parse_errors("the engine sent something that is no rows"):
            response = RowsResponse.model_validate_json(content)
        if len(response.exchanges) != len(request.exchanges):
            raise InvalidOutput("the engine sent rows of other answers than these")
        return response

    async def states(self, request: StatesRequest) -> list[list[float]]:
        """Return the hidden states, one row for each text, within `request.deadline_s`. Raises `InvalidOutput`."""
        content = await self._send_with_retries("POST", "/v1/states", request, request.deadline_s)
        with translate_parse_errors("the engine sent something that is no hidden states"):
            rows = STATES.validate_json(content)
        # one row for each text, all of one width
        if len(rows) != len(request.texts) or len({len(row) for row in rows}) != 1:
            raise InvalidOutput("the engine sent hidden states of other texts than these")
        return rows

    async def label_tokens(self, request: TokenLabelsRequest) -> TokenLabels:
        content = await self._send_with_retries("POST", "/v1/token_labels", request, request.deadline_s)
        with translate_parse_errors("the engine sent something that is no labels of tokens"):
            return TokenLabels.model_validate_json(content)

    async def read(self, request: AlignRequest) -> HttpSession:
        """Create a session for an answer that is still being written; nothing is sent before the first text."""
        return HttpSession(self, request)

    def close_session(self, opening: Awaitable[str]) -> None:
        """Close a session on the engine in the background; if that fails, the engine closes it after a timeout.

        The close waits until the session's name is known. An `opening` in progress is never cancelled, because the
        engine would then hold a session whose name nobody knows.
        """
        task = asyncio.create_task(self._close_session(opening))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Cancel pending closes of sessions, and close the pooled connections."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._connections.aclose()

    async def _close_session(self, opening: Awaitable[str]) -> None:
        """Wait for the session's name and close it on the engine; a failure is ignored."""
        try:
            async with asyncio.timeout(_INFO_S):
                await self.send("DELETE", f"/v1/read/{await opening}", None)
        except (CorrectionError, ValueError, TimeoutError):
            pass  # a session that was never opened needs no closing
        finally:
            del opening  # breaks a reference cycle: its error refers to this frame and the session

    async def _correct(self, path: str, request: AlignRequest) -> Correction:
        """Request the correction again, after heads were uploaded."""
        with stage("engine", kind="CLIENT", gen_ai__operation__name="text_completion"):
            return _parse_correction(await self._send_with_retries("POST", path, request, request.deadline_s))

    async def _send_with_retries(
        self, method: str, path: str, request: _TimedRequest | None, deadline_s: float
    ) -> bytes:
        """Send until the engine begins, or only once if `_wait_s` is 0; return the body of its answer.

        Each attempt has the time left as its deadline.
        """
        if not self._wait_s:
            async with enforce_deadline(deadline_s):
                return await self.send(method, path, _serialise_with_deadline(request, deadline_s))
        return await retry(
            lambda left_s: self.send(method, path, _serialise_with_deadline(request, left_s)),
            deadline_s,
            self._wait_s,
        )

    async def send(self, method: str, path: str, content: bytes | None) -> bytes:
        """Send one HTTP request and return the body of its answer. Raises the error that the engine reports."""
        try:
            headers = _make_headers(method, content)
            with self._connections.begin_request(method, path, content=content, headers=headers) as pending:
                response = await pending.response()
                # Read the raw bytes up to a limit; they are not decompressed, so a compression bomb does no harm.
                too_long = InvalidOutput(f"the engine's answer is longer than {_MAX_BYTES} bytes")
                body = await pending.shield_reading(join_chunks(response.aiter_raw(), _MAX_BYTES, too_long))
            ENGINE_UP.set(1)
        except NOT_BEGUN as error:
            raise self._forget_engine(NotReady(f"no engine answers at {self.address}")) from error
        except httpx.TransportError as error:
            message = f"the engine at {self.address} disconnected during a request ({type(error).__name__})"
            raise self._forget_engine(EngineUnavailable(message)) from error
        except httpx.DecodingError:
            raise InvalidOutput("the engine's answer is not what its headers say") from None
        _check_version(response)
        if response.is_success:
            return body
        failure = parse_error(response.status_code, body, response.headers)
        # an engine that calls itself unavailable has not begun the request, so it may be sent again
        raise NotReady(str(failure)) if isinstance(failure, EngineUnavailable) else failure

    def _forget_engine(self, error: CorrectionError) -> CorrectionError:
        """Drop the cached description, because another engine may answer next; mark the engine as down in metrics.

        Returns `error`.
        """
        self._info = None
        ENGINE_UP.set(0)
        return error


def _check_version(response: httpx.Response) -> None:
    """Raise `EngineMismatch` if the engine's wire version differs from ours.

    A missing version counts as different only if the engine does not understand the request.
    """
    version = response.headers.get(wire.HEADER)
    if version is None and response.status_code != wire.REFUSED:
        return
    if version != str(wire.WIRE):
        raise wire.make_mismatch_error("engine", response.headers, "gateway")


_NO_CORRECTION = translate_parse_errors("the engine sent something that is no correction")
"""Made once, because every correction enters it."""


def _parse_correction(content: bytes) -> Correction:
    """Parse the engine's answer to a correction; raises `InvalidOutput`."""
    with _NO_CORRECTION:
        return AlignResponse.model_validate_json(content).correction()


def _parse_address(address: str) -> tuple[str, str | None]:
    """Split an engine address into (base URL, socket path or None); raises `ConfigError` if it is invalid."""
    if address.startswith("unix:/"):
        # no name is looked up for a socket, so the host may be any
        return "http://engine", address.removeprefix("unix:")
    if is_web_address(address):
        return address.rstrip("/"), None
    raise ConfigError(f"{address!r} is no engine address; use unix:/path/to/engine.sock or http(s)://host:port")


def _make_headers(method: str, content: bytes | None) -> Mapping[str, str]:
    """The headers of a request: version, trace, and the type of its content if it has any."""
    # the only uploads are taught heads
    content_type = "application/octet-stream" if method == "PUT" else "application/json"
    # answers uncompressed, because `send` reads their raw bytes
    headers = {"accept-encoding": "identity", **wire.VERSION_HEADERS, **tracing.propagation_headers()}
    if content is not None:
        headers["content-type"] = content_type
    return headers


def _serialise_with_deadline(request: _TimedRequest | None, left_s: float) -> bytes | None:
    """The request as JSON, with `left_s` as its deadline; None for a request without a body."""
    return None if request is None else request.with_deadline(left_s).model_dump_json().encode()
