"""Reader of the tool results in a request, in the formats of chat, Responses and Messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aligner_proxy.types import replace_surrogates

_RESULT_ROLES = ("tool", "function")
"""Roles of messages with a result, in chat."""
_RESULT_SUFFIX = "_call_output"
"""End of the types of items with a result, in Responses."""
_RESULT_PART = "tool_result"
"""Type of parts with a result, in Messages."""
_TEXT_PARTS = ("text", "input_text", "output_text")


def tool_results(data: Mapping[str, Any]) -> str:
    """The texts that the tools returned, joined by blank lines; empty if there are none."""
    texts: list[str] = []
    for name in ("messages", "input"):
        entries = data.get(name)
        for entry in entries if isinstance(entries, list | tuple) else ():
            texts += [replace_surrogates(text) for text in entry_results(entry) if text.strip()]
    return "\n\n".join(texts)


def entry_results(entry: object) -> Iterator[str]:
    """Yield the texts of the tool results in one entry: a chat message, a Responses item, or a Messages turn."""
    if not isinstance(entry, Mapping):
        return
    content = entry.get("content")
    if entry.get("role") in _RESULT_ROLES:
        yield content_text(content)
    elif str(entry.get("type") or "").endswith(_RESULT_SUFFIX):
        yield content_text(entry.get("output"))
    elif isinstance(content, list | tuple):
        for part in content:
            if isinstance(part, Mapping) and part.get("type") == _RESULT_PART:
                yield content_text(part.get("content"))


def content_text(content: object) -> str:
    """The text of a message's content: the content itself if it is a text, else its text parts, one a line."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        return ""
    parts = (part for part in content if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS)
    return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))
