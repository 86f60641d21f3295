"""Our comments in a stream, as single lines directly before the next event.

LiteLLM ends whatever a hook yields with a blank line, a comment too. To a reader for which every blank line ends an
event, that is an event without data, and some readers fail on it (openai-go up to 3.42 does so at the end of every
stream). So the blank line is taken out when the bytes leave the application. Where an event ends the stream, the hook
yields it after the comment (`sse.is_last_event`), so that no comment is without an event behind it.
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_COMMENTS = re.compile(rb"(?:: (?:keep-alive|aligner(?:-trail)? [^\n]*)\n\n)+")
"""Comments that a stream of ours yields, each with the blank line after it."""


class CommentLineMiddleware:
    """ASGI middleware that takes out the blank line after our comments; every other message passes as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_joined(message: Message) -> None:
            body = message.get("body")
            # an event begins with its field's name, and what is no stream hardly ever with a colon
            if body and body[:2] == b": ":
                message = {**message, "body": join_comments(body)}
            await send(message)

        await self.app(scope, receive, send_joined if scope["type"] == "http" else send)


def join_comments(body: bytes) -> bytes:
    """Comments of ours without their blank lines; anything else as it is."""
    return body.replace(b"\n\n", b"\n") if _COMMENTS.fullmatch(body) else body
