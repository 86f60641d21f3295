"""A scripted OpenAI and a scripted Anthropic upstream in one process: the last user text names the script.

`python upstreams.py PORT`. Scripts are words such as `tools` or `rude`; the answers are fixed, so that two gateways
get the same bytes. `GET /seen` tells which bodies arrived.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

GOOD = "Water boils at 100 °C at sea level.  It boils lower\n\n- in the mountains\t🏔\n- in a vacuum. "
RUDE = "The capital of France is Paris. You are an idiot for asking. It lies on the Seine."
KIND = "The capital of France is Paris. It lies on the Seine."
REFUSED = "I'm sorry, but I can't help with that."
ANSWERS = {
    "rude": RUDE,
    "slow": RUDE,
    "unstored": RUDE,
    "refuse": REFUSED,
    "empty": "",
    "huge": "All is well. " * 400,
    "json": '{"you": "are an idiot"}',
    "length": RUDE,
    "filter": RUDE,
}
FINISH = {"length": "length", "filter": "content_filter", "tools": "tool_calls"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 21, "total_tokens": 30}
TOOL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"place": "Paris"}'}}
SEEN: list[dict[str, Any]] = []


def script(body: dict[str, Any]) -> str:
    """The first word of what the user said last."""
    said = body.get("prompt") or body["messages"][-1]["content"]
    if isinstance(said, list):
        said = said[0]["text"] if isinstance(said[0], dict) else str(said[0])
    return str(said).split()[0]


def answer(name: str, index: int = 0) -> str:
    """What the upstream says; of several choices, the odd ones are good."""
    return GOOD if index % 2 else ANSWERS.get(name, GOOD)


def choice(name: str, index: int, body: dict[str, Any]) -> dict[str, Any]:
    """One choice of a whole chat response."""
    message: dict[str, Any] = {"role": "assistant", "content": answer(name, index)}
    if name == "tools":
        message |= {"content": RUDE, "tool_calls": [TOOL]}
    if name == "refusal_field":
        message |= {"content": None, "refusal": "No."}
    if name == "reasoning":
        message |= {"content": RUDE, "reasoning_content": "You are an idiot, I think."}
    logprobs = {"content": [{"token": "The", "logprob": -0.1, "bytes": [84], "top_logprobs": []}]}
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs if body.get("logprobs") else None,
        "finish_reason": FINISH.get(name, "stop"),
    }


def frames(chunks: list[dict[str, Any]], done: bool = True) -> list[str]:
    """Chunks as SSE frames."""
    return [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + (["data: [DONE]\n\n"] if done else [])


def pieces(text: str) -> list[str]:
    """A text in pieces of four characters, as tokens come."""
    return [text[i : i + 4] for i in range(0, len(text), 4)]


def chat_chunks(name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """A chat stream: roles, then the choices interleaved, then finish reasons, then usage if asked for."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": body["model"]}
    n = body.get("n") or 1
    said: list[tuple[int, dict[str, Any], str | None]] = [
        (i, {"role": "assistant", "content": ""}, None) for i in range(n)
    ]
    texts = [pieces(answer(name, i)) for i in range(n)]
    if name == "tools":
        call = {"index": 0, **TOOL}
        said.append((0, {"tool_calls": [call]}, None))
        texts = [pieces(RUDE)]
    for step in range(max(map(len, texts), default=0)):
        said += [(i, {"content": text[step]}, None) for i, text in enumerate(texts) if step < len(text)]
    said += [(i, {}, FINISH.get(name, "stop")) for i in range(n)]
    chunks = [
        head | {"choices": [{"index": i, "delta": delta, "logprobs": None, "finish_reason": why}]}
        for i, delta, why in said
    ]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append(head | {"choices": [], "usage": USAGE})
    return chunks


async def sse(lines: list[str], name: str) -> AsyncIterator[str]:
    """The frames; the script `break` stops in the middle without a word."""
    for number, line in enumerate(lines):
        if name == "break" and number == 6:
            await asyncio.sleep(0.3)  # or the client loses what it has not read yet
            raise ConnectionError("scripted break")
        yield line
        await asyncio.sleep(0)


def control(name: str) -> dict[str, str]:
    """An upstream may forbid storing its answer."""
    return {"cache-control": "no-store"} if name == "unstored" else {}


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    body = await request.json()
    SEEN.append(body)
    name = script(body)
    if name == "fail":
        return JSONResponse({"error": {"message": "no", "type": "server_error", "code": None}}, 500)
    if body.get("stream"):
        lines = sse(frames(chat_chunks(name, body)), name)
        return StreamingResponse(lines, media_type="text/event-stream", headers=control(name))
    choices = [choice(name, i, body) for i in range(body.get("n") or 1)]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": body["model"]}
    answered = head | {"choices": choices, "usage": USAGE, "system_fingerprint": "fp_1"}
    return JSONResponse(answered, headers=control(name))


async def text(request: Request) -> Response:
    """POST /v1/completions."""
    body = await request.json()
    SEEN.append(body)
    name = script(body)
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1700000000, "model": body["model"]}
    if body.get("stream"):
        said = [*((piece, None) for piece in pieces(answer(name))), ("", FINISH.get(name, "stop"))]
        chunks = [
            head | {"choices": [{"index": 0, "text": piece, "logprobs": None, "finish_reason": why}]}
            for piece, why in said
        ]
        if (body.get("stream_options") or {}).get("include_usage"):
            chunks.append(head | {"choices": [], "usage": USAGE})
        return StreamingResponse(sse(frames(chunks), name), media_type="text/event-stream")
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    count = len(prompts) * (body.get("n") or 1)
    choices = [
        {"index": i, "text": answer(name, i), "logprobs": None, "finish_reason": FINISH.get(name, "stop")}
        for i in range(count)
    ]
    return JSONResponse(head | {"choices": choices, "usage": USAGE})


async def responses(request: Request) -> Response:
    """POST /v1/responses, whole only."""
    body = await request.json()
    content = [{"type": "output_text", "text": RUDE, "annotations": []}]
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}
    return JSONResponse(
        {
            "id": "resp_1",
            "object": "response",
            "created_at": 1700000000,
            "model": body["model"],
            "status": "completed",
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {"input_tokens": 9, "output_tokens": 21, "total_tokens": 30},
        }
    )


async def embeddings(request: Request) -> Response:
    """POST /v1/embeddings."""
    body = await request.json()
    data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return JSONResponse({"object": "list", "data": data, "model": body["model"], "usage": usage})


def anthropic_events(name: str, model: str) -> list[str]:
    """A Messages stream."""
    usage = {"input_tokens": 9, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "usage": usage}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message | {"stop_reason": None, "stop_sequence": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces(answer(name))
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 21},
        },
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]


async def messages(request: Request) -> Response:
    """POST /v1/messages."""
    body = await request.json()
    SEEN.append(body)
    name = script(body)
    if body.get("stream"):
        return StreamingResponse(sse(anthropic_events(name, body["model"]), name), media_type="text/event-stream")
    return JSONResponse(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": answer(name)}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 9, "output_tokens": 21},
        }
    )


async def seen(request: Request) -> Response:
    """GET /seen: the last bodies."""
    return JSONResponse(SEEN[-int(request.query_params.get("n", "1")) :])


app = Starlette(
    routes=[
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", text, methods=["POST"]),
        Route("/v1/responses", responses, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/v1/messages", messages, methods=["POST"]),
        Route("/seen", seen),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
