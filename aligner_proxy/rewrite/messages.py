"""/v1/messages: between Anthropic messages and exchanges, whole (a dict) and streamed (server-sent events, `sse.py`).

Each text block is an answer by itself. Thinking, tool use, tool results and usage are carried as they are. A stream
keeps its events; only those that told a text which was corrected are written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aligner_proxy.rewrite import request, sse
from aligner_proxy.rewrite.choice import Reading, Speech, carries, corrected, per_part, spread
from aligner_proxy.rewrite.telling import Telling, Told
from aligner_proxy.types import Exchange, Outcome, Turn

# Blocks beside which a text is still an answer to the user: the upstream ran these tools itself. Any other block may be
# read together with the text.
_BESIDE = ("text", "thinking", "redacted_thinking", "server_tool_use", "mcp_tool_use")
_RESULT = "_tool_result"

Say = Callable[[int, str], str]
"""Told the index of a block and a piece of its text; says what shall stand there."""


def exchanges(data: Mapping[str, Any], response: object) -> list[Exchange]:
    """One exchange per text block that says something, numbered in order."""
    if not isinstance(response, dict) or not isinstance(response.get("content"), list):
        return []
    stop = response.get("stop_reason")
    reading = Reading(finish_reason=str(stop) if stop else None)
    for block in response["content"]:
        _absorb(reading, block)
    return per_part(reading, list(filter(None, map(_text, response["content"]))), data, _turns(data), response)


def apply(response: Any, outcomes: Sequence[Outcome]) -> Any:
    """The same message if nothing is corrected, else a copy with new texts in it."""
    texts = corrected(outcomes)
    if not texts:
        return response
    content = list(response["content"])
    spoken = [number for number, block in enumerate(content) if _text(block)]
    for index, text in texts.items():
        content[spoken[index]] = {**content[spoken[index]], "text": text}
    return {**response, "content": content}


def stream_exchanges(data: Mapping[str, Any], items: Sequence[object]) -> list[Exchange]:
    """The same from all events of a stream; one that never says why it stopped did not come to an end."""
    frames = sse.frames(items)
    if not any(frame.event for frame in frames):
        return []
    reading, begun = Reading(finish_reason="error"), set[int]()
    for frame in frames:
        reading.inconsistent |= frame.broken
        if frame.event:
            _absorb_event(reading, frame.event, begun)
    return per_part(reading, ["".join(pieces) for pieces in _told(frames).values()], data, _turns(data), None)


def opening(data: Mapping[str, Any], index: int) -> Exchange:
    """What is known of a block before the upstream has said anything."""
    return Reading().exchange(data, index, _turns(data), None)


def speech() -> Speech:
    """A listener for one stream; blocks are numbered as they begin to speak."""
    numbers: dict[int, int] = {}
    cutter = sse.Cutter()

    def hear(item: object) -> list[tuple[int, str]]:
        said: list[tuple[int, str]] = []

        def note(block: int, piece: str) -> str:
            if piece:
                said.append((numbers.setdefault(block, len(numbers)), piece))
            return piece

        for frame in cutter.feed(item):
            if frame.event:
                _walk(frame.event, note)
        return said

    return hear


def telling(data: Mapping[str, Any]) -> Telling:
    """A stream taken apart as it comes."""
    return _Telling(data)


class _Telling:
    """Events one by one; text blocks are numbered as they begin to speak."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._cutter, self._reading, self._begun = sse.Cutter(), Reading(), set[int]()
        self._numbers: dict[int, int] = {}
        self._texts: list[list[str]] = []

    def take(self, item: object) -> list[Told]:
        """The events that are complete with this item."""
        return [self._told(frame) for frame in self._cutter.feed(item)]

    def flush(self) -> list[Told]:
        """The rest, which may be half an event."""
        return [self._told(frame) for frame in self._cutter.flush()]

    def exchange(self, index: int) -> Exchange:
        """A block as far as it has been told."""
        return replace(self._reading, pieces=self._texts[index] if self._texts else []).exchange(
            self._data, index, _turns(self._data), None
        )

    def _told(self, frame: sse.Frame) -> Told:
        self._reading.inconsistent |= frame.broken
        event = frame.event
        if not event:
            return Told(frame.item)
        _absorb_event(self._reading, event, self._begun)
        pieces: list[tuple[int, str]] = []

        def note(block: int, piece: str) -> str:
            if piece:
                number = self._numbers.setdefault(block, len(self._numbers))
                self._texts += [[] for _ in range(len(self._texts), number + 1)]
                self._texts[number].append(piece)
                pieces.append((number, piece))
            return piece

        def say(new: Sequence[str], _: Mapping[int, str]) -> object:
            texts = iter(new)
            return frame.saying(_walk(event, lambda _, piece: next(texts) if piece else piece))

        _walk(event, note)
        return Told(frame.item, tuple(pieces), (), self._ends(event), say)

    def _ends(self, event: Mapping[str, Any]) -> tuple[int, ...]:
        if event.get("type") == "content_block_stop":
            return tuple(number for block, number in self._numbers.items() if block == _index(event))
        return tuple(self._numbers.values()) if event.get("type") in ("message_delta", "message_stop", "error") else ()


def stream_apply(items: Sequence[object], outcomes: Sequence[Outcome]) -> list[object]:
    """The same events in the same order, one an item, the new texts in those that carried the old ones."""
    texts = corrected(outcomes)
    if not texts:
        return list(items)
    frames = sse.frames(items)
    told = enumerate(_told(frames).items())
    pieces = {block: iter(spread(texts[i], [len(p) for p in old])) for i, (block, old) in told if i in texts}

    def say(block: int, piece: str) -> str:
        return next(pieces[block]) if block in pieces else piece

    return [frame.saying(_walk(frame.event, say)) if frame.event else frame.item for frame in frames]


def _told(frames: Sequence[sse.Frame]) -> dict[int, list[str]]:
    """The pieces of every text block that says something, by the index of the block, in order."""
    found: dict[int, list[str]] = {}

    def note(block: int, piece: str) -> str:
        found.setdefault(block, []).append(piece)
        return piece

    for frame in frames:
        if frame.event:
            _walk(frame.event, note)
    return {block: pieces for block, pieces in found.items() if any(pieces)}


def _walk(event: Mapping[str, Any], say: Say) -> Mapping[str, Any]:
    """The event with what `say` says in the place that tells a text; the same object if that is what stood there."""
    for kind, name, inner in _PLACES:
        body = event.get(name)
        if event.get("type") == kind and isinstance(body, Mapping) and body.get("type") == inner:
            old = body.get("text")
            new = say(_index(event), old) if isinstance(old, str) else old
            return event if new == old else {**event, name: {**body, "text": new}}
    return event


_PLACES = (
    ("content_block_start", "content_block", "text"),
    ("content_block_delta", "delta", "text_delta"),
)


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else -1


def _text(block: object) -> str:
    text = block.get("text") if isinstance(block, Mapping) and block.get("type") == "text" else None
    return text if isinstance(text, str) else ""


def _turns(data: Mapping[str, Any]) -> tuple[Turn, ...]:
    return request.system(data.get("system")) + request.turns(data.get("messages"))


def _absorb_event(reading: Reading, event: Mapping[str, Any], begun: set[int]) -> None:
    kind, delta = event.get("type"), event.get("delta")
    if kind == "content_block_start":
        reading.inconsistent |= _index(event) in begun
        begun.add(_index(event))
        _absorb(reading, event.get("content_block"))
    elif kind == "message_start":
        message = event.get("message")
        reading.inconsistent |= bool(begun) or (isinstance(message, Mapping) and carries(message.get("content")))
    elif kind == "message_delta" and isinstance(delta, Mapping):
        reading.finish_reason = str(delta.get("stop_reason") or reading.finish_reason)
    elif kind == "content_block_delta" and isinstance(delta, Mapping):
        reading.annotations |= delta.get("type") == "citations_delta"
    elif kind == "error":
        reading.finish_reason = "error"


def _absorb(reading: Reading, block: object) -> None:
    if not isinstance(block, Mapping):
        reading.non_text = True
        return
    kind = str(block.get("type"))
    reading.annotations |= kind == "text" and carries(block.get("citations"))
    reading.tool_calls |= kind == "tool_use"
    reading.non_text |= kind not in (*_BESIDE, "tool_use") and not kind.endswith(_RESULT)
