"""Answers of several parts, texts and tool calls, as each wire format sends and reads them, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import ModelResponse

from tests.e2e.event_streams import frames, message_events, pieces, response_events
from tests.support.stream_fixtures import chunk, events, kind

CALL = "<call>"
"""Stands for a tool call among the texts of an answer."""
_FUNCTION = {"name": "look_up", "arguments": '{"place": "Paris"}'}
_CHAT_CALLS = [{"id": "call_1", "index": 0, "type": "function", "function": _FUNCTION}]
_TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"place": "Paris"}}
_FUNCTION_CALL = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "status": "completed", **_FUNCTION}


@dataclass(frozen=True)
class PartedFormat:
    """One wire format; parts are texts and `CALL`."""

    name: str
    route: str

    def whole(self, parts: Sequence[str]) -> Any:
        """A whole response."""
        if self.name == "chat":
            calls = {"tool_calls": _CHAT_CALLS} if CALL in parts else {}
            message = {"role": "assistant", "content": parts[0], **calls}
            choice = {"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": message}
            return ModelResponse(id="1", created=1, model="m", choices=[choice])
        return _message(parts) if self.name == "messages" else ResponsesAPIResponse(**_response(parts))

    def stream(self, parts: Sequence[str]) -> list[Any]:
        """The items of a stream."""
        if self.name == "chat":
            calls = [chunk(tool_calls=_CHAT_CALLS)] if CALL in parts else []
            why = "tool_calls" if calls else "stop"
            return [chunk("", role="assistant"), *map(chunk, pieces(parts[0])), *calls, chunk(why=why)]
        if self.name == "messages":
            return [frame.encode() for frame in frames(message_events(_message(parts)))]
        config = OpenAIResponsesAPIConfig()
        told = response_events(_response(parts))
        return [config.transform_streaming_response("m", event, cast("Any", None)) for event in told]

    def read(self, response: Any) -> list[str]:
        """The parts of a whole response."""
        if self.name == "chat":
            message = response.choices[0].message
            return [message.content or "", *([CALL] if message.tool_calls else [])]
        if self.name == "messages":
            return [_block_text(block) for block in response["content"]]
        return _output_parts(response.output)

    def read_stream(self, items: Sequence[Any]) -> list[str]:
        """The parts that a client puts together; each text has to be the same wherever an event repeats it."""
        if self.name == "chat":
            deltas = [item.choices[0].delta for item in items if not isinstance(item, bytes)]
            text = "".join(delta.content or "" for delta in deltas)
            return [text, *([CALL] if any(delta.tool_calls for delta in deltas) else [])]
        return _accumulate_blocks(items) if self.name == "messages" else _accumulate_parts(items)


def _message(parts: Sequence[str]) -> dict[str, Any]:
    content = [_TOOL_USE if part == CALL else {"type": "text", "text": part} for part in parts]
    stop = "tool_use" if CALL in parts else "end_turn"
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": content,
        "usage": {"input_tokens": 9, "output_tokens": 21},
        "stop_reason": stop,
        "stop_sequence": None,
    }


def _response(parts: Sequence[str]) -> dict[str, Any]:
    output = [_FUNCTION_CALL if part == CALL else _output_message(n, part) for n, part in enumerate(parts)]
    return {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "output": output}


def _output_message(number: int, text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": content,
    }


def _block_text(block: dict[str, Any]) -> str:
    return block["text"] if block["type"] == "text" else CALL


def _get(thing: Any, name: str) -> Any:
    return thing[name] if isinstance(thing, dict) else getattr(thing, name)


def _output_parts(output: Sequence[Any]) -> list[str]:
    return [
        CALL if _get(item, "type") == "function_call" else _get(_get(item, "content")[0], "text") for item in output
    ]


def _accumulate_blocks(items: Sequence[Any]) -> list[str]:
    """As Anthropic's client does it: a new block is appended, and a delta goes to the block with its index."""
    blocks: list[dict[str, Any]] = []
    for event in events(list(items)):
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta":
            blocks[event["index"]]["text"] += event["delta"]["text"]
        elif event["type"] == "content_block_delta":
            json.dumps(blocks[event["index"]])
    return [_block_text(block) for block in blocks]


def _accumulate_parts(items: Sequence[Any]) -> list[str]:
    deltas: dict[int, str] = {}
    parts: list[str] = []
    for item in items:
        match kind(item):
            case "response.output_text.delta":
                deltas[item.output_index] = deltas.get(item.output_index, "") + item.delta
            case "response.output_text.done":
                assert item.text == deltas[item.output_index]
            case "response.completed":
                parts = _output_parts(item.response.output)
                assert [part for part in parts if part != CALL] == list(deltas.values())
    return parts


PARTED_FORMATS = (
    PartedFormat("chat", "/v1/chat/completions"),
    PartedFormat("messages", "/v1/messages"),
    PartedFormat("responses", "/v1/responses"),
)
