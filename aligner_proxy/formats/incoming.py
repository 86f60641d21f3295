"""Reader of the texts in a request, in the formats of chat, Responses and Messages.

`tool_results` are the results alone. `incoming_texts` are the texts to be judged: tool results, and turns of users and
assistants. System prompts are the operator's and are left out. Of each message, what a person could read is judged; of
JSON, its strings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aligner_proxy.formats.side_text import readable_prose
from aligner_proxy.types import IncomingKind, replace_surrogates

MAX_MESSAGES = 16
"""The last messages of a request that are read; earlier ones were the last of an earlier request."""
_HISTORY_ROLES = ("user", "assistant")
_RESULT_ROLES = ("tool", "function")
"""Roles of messages with a result, in chat."""
_TEXT_PARTS = ("text", "input_text", "output_text")


@dataclass(frozen=True, slots=True)
class IncomingText:
    """The prose of one kind in one message of a request."""

    kind: IncomingKind
    place: str
    """The field of the request and the message's number in it, such as `messages.3`."""
    position: int
    """The message's number in its field."""
    text: str = field(repr=False)


def incoming_texts(data: Mapping[str, Any]) -> Iterator[IncomingText]:
    """Yield the prose of a request's last `MAX_MESSAGES` messages, one text per message and kind."""
    for name in ("messages", "input", "prompt"):
        entries = data.get(name)
        if isinstance(entries, str):
            entries = [entries]
        if not isinstance(entries, list | tuple):
            continue
        for position in range(max(0, len(entries) - MAX_MESSAGES), len(entries)):
            for kind, texts in _texts_by_kind(entries[position]).items():
                prose = "\n\n".join(filter(None, map(readable_prose, texts)))
                if prose:
                    yield IncomingText(kind, f"{name}.{position}", position, replace_surrogates(prose))


def _texts_by_kind(entry: object) -> dict[IncomingKind, list[str]]:
    """Return the texts of one message by their kind; a plain string is a turn of the history."""
    if isinstance(entry, str):
        return {IncomingKind.HISTORY: [entry]}
    texts = {IncomingKind.TOOL_RESULTS: list(_entry_results(entry))}
    if isinstance(entry, Mapping) and entry.get("role") in _HISTORY_ROLES:
        texts[IncomingKind.HISTORY] = [_content_text(entry.get("content"))]
    return texts


def tool_results(data: Mapping[str, Any]) -> str:
    """The texts that the tools returned, joined by blank lines; empty if there are none."""
    texts: list[str] = []
    for name in ("messages", "input"):
        entries = data.get(name)
        for entry in entries if isinstance(entries, list | tuple) else ():
            texts += [replace_surrogates(text) for text in _entry_results(entry) if text.strip()]
    return "\n\n".join(texts)


def _entry_results(entry: object) -> Iterator[str]:
    """Yield the texts of the tool results in one entry: a chat message, a Responses item, or a Messages turn."""
    if not isinstance(entry, Mapping):
        return
    content = entry.get("content")
    if entry.get("role") in _RESULT_ROLES:
        yield _content_text(content)
    elif str(entry.get("type") or "").endswith("_call_output"):
        yield _content_text(entry.get("output"))
    elif isinstance(content, list | tuple):
        for part in content:
            if isinstance(part, Mapping) and part.get("type") == "tool_result":
                yield _content_text(part.get("content"))


def _content_text(content: object) -> str:
    """The text of a message's content: the content itself if it is a text, else its text parts, one a line."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        return ""
    parts = (part for part in content if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS)
    return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))
