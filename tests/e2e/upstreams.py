"""A scripted OpenAI and a scripted Anthropic upstream in one process: the last user text names the script.

`python -m tests.e2e.upstreams PORT`. Scripts are words such as `tools` or `rude`; the answers are fixed, so that two
gateways get the same bytes. `GET /seen` tells which bodies arrived.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.e2e import scripted_judge, upstream_agents
from tests.e2e.event_streams import pieces
from tests.e2e.refiner import refined
from tests.e2e.scripted_answers import (
    INSULTING,
    OPEN,
    RUDE,
    RUDE_ARGUMENTS,
    SEEN,
    THOUGHT,
    answer,
    control,
    gate_of,
    respond,
    script,
    sse,
)
from tests.e2e.strong_editor import edited, is_for_editor
from tests.e2e.upstream_messages import messages
from tests.e2e.upstream_responses import responses, stored

FINISH = {
    "length": "length",
    "filter": "content_filter",
    **dict.fromkeys(("tools", "insult_tools", "call", "rude_call"), "tool_calls"),
}
LOGPROBS = {"content": [{"token": "The", "logprob": -0.1, "bytes": [84], "top_logprobs": []}]}
TEXT_LOGPROBS = {"tokens": ["The"], "token_logprobs": [-0.1], "top_logprobs": [{"The": -0.1}], "text_offset": [0]}
USAGE = {"prompt_tokens": 9, "completion_tokens": 21, "total_tokens": 30}
NOTE = {
    "type": "url_citation",
    "url_citation": {"start_index": 4, "end_index": 11, "url": "https://example.org/a", "title": "A"},
}
TOOL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"place": "Paris"}'}}
RUDE_TOOL = TOOL | {"function": {"name": "look_up", "arguments": json.dumps(RUDE_ARGUMENTS)}}


def choice(name: str, index: int, body: dict[str, Any]) -> dict[str, Any]:
    """One choice of a whole chat response."""
    message: dict[str, Any] = {"role": "assistant", "content": answer(name, index)}
    if name in ("tools", "insult_tools"):
        message |= {"content": RUDE if name == "tools" else INSULTING, "tool_calls": [TOOL]}
    if name in ("call", "rude_call"):
        message |= {"content": None, "tool_calls": [TOOL if name == "call" else RUDE_TOOL]}
    if name == "refusal_field":
        message |= {"content": None, "refusal": "No."}
    if name == "reasoning":
        message |= {"reasoning_content": THOUGHT}
    if name == "cited":
        message |= {"annotations": [NOTE]}
    return {
        "index": index,
        "message": message,
        "logprobs": LOGPROBS if body.get("logprobs") else None,
        "finish_reason": FINISH.get(name, "stop"),
    }


def frames(chunks: list[dict[str, Any]], done: bool = True) -> list[str]:
    """Chunks as SSE frames."""
    return [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + (["data: [DONE]\n\n"] if done else [])


def chat_chunks(name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """A chat stream: roles, then the choices interleaved, then finish reasons, then usage if asked for."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": body["model"]}
    n = body.get("n") or 1
    odds = LOGPROBS if body.get("logprobs") else None
    parts: list[tuple[int, dict[str, Any], str | None]] = [
        (i, {"role": "assistant", "content": ""}, None) for i in range(n)
    ]
    texts = [pieces(answer(name, i)) for i in range(n)]
    if name in ("tools", "insult_tools", "call"):
        call = {"index": 0, **TOOL}
        parts.append((0, {"tool_calls": [call]}, None))
        texts = [pieces({"tools": RUDE, "insult_tools": INSULTING, "call": ""}[name])]
    if name == "rude_call":
        begun = {"index": 0, **RUDE_TOOL, "function": {"name": "look_up", "arguments": ""}}
        deltas = [{"index": 0, "function": {"arguments": piece}} for piece in pieces(json.dumps(RUDE_ARGUMENTS))]
        parts += [(0, {"tool_calls": [call]}, None) for call in (begun, *deltas)]
        texts = [[]]
    if name == "refusal_field":
        parts.append((0, {"refusal": "No."}, None))
        texts = [[]]
    if name == "reasoning":
        parts.append((0, {"reasoning_content": THOUGHT}, None))
    for step in range(max(map(len, texts), default=0)):
        parts += [(i, {"content": text[step]}, None) for i, text in enumerate(texts) if step < len(text)]
    if name == "cited":
        parts.append((0, {"annotations": [NOTE]}, None))
    parts += [(i, {}, FINISH.get(name, "stop")) for i in range(n)]
    chunks = [
        head | {"choices": [{"index": i, "delta": delta, "logprobs": odds if delta else None, "finish_reason": why}]}
        for i, delta, why in parts
    ]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append(head | {"choices": [], "usage": USAGE})
    return chunks


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    body = await request.json()
    SEEN.append(body)
    if body["model"] == "refiner":
        return await refined(body)
    if body["model"].startswith(scripted_judge.PREFIX):
        return scripted_judge.judge_reply(body)
    if is_for_editor(body):
        return await edited(body)
    name = script(body)
    if name == "fail":
        return JSONResponse({"error": {"message": "no", "type": "server_error", "code": None}}, 500)
    if body.get("stream"):
        lines = sse(frames(chat_chunks(name, body)), name, gate_of(body))
        return StreamingResponse(lines, media_type="text/event-stream", headers=control(name))
    choices = [choice(name, i, body) for i in range(body.get("n") or 1)]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": body["model"]}
    answered = head | {"choices": choices, "usage": USAGE, "system_fingerprint": "fp_1"}
    return respond(answered, name)


async def text(request: Request) -> Response:
    """POST /v1/completions."""
    body = await request.json()
    SEEN.append(body)
    name = script(body)
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1700000000, "model": body["model"]}
    odds = TEXT_LOGPROBS if body.get("logprobs") else None
    if name == "fail":
        return JSONResponse({"error": {"message": "no", "type": "server_error", "code": None}}, 500)
    if body.get("stream"):
        n = range(body.get("n") or 1)
        parts = [(i, piece, None) for i in n for piece in pieces(answer(name, i))]
        chunks = [
            head | {"choices": [{"index": i, "text": piece, "logprobs": odds, "finish_reason": why}]}
            for i, piece, why in [*parts, *((i, "", FINISH.get(name, "stop")) for i in n)]
        ]
        if (body.get("stream_options") or {}).get("include_usage"):
            chunks.append(head | {"choices": [], "usage": USAGE})
        return StreamingResponse(sse(frames(chunks), name, gate_of(body)), media_type="text/event-stream")
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    count = len(prompts) * (body.get("n") or 1)
    choices = [
        {"index": i, "text": answer(name, i), "logprobs": odds, "finish_reason": FINISH.get(name, "stop")}
        for i in range(count)
    ]
    return respond(head | {"choices": choices, "usage": USAGE}, name)


async def decisions(request: Request) -> Response:
    """POST /v1/decisions."""
    body = await request.json()
    SEEN.append(body)
    return scripted_judge.decision_reply(body)


async def embeddings(request: Request) -> Response:
    """POST /v1/embeddings."""
    body = await request.json()
    data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return JSONResponse({"object": "list", "data": data, "model": body["model"], "usage": usage})


async def gemini(request: Request) -> Response:
    """POST /gemini: an answer in a form of its own."""
    body = await request.json()
    SEEN.append(body)
    content = {"role": "model", "parts": [{"text": answer(script(body))}]}
    return JSONResponse({"candidates": [{"content": content, "finishReason": "STOP"}]})


async def seen(request: Request) -> Response:
    """GET /seen: the last bodies."""
    return JSONResponse(SEEN[-int(request.query_params.get("n", "1")) :])


async def release(request: Request) -> Response:
    """POST /release/NAME: open a gate."""
    OPEN.add(request.path_params["name"])
    return JSONResponse({})


app = Starlette(
    routes=[
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", text, methods=["POST"]),
        Route("/v1/responses", responses, methods=["POST"]),
        Route("/v1/responses/{id}", stored, methods=["GET"]),
        Route("/v1/decisions", decisions, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/gemini", gemini, methods=["POST"]),
        Route("/v1/messages", messages, methods=["POST"]),
        Route("/agent/v1/chat/completions", upstream_agents.chat, methods=["POST"]),
        Route("/agent/v1/messages", upstream_agents.messages, methods=["POST"]),
        Route("/agent/v1/responses", upstream_agents.responses, methods=["POST"]),
        Route("/release/{name}", release, methods=["POST"]),
        Route("/seen", seen),
    ]
)

if __name__ == "__main__":
    # Longer than LiteLLM keeps an idle connection, or a request is now and then lost on one that is being closed.
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", timeout_keep_alive=600)
