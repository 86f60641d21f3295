"""Wire format of /v1/messages: converts Anthropic messages, whole (dicts) and streamed, to exchanges and back.

Each text block is corrected by itself. Thinking, tool use, tool results and usage are kept unchanged. A stream of
server-sent events (`sse.py`) keeps its events; only events with a corrected text are rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aligner_proxy.formats import base, sse
from aligner_proxy.formats.base import (
    ChoiceBuilder,
    ContentBlock,
    GrowingText,
    RequestedForm,
    StreamEvent,
    corrected_texts,
    has_content,
    list_unusual_fields,
)
from aligner_proxy.formats.foreign_items import raise_if_answer
from aligner_proxy.types import Exchange, Outcome, Turn

# A text next to these blocks is still an answer to the user, since the upstream ran these tools itself. With any other
# block, text and block may have to be read together.
_BLOCKS_BESIDE_ANSWERS = ("text", "thinking", "redacted_thinking", "server_tool_use", "mcp_tool_use")
_RESULT = "_tool_result"
"""End of the types of blocks with the result of a tool that the upstream ran."""
_THINKING = ("thinking", "redacted_thinking")
_PING = b'event: ping\ndata: {"type": "ping"}\n\n'

Edit = Callable[[int, str], str]
"""Called with the index of a block and a piece of its text; returns the new piece."""


def exchanges(data: Mapping[str, Any], response: object) -> list[Exchange]:
    """One exchange per non-empty text block, numbered in order."""
    content = _blocks(response)
    if content is None:
        raise_if_answer(response)
        return []
    stop = response.get("stop_reason") if isinstance(response, dict) else None
    builder = ChoiceBuilder(finish_reason=str(stop) if stop else None)
    builder.note_unusual_fields(list_unusual_fields(response))
    for block in content:
        _record_block(builder, block)
    texts = [text for text in map(_block_text, content) if text]
    return builder.make_exchanges(data, dict(enumerate(texts)), _turns(data), response)


def apply(response: Any, outcomes: Sequence[Outcome]) -> Any:
    """A copy of the message with the corrected texts, or the same message if there are none.

    A block of which no text is left is removed, since a client could not send an empty one back.
    """
    texts = corrected_texts(outcomes)
    if not texts:
        return response
    content = list(_blocks(response) or ())
    # texts are numbered without the blocks that have none
    text_positions = [position for position, block in enumerate(content) if _block_text(block)]
    for index, text in texts.items():
        position = text_positions[index]
        content[position] = _with_new_text(content[position], text)
    # the form in which this upstream sent the content is kept
    if not isinstance(response["content"], list):
        return {**response, "content": content[0]}
    empty_positions = {text_positions[index] for index, text in texts.items() if not text.strip()}
    remaining = [block for position, block in enumerate(content) if position not in empty_positions]
    return {**response, "content": remaining}


def _blocks(response: object) -> list[Any] | None:
    """The blocks of a message; some upstreams send a single block or a plain text instead of a list."""
    content = response.get("content") if isinstance(response, dict) else None
    if isinstance(content, str | dict):
        return [content]
    return content if isinstance(content, list) else None


def _with_new_text(block: Any, text: str) -> object:
    """A copy of a block with a new text in the form of the old one, without citations that point into the old one."""
    if not isinstance(block, Mapping):
        return [text] if isinstance(block, list) else text
    edited = {name: value for name, value in block.items() if name != "citations"}
    edited["text"] = [text] if isinstance(block["text"], list) else text
    return edited


class MessagesDecoder:
    """Decoder of one stream of events; text blocks are numbered in the order in which they receive text."""

    is_one_answer = True

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        """The request."""
        self._turns = _turns(data)
        self._splitter = sse.FrameSplitter()
        self._builder = ChoiceBuilder()
        """What the events so far say about the message, without its texts."""
        self._begun_blocks: set[int] = set()
        """Indices of the blocks whose first event has come."""
        self._blocks: dict[int, ContentBlock] = {}
        """By index of the block."""
        self._numbers: dict[int, int] = {}
        """By index of a block, the number of its text."""
        self._texts: list[GrowingText] = []
        """The texts of the blocks, by the number of the text."""
        self._form = RequestedForm.from_request(data)
        self._has_events = False
        """Whether any event other than a comment has come."""

    def feed(self, item: object) -> list[StreamEvent]:
        return [self._read_frame(frame) for frame in self._splitter.feed(item)]

    def flush(self) -> list[StreamEvent]:
        """The remaining bytes as an event, which may be incomplete; nothing if none remain."""
        return [self._read_frame(frame) for frame in self._splitter.flush()]

    def exchange(self, index: int) -> Exchange:
        """The exchange of a block with its text so far."""
        pieces = self._texts[index] if self._texts else GrowingText()
        builder = replace(self._builder, pieces=pieces)
        return builder.make_exchange(self._data, index, self._turns, None, self._form)

    def exchange_without_text(self, index: int) -> Exchange:
        """The exchange of a block without its text."""
        return self._builder.make_exchange(self._data, index, self._turns, None, self._form)

    @property
    def has_refusal(self) -> bool:
        """Whether the upstream filled a refusal field."""
        return self._builder.refusal

    @property
    def contradicts_itself(self) -> bool:
        return self._builder.inconsistent

    def exchanges(self) -> list[Exchange]:
        """Every text block; a stream without a stop reason counts as broken off ("error")."""
        if not self._has_events:
            return []
        builder = replace(self._builder, finish_reason=self._builder.finish_reason or "error")
        texts = {number: str(pieces) for number, pieces in enumerate(self._texts)}
        return builder.make_exchanges(self._data, texts, self._turns, None)

    def beginning(self) -> object:
        """None, since a failure needs no event before it."""
        return None

    def empty_event(self, delivered: Sequence[object], _received: object) -> object:
        """A ping, in the form of the other events; None before the message has begun."""
        if not delivered:
            return None
        return {"type": "ping"} if isinstance(delivered[-1], Mapping) else _PING

    def _read_frame(self, frame: sse.EventFrame) -> StreamEvent:
        """The event of a frame with its texts; raises `Unreadable` for an answer in the form of another endpoint."""
        if frame.broken:
            self._builder.inconsistent = True
            self._has_events = True
        event = frame.event
        if not event:
            # an event may be cut off, and is then no JSON
            if not isinstance(frame.item, bytes) or frame.item.lstrip().startswith((b"{", b"[")):
                raise_if_answer(frame.item)
            return StreamEvent(frame.item)
        if "choices" in event or str(event.get("type")).startswith("response"):
            raise_if_answer(event)
        self._has_events = True
        _record_event(self._builder, event, self._begun_blocks)
        return StreamEvent(
            frame.item,
            self._read_pieces(event),
            (),
            self._find_ended_texts(event),
            _rewrite_event,
            block=self._update_block(event),
        )

    def _read_pieces(self, event: Mapping[str, Any]) -> tuple[tuple[int, str], ...]:
        """Add the piece of text in an event, if it has one, to its block; return it with the number of its text."""
        pieces: list[tuple[int, str]] = []

        def note_piece(block: int, piece: str) -> str:
            """Record a piece of a block's text, and return it unchanged."""
            if piece:
                number = self._number_text(block)
                pieces.append((number, piece))
                self._texts[number].append(piece)
            return piece

        _edit_text(event, note_piece)
        return tuple(pieces)

    def _update_block(self, event: Mapping[str, Any]) -> ContentBlock | None:
        """Update the block that an event belongs to, and return it; None if the event belongs to no block."""
        kind = event.get("type")
        if kind not in _BLOCK_EVENTS:
            return None
        index = _block_index(event)
        if index not in self._blocks:
            content = event.get("content_block")
            self._blocks[index] = ContentBlock(
                index, isinstance(content, Mapping) and content.get("type", _TEXT) == _TEXT
            )
        block = self._blocks[index]
        block.text_number = self._numbers.get(index)
        block.has_ended |= kind == _BLOCK_EVENTS[-1]
        return block

    def _number_text(self, block: int) -> int:
        """The number of the text in the block with this index; a new number the first time."""
        if block not in self._numbers:
            self._numbers[block] = len(self._numbers)
            self._texts.append(GrowingText())
        return self._numbers[block]

    def _find_ended_texts(self, event: Mapping[str, Any]) -> tuple[int, ...]:
        """Numbers of the texts that this event ends: of one text if a block ends, of all if the message ends."""
        kind = event.get("type")
        if kind in ("message_delta", "message_stop", "error"):
            return tuple(self._numbers.values())
        number = self._numbers.get(_block_index(event))
        return (number,) if kind == "content_block_stop" and number is not None else ()


decoder = MessagesDecoder


def opens_answer(item: object) -> bool:
    """Whether an event begins a message or an empty text block, holds thinking, or is a ping or a comment."""
    frame = sse.as_frame(item)
    if frame.event is None:
        return isinstance(item, bytes) and item.startswith(b":") and not frame.broken
    event = frame.event
    kind = event.get("type")
    if kind == "message_start":
        return not has_content(event["message"].get("content"))
    if kind == "content_block_start":
        block = event["content_block"]
        return block["type"] in _THINKING or not any(
            has_content(value) for name, value in block.items() if name != "type"
        )
    if kind == "content_block_delta":
        return event["delta"]["type"] in ("thinking_delta", "signature_delta")
    return kind in ("ping", "content_block_stop")


def _rewrite_event(item: object, pieces: Sequence[str], _whole_texts: Mapping[int, str]) -> object:
    """The event with a new piece of its text; the same object if it has no text."""
    remaining_pieces = iter(pieces)
    frame = sse.as_frame(item)
    return frame.with_event(_edit_text(frame.event or {}, lambda _, piece: next(remaining_pieces) if piece else piece))


def _edit_text(event: Mapping[str, Any], edit: Edit) -> Mapping[str, Any]:
    """The event with `edit` applied to its text, if it has one; the same object if nothing changed."""
    for kind, name, text_types in _TEXT_PLACES:
        body = event.get(name)
        if event.get("type") == kind and isinstance(body, Mapping) and body.get("type", _TEXT) in text_types:
            old = body.get("text")
            new = edit(_block_index(event), old) if isinstance(old, str) else old
            return event if new == old else {**event, name: {**body, "text": new}}
    return event


_TEXT = "text"
_BLOCK_EVENTS = ("content_block_start", "content_block_delta", "content_block_stop")
# Some upstreams omit the type of a delta, or use the type of its block.
_TEXT_PLACES = (
    ("content_block_start", "content_block", (_TEXT,)),
    ("content_block_delta", "delta", (_TEXT, "text_delta")),
)


def _block_index(event: Mapping[str, Any]) -> int:
    """The index of the block that an event belongs to; -1 if the upstream omits it."""
    index = event.get("index")
    return index if isinstance(index, int) else -1


def _block_text(block: object) -> str:
    """The text of a block, which some upstreams send as a list of pieces; empty if it is no text block."""
    text = block.get("text") if isinstance(block, Mapping) and block.get("type", _TEXT) == _TEXT else block
    if isinstance(text, list) and all(isinstance(piece, str) for piece in text):
        return "".join(text)
    return text if isinstance(text, str) else ""


def _turns(data: Mapping[str, Any]) -> tuple[Turn, ...]:
    return base.make_system_turn(data.get("system")) + base.read_turns(data.get("messages"))


def _record_event(builder: ChoiceBuilder, event: Mapping[str, Any], begun_blocks: set[int]) -> None:
    """Record what an event says about the message besides its text."""
    kind = event.get("type")
    delta = event.get("delta")
    if kind == "content_block_start":
        # a block that begins twice would mix two texts
        builder.inconsistent |= _block_index(event) in begun_blocks
        begun_blocks.add(_block_index(event))
        _record_block(builder, event.get("content_block"))
    elif kind == "message_start":
        message = event.get("message")
        # a message begins once, and a streamed one begins empty
        builder.inconsistent |= bool(begun_blocks) or (
            isinstance(message, Mapping) and has_content(message.get("content"))
        )
    elif kind == "message_delta" and isinstance(delta, Mapping):
        builder.finish_reason = delta.get("stop_reason") or builder.finish_reason
    elif kind == "content_block_delta" and isinstance(delta, Mapping):
        builder.note_unusual_fields(list_unusual_fields(delta))
        builder.annotations |= delta.get("type") == "citations_delta"
    elif kind == "error":
        builder.finish_reason = "error"


def _record_block(builder: ChoiceBuilder, block: object) -> None:
    """Record of what kind a block of the message is, and whether it has citations."""
    if not isinstance(block, Mapping):
        builder.non_text |= not isinstance(block, str)
        return
    kind = str(block.get("type", _TEXT))
    if kind == _TEXT:
        builder.note_unusual_fields(list_unusual_fields(block))
    builder.annotations |= kind == "text" and has_content(block.get("citations"))
    builder.tool_calls |= kind == "tool_use"
    builder.non_text |= kind not in (*_BLOCKS_BESIDE_ANSWERS, "tool_use") and not kind.endswith(_RESULT)
