"""No comment of ours makes an event without data, and each stands directly before the next event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from aligner_proxy.formats import sse
from aligner_proxy.gateway import comment_lines
from aligner_proxy.gateway.asgi_layers import add_layer

DATA = b'data: {"id": 1}\n\n'
STATUS = b": aligner status=corrected id=5\n\n"
TRAIL = b': aligner-trail {"stream": "hold"}\n\n'
PING = b": keep-alive\n\n"


def read(pieces: list[bytes], *, running: bool = False) -> bytes:
    """What a client reads of a stream of these pieces."""

    async def answer(_request: Request) -> StreamingResponse:
        async def items() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        return StreamingResponse(items(), media_type="text/event-stream")

    async def ask() -> bytes:
        app = Starlette(routes=[Route("/", answer)])
        if running:
            app.middleware_stack = app.build_middleware_stack()
        add_layer(app, comment_lines.CommentLineMiddleware)
        add_layer(app, comment_lines.CommentLineMiddleware)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            return (await client.get("/")).content

    return asyncio.run(ask())


@pytest.mark.parametrize("running", [False, True])
def test_comments_become_lines_before_the_next_event(running: bool) -> None:
    pieces = [PING, DATA, PING, PING, DATA, TRAIL + STATUS, DATA]
    expected = b"".join(
        [b": keep-alive\n", DATA, b": keep-alive\n" * 2, DATA, TRAIL[:-1], STATUS[:-1], DATA],
    )
    assert read(pieces, running=running) == expected
    events = expected.decode().split("\n\n")
    assert all("data:" in event for event in events[:-1])


@pytest.mark.parametrize(
    "piece",
    [
        b": ping\n\n",
        b": aligner status=corrected",
        b": keep-alive\n\ndata: 1\n\n",
        b"data: : aligner status=corrected\n\n",
        b": aligned text of somebody else\n\n",
        b"",
    ],
)
def test_what_is_no_comment_of_ours_passes_as_it_is(piece: bytes) -> None:
    assert comment_lines.join_comments(piece) == piece
    assert read([DATA, piece, DATA]) == DATA + piece + DATA


class Event:
    """An event as LiteLLM's objects look."""

    def __init__(self, kind: str) -> None:
        self.type = kind


@pytest.mark.parametrize(
    ("item", "is_last"),
    [
        (b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True),
        (b'data: {"type":"message_delta"}\n\nevent: message_stop\ndata: {"type": "message_stop"}\n\n', True),
        (b'event: message_stop\ndata: {"type":"message_stop"}\n', False),
        (b'event: message_stop\ndata: {"type":"message_stop"}\n\nevent: ping\n', False),
        (b'data: {"type":"content_block_delta","delta":{"text":"message_stop"}}\n\n', False),
        (b"message_stop\n\n", False),
        ({"type": "message_stop"}, True),
        ({"type": "message_delta"}, False),
        ({}, False),
        (Event("response.completed"), True),
        (Event("response.incomplete"), True),
        (Event("response.failed"), True),
        (Event("response.output_text.delta"), False),
        (object(), False),
        (STATUS, False),
    ],
)
def test_the_event_that_ends_a_stream_is_known(item: Any, is_last: bool) -> None:
    assert sse.is_last_event(item) is is_last
