"""Server-sent events: splits a stream of bytes into frames, one per event.

LiteLLM passes a Messages stream on as it was read from the socket: bytes that may hold many events or part of one.
Streams that LiteLLM made itself consist of dicts. Here both become frames, and are written back in their own form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aligner_proxy.errors import Unreadable

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")
_DATA_START = re.compile(r"[ \t]*data:", re.IGNORECASE)
"""Start of a data line. The standard requires lower case and no space before it; some readers accept either."""
_OTHER_FIELDS = ("event", "id", "retry", "")
"""Fields other than data; a comment has an empty name."""
LAST_EVENTS = frozenset({"message_stop", "response.completed", "response.incomplete", "response.failed"})
"""Kinds of events that end a stream, of Messages and of Responses."""
_LAST_IN_BYTES = tuple(kind.encode() for kind in LAST_EVENTS)
_LONGEST_END = 4
"""Bytes of the longest blank line that ends an event."""
_LONGEST_EVENT = 16 << 20
"""Most bytes of one event; a stream with a longer one is not read."""


@dataclass(frozen=True, slots=True)
class EventFrame:
    """One event: its bytes as they arrived, and the data in them (None for a comment or an empty frame)."""

    item: object
    """Bytes with their closing blank line, or LiteLLM's dict."""
    event: Mapping[str, Any] | None
    broken: bool = False
    """Whether its data is not a JSON object."""

    def with_event(self, event: Mapping[str, Any]) -> object:
        """Return the item, in its original form (bytes or dict), with another event."""
        if event is self.event:
            return self.item
        return _with_data(self.item, event) if isinstance(self.item, bytes) else event

    def with_index(self, index: object) -> object:
        """Return the item, in its original form (bytes or dict), with this index as that of its block."""
        event = self.event or {}
        return self.item if event.get("index") == index else self.with_event({**event, "index": index})


class FrameSplitter:
    """Splitter of a growing stream into events, in linear time; keeps the beginning of an unfinished event."""

    def __init__(self) -> None:
        self._rest = bytearray()
        """The beginning of an event whose end has not arrived."""

    def feed(self, item: object) -> list[EventFrame]:
        """Read an item, bytes or one of LiteLLM's dicts; return the frames that it completes.

        Raises `Unreadable` if an event is too long; the item then counts as not read.
        """
        if isinstance(item, str):
            item = item.encode(errors="surrogatepass")
        if not isinstance(item, bytes):
            return [*self.flush(), as_frame(item)]
        # The blank line that ends an event may have begun with the last bytes of the item before.
        search_start = max(0, len(self._rest) + 1 - _LONGEST_END)
        self._rest += item
        if not _EVENT_END.search(self._rest, search_start):
            if len(self._rest) > _LONGEST_EVENT:
                del self._rest[-len(item) :]
                raise Unreadable("an event is too long")
            return []
        events, rest = _cut_events(bytes(self._rest))
        self._rest = bytearray(rest)
        return [*map(_read_frame, events)]

    def flush(self) -> list[EventFrame]:
        """Return the remaining bytes as an event, complete or not; no event if no bytes remain."""
        rest = bytes(self._rest)
        self._rest.clear()
        return [_read_frame(rest)] if rest else []


def as_frame(item: object) -> EventFrame:
    """Return the frame of one event, given as bytes or as a dict."""
    if isinstance(item, bytes):
        return _read_frame(item)
    return EventFrame(item, item if isinstance(item, Mapping) else None)


def stream_tail(before: bytes, item: object) -> bytes:
    """Return the last bytes of a stream up to `item`, for `is_between_events`; `before` are those before `item`."""
    if isinstance(item, str):
        item = item[-_LONGEST_END:].encode(errors="surrogatepass")
    if not isinstance(item, bytes):
        return b""  # an item of another type is a whole event
    return (before + item[-_LONGEST_END:])[-_LONGEST_END:]


def is_between_events(ending: bytes) -> bool:
    """Whether a stream with this ending is between two events; only there may a comment be inserted."""
    return not ending or ending.endswith((b"\n\n", b"\r\r", b"\r\n\r\n"))


def is_last_event(item: object) -> bool:
    """Whether an item ends its stream, as `message_stop` and `response.completed` do; False for chunks of chat."""
    if isinstance(item, bytes):
        # Most items end no stream, and looking for the names is far quicker than reading the events.
        if not any(kind in item for kind in _LAST_IN_BYTES):
            return False
        events, rest = _cut_events(item)
        last_event = _read_frame(events[-1]).event if events and not rest.strip() else None
        kind = last_event.get("type") if last_event else None
    else:
        kind = item.get("type") if isinstance(item, Mapping) else getattr(item, "type", None)
    # (The kind may be a member of LiteLLM's enumeration, which is a string, too.)
    return isinstance(kind, str) and kind in LAST_EVENTS


class LastEventKeeper:
    """Keeps back the event that ends a stream, so that a comment can be put before it."""

    def __init__(self) -> None:
        self._kept_items: list[object] = []
        """The event that is kept back, as the only element; empty if there is none."""
        self._ending = b""
        """The last bytes of the stream so far (`stream_tail`)."""

    @property
    def is_between_events(self) -> bool:
        """Whether the stream so far ends between two events."""
        return is_between_events(self._ending)

    @property
    def is_at_end(self) -> bool:
        """Whether the stream so far ends with the event that ends it."""
        return bool(self._kept_items)

    def feed(self, item: object) -> list[object]:
        """Read an item; return the items to pass on, without the event that ends the stream."""
        ends_stream = self.is_between_events and is_last_event(item)
        items = self._kept_items if ends_stream else [*self._kept_items, item]
        self._kept_items = [item] if ends_stream else []
        self._ending = stream_tail(self._ending, item)
        return items

    def flush(self) -> list[object]:
        """Return the item that is still kept back when the stream has ended, if there is one."""
        items = self._kept_items
        self._kept_items = []
        return items


def _cut_events(raw: bytes) -> tuple[list[bytes], bytes]:
    """Cut bytes into events; return the bytes of each complete event, and the remaining bytes, which may be empty."""
    events: list[bytes] = []
    start = 0
    for match in _EVENT_END.finditer(raw):
        events.append(raw[start : match.end()])
        start = match.end()
    return events, raw[start:]


def _read_frame(raw: bytes) -> EventFrame:
    """Return the frame of one event; it is `broken` if its data is not a JSON object in UTF-8."""
    try:
        data, _ = split_frame(raw.decode())
    except UnicodeDecodeError:
        return EventFrame(raw, event=None, broken=True)
    # A comment has no data, and OpenAI ends a stream with "[DONE]".
    if not data or data == "[DONE]":
        return EventFrame(raw, event=None)
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        return EventFrame(raw, event=None, broken=True)
    return EventFrame(raw, event) if isinstance(event, dict) else EventFrame(raw, event=None, broken=True)


def split_frame(frame_text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the data of a frame, and its other lines as (field, value); a line without a known field is ("", line)."""
    data_lines: list[str] = []
    other_lines: list[tuple[str, str]] = []
    for line in _LINE.findall(frame_text):
        data_start = _DATA_START.match(line)
        name, _, value = line.partition(":")
        if data_start is not None:
            data_lines.append(line[data_start.end() :].strip())
        elif name in _OTHER_FIELDS and line.strip():
            other_lines.append((name, value.strip()))
        elif line.strip():
            other_lines.append(("", line.strip()))
    return "\n".join(data_lines), other_lines


def _with_data(raw: bytes, event: Mapping[str, Any]) -> bytes:
    """Return the frame `raw` with `event` as its single data line; its other lines stay."""
    # Characters beyond ASCII are escaped only if the upstream may have escaped them.
    data = json.dumps(event, ensure_ascii=raw.isascii())
    lines: list[str] = []
    for line in _LINE.findall(raw.decode()):
        if not _DATA_START.match(line):
            lines.append(line)
        elif data:
            line_end = line[len(line.rstrip()) :]
            lines.append(f"data: {data}{line_end}")
            data = ""  # further data lines are left out
    # Half a letter (a lone surrogate) has no encoding, so it is escaped.
    return "".join(lines).encode(errors="backslashreplace")
