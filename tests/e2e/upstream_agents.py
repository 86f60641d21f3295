"""A scripted upstream for programs that act: a rude text with a call of one of their own tools, then a rude answer.

The same in the three formats, below /agent. A request without a known tool gets the answer at once, and Open WebUI's
tasks (a title, questions to go on with) the JSON that they ask for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tests.e2e import upstream_messages, upstream_responses
from tests.e2e.event_streams import frames, message_events, pieces, response_events
from tests.e2e.scripted_answers import INSULT, RUDE, SEEN

NOTE = "note.txt"
"""What the called shell writes, into the folder in which the agent works."""
WRITTEN = "You are an idiot all the same."
"""Not a sentence of the answer: a correction is withheld where a call repeats what it removes."""
_COMMAND = f'echo "{WRITTEN}" > {NOTE}'
ARGUMENTS: dict[str, dict[str, Any]] = {
    "Bash": {"command": _COMMAND, "description": "Keeps a note"},
    "exec_command": {"cmd": _COMMAND},
    "get_current_timestamp": {},
    "calculator": {"input": "6 * 7"},
}
"""Of the tools of Claude Code and Continue, of Codex, of Open WebUI, and of n8n."""
TASK = "### Task"
"""How Open WebUI's prompts begin."""
TITLE = {"title": f"France. {INSULT}", "tags": ["France"], "follow_ups": [f"Why? {INSULT}"]}
"""What such a task gets; a program reads it."""


def choose_tool(body: Mapping[str, Any]) -> str | None:
    """The tool to call now; None if there is no known one, or its result has come back."""
    messages = body.get("messages") or body["input"]
    listed = json.dumps(messages)
    if any(mark in listed for mark in ('"role": "tool"', '"type": "tool_result"', '"type": "function_call_output"')):
        return None
    names = [tool.get("name") or tool.get("function", {}).get("name") for tool in body.get("tools") or ()]
    return next((name for name in names if name in ARGUMENTS), None)


def choose_text(body: Mapping[str, Any]) -> str:
    """What is said."""
    messages = body.get("messages") or body["input"]
    return json.dumps(TITLE) if TASK in json.dumps(messages[-1]) else RUDE


async def chat(request: Request) -> Response:
    """POST /agent/v1/chat/completions."""
    body = await _read(request)
    tool, text = choose_tool(body), choose_text(body)
    head = {"id": "chatcmpl-1", "created": 1700000000, "model": body["model"]}
    finish = "tool_calls" if tool else "stop"
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": tool, "arguments": json.dumps(ARGUMENTS.get(tool or ""))},
    }
    if not body.get("stream"):
        message = {"role": "assistant", "content": text, **({"tool_calls": [call]} if tool else {})}
        choices = [{"index": 0, "message": message, "finish_reason": finish}]
        usage = {"prompt_tokens": 9, "completion_tokens": 21, "total_tokens": 30}
        return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": usage})
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": one} for one in pieces(text))]
    deltas += [{"tool_calls": [{"index": 0, **call}]}] if tool else []
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    chunks = [{**head, "object": "chat.completion.chunk", "choices": [choice]} for choice in choices]
    return _stream([*(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), "data: [DONE]\n\n"])


async def messages(request: Request) -> Response:
    """POST /agent/v1/messages."""
    body = await _read(request)
    tool = choose_tool(body)
    whole = upstream_messages.body_of("rude", body["model"])
    whole["content"] = [upstream_messages.THINKING, upstream_messages.text(choose_text(body))]
    if tool:
        whole["content"].append({"type": "tool_use", "id": "toolu_1", "name": tool, "input": ARGUMENTS[tool]})
        whole["stop_reason"] = "tool_use"
    return _stream(frames(message_events(whole))) if body.get("stream") else JSONResponse(whole)


async def responses(request: Request) -> Response:
    """POST /agent/v1/responses."""
    body = await _read(request)
    tool = choose_tool(body)
    whole = upstream_responses.body_of("rude", body["model"])
    said = upstream_responses.message(upstream_responses.text(choose_text(body)))
    whole["output"] = [upstream_responses.REASONING, said]
    if tool:
        call = {"name": tool, "arguments": json.dumps(ARGUMENTS[tool])}
        whole["output"].append(upstream_responses.CALL | call)
    return _stream(frames(response_events(whole))) if body.get("stream") else JSONResponse(whole)


async def _read(request: Request) -> dict[str, Any]:
    """The body of a request; it is kept among those that `GET /seen` tells."""
    body: dict[str, Any] = await request.json()
    SEEN.append(body)
    return body


def _stream(lines: list[str]) -> Response:
    """A stream of these frames."""
    return StreamingResponse(iter(lines), media_type="text/event-stream")
