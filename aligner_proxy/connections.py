"""Limits on an HTTP server's connections: client timeouts, body size, and number of connections.

uvicorn itself limits none of these. `BoundedProtocol` is uvicorn's HTTP protocol with a timeout for each thing that a
client has to do: send the head of a request, send its body, and read the response. When the connection limit is
reached, the connection that has waited longest for its client is closed, so that slow clients cannot lock out fast
ones.

When the server stops, it keeps idle connections open for a while because closing them would lose a request that is on
its way. Such a request is answered with `connection: close`; connections that stay silent are closed.

No server here offers WebSockets, because uvicorn's WebSocket protocol has none of these limits and nothing corrects
what LiteLLM sends over one. A WebSocket handshake is answered like any other request, as HTTP allows.
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
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

MIN_BYTES_PER_S = 8 << 10
"""A body gets one more second for each this many bytes."""
_REASONS = {408: "Request Timeout", 503: "Service Unavailable"}
_CLOSE = (b"connection", b"close")
_LOG_S = 60.0
"""Least seconds between two log lines about the connection limit."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one server process; times are in seconds."""

    connections: int = 1024
    head_s: float = 10.0
    """Time to receive the head, from the request's first byte or, for the first request, from the connection."""
    body_s: float = 30.0
    """Time to receive the body after the head, plus the allowance of `MIN_BYTES_PER_S`."""
    idle_s: float = 60.0
    """Idle time between requests; must be longer than clients keep a connection (httpx: 5 s), or requests get lost."""
    unread_s: float = 60.0
    """How long a client may stop reading a response that exceeds the buffers."""
    drain_s: float = 6.0
    """How long a stopping server keeps a silent connection open; also longer than clients keep one."""
    body_bytes: int = 32 << 20
    """Longest body that is accepted."""


@dataclass(slots=True)
class _ServerConnections:
    """The connections of one server that wait for their clients."""

    connections: dict[BoundedProtocol, None] = field(default_factory=dict)
    """An ordered set: the connection that has waited longest comes first."""
    draining: bool = False
    """Whether the server is stopping."""
    logged_at: float = -math.inf
    """When reaching the connection limit was last logged."""


_servers: WeakKeyDictionary[ServerState, _ServerConnections] = WeakKeyDictionary()
"""The waiting connections of each server in this process, by uvicorn's state of the server."""


def uvicorn_settings(limits: ConnectionLimits) -> dict[str, Any]:
    """uvicorn settings for these limits; they can be pickled for worker processes."""
    return {"http": partial(BoundedProtocol, limits=limits), "timeout_keep_alive": limits.idle_s, "ws": "none"}


class _PendingInput(Enum):
    """What the server expects next from the client of a connection."""

    NOTHING = auto()
    NEXT_REQUEST = auto()
    """Optional; uvicorn's own timeout closes the connection."""
    HEAD = auto()
    BODY = auto()


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with `ConnectionLimits`."""

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
        self._application = self.app
        self.app = self._handle_bounded
        """The application that uvicorn calls, with its request bodies limited."""
        self._server = _servers.setdefault(server_state, _ServerConnections())
        self._pending = _PendingInput.NOTHING
        """What the client is expected to send next, as of the latest `_update_clock`."""
        self._since = 0.0
        """When the client's time to send began, by the loop's clock."""
        self._body_bytes = 0
        """Bytes received of the present body."""
        self._clock: asyncio.TimerHandle | None = None
        """Closes the connection if the client does not send in time; None while nothing is expected."""
        self._unread: asyncio.TimerHandle | None = None
        """Closes the connection if the client does not read; None while it reads."""

    @property
    def draining(self) -> bool:
        """Whether this server is stopping."""
        return self._server.draining

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection; at the limit, close the one that waits longest for its client, or refuse with 503."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._log_full()
            slowest = next(iter(self._server.connections), None)
            if slowest is None:  # the server itself is working on all connections
                self._close(503)
                return
            slowest.give_up()
        self._update_clock()

    def data_received(self, data: bytes) -> None:
        """Process received bytes and update the timeout for what the client still has to send.

        A client that has its answer and still sends a body over the limit is disconnected.
        """
        self._body_bytes += len(data)
        super().data_received(data)
        self._update_clock()
        if (
            self._pending is _PendingInput.BODY
            and self.cycle.response_complete
            and self._body_bytes > self.limits.body_bytes
        ):
            self.transport.abort()

    def on_response_complete(self) -> None:
        """Start waiting for the next request, part of which may already be here."""
        super().on_response_complete()
        self._update_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers of the closed connection."""
        self._stop_clock()
        self._stop_unread()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Stop: let a running request finish, and wait `drain_s` for a request that may be on its way."""
        self._server.draining = True
        if self.cycle is None or self.cycle.response_complete:
            # Our shorter timeout replaces uvicorn's for idle connections.
            self._unset_keepalive_if_required()
            self._start_clock(self.limits.drain_s)
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        """Start the timeout for a client that does not read."""
        super().pause_writing()
        self._stop_unread()
        self._unread = self.loop.call_later(self.limits.unread_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timeout because the client reads again."""
        self._stop_unread()
        super().resume_writing()

    def give_up(self) -> None:
        """Close the connection because its client is too slow, with 408 if a request was due."""
        self._close(None if self._pending is _PendingInput.NEXT_REQUEST else 408)

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing, since any client could fill the log with upgrade requests; they are answered over HTTP."""

    async def _handle_bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; send 413 for too long a body, and `connection: close` while the server is stopping."""
        request = _BoundedRequest(self, receive, send)
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if int(length) > self.limits.body_bytes:  # h11 has already refused a value that is not a number
            await request.reply_413()
        else:
            await self._application(scope, request.receive, request.send)

    def _log_full(self) -> None:
        """Log that the connection limit is reached, at most once in `_LOG_S` seconds."""
        now = self.loop.time()
        if now - self._server.logged_at >= _LOG_S:
            self._server.logged_at = now
            log.warning(
                "connection limit of %d reached: closing slow clients, new ones may get 503", self.limits.connections
            )

    def _update_clock(self) -> None:
        """Start or stop the timeout if the expected input has changed."""
        pending = self._find_pending_input()
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
            self._server.connections[self] = None  # uvicorn's timer closes it, or a new connection that needs its place

    def _find_pending_input(self) -> _PendingInput:
        """What the client is to send next, from h11's state."""
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            return _PendingInput.BODY
        if state is not h11.IDLE:
            return _PendingInput.NOTHING
        # A first request is due at once; of a later one, bytes must have arrived.
        has_started = self.cycle is None or self.conn.trailing_data[0]
        return _PendingInput.HEAD if has_started else _PendingInput.NEXT_REQUEST

    def _start_clock(self, seconds: float) -> None:
        """Begin the timeout for what the client has to send, and note that the connection waits for it."""
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
        """Close the connection, unless its body arrives fast enough or the application itself pauses reading."""
        if self._pending is _PendingInput.BODY and not self.cycle.response_complete:
            seconds_left = self._since + self.limits.body_s + self._body_bytes / MIN_BYTES_PER_S - self.loop.time()
            if self.flow.read_paused or self.cycle.waiting_for_100_continue:
                seconds_left = self.limits.body_s
            if seconds_left > 0:
                self._clock = self.loop.call_later(seconds_left, self._check_overdue)
                return
        self.give_up()

    def _close(self, status: int | None) -> None:
        """Close the connection; send `status` first unless a response has already begun."""
        self._stop_clock()
        has_answered = self._pending is _PendingInput.BODY and self.cycle.response_started
        if status is not None and not has_answered:
            head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(head.encode())
        self.transport.close()


class _BoundedRequest:
    """One request and its response; counts the bytes of the body."""

    def __init__(self, connection: BoundedProtocol, receive: Receive, send: Send) -> None:
        self._connection = connection
        self._receive = receive
        self._send = send
        self._bytes_left = connection.limits.body_bytes
        self._has_started = False
        """Whether the response has begun, so that its status can no longer become 413."""
        self._is_refused = False
        """Whether 413 was sent, or the connection closed, because the body is too long."""

    async def receive(self) -> Message:
        """The next message; once the body is too long, the application is told that the client disconnected."""
        if self._is_refused:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._bytes_left -= len(message.get("body", b""))
        if self._bytes_left < 0:
            await self.reply_413()
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """Forward a message of the application, unless the request has been refused."""
        if self._is_refused:
            return
        if message["type"] == "http.response.start":
            self._has_started = True
            if self._connection.draining:
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
        await self._send(message)

    async def reply_413(self) -> None:
        """Answer 413 and close, or just close if the response has begun."""
        self._is_refused = True
        if self._has_started:
            self._connection.transport.abort()
            return
        headers = [_CLOSE, (b"content-length", b"0")]
        await self._send({"type": "http.response.start", "status": 413, "headers": headers})
        await self._send({"type": "http.response.body", "body": b""})
