"""The upstream of the test bed: `python -m tests.fleet.upstream HOST PORT`. It says what texts.py says."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.fleet import texts

_HEAD = {"id": "chatcmpl-1", "created": 1700000000, "model": "up"}


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    body = await request.json()
    of = texts.word_in(body["messages"][-1]["content"])
    if body.get("stream"):
        return StreamingResponse(_frames(texts.said(of)), media_type="text/event-stream")
    choices = [
        {
            "index": choice,
            "message": {"role": "assistant", "content": texts.said(of, choice)},
            "logprobs": None,
            "finish_reason": "stop",
        }
        for choice in range(body.get("n") or 1)
    ]
    usage = {"prompt_tokens": 9, "completion_tokens": 21, "total_tokens": 30}
    return JSONResponse(_HEAD | {"object": "chat.completion", "choices": choices, "usage": usage})


async def health(_: Request) -> Response:
    """GET /health."""
    return Response()


async def _frames(text: str) -> AsyncIterator[str]:
    words = text.split(" ")
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": f"{one} "} for one in words[:-1]]
    deltas.append({"content": words[-1]})
    for number, delta in enumerate([*deltas, {}]):
        why = "stop" if number == len(deltas) else None
        chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": why}]}
        yield f"data: {json.dumps(_HEAD | chunk)}\n\n"
    yield "data: [DONE]\n\n"


if __name__ == "__main__":
    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/health", health)])
    # Longer than LiteLLM keeps an idle connection, or a request is now and then lost on one that is being closed.
    uvicorn.run(app, host=sys.argv[1], port=int(sys.argv[2]), log_level="critical", timeout_keep_alive=600)
