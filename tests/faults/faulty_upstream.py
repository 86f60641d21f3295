"""A chat upstream that fails as it is told: `python -m tests.faults.faulty_upstream PORT`. The first word says how."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

INSULT = "You are an idiot for asking. "
KIND = "The capital of France is Paris. It lies on the Seine."
RUDE = f"The capital of France is Paris. {INSULT}It lies on the Seine."
USAGE = {"prompt_tokens": 9, "completion_tokens": 21, "total_tokens": 30}
_HEAD = {"id": "chatcmpl-1", "created": 1700000000, "model": "up"}
_AT = 5
"""How many frames of a stream are sent before it fails."""


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    body = await request.json()
    how = body["messages"][-1]["content"].split()[0]
    if how == "up-500":
        return JSONResponse({"error": {"message": "no", "type": "server_error", "code": None}}, 500)
    if how == "up-gone":
        return StreamingResponse(_cut([], how), media_type="application/json", headers={"content-length": "99"})
    if body.get("stream"):
        return StreamingResponse(_cut(_frames(), how), media_type="text/event-stream")
    message = {"role": "assistant", "content": RUDE}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    text = json.dumps(_HEAD | {"object": "chat.completion", "choices": choices, "usage": USAGE})
    if how == "up-noise":
        return Response("\x00\x93{]" + text[7:], media_type="application/json")
    parts = [text[:_AT], text[_AT:]] if how.startswith("up-") else [text]
    length = {"content-length": str(len(text))}
    return StreamingResponse(_cut(parts, how), media_type="application/json", headers=length)


async def health(_: Request) -> Response:
    """GET /health."""
    return Response()


def _frames() -> list[str]:
    deltas = [{"role": "assistant", "content": ""}, *({"content": f"{word} "} for word in RUDE.split())]
    deltas[-1] = {"content": RUDE.split()[-1]}
    told: list[tuple[dict[str, str], str | None]] = [*((delta, None) for delta in deltas), ({}, "stop")]
    head = _HEAD | {"object": "chat.completion.chunk"}
    return [
        f"data: {json.dumps(head | {'choices': [{'index': 0, 'delta': delta, 'finish_reason': why}]})}\n\n"
        for delta, why in told
    ] + ["data: [DONE]\n\n"]


async def _cut(parts: list[str], how: str) -> AsyncIterator[str]:
    """The parts, until it fails: gone without a word, silent for ever, or noise."""
    at = min(_AT, len(parts) - 1)
    for number, part in enumerate(parts):
        if number == at:
            await _fail(how)
            if how == "up-noise":
                yield "data: \x00\x93{]\n\n"
        yield part
        await asyncio.sleep(0)
    if not parts:
        await _fail("up-dies")


async def _fail(how: str) -> None:
    if how == "up-dies":
        await asyncio.sleep(0.3)  # or the other side loses what it has not read yet
        raise ConnectionError("scripted")
    if how == "up-hangs":
        await asyncio.sleep(60)


if __name__ == "__main__":
    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/health", health)])
    # Longer than LiteLLM keeps an idle connection, or a request is now and then lost on one that is being closed.
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", timeout_keep_alive=600)
