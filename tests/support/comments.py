"""The comment at the end of a stream, without the id of the answer, which no test can know beforehand."""

from __future__ import annotations

import re
from typing import Any, AnyStr

_ID = re.compile(r" id=[0-9a-f]{32}(?=\s|$)")


def without_id(comment: AnyStr) -> AnyStr:
    """The comment without its id."""
    if isinstance(comment, bytes):
        return re.sub(_ID.pattern.encode(), b"", comment)
    return _ID.sub("", comment)


def id_in(comment: str) -> str | None:
    """The id in a comment; None where it has none."""
    found = _ID.search(comment)
    return found[0].removeprefix(" id=") if found else None


def drop_comments(stream: str) -> str:
    """A stream without comments, LiteLLM's too: lines before an event, and what stands between events by itself."""
    frames = ["".join(line for line in frame.splitlines(True) if line[:2] != ": ") for frame in stream.split("\n\n")]
    return "\n\n".join(frame for frame in frames if frame)


def events_without_data(raw: str) -> list[str]:
    """What a strict reader takes for an event, because a blank line ends it, and what has no data."""
    *events, _ = raw.split("\n\n")
    return [event for event in events if event and "data:" not in event]


def take_comment(items: list[Any]) -> bytes:
    """Take the status out of a stream's items: the last of them, or the one before the event that ends the stream."""
    at = next(at for at in (-1, -2) if isinstance(items[at], bytes) and items[at].startswith(b": aligner"))
    comment: bytes = items.pop(at)
    return comment
