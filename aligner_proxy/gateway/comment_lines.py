"""Our comments in a stream, as single lines directly before the next event.

A hook of LiteLLM can yield a comment only as an item: LiteLLM ends it with a blank line, and hands it to the guardrails
listed after ours. To a reader for which every blank line ends an event, that is an event without data, and some fail on
it (openai-go up to 3.42, at the end of every stream); and some guardrails fail on an item that is no chunk. So comments
go past LiteLLM, through a layer around its application, which writes them before the next event. Where an event ends
the stream, the hook yields it after the comment (`sse.is_last_event`).
"""

from __future__ import annotations

import re
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEEPALIVE = b": keep-alive\n\n"
"""A comment that keeps a silent connection alive."""
_STATUS_BEGINNING = b": aligner"
"""Beginning of the comments that end a stream; a keep-alive comment begins differently."""
_COMMENTS = re.compile(rb"(?:: (?:keep-alive|aligner(?:-trail)? [^\n]*)\n\n)+")
"""Comments that went through LiteLLM after all, each with the blank line after it."""
_response: ContextVar[_Response | None] = ContextVar("aligner_proxy_response", default=None)
"""The response of the request that this context serves; None without the middleware."""


class CommentLineMiddleware:
    """ASGI middleware that writes our comments into streams; responses without comments pass unchanged."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; its response is stored in `_response`, where `write_comment` finds it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        response = _Response(send)
        _response.set(response)
        await self.app(scope, receive, response.send)


class _Response:
    """The response to one request, as it leaves LiteLLM's application."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._pending = b""
        """Comments to write before the next event."""
        self._is_stream = False
        self._between_events = False

    async def send(self, message: Message) -> None:
        """Send an ASGI message; if it is a part of a stream, first write the pending comments."""
        if message["type"] == "http.response.start":
            # a guardrail after ours may have ended the stream with an error, which is JSON
            types = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            self._is_stream = any(value.startswith(b"text/event-stream") for value in types)
        elif self._is_stream:
            body = join_comments(message.get("body", b""))
            if self._pending and (body or not message.get("more_body", False)):
                body = self._pending + body
                self._pending = b""
            # a keep-alive comment has lost its blank line in `join_comments`
            self._between_events = body.endswith((b"\n\n", KEEPALIVE.removesuffix(b"\n")))
            message = {**message, "body": body}
        await self._send(message)

    async def write(self, comment: bytes) -> bool:
        """Write a comment at once or, if it has the status, before the next event; return whether this is possible.

        Other comments cannot be written inside an event, or before LiteLLM has begun the response.
        """
        lines = join_comments(comment)
        if comment.startswith(_STATUS_BEGINNING):
            self._pending += lines
            return True
        if not self._between_events:
            return False
        await self._send({"type": "http.response.body", "body": lines, "more_body": True})
        return True


async def write_comment(comment: bytes) -> bool:
    """Write a comment past LiteLLM; False if the hook has to yield it, as where the middleware is missing."""
    response = _response.get()
    return response is not None and await response.write(comment)


def is_comment(item: object) -> bool:
    """Whether an item of a stream is a comment of ours."""
    return isinstance(item, bytes) and item[:2] == b": " and _COMMENTS.fullmatch(item) is not None


def join_comments(body: bytes) -> bytes:
    """Comments of ours without the blank lines that LiteLLM put after them; any other body as it is."""
    # The beginning is compared first, since an event begins with a field's name and other bodies hardly with a colon.
    if body[:2] == b": " and _COMMENTS.fullmatch(body):
        return body.replace(b"\n\n", b"\n")
    return body
