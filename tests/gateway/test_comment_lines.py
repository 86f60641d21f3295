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


def read(pieces: list[bytes], *, running: bool = False, media_type: str = "text/event-stream") -> bytes:
    """What a client reads of a stream of these pieces; comments of ours go past the application if they can."""

    async def answer(_request: Request) -> StreamingResponse:
        async def items() -> AsyncIterator[bytes]:
            for piece in pieces:
                if not (comment_lines.is_comment(piece) and await comment_lines.write_comment(piece)):
                    yield piece

        return StreamingResponse(items(), media_type=media_type)

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
    # the first one has to begin the response, so it goes through LiteLLM
    pieces = [PING, DATA, PING, PING, DATA, TRAIL + STATUS, DATA]
    expected = b"".join(
        [b": keep-alive\n", DATA, b": keep-alive\n" * 2, DATA, TRAIL[:-1], STATUS[:-1], DATA],
    )
    assert read(pieces, running=running) == expected
    events = expected.decode().split("\n\n")
    assert all("data:" in event for event in events[:-1])


def test_a_stream_without_a_last_event_ends_with_its_status() -> None:
    assert read([DATA, STATUS]) == DATA + STATUS[:-1]
    assert read([STATUS]) == STATUS[:-1]


def test_inside_an_event_a_keep_alive_does_not_go_past_the_application() -> None:
    assert read([DATA, b"data: 1", PING, b"\n\n", STATUS, DATA]) == DATA + b"data: 1" + PING[:-1] + b"\n\n" + (
        STATUS[:-1] + DATA
    )


def test_what_is_no_stream_gets_no_comment() -> None:
    """As where a guardrail after ours answers with an error."""
    assert read([b'{"error": ', STATUS, b'"no"}'], media_type="application/json") == b'{"error": "no"}'


def test_without_the_layer_a_comment_has_to_be_yielded() -> None:
    assert not asyncio.run(comment_lines.write_comment(STATUS))


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
    assert not comment_lines.is_comment(piece)
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
