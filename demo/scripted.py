"""The scripted model of the demo: answers of `story.py` in the wire forms of OpenAI and Anthropic."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from demo.story import Scene, scripted_scene

WORD_S = 0.06
"""Seconds between two words of a stream."""


def scene_of(body: dict[str, Any]) -> Scene:
    """The scene that a request in either form asks for: that of its last message."""
    content = body["messages"][-1]["content"]
    return scripted_scene(content if isinstance(content, str) else content[0]["text"])


def chat_completion(scene: Scene) -> dict[str, Any]:
    """The whole answer in OpenAI's form."""
    message: dict[str, Any] = {"role": "assistant", "content": scene.answer or None}
    if scene.call:
        name, arguments = scene.call
        message["tool_calls"] = [
            {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
        ]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if scene.call else "stop"}
    return {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": _USAGE}


_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "scripted"}
_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


async def chat_stream(scene: Scene) -> AsyncIterator[bytes]:
    """The answer as a stream in OpenAI's form, word by word."""
    for word in re.findall(r"\s*\S+", scene.answer):
        yield _chunk({"role": "assistant", "content": word}, None)
        await asyncio.sleep(WORD_S)
    yield _chunk({}, "stop")
    yield b"data: [DONE]\n\n"


def _chunk(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({**_HEAD, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n".encode()


def message(scene: Scene) -> dict[str, Any]:
    """The whole answer in Anthropic's form."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [{"type": "text", "text": scene.answer}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
