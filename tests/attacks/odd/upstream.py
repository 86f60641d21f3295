"""The upstream that gives odd answers, in a process of its own: `python -m tests.attacks.odd.upstream PORT`.

What the user said last names the form: `odd ID`, or `tame ID` for the same form with a sentence that nobody minds.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.attacks.odd.form import BREAK, Sent
from tests.attacks.odd.tables import HARMLESS, INSULT, table
from tests.e2e.scripted_answers import said_last

TABLES = {"odd": table(INSULT), "tame": table(HARMLESS)}


async def _flow(sent: Sent) -> AsyncIterator[bytes]:
    for piece in sent:
        if piece is BREAK:
            raise ConnectionError("scripted break")
        if isinstance(piece, bytes):
            yield piece
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(piece)


async def answer(request: Request) -> Response:
    """What the form says, byte for byte."""
    body = await request.json()
    kind, name = said_last(body).split()[:2]
    form = TABLES[kind][name]
    streams = bool(body.get("stream"))
    sent = form.streamed if streams else form.whole
    if sent is None:
        return JSONResponse({"error": {"message": f"{name} is not had in this way", "type": "x", "code": "x"}}, 500)
    media = "text/event-stream" if streams else "application/json"
    return StreamingResponse(_flow(sent), form.status, media_type=media)


async def ready(_: Request) -> Response:
    """GET /ready."""
    return JSONResponse({})


app = Starlette(
    routes=[
        Route("/ready", ready),
        *(
            Route(path, answer, methods=["POST"])
            for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
        ),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", timeout_keep_alive=600)
