"""What LiteLLM's SDK reads from a gateway; clients.py runs it in a process of its own."""

from __future__ import annotations

from typing import Any

import litellm

from tests.conformance.clients import Read, asked, chat_chunks, chat_message, response
from tests.conformance.features import CHAT, RESPONSES


def chat(base: str, key: str, stream: bool, tools: bool) -> Read:
    """Chat."""
    body = {**asked(CHAT, stream, tools), "model": "litellm_proxy/gpt"}
    got: Any = litellm.completion(**body, api_base=base, api_key=key)
    return chat_chunks(got) if stream else chat_message(got.choices[0].message)


def responses(base: str, key: str, stream: bool, tools: bool) -> Read:
    """Responses."""
    body = {**asked(RESPONSES, stream, tools), "model": "litellm_proxy/gpt"}
    got: Any = litellm.responses(**body, api_base=base, api_key=key)
    if not stream:
        return response(got)
    events = list(got)
    told = response(next(event.response for event in events if event.type == "response.completed"))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == told[0]
    return told


def read_all(base: str, key: str) -> dict[str, Read]:
    """What the SDK reads, by endpoint, stream and tools."""
    return {
        f"{endpoint} {stream} {tools}": read(base, key, stream, tools)
        for endpoint, read in ((CHAT, chat), (RESPONSES, responses))
        for stream in (False, True)
        for tools in (False, True)
    }
