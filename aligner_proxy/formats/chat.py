"""Wire format of /v1/chat/completions: converts LiteLLM's responses, whole and streamed, to exchanges and back.

A choice is recognised by its fields, not by its class: LiteLLM's response cache may return chunks of the other
endpoint, and some upstreams write `text` in place of a message. `text.py` therefore uses these functions, too. Only the
text is ever replaced; reasoning, tool calls, refusals, audio and provider fields are kept unchanged. An edited text
loses its annotations, citations and token probabilities because they describe the old text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from aligner_proxy.formats import base
from aligner_proxy.formats.base import (
    CITATIONS,
    ChoiceBuilder,
    GrowingText,
    RequestedForm,
    corrected_texts,
    fields_by_name,
    has_citations,
    has_content,
    list_unusual_fields,
    raise_if_answer,
)
from aligner_proxy.formats.reasoning import FIELDS as REASONING_FIELDS
from aligner_proxy.formats.side_text import USUAL_FIELDS
from aligner_proxy.formats.stream_events import StreamDecoder, StreamEvent
from aligner_proxy.types import Exchange, Outcome

_BODIES = ("message", "delta")
"""The fields of a choice whose objects may hold its text."""
_CONTENT = ("content",)
_CHOICE_FIELDS = (*_BODIES, "text", "finish_reason", "logprobs")
"""The fields of a choice that are read here."""
_BODY_FIELDS = (*_CONTENT, "tool_calls", "function_call", "refusal", "audio", "images", "provider_specific_fields")
"""The fields of a message or delta that are read here."""
_OPENING_FIELDS = frozenset({"role", "provider_specific_fields", *REASONING_FIELDS})
"""Fields of a delta that are no part of its answer."""
_SHARED_FIELDS = frozenset({"id", "object", "created", "model", "system_fingerprint", "choices"})
"""Fields of a chunk that are the same in every chunk of its stream, and its choices."""
_USUAL = USUAL_FIELDS | {"logprobs", "audio", "images"}
"""Fields of a choice that are read by their names."""


def exchanges(data: Mapping[str, Any], response: object) -> list[Exchange]:
    """Return an exchange for each choice, numbered by its position, because some upstreams number all choices 0."""
    turns = base.read_turns(data.get("messages"))
    form = RequestedForm.from_request(data)
    return [
        builder.make_exchange(data, index, turns, response, form)
        for index, builder in enumerate(build_choices(response))
    ]


def apply(response: Any, outcomes: Sequence[Outcome]) -> Any:
    """A copy of the response with the corrected texts, or the same response if there are none."""
    new_texts = corrected_texts(outcomes)
    if not new_texts:
        return response
    edited_response = response.model_copy()
    edited_response.choices = [
        with_choice_text(choice, new_texts[index]) if index in new_texts else choice
        for index, choice in enumerate(response.choices)
    ]
    return edited_response


def decoder(data: Mapping[str, Any]) -> ChunkDecoder:
    """Return a decoder for one stream of chunks."""
    turns = base.read_turns(data.get("messages"))
    form = RequestedForm.from_request(data)
    return ChunkDecoder(lambda builder, index, first_item: builder.make_exchange(data, index, turns, first_item, form))


def opens_answer(chunk: Any) -> bool:
    """Whether the deltas of a chunk hold only roles and reasoning."""
    return choices_of(chunk) is not None and all(map(_opens_choice, chunk.choices))


def _opens_choice(choice: Any) -> bool:
    """Whether a choice of a chunk has no text yet: nothing but a delta with a role or reasoning."""
    delta_fields = _filled_fields(getattr(choice, "delta", None) or ())
    provider_fields = delta_fields.get("provider_specific_fields", {})
    return (
        _filled_fields(choice).keys() <= {"index", "delta"}
        and delta_fields.keys() <= _OPENING_FIELDS
        and provider_fields.keys() <= set(REASONING_FIELDS)
    )


def _filled_fields(model: Any) -> dict[str, Any]:
    """The fields of a pydantic model that are set, by name; `model` may also be an empty tuple."""
    return {name: value for name, value in model if has_content(value)}


def choices_of(response: object) -> Any:
    """The `choices` of a response or chunk, of whatever type; None if it has none."""
    return getattr(response, "choices", None)


def choice_text(choice: Any) -> str:
    """The text of a choice, or the piece of text that its delta adds; empty if it has none."""
    _, content = _find_content(choice)
    return content if isinstance(content, str) else ""


def with_choice_text(choice: Any, text: str) -> Any:
    """Return a copy of the choice with a new text, without fields that describe or point into the old text."""
    body_name, _ = _find_content(choice)
    edited_choice = choice.model_copy()
    if body_name is None:
        edited_choice.text = text
    else:
        setattr(edited_choice, body_name, _with_content(getattr(choice, body_name), text))
    # Token probabilities describe the old text.
    if has_content(getattr(edited_choice, "logprobs", None)):
        edited_choice.logprobs = None
    return edited_choice


def build_choices(response: Any) -> Iterator[ChoiceBuilder]:
    """Yield a builder for each choice of a whole response."""
    choices = choices_of(response)
    if choices is None:
        raise_if_answer(response)
    response_fields = list_unusual_fields(response)
    for choice in choices or ():
        builder = ChoiceBuilder()
        builder.note_unusual_fields(response_fields)
        read_choice(builder, choice)
        yield builder


def read_choice(builder: ChoiceBuilder, choice: Any) -> str:
    """Add a whole choice, or one with a delta, to a builder; return its text, or the piece that the delta adds."""
    fields = fields_by_name(choice, _CHOICE_FIELDS)
    message = fields.get("message")
    body = fields.get("delta") if message is None else message
    body_fields = fields_by_name(body, _BODY_FIELDS)
    content = body_fields.get("content")
    if content is None:
        _, content = _find_content(choice)
    if isinstance(content, str):
        builder.pieces.append(content)
    elif content is not None:  # a list of parts in place of a text
        builder.non_text = True
    builder.finish_reason = fields.get("finish_reason") or builder.finish_reason
    builder.tool_calls |= has_content(body_fields.get("tool_calls")) or has_content(body_fields.get("function_call"))
    # Without a message the choice has a delta, which has only a piece of the refusal.
    builder.add_refusal(_refusal(body_fields), is_piece=message is None)
    builder.non_text |= has_content(body_fields.get("audio")) or has_content(body_fields.get("images"))
    builder.note_unusual_fields(list_unusual_fields(body, _USUAL))
    builder.note_unusual_fields(list_unusual_fields(choice, _USUAL))
    builder.annotations |= has_citations(body_fields.get("provider_specific_fields"))
    builder.logprobs |= has_content(fields.get("logprobs"))
    return content if isinstance(content, str) else ""


class ChunkDecoder(StreamDecoder):
    """Decoder of chunks with choices, the stream format of chat and text completions.

    `make_exchange` makes an exchange of a builder, its index and the first item of the stream, with which LiteLLM
    stores the upstream's headers.
    """

    is_one_answer = False

    def __init__(self, make_exchange: Callable[[ChoiceBuilder, int, object], Exchange]) -> None:
        self._make_exchange = make_exchange
        self._builders: defaultdict[int, ChoiceBuilder] = defaultdict(ChoiceBuilder)
        """The builders of the choices that have begun, by index of the choice."""
        self._first_item: object = None
        """The first item of the stream; None before it has come."""

    def feed(self, item: Any) -> list[StreamEvent]:
        """Read an item and return it as one event, whose texts are numbered by the index of their choice."""
        if self._first_item is None:
            self._first_item = item
        if choices_of(item) is None:
            raise_if_answer(item)
            return [StreamEvent(item)]
        pieces: list[tuple[int, str]] = []
        ended_indices: list[int] = []
        chunk_fields = list_unusual_fields(item)
        for choice in item.choices:
            index = choice.index
            builder = self._builders[index]
            builder.note_unusual_fields(chunk_fields)
            piece = read_choice(builder, choice)
            if piece:
                pieces.append((index, piece))
            if choice.finish_reason:
                ended_indices.append(index)
        event = StreamEvent(
            item,
            pieces=tuple(pieces),
            ended_texts=tuple(ended_indices),
            rewrite=self._rewrite_chunk,
            text_number=item.choices[0].index if len(item.choices) == 1 else None,
        )
        return [event]

    def exchange(self, index: int) -> Exchange:
        return self._make_exchange(self._builders.get(index, ChoiceBuilder()), index, self._first_item)

    def exchange_without_text(self, index: int) -> Exchange:
        builder = replace(self._builders.get(index, ChoiceBuilder()), pieces=GrowingText())
        return self._make_exchange(builder, index, self._first_item)

    @property
    def has_refusal(self) -> bool:
        """Whether any choice has filled its refusal field."""
        return any(builder.refusal for builder in self._builders.values())

    def exchanges(self) -> list[Exchange]:
        return [self.exchange(index) for index in sorted(self._builders)]

    def empty_event(self, delivered: Sequence[Any], received: Any) -> object:
        """Return a chunk that adds an empty text to a choice that has not ended; None if all choices have ended."""
        # The chunks are read backwards, so that the end of a choice is met before its earlier chunks.
        finished_indices: set[object] = set()
        for chunk in chain(reversed(delivered), (received,)):
            for choice in getattr(chunk, "choices", None) or ():
                if getattr(choice, "finish_reason", None) and chunk is not received:
                    finished_indices.add(choice.index)
                elif choice.index not in finished_indices:
                    return _empty_chunk(chunk, choice)
        return None

    def _rewrite_chunk(self, chunk: Any, pieces: Sequence[str], _whole_texts: Mapping[int, str]) -> object:
        """Return a copy of a chunk with new pieces, one for each choice that has text; no chunk has whole texts."""
        remaining_pieces = iter(pieces)
        edited_chunk = chunk.model_copy()
        edited_chunk.choices = [_replace_piece(choice, remaining_pieces) for choice in chunk.choices]
        return edited_chunk


def _replace_piece(choice: Any, remaining_pieces: Iterator[str]) -> Any:
    """Return the choice with the next piece as its text; the same object if it has no text, or this text already."""
    old_piece = choice_text(choice)
    if not old_piece:
        return choice
    new_piece = next(remaining_pieces)
    return choice if new_piece == old_piece else with_choice_text(choice, new_piece)


def _empty_chunk(chunk: Any, choice: Any) -> Any:
    """Return a copy of a chunk with only the fields of all chunks (`_SHARED_FIELDS`) and an empty text for a choice."""
    empty_chunk = chunk.model_copy()
    for name, value in chunk:
        if name not in _SHARED_FIELDS and value is not None:
            setattr(empty_chunk, name, None)
    delta = getattr(choice, "delta", None)
    # The delta has an empty text, because LiteLLM drops a chunk without any field in its delta.
    body = {"text": ""} if delta is None else {"delta": type(delta)(content="")}
    empty_chunk.choices = [type(choice)(index=choice.index, **body)]
    return empty_chunk


def _find_content(choice: Any) -> tuple[str | None, object]:
    """Return the field with the content of a choice (None: the choice itself has a text), and the content or None."""
    fields = fields_by_name(choice, _CHOICE_FIELDS)
    for name in _BODIES:
        body = fields.get(name)
        content = None if body is None else fields_by_name(body, _CONTENT).get("content")
        if content is not None:
            return name, content
    return None, fields.get("text")


def _with_content(body: Any, text: str) -> Any:
    """Return a copy of a message or delta with a new text, without annotations and citations of the old text."""
    edited_body = body.model_copy()
    edited_body.content = text
    if has_content(getattr(edited_body, "annotations", None)):
        edited_body.annotations = None
    provider_fields = getattr(edited_body, "provider_specific_fields", None) or {}
    if has_citations(provider_fields):
        kept_fields = {name: value for name, value in provider_fields.items() if name not in CITATIONS}
        edited_body.provider_specific_fields = kept_fields
    return edited_body


def _refusal(body_fields: Mapping[str, Any]) -> object:
    """The refusal in a message or delta, which LiteLLM stores in the body or among its provider fields; else None."""
    provider_fields = body_fields.get("provider_specific_fields")
    provider_refusal = provider_fields.get("refusal") if isinstance(provider_fields, Mapping) else None
    body_refusal = body_fields.get("refusal")
    return body_refusal if has_content(body_refusal) else provider_refusal
