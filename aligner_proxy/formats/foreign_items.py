"""Items of a stream, or responses, that do not have the form of their route.

If such an item contains an answer all the same, it counts as unreadable, not as empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from aligner_proxy.errors import Unreadable

_ANSWER_FIELDS = (
    *("choices", "output", "output_text", "response", "content", "content_block"),
    *("delta", "message", "text", "completion", "candidates"),
)
"""Fields in which upstreams of any kind send their answer, or a piece of it."""


def raise_if_answer(item: object) -> None:
    """Raise `Unreadable` if an item that the route's format does not know contains an answer."""
    if _holds_answer(item):
        raise Unreadable("an answer in the form of another endpoint")


def _holds_answer(item: object) -> bool:
    """Whether an item of a stream or a response, of any form, contains an answer or a piece of an answer."""
    if isinstance(item, bytes | str):
        text = item if isinstance(item, str) else item.decode(errors="replace")
        return any(map(_line_holds_answer, text.splitlines()))
    if isinstance(item, list | tuple):
        return any(map(_holds_answer, item))
    if isinstance(item, Mapping):
        values = [item.get(name) for name in _ANSWER_FIELDS]
    else:
        values = [getattr(item, name, None) for name in _ANSWER_FIELDS]
    # Methods that happen to have such a name are no fields.
    return any(value and not (isinstance(value, int | float) or callable(value)) for value in values)


def _line_holds_answer(line: str) -> bool:
    """Whether a line of an event (`data: {...}`) has an answer as JSON, which may be cut off."""
    data = line.removeprefix("data:").strip()
    if not data.startswith(("{", "[{")):
        return False
    try:
        return _holds_answer(json.loads(data))
    except ValueError:
        return True  # the beginning of an event that was cut off
