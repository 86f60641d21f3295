"""`python -m bench.upstream PORT`: a scripted chat upstream; the question's first word selects the answer.

`good` gets a good answer, `bad` one with a defect; `dies` breaks off in the middle, `fails` answers 500; `long N`
streams N characters as fast as they are taken. Whole answers come at once, other streams as fast as those of a hosted
model. The question is repeated, so that no two answers are the same and no cache helps.
"""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bench.texts import DEFECT, LONG

CHUNK_CHARS = 24
CHUNK_S = 0.03
_HEAD = {"id": "chatcmpl-1", "created": 1700000000, "model": "up"}
_USAGE = {"prompt_tokens": 20, "completion_tokens": 220, "total_tokens": 240}


def answer(question: str) -> str:
    """Some 220 tokens, the same for the same question."""
    _, text = LONG[zlib.crc32(question.encode()) % len(LONG)]
    first, rest = text.split(". ", 1)
    defect = DEFECT if question.startswith("bad") else ""
    whole = f"You asked about {question}. {first}.{defect} {rest}"
    chars = _long(question)
    return (f"{whole}\n\n" * (chars // len(whole) + 1))[:chars] if chars else whole


def _long(question: str) -> int:
    """The length that a question asks for; 0: it asks for none."""
    word, number, *_ = [*question.split(), "", ""]
    return int(number) if word == "long" else 0


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    body = await request.json()
    question = body["messages"][-1]["content"]
    if question.startswith("fails"):
        return JSONResponse({"error": {"message": "no", "type": "server_error", "code": None}}, 500)
    if body.get("stream"):
        return StreamingResponse(_frames(question), media_type="text/event-stream")
    message = {"role": "assistant", "content": answer(question)}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return JSONResponse(_HEAD | {"object": "chat.completion", "choices": choices, "usage": _USAGE})


async def _frames(question: str) -> AsyncIterator[str]:
    text = answer(question)
    pieces = [text[at : at + CHUNK_CHARS] for at in range(0, len(text), CHUNK_CHARS)]
    pause_s = 0.0 if _long(question) else CHUNK_S
    yield _frame({"role": "assistant", "content": ""})
    for number, piece in enumerate(pieces):
        if question.startswith("dies") and number == len(pieces) // 2:
            raise ConnectionError("scripted")
        await asyncio.sleep(pause_s)
        yield _frame({"content": piece})
    yield _frame({}, "stop")
    yield "data: [DONE]\n\n"


def _frame(delta: dict[str, Any], why: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": why}
    return f"data: {json.dumps(_HEAD | {'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


async def health(_: Request) -> Response:
    """GET /health."""
    return Response()


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/health", health)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", timeout_keep_alive=600)
