"""A scripted Anthropic upstream for /v1/messages: content blocks per script, whole or as a stream."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tests.e2e.event_streams import frames, message_events
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

TOOL = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"place": "Paris"}}
THINKING = {"type": "thinking", "thinking": THOUGHT, "signature": "c2ln"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "France"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
CITED = {
    "type": "char_location",
    "cited_text": "The capital",
    "document_index": 0,
    "document_title": "A",
    "start_char_index": 0,
    "end_char_index": 11,
}
STOPS = {
    "tools": "tool_use",
    "insult_tools": "tool_use",
    "call": "tool_use",
    "rude_call": "tool_use",
    "length": "max_tokens",
    "refuse": "refusal",
    "pause": "pause_turn",
    "stop": "stop_sequence",
}


def text(content: str, **more: Any) -> dict[str, Any]:
    """A text block."""
    return {"type": "text", "text": content, **more}


def content(name: str) -> list[dict[str, Any]]:
    """The blocks of the answer."""
    special = {
        "tools": [text(RUDE), TOOL],
        "insult_tools": [text(INSULTING), TOOL],
        "insult_parts": [text(INSULTING), THINKING, text(GOOD)],
        "insult_all": [text(INSULTING), THINKING, text(INSULTING)],
        "call": [TOOL],
        "rude_call": [TOOL | {"input": RUDE_ARGUMENTS}],
        "reasoning": [THINKING, text(RUDE)],
        "search": [SEARCH, FOUND, text(RUDE)],
        "cited": [text("Well. "), text(RUDE, citations=[CITED])],
        "parts": [text(RUDE), THINKING, text(GOOD)],
        "novel": [{"type": "hologram", "data": "x"}, text(RUDE)],
        "pause": [SEARCH, text(RUDE)],
        "stop": [text(RUDE)],
        "none": [],
    }
    return special[name] if name in special else [text(answer(name))]


def body_of(name: str, model: str) -> dict[str, Any]:
    """A whole message."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content(name),
        "stop_reason": STOPS.get(name, "end_turn"),
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 21},
    }


def stream(name: str, model: str) -> list[dict[str, Any]]:
    """The events of that message."""
    events = message_events(body_of(name, model))
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    return [*events[:-2], error] if name == "error" else events


async def messages(request: Request) -> Response:
    """POST /v1/messages."""
    body = await request.json()
    SEEN.append(body)
    name = script(body)
    if name == "fail":
        return JSONResponse({"type": "error", "error": {"type": "api_error", "message": "no"}}, 500)
    if body.get("stream"):
        lines = sse(frames(stream(name, body["model"])), name, gate_of(body))
        return StreamingResponse(lines, media_type="text/event-stream", headers=control(name))
    return respond(body_of(name, body["model"]), name)
