"""HTTP client of an engine in another process, over a unix socket or a port; its sessions are in `http_session.py`.

A request is sent again only if the engine has not begun it: there is no connection, the engine is still loading, or it
is full. Retries stay within the request's deadline and a limited wait. A request whose connection is lost is an error.
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
from aligner_proxy.engine.client.head_supply import HeadSupply
from aligner_proxy.engine.client.http_session import HttpSession
from aligner_proxy.engine.client.retry import NotReady, retry
from aligner_proxy.engine.wire import STATES, parse_error, translate_parse_errors
from aligner_proxy.errors import ConfigError, CorrectionError, EngineUnavailable, InvalidOutput
from aligner_proxy.observability import tracing
from aligner_proxy.observability.metrics import ENGINE_UP
from aligner_proxy.observability.tracing import stage
from aligner_proxy.types import Correction
from aligner_proxy.web_address import is_web_address

_TimedRequest = AlignRequest | StatesRequest | RowsRequest | TokenLabelsRequest
_INFO_ADAPTER = TypeAdapter(AlignerInfo)
_INFO_S = 5.0
"""Seconds that an engine may take for requests that need no model, apart from the wait until it begins."""
_INFO_TTL_S = 3.0
"""Seconds for which an engine's description is used."""
_MAX_IDLE_CONNECTIONS = 64
"""Most idle connections to one server that stay open."""
_MAX_BYTES = 32 << 20
"""Largest body of an engine's answer that is read."""
CONNECT_S = 2.0
"""Seconds allowed for connecting. A host that is gone refuses nothing, and time must be left for another engine."""
NOT_BEGUN = (httpx.ConnectError, httpx.ConnectTimeout)
"""Errors that happen before a request is sent."""
_SILENCE_S = 2
"""Seconds of silence of an engine's host, while we send or it works, after which the kernel drops the connection."""
_HEADERS_EVENT = "http11.send_request_headers.started"
"""The trace event of httpx from which on a cancelled request closes its connection; see `PendingRequest`."""

_T = TypeVar("_T")


def _keep_alive_options() -> list[tuple[int, int, int]]:
    """TCP socket options that let the kernel detect that the host on the other side is gone."""
    # macOS lacks the first two, so there a silent host is noticed only when the request's deadline passes
    values = {"TCP_USER_TIMEOUT": _SILENCE_S * 1000, "TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": _SILENCE_S}
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in values.items():
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


class Connections:
    """Pooled connections to one server; if another event loop uses this object, new connections are opened."""

    def __init__(self, base_url: str = "", socket_path: str | None = None) -> None:
        self._base_url = base_url
        self._socket_path = socket_path  # of a unix socket; None for a TCP port
        self._client: httpx.AsyncClient | None = None  # None before the first use, and when closed
        self._loop: asyncio.AbstractEventLoop | None = None  # the event loop of `_client`
        self._ending_tasks: set[asyncio.Task[None]] = set()  # each ends an abandoned request

    @property
    def client(self) -> httpx.AsyncClient:
        """The HTTP client of the running event loop, created if needed."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # Connections are not limited: the engine decides which requests wait or are refused, because it sees all
            # tenants of all workers. A limit here would be a queue that ignores the tenants' shares.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=_MAX_IDLE_CONNECTIONS)
            # the other side of a unix socket is on this host, so it cannot disappear unnoticed
            options = None if self._socket_path else _keep_alive_options()
            # a unix socket has no TLS, and reading all certificates takes a thirtieth of a second
            verify = self._socket_path is None
            transport = httpx.AsyncHTTPTransport(
                verify=verify, uds=self._socket_path, limits=limits, socket_options=options
            )
            # callers enforce the request's deadline; only connecting has a timeout here
            timeout = httpx.Timeout(None, connect=CONNECT_S)
            self._client = httpx.AsyncClient(
                transport=transport, base_url=self._base_url, timeout=timeout, trust_env=False
            )
            self._loop = loop
        return self._client

    def begin_request(self, method: str, url: str, **fields: Any) -> PendingRequest:
        """Prepare one request as a context manager; `fields` are arguments of httpx's `build_request`."""
        return PendingRequest(self.client, self._ending_tasks, self.client.build_request(method, url, **fields))

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
        await asyncio.gather(*self._ending_tasks)
        if client is not None:
            await client.aclose()


class PendingRequest:
    """A context manager for one request; afterwards its connection is free or closed, however the block ends.

    If httpx is cancelled twice, or between connecting and the first request, it never closes the connection. The server
    would then continue work that nobody waits for, and keep its slot occupied. Therefore httpx runs in a separate task,
    which is cancelled at most once, and not before it sends the headers. A request whose block ends early is abandoned.
    """

    def __init__(
        self, client: httpx.AsyncClient, ending_tasks: set[asyncio.Task[None]], request: httpx.Request
    ) -> None:
        self._client = client
        self._ending_tasks = ending_tasks  # shared by all requests of the `Connections`; see there
        self._request = request
        self._latest_task: asyncio.Task[Any] | None = None  # sends the request, or reads the body
        self._response_task: asyncio.Task[httpx.Response] | None = None  # sends the request; None outside of the block
        self._is_sending = False  # whether the headers are being sent or were sent
        self._is_abandoned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._response_task is not None and not self._has_ended(self._response_task):
            ending_task = asyncio.create_task(self._abandon(self._response_task))
            self._ending_tasks.add(ending_task)
            ending_task.add_done_callback(self._ending_tasks.discard)
        self._latest_task = None
        # breaks a reference cycle: the response refers to the request, and the request to this object
        self._response_task = None

    # The next two are no coroutines, so that no frame of ours is between the caller and the connection.

    def response(self) -> Awaitable[httpx.Response]:
        """Send the request; returns an awaitable of its response, with the body unread."""
        self._request.extensions["trace"] = self._trace
        self._response_task = asyncio.create_task(self._client.send(self._request, stream=True))
        self._latest_task = self._response_task
        return asyncio.shield(self._response_task)

    def shield_reading(self, reading: Coroutine[Any, Any, _T]) -> Awaitable[_T]:
        """Run `reading` of the body in a shielded task; returns an awaitable of its result."""
        task = asyncio.create_task(reading)
        self._latest_task = task
        return asyncio.shield(task)

    async def _trace(self, event: str, _details: object) -> None:
        """Note that headers are being sent, and cancel a request that was abandoned before that.

        httpx calls this method, as the request's "trace" extension, with the name of each step of sending.
        """
        if event != _HEADERS_EVENT:
            return
        self._is_sending = True
        sending_task = asyncio.current_task()
        if self._is_abandoned and sending_task is not None:
            sending_task.cancel()

    def _has_ended(self, response_task: asyncio.Task[httpx.Response]) -> bool:
        """Whether both tasks are done, and the response, if there is one, is closed."""
        if self._latest_task is None or not self._latest_task.done() or not response_task.done():
            return False
        return response_task.cancelled() or response_task.exception() is not None or response_task.result().is_closed

    async def _abandon(self, response_task: asyncio.Task[httpx.Response]) -> None:
        """Abandon the request: cancel the task that sends it or reads its body, and close an open response.

        If the headers are not being sent yet, `_trace` cancels the task when they are.
        """
        task = self._latest_task or response_task
        self._is_abandoned = True
        if self._is_sending and not task.done():
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it
        if not response_task.cancelled() and response_task.exception() is None:
            await response_task.result().aclose()


class HttpEngine:
    """An engine at an address: "unix:/path/to/socket" or "http(s)://host:port".
    `wait_s` limits how long a request waits for an engine that is down, loading or full. `head_source` returns the
    taught heads that the engine lacks.
    """

    def __init__(self, address: str, *, wait_s: float = 5.0, head_source: HeadSource | None = None) -> None:
        self.address = address
        self.heads = HeadSupply(head_source, self.put_head)
        base_url, socket_path = _parse_address(address)
        self._connections = Connections(base_url, socket_path)
        self._wait_s = wait_s
        self._cached_info: AlignerInfo | None = None  # the engine's description
        self._described_at = 0.0  # when the description came, in monotonic seconds
        self._closing_tasks: set[asyncio.Task[None]] = set()  # each closes a session on the engine

    async def info(self) -> AlignerInfo:
        """Describe the aligner served; asks the engine again after `_INFO_TTL_S` and after a lost connection."""
        if self._cached_info and time.monotonic() - self._described_at < _INFO_TTL_S:
            return self._cached_info
        # the deadline must not end before the wait for an engine that is loading
        content = await self._send_with_retries("GET", "/info", None, max(_INFO_S, self._wait_s))
        with translate_parse_errors("the engine's /info is none of ours; check the address"):
            info = _INFO_ADAPTER.validate_json(content)
        self._cached_info = info
        self._described_at = time.monotonic()
        return info

    # no coroutine, so that no further frame is on the way of every correction
    def align(self, request: AlignRequest, path: str = "/v1/corrections") -> Coroutine[Any, Any, Correction]:
        """Correct one answer within `request.deadline_s`, which includes waiting for the engine.

        Uploads taught heads that the engine lacks, and asks again. A session passes its own `path`.
        """
        if request.heads:
            return self.heads.correct(request, partial(self._correct, path))
        return self._correct(path, request)

    async def put_head(self, data: bytes) -> str:
        """Upload a taught head and return its content hash. Raises `HeadRefused`."""
        name = hashlib.sha256(data).hexdigest()
        async with enforce_deadline(_INFO_S):
            await self.send("PUT", f"/v1/heads/{name}", data)
        return name

    async def rows(self, request: RowsRequest) -> RowsResponse:
        """Return the rows of each answer within `request.deadline_s`. Raises `InvalidOutput`."""
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

        `opening` returns the session's name once the engine has opened it. It is never cancelled, because the engine
        would then have a session that nobody can close.
        """
        task = asyncio.create_task(self._close_session(opening))
        self._closing_tasks.add(task)
        task.add_done_callback(self._closing_tasks.discard)

    async def aclose(self) -> None:
        """Cancel pending closes of sessions, and close the pooled connections."""
        for task in self._closing_tasks:
            task.cancel()
        await asyncio.gather(*self._closing_tasks, return_exceptions=True)
        await self._connections.aclose()

    async def _close_session(self, opening: Awaitable[str]) -> None:
        """Wait for the session's name and close it on the engine; a failure is ignored."""
        try:
            async with asyncio.timeout(_INFO_S):
                name = await opening
                await self.send("DELETE", f"/v1/read/{name}", None)
        except (CorrectionError, ValueError, TimeoutError):
            pass  # the session was not opened, or the engine closes it after a timeout
        finally:
            del opening  # breaks a reference cycle: the error of `opening` refers to this frame and the session

    async def _correct(self, path: str, request: AlignRequest) -> Correction:
        """Request a correction within `request.deadline_s`, which includes waiting for the engine."""
        with stage("engine", kind="CLIENT", gen_ai__operation__name="text_completion"):
            content = await self._send_with_retries("POST", path, request, request.deadline_s)
        with _NO_CORRECTION:
            return AlignResponse.model_validate_json(content).correction()

    async def _send_with_retries(
        self, method: str, path: str, request: _TimedRequest | None, deadline_s: float
    ) -> bytes:
        """Send until the engine begins the request, or only once if `_wait_s` is 0; return the response's body.

        The deadline in the body of each attempt is the time that is left then.
        """
        if not self._wait_s:
            async with enforce_deadline(deadline_s):
                return await self.send(method, path, _serialise_with_deadline(request, deadline_s))
        return await retry(
            lambda left_s: self.send(method, path, _serialise_with_deadline(request, left_s)), deadline_s, self._wait_s
        )

    async def send(self, method: str, path: str, content: bytes | None) -> bytes:
        """Send one HTTP request and return the response's body. Raises the error that the engine reports.

        Raises `NotReady` if the engine has not begun the request, so that it may be sent again, and `EngineUnavailable`
        if it may have begun it.
        """
        try:
            headers = _make_headers(method, content)
            with self._connections.begin_request(method, path, content=content, headers=headers) as pending:
                response = await pending.response()
                # the raw bytes are not decompressed, so a compression bomb does no harm
                too_long = InvalidOutput(f"the engine's answer is longer than {_MAX_BYTES} bytes")
                # in a shielded task, since httpx may be cancelled only once (see `PendingRequest`)
                body = await pending.shield_reading(join_chunks(response.aiter_raw(), _MAX_BYTES, too_long))
            ENGINE_UP.set(1)
        except NOT_BEGUN as error:
            self._forget_engine()
            raise NotReady(f"no engine answers at {self.address}") from error
        except httpx.TransportError as error:
            self._forget_engine()
            message = f"the engine at {self.address} disconnected during a request ({type(error).__name__})"
            raise EngineUnavailable(message) from error
        _check_version(response)
        if response.is_success:
            return body
        failure = parse_error(response.status_code, body, response.headers)
        if isinstance(failure, EngineUnavailable):
            # an engine that reports itself unavailable has not begun the request, so it may be sent again
            raise NotReady(str(failure))
        raise failure

    def _forget_engine(self) -> None:
        """Note that the connection failed: drop the cached description, and show the engine as down in metrics."""
        self._cached_info = None  # another engine may answer next
        ENGINE_UP.set(0)


def _check_version(response: httpx.Response) -> None:
    """Raise `EngineMismatch` if the engine's wire version differs from ours.

    A response without a version counts as another version only if the engine does not know the request's fields.
    """
    version = response.headers.get(wire.HEADER)
    if version is None and response.status_code != wire.REFUSED:
        return
    if version != str(wire.WIRE):
        raise wire.make_mismatch_error("engine", response.headers, "gateway")


_NO_CORRECTION = translate_parse_errors("the engine sent something that is no correction")
"""Made once, because every correction enters it."""


def _parse_address(address: str) -> tuple[str, str | None]:
    """Split an engine address into (base URL, socket path or None); raises `ConfigError` if it is invalid."""
    if address.startswith("unix:/"):
        # no name is looked up for a socket, so any host name will do
        return "http://engine", address.removeprefix("unix:")
    if is_web_address(address):
        return address.rstrip("/"), None
    raise ConfigError(f"{address!r} is no engine address; use unix:/path/to/engine.sock or http(s)://host:port")


def _make_headers(method: str, content: bytes | None) -> Mapping[str, str]:
    """The headers of a request: versions, trace, and the type of its content if it has any."""
    # only taught heads are sent by PUT, as bytes
    content_type = "application/octet-stream" if method == "PUT" else "application/json"
    # "identity" asks for an uncompressed response, because `send` reads its raw bytes
    headers = {"accept-encoding": "identity", **wire.VERSION_HEADERS, **tracing.propagation_headers()}
    if content is not None:
        headers["content-type"] = content_type
    return headers


def _serialise_with_deadline(request: _TimedRequest | None, left_s: float) -> bytes | None:
    """The request as JSON, with `left_s` as its deadline; None for a request without a body."""
    return None if request is None else request.with_deadline(left_s).model_dump_json().encode()
