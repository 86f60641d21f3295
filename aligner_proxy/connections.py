"""Bounds of an HTTP server's connections: how long a client may take, how much it may send, how many there may be.

uvicorn limits none of these itself. `BoundedProtocol` is its HTTP protocol with timeouts for what the client has to do:
send the head of a request, send its body, read the response. When the connection limit is reached, the connection that
has waited longest for its client is closed, so that slow clients cannot lock out fast ones.

When the server stops, idle connections are not closed at once, since a request on its way would be lost. It is answered
with `connection: close`, and only connections that stay silent are closed.

No server here has WebSockets: uvicorn's protocol for them knows none of these bounds, and nothing corrects what LiteLLM
sends in one. Their handshakes are answered like any other request, as HTTP allows.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

LEAST_BYTES_PER_S = 8 << 10
"""A body may take a second more for each so many bytes."""
_REASONS = {408: "Request Timeout", 503: "Service Unavailable"}
_CLOSE = (b"connection", b"close")
_LOG_S = 60.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one server process; times are in seconds."""

    connections: int = 1024
    head_s: float = 10.0
    """From the first byte of a request, or from the connection, to the end of its head."""
    body_s: float = 30.0
    """From the head to the end of the body, and what `LEAST_BYTES_PER_S` adds."""
    idle_s: float = 60.0
    """Between two requests: longer than clients keep a connection (httpx: 5 s), or one loses a request on it."""
    unread_s: float = 60.0
    """How long a client may read nothing of a response that does not fit the buffers."""
    drain_s: float = 6.0
    """How long a stopping server still answers on a silent connection: longer than clients keep one, too."""
    body_bytes: int = 32 << 20


@dataclass(slots=True)
class _ServerConnections:
    """The connections of one server that wait for their clients, longest first."""

    connections: dict[BoundedProtocol, None] = field(default_factory=dict)
    draining: bool = False
    logged_at: float = -math.inf
    """When reaching the connection limit was last logged."""


_servers: WeakKeyDictionary[ServerState, _ServerConnections] = WeakKeyDictionary()


def uvicorn_settings(limits: ConnectionLimits) -> dict[str, Any]:
    """uvicorn's settings for these limits; they can be sent to worker processes."""
    return {"http": partial(BoundedProtocol, limits=limits), "timeout_keep_alive": limits.idle_s, "ws": "none"}


class _PendingInput(Enum):
    """What the server still expects from the client of a connection."""

    NOTHING = auto()
    NEXT_REQUEST = auto()
    """Optional; uvicorn's own timeout closes the connection."""
    HEAD = auto()
    BODY = auto()


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with bounds."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = limits
        self.app = _BoundedExchange(self.app, self)
        self._server = _servers.setdefault(server_state, _ServerConnections())
        self._pending = _PendingInput.NOTHING
        self._since = 0.0
        self._body_bytes = 0
        self._clock: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    @property
    def draining(self) -> bool:
        """Whether this server takes no further connections."""
        return self._server.draining

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection if there is a place; the one that has waited longest for its client makes room."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._log_full()
            slowest = next(iter(self._server.connections), None)
            if slowest is None:
                self._close(503)
                return
            slowest.give_up()
        self._update_clock()

    def data_received(self, data: bytes) -> None:
        """Read on; the clock follows what the client has still to send."""
        self._body_bytes += len(data)
        super().data_received(data)
        self._update_clock()
        if (
            self._pending is _PendingInput.BODY
            and self.cycle.response_complete
            and self._body_bytes > self.limits.body_bytes
        ):
            self.transport.abort()  # it has its answer and keeps sending

    def on_response_complete(self) -> None:
        """Wait for the next request, which may have come in part."""
        super().on_response_complete()
        self._update_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_clock()
        self._stop_unread()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Let a request that is worked on finish, and wait a while for one that may be on its way."""
        self._server.draining = True
        if self.cycle is None or self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self._start_clock(self.limits.drain_s)
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        """Start the clock of a client that does not read."""
        super().pause_writing()
        self._stop_unread()
        self._unread = self.loop.call_later(self.limits.unread_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop it: the client reads."""
        self._stop_unread()
        super().resume_writing()

    def give_up(self) -> None:
        """Close a connection whose client has not sent what it owes."""
        self._close(None if self._pending is _PendingInput.NEXT_REQUEST else 408)

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: anybody can ask for another protocol, again and again, and is answered in this one."""

    def _log_full(self) -> None:
        now = self.loop.time()
        if now - self._server.logged_at >= _LOG_S:
            self._server.logged_at = now
            log.warning(
                "connection limit of %d reached: closing slow clients, new ones may get 503", self.limits.connections
            )

    def _update_clock(self) -> None:
        """Start or stop the clock where what the client owes has changed."""
        pending = self._pending_input()
        if pending is self._pending or self.transport.is_closing():
            return
        self._pending = pending
        if pending is _PendingInput.NOTHING:
            self._stop_clock()
        elif pending is _PendingInput.BODY:
            self._body_bytes = 0
            self._start_clock(self.limits.body_s)
        elif self.draining:
            self._start_clock(self.limits.drain_s)
        elif pending is _PendingInput.HEAD:
            self._start_clock(self.limits.head_s)
        else:
            self._server.connections[self] = None

    def _pending_input(self) -> _PendingInput:
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            return _PendingInput.BODY
        if state is not h11.IDLE:
            return _PendingInput.NOTHING
        has_started = self.cycle is None or self.conn.trailing_data[0]
        return _PendingInput.HEAD if has_started else _PendingInput.NEXT_REQUEST

    def _start_clock(self, seconds: float) -> None:
        self._stop_clock()
        self._since = self.loop.time()
        self._server.connections[self] = None
        self._clock = self.loop.call_later(seconds, self._check_overdue)

    def _stop_clock(self) -> None:
        self._server.connections.pop(self, None)
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _check_overdue(self) -> None:
        """Close the connection, unless its client is quick enough, or it is the application that does not read."""
        if self._pending is _PendingInput.BODY and not self.cycle.response_complete:
            seconds_left = self._since + self.limits.body_s + self._body_bytes / LEAST_BYTES_PER_S - self.loop.time()
            if self.flow.read_paused or self.cycle.waiting_for_100_continue:
                seconds_left = self.limits.body_s
            if seconds_left > 0:
                self._clock = self.loop.call_later(seconds_left, self._check_overdue)
                return
        self.give_up()

    def _close(self, status: int | None) -> None:
        """Close the connection, with a status where the client waits for a response and none has begun."""
        self._stop_clock()
        answered = self._pending is _PendingInput.BODY and self.cycle.response_started
        if status is not None and not answered:
            head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(head.encode())
        self.transport.close()


class _BoundedExchange:
    """ASGI application of one connection: 413 for a body that is too long, `connection: close` in a stopping server."""

    def __init__(self, app: ASGIApp, connection: BoundedProtocol) -> None:
        self._app = app
        self._connection = connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._connection.limits.body_bytes
        exchange = _BoundedRequest(self._connection, receive, send, most)
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if int(length) > most:  # h11 refuses what is no number
            await exchange.refuse()
        else:
            await self._app(scope, exchange.receive, exchange.send)


class _BoundedRequest:
    """One request and its response, with the bytes of the body counted."""

    def __init__(self, connection: BoundedProtocol, receive: Receive, send: Send, most: int) -> None:
        self._connection = connection
        self._receive = receive
        self._send = send
        self._bytes_left = most
        self._has_started = False
        self._is_refused = False

    async def receive(self) -> Message:
        """The next message; after a body that is too long the client is gone for the application."""
        if self._is_refused:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._bytes_left -= len(message.get("body", b""))
        if self._bytes_left < 0:
            await self.refuse()
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the application, unless the request has been refused."""
        if self._is_refused:
            return
        if message["type"] == "http.response.start":
            self._has_started = True
            if self._connection.draining:
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
        await self._send(message)

    async def refuse(self) -> None:
        """Answer 413 and close, or just close where the response has begun."""
        self._is_refused = True
        if self._has_started:
            self._connection.transport.abort()
            return
        headers = [_CLOSE, (b"content-length", b"0")]
        await self._send({"type": "http.response.start", "status": 413, "headers": headers})
        await self._send({"type": "http.response.body", "body": b""})
