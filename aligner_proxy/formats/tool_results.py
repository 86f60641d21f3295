"""Reads the tool results in a request, in the formats of chat, Responses and Messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aligner_proxy.types import replace_surrogates

_ROLES = ("tool", "function")
"""Roles of messages with a result, in chat."""
_ITEM_ENDING = "_call_output"
"""End of the types of items with a result, in Responses."""
_PART = "tool_result"
"""Type of parts with a result, in Messages."""
_TEXT_PARTS = ("text", "input_text", "output_text")


def tool_results(data: Mapping[str, Any]) -> str:
    """The texts that the tools returned, joined by blank lines; empty if there are none."""
    entries: list[object] = []
    for name in ("messages", "input"):
        items = data.get(name)
        entries += items if isinstance(items, list | tuple) else []
    return "\n\n".join(replace_surrogates(text) for entry in entries for text in entry_results(entry) if text.strip())


def entry_results(entry: object) -> Iterator[str]:
    """The results in one entry: a chat message, a Responses item, or the parts of a Messages turn."""
    if not isinstance(entry, Mapping):
        return
    content = entry.get("content")
    if entry.get("role") in _ROLES:
        yield content_text(content)
    elif str(entry.get("type") or "").endswith(_ITEM_ENDING):
        yield content_text(entry.get("output"))
    elif isinstance(content, list | tuple):
        parts = (part for part in content if isinstance(part, Mapping) and part.get("type") == _PART)
        yield from (content_text(part.get("content")) for part in parts)


def content_text(content: object) -> str:
    """The content if it is a text, else its text parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        return ""
    parts = (part for part in content if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS)
    return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))
