"""Limits on the size of a request body, by client key.

LiteLLM reads and parses a whole body before it authenticates the sender. `BodyLimitMiddleware` runs earlier. It reads
the body up to the sender's limit and answers 413 to a larger one, so that the application never sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_proxy.gateway import client_keys, litellm_internals
from aligner_proxy.gateway.asgi_layers import add_layer
from aligner_proxy.policy.keys_file import MIB

_AUTH_MODULE = "aligner_proxy.gateway.auth"
"""The module of our own `custom_auth` function."""
_UNKNOWN_SENDER_BYTES = MIB
"""Limit for senders without a known key, whom authentication refuses later anyway."""

_LINGER_BYTES = 32 * MIB
"""Most bytes of a refused body that are read and discarded."""
_LINGER_S = 5.0
"""Most seconds for which a refused body is read."""

FindLimit = Callable[[Scope], int | None]
"""Returns the maximum body size of a request in bytes; None for no limit."""


class BodyLimitMiddleware:
    """ASGI middleware around `app` that refuses bodies above the sender's limit, which `find_limit` returns."""

    def __init__(self, app: ASGIApp, find_limit: FindLimit) -> None:
        self.app = app
        self._find_limit = find_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; refuse a body that is declared too long, and stop reading a body that becomes too long."""
        max_bytes = self._find_limit(scope) if scope["type"] == "http" else None
        if max_bytes is None:
            await self.app(scope, receive, send)
        elif _declared_bytes(scope) > max_bytes:
            await _reply_413(receive, send, max_bytes)
        else:
            await self._run_with_body(scope, receive, send, max_bytes)

    async def _run_with_body(self, scope: Scope, receive: Receive, send: Send, max_bytes: int) -> None:
        """Read the whole body, then run the application; stop if the client disconnects or the body is too large."""
        messages: deque[Message] = deque()
        size = 0
        has_more = True
        while has_more:
            message = await receive()
            if message["type"] != "http.request":
                return
            size += len(message.get("body", b""))
            has_more = message.get("more_body", False)
            if size > max_bytes:
                await _reply_413(receive, send, max_bytes, has_more=has_more)
                return
            messages.append(message)

        async def receive_again() -> Message:
            """The next of the messages that were read; after them, later messages, which say that the client left."""
            return messages.popleft() if messages else await receive()

        await self.app(scope, receive_again, send)


def _declared_bytes(scope: Scope) -> int:
    """The declared content length; 0 without one, since the received bytes are counted anyway."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])  # 20 digits exceed any limit; thousands would take long to convert
    return 0


async def _reply_413(receive: Receive, send: Send, max_bytes: int, *, has_more: bool = True) -> None:
    """Answer 413, then discard the rest of the body for a while; a client that still sends would miss the answer.

    `has_more` is False if the whole body was read already.
    """
    error = {
        "message": f"the body of this request is larger than {max_bytes // MIB} MiB, the most that this key may send",
        "type": "invalid_request_error",
        "param": None,
        "code": "413",
    }
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    # The response stays incomplete until then, since the server closes the connection after a complete one.
    await send({"type": "http.response.body", "body": body, "more_body": True})
    discarded_bytes = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while has_more and discarded_bytes < _LINGER_BYTES:
                message = await receive()
                discarded_bytes += len(message.get("body", b""))
                has_more = message["type"] == "http.request" and message.get("more_body", False)
    await send({"type": "http.response.body", "body": b""})


def find_sender_limit(scope: Scope) -> int | None:
    """The limit of a request's body in bytes; None if there is none.

    There is none for the master key, or if the gateway does not check keys itself.
    """
    proxy = litellm_internals.proxy_module()
    # With these settings LiteLLM may accept keys that we do not know.
    may_accept_other_keys = bool(proxy.general_settings.get("custom_auth_settings"))
    if may_accept_other_keys or getattr(proxy.user_custom_auth, "__module__", None) != _AUTH_MODULE:
        return None
    try:
        entries = client_keys.active_keys()
    except client_keys.KeysUnreadable:
        return _UNKNOWN_SENDER_BYTES
    limits: list[int] = []
    for possible_key in _possible_keys(scope):
        digest = client_keys.key_digest(possible_key)
        if client_keys.is_master(digest):
            return None
        if digest in entries:
            limits.append(entries[digest].max_body_mb * MIB)
    # Which of several keys LiteLLM takes is not known here, so the lowest limit applies.
    return min(limits, default=_UNKNOWN_SENDER_BYTES)


def _possible_keys(scope: Scope) -> Iterator[str]:
    """Yield all strings that may be the key, since LiteLLM accepts it in many headers, a custom one and the query."""
    for _, value in scope["headers"]:
        text = value.decode("latin-1")
        yield text
        if " " in text:  # such as "Bearer KEY"
            yield text.partition(" ")[2]
    if b"key=" in scope["query_string"]:
        yield from (value for name, value in parse_qsl(scope["query_string"].decode("latin-1")) if name == "key")


def install() -> None:
    """Limit the request bodies of the running proxy; does nothing outside the proxy."""
    app = litellm_internals.proxy_application()
    if app is not None:
        add_layer(app, BodyLimitMiddleware, find_limit=find_sender_limit)
