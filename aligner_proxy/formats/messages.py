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
    GrowingText,
    RequestedForm,
    corrected_texts,
    has_content,
    list_unusual_fields,
    raise_if_answer,
)
from aligner_proxy.formats.stream_events import ContentBlock, StreamDecoder, StreamEvent
from aligner_proxy.types import Exchange, Outcome, Turn

# A text next to these blocks is still an answer to the user, since the upstream ran these tools itself. With any other
# block, text and block may have to be read together.
_BLOCKS_BESIDE_ANSWERS = ("text", "thinking", "redacted_thinking", "server_tool_use", "mcp_tool_use")
_RESULT_SUFFIX = "_tool_result"
"""End of the types of blocks with the result of a tool that the upstream ran."""
_THINKING = ("thinking", "redacted_thinking")
_PING = b'event: ping\ndata: {"type": "ping"}\n\n'

Edit = Callable[[int, str], str]
"""Called with the index of a block and a piece of its text; returns the new piece."""


def exchanges(data: Mapping[str, Any], response: object) -> list[Exchange]:
    """Return an exchange for each non-empty text block, numbered in order."""
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
    """Return a copy of the message with the corrected texts, or the same message if there are none.

    A block of which no text is left is removed, since a client could not send an empty block back.
    """
    new_texts = corrected_texts(outcomes)
    if not new_texts:
        return response
    blocks = list(_blocks(response) or ())
    # Texts are numbered without the blocks that have no text.
    text_positions = [position for position, block in enumerate(blocks) if _block_text(block)]
    for index, text in new_texts.items():
        position = text_positions[index]
        blocks[position] = _with_new_text(blocks[position], text)
    if not isinstance(response["content"], list):
        return {**response, "content": blocks[0]}  # in the form in which this upstream sent the content
    empty_positions = {text_positions[index] for index, text in new_texts.items() if not text.strip()}
    remaining_blocks = [block for position, block in enumerate(blocks) if position not in empty_positions]
    return {**response, "content": remaining_blocks}


def _blocks(response: object) -> list[Any] | None:
    """The blocks of a message; None if it has none. Some upstreams send a single block or a text instead of a list."""
    content = response.get("content") if isinstance(response, dict) else None
    if isinstance(content, str | dict):
        return [content]
    return content if isinstance(content, list) else None


def _with_new_text(block: Any, text: str) -> object:
    """Return a copy of a block with a new text, without citations that point into the old text.

    A block or its text may be a list of pieces; the new text is then a list with one piece.
    """
    if not isinstance(block, Mapping):
        return [text] if isinstance(block, list) else text
    edited_block = {name: value for name, value in block.items() if name != "citations"}
    edited_block["text"] = [text] if isinstance(block["text"], list) else text
    return edited_block


class MessagesDecoder(StreamDecoder):
    """Decoder of one stream of events; text blocks are numbered in the order in which they receive text."""

    is_one_answer = True

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._turns = _turns(data)
        self._splitter = sse.FrameSplitter()
        self._builder = ChoiceBuilder()
        """What the events so far say about the message, without its texts."""
        self._begun_indices: set[int] = set()
        """Indices of the blocks whose first event has come."""
        self._blocks: dict[int, ContentBlock] = {}
        """The blocks of which events have come, by their index."""
        self._text_numbers: dict[int, int] = {}
        """By index of a block, the number of its text."""
        self._texts: list[GrowingText] = []
        """The texts of the blocks, by the number of the text."""
        self._form = RequestedForm.from_request(data)
        self._has_events = False
        """Whether any event other than a comment has come."""

    def feed(self, item: object) -> list[StreamEvent]:
        return [self._read_frame(frame) for frame in self._splitter.feed(item)]

    def flush(self) -> list[StreamEvent]:
        """Return the remaining bytes as an event, which may be incomplete; no event if no bytes remain."""
        return [self._read_frame(frame) for frame in self._splitter.flush()]

    def exchange(self, index: int) -> Exchange:
        """The exchange of text number `index`, as far as the text has come."""
        pieces = self._texts[index] if self._texts else GrowingText()
        builder = replace(self._builder, pieces=pieces)
        return builder.make_exchange(self._data, index, self._turns, None, self._form)

    def exchange_without_text(self, index: int) -> Exchange:
        return self._builder.make_exchange(self._data, index, self._turns, None, self._form)

    @property
    def has_refusal(self) -> bool:
        return self._builder.refusal

    @property
    def contradicts_itself(self) -> bool:
        return self._builder.inconsistent

    def exchanges(self) -> list[Exchange]:
        """The exchanges of all text blocks; a stream without a stop reason counts as broken off ("error")."""
        if not self._has_events:
            return []
        builder = replace(self._builder, finish_reason=self._builder.finish_reason or "error")
        texts = {number: str(pieces) for number, pieces in enumerate(self._texts)}
        return builder.make_exchanges(self._data, texts, self._turns, None)

    def empty_event(self, delivered: Sequence[object], _received: object) -> object:
        """Return a ping, in the form of the other events (dict or bytes); None before the message has begun."""
        if not delivered:
            return None
        return {"type": "ping"} if isinstance(delivered[-1], Mapping) else _PING

    def _read_frame(self, frame: sse.EventFrame) -> StreamEvent:
        """Return the event of a frame with its texts; raises `Unreadable` for an answer of another endpoint's form."""
        if frame.broken:
            self._builder.inconsistent = True
            self._has_events = True
        event = frame.event
        if not event:
            # Bytes without an event are a comment, a cut event, or an answer as plain JSON.
            if not isinstance(frame.item, bytes) or frame.item.lstrip().startswith((b"{", b"[")):
                raise_if_answer(frame.item)
            return StreamEvent(frame.item)
        if "choices" in event or str(event.get("type")).startswith("response"):
            raise_if_answer(event)
        self._has_events = True
        _record_event(self._builder, event, self._begun_indices)
        return StreamEvent(
            frame.item,
            pieces=self._read_pieces(event),
            ended_texts=self._find_ended_texts(event),
            rewrite=_rewrite_event,
            block=self._update_block(event),
        )

    def _read_pieces(self, event: Mapping[str, Any]) -> tuple[tuple[int, str], ...]:
        """Add the piece of text in an event, if it has one, to its text; return (number of the text, piece)."""
        pieces: list[tuple[int, str]] = []

        def note_piece(block_index: int, piece: str) -> str:
            if piece:
                number = self._number_text(block_index)
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
            is_text = isinstance(content, Mapping) and content.get("type", _TEXT) == _TEXT
            self._blocks[index] = ContentBlock(index, is_text)
        block = self._blocks[index]
        block.text_number = self._text_numbers.get(index)
        block.has_ended |= kind == "content_block_stop"
        return block

    def _number_text(self, block_index: int) -> int:
        """Return the number of the text in the block with this index; the first time, give it the next number."""
        if block_index not in self._text_numbers:
            self._text_numbers[block_index] = len(self._text_numbers)
            self._texts.append(GrowingText())
        return self._text_numbers[block_index]

    def _find_ended_texts(self, event: Mapping[str, Any]) -> tuple[int, ...]:
        """The numbers of the texts that this event ends: of one text if a block ends, of all if the message ends."""
        kind = event.get("type")
        if kind in ("message_delta", "message_stop", "error"):
            return tuple(self._text_numbers.values())
        number = self._text_numbers.get(_block_index(event))
        return (number,) if kind == "content_block_stop" and number is not None else ()


decoder = MessagesDecoder


def opens_answer(item: object) -> bool:
    """Whether an event begins a message or an empty text block, has thinking, or is a ping or a comment."""
    frame = sse.as_frame(item)
    if frame.event is None:
        return isinstance(item, bytes) and item.startswith(b":") and not frame.broken
    event = frame.event
    kind = event.get("type")
    if kind == "message_start":
        return not has_content(event["message"].get("content"))
    if kind == "content_block_start":
        block = event["content_block"]
        is_empty = not any(has_content(value) for name, value in block.items() if name != "type")
        return block["type"] in _THINKING or is_empty
    if kind == "content_block_delta":
        return event["delta"]["type"] in ("thinking_delta", "signature_delta")
    return kind in ("ping", "content_block_stop")


def _rewrite_event(item: object, pieces: Sequence[str], _whole_texts: Mapping[int, str]) -> object:
    """Return the event `item` with the new piece of its text; the same object without a text. It has no whole text."""
    remaining_pieces = iter(pieces)
    frame = sse.as_frame(item)
    new_event = _edit_text(frame.event or {}, lambda _, piece: next(remaining_pieces) if piece else piece)
    return frame.with_event(new_event)


def _edit_text(event: Mapping[str, Any], edit: Edit) -> Mapping[str, Any]:
    """Return the event with `edit` applied to its text, if it has one; the same object if nothing changed."""
    for kind, name, text_types in _TEXT_PLACES:
        body = event.get(name)
        if event.get("type") == kind and isinstance(body, Mapping) and body.get("type", _TEXT) in text_types:
            old_piece = body.get("text")
            new_piece = edit(_block_index(event), old_piece) if isinstance(old_piece, str) else old_piece
            return event if new_piece == old_piece else {**event, name: {**body, "text": new_piece}}
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


def _record_event(builder: ChoiceBuilder, event: Mapping[str, Any], begun_indices: set[int]) -> None:
    """Record what an event says besides its text, and in `begun_indices` the block that it begins."""
    kind = event.get("type")
    delta = event.get("delta")
    if kind == "content_block_start":
        # A block that begins twice would mix two texts.
        builder.inconsistent |= _block_index(event) in begun_indices
        begun_indices.add(_block_index(event))
        _record_block(builder, event.get("content_block"))
    elif kind == "message_start":
        message = event.get("message")
        # A message begins once, and a streamed message begins empty.
        begins_with_content = isinstance(message, Mapping) and has_content(message.get("content"))
        builder.inconsistent |= bool(begun_indices) or begins_with_content
    elif kind == "message_delta" and isinstance(delta, Mapping):
        builder.finish_reason = delta.get("stop_reason") or builder.finish_reason
    elif kind == "content_block_delta" and isinstance(delta, Mapping):
        builder.note_unusual_fields(list_unusual_fields(delta))
        builder.annotations |= delta.get("type") == "citations_delta"
    elif kind == "error":
        builder.finish_reason = "error"


def _record_block(builder: ChoiceBuilder, block: object) -> None:
    """Record in the builder the kind of a block of the message, and whether the block has citations."""
    if not isinstance(block, Mapping):
        builder.non_text |= not isinstance(block, str)
        return
    kind = str(block.get("type", _TEXT))
    if kind == _TEXT:
        builder.note_unusual_fields(list_unusual_fields(block))
    builder.annotations |= kind == "text" and has_content(block.get("citations"))
    builder.tool_calls |= kind == "tool_use"
    builder.non_text |= kind not in (*_BLOCKS_BESIDE_ANSWERS, "tool_use") and not kind.endswith(_RESULT_SUFFIX)
