"""A scripted OpenAI upstream for /v1/responses: output items per script, and the stream that tells the same items."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tests.e2e.event_streams import frames, response_events
from tests.e2e.scripted_answers import (
    GOOD,
    INSULTING,
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

CITED = {"type": "url_citation", "start_index": 4, "end_index": 11, "url": "https://example.org/a", "title": "A"}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "call_1",
    "name": "look_up",
    "arguments": '{"place": "Paris"}',
    "status": "completed",
}
SUMMARY = {"type": "summary_text", "text": THOUGHT}
REASONING = {"id": "rs_1", "type": "reasoning", "summary": [SUMMARY]}
SEARCH = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "France"},
}
IMAGE = {"id": "ig_1", "type": "image_generation_call", "status": "completed", "result": "aGk="}
PROBABILITIES = [{"token": "The", "logprob": -0.1, "bytes": [84, 104, 101], "top_logprobs": []}]
USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 21,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 30,
}
UNFINISHED = {"length": "max_output_tokens", "filter": "content_filter"}


def text(content: str, **more: Any) -> dict[str, Any]:
    """A part of a message."""
    return {"type": "output_text", "text": content, "annotations": [], "logprobs": [], **more}


def message(*parts: dict[str, Any], number: int = 1) -> dict[str, Any]:
    """A message of parts."""
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": list(parts),
    }


def output(name: str) -> list[dict[str, Any]]:
    """What the upstream puts out."""
    special = {
        "tools": [message(text(RUDE)), CALL],
        "insult_tools": [message(text(INSULTING)), CALL],
        "insult_parts": [message(text(INSULTING)), REASONING, message(text(GOOD), number=2)],
        "insult_all": [message(text(INSULTING)), REASONING, message(text(INSULTING), number=2)],
        "call": [CALL],
        "rude_call": [CALL | {"arguments": json.dumps(RUDE_ARGUMENTS)}],
        "reasoning": [REASONING, message(text(RUDE))],
        "search": [SEARCH, message(text(RUDE))],
        "image": [IMAGE, message(text(RUDE))],
        "cited": [message(text(RUDE, annotations=[CITED]))],
        "parts": [message(text(RUDE), text(GOOD))],
        "messages": [message(text(GOOD)), REASONING, message(text(RUDE), number=2)],
        "refusal_field": [message({"type": "refusal", "refusal": "No."})],
        "logprobs": [message(text(RUDE, logprobs=PROBABILITIES))],
        "novel": [{"id": "x_1", "type": "hologram_call", "status": "completed"}, message(text(RUDE))],
        "background": [],
    }
    return special.get(name) or [message(text(answer(name)))] if name != "background" else []


def body_of(name: str, model: str) -> dict[str, Any]:
    """A whole response."""
    why = UNFINISHED.get(name)
    status = "incomplete" if why else "queued" if name == "background" else "completed"
    return {
        "id": "resp_cut" if name == "kept_cut" else "resp_1",
        "object": "response",
        "created_at": 1700000000,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": why} if why else None,
        "instructions": None,
        "max_output_tokens": None,
        "model": model,
        "output": output(name),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None if name == "background" else USAGE,
        "metadata": {},
    }


def stream(name: str, model: str) -> list[dict[str, Any]]:
    """The events of that response."""
    whole = body_of(name, model)
    if name == "failed":
        whole |= {"status": "failed", "error": {"code": "server_error", "message": "no"}}
    error = {"type": "error", "code": "server_error", "message": "no", "param": None}
    return response_events(whole, failure=[error] if name == "error" else [])


async def responses(request: Request) -> Response:
    """POST /v1/responses."""
    body = await request.json()
    SEEN.append(body)
    name = script(body)
    if name == "fail":
        return JSONResponse({"error": {"message": "no", "type": "server_error", "code": None}}, 500)
    if body.get("stream"):
        lines = sse(frames(stream(name, body["model"])), name, gate_of(body))
        return StreamingResponse(lines, media_type="text/event-stream", headers=control(name))
    return respond(body_of(name, body["model"]), name)


async def stored(request: Request) -> Response:
    """GET /v1/responses/{id}: always the rude one, as a stream if asked for; `resp_cut` is cut off."""
    name = "cut" if "cut" in request.path_params["id"] else "rude"
    if request.query_params.get("stream") == "true":
        return StreamingResponse(sse(frames(stream(name, "up")), name), media_type="text/event-stream")
    return respond(body_of(name, "up"), name)
