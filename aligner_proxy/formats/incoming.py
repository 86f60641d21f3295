"""Reader of the conversation in a request as texts to be judged: tool results, and turns of users and assistants.

System prompts are the operator's and are left out. Of each message, what a person could read is judged; of JSON, its
strings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aligner_proxy.formats.side_text import readable_prose
from aligner_proxy.formats.tool_results import content_text, entry_results
from aligner_proxy.types import IncomingKind, replace_surrogates

MAX_MESSAGES = 16
"""The last messages of a request that are read; earlier ones were the last of an earlier request."""
_TEXT_SEPARATOR = "\n\n"
_HISTORY_ROLES = ("user", "assistant")


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
                prose = _TEXT_SEPARATOR.join(filter(None, map(readable_prose, texts)))
                if prose:
                    yield IncomingText(kind, f"{name}.{position}", position, replace_surrogates(prose))


def _texts_by_kind(entry: object) -> dict[IncomingKind, list[str]]:
    """Return the texts of one message by their kind; a plain string is a turn of the history."""
    if isinstance(entry, str):
        return {IncomingKind.HISTORY: [entry]}
    texts = {IncomingKind.TOOL_RESULTS: list(entry_results(entry))}
    if isinstance(entry, Mapping) and entry.get("role") in _HISTORY_ROLES:
        texts[IncomingKind.HISTORY] = [content_text(entry.get("content"))]
    return texts
