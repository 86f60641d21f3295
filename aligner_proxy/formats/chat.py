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
    StreamEvent,
    corrected_texts,
    fields_by_name,
    has_citations,
    has_content,
    list_unusual_fields,
)
from aligner_proxy.formats.foreign_items import raise_if_answer
from aligner_proxy.formats.reasoning import FIELDS as REASONING_FIELDS
from aligner_proxy.formats.side_text import USUAL_FIELDS
from aligner_proxy.types import Exchange, Outcome

_BODIES = ("message", "delta")
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
    """One exchange per choice, numbered by position (some upstreams number all choices 0)."""
    turns = base.read_turns(data.get("messages"))
    form = RequestedForm.from_request(data)
    return [
        builder.make_exchange(data, index, turns, response, form)
        for index, builder in enumerate(build_choices(response))
    ]


def apply(response: Any, outcomes: Sequence[Outcome]) -> Any:
    """A copy of the response with the corrected texts, or the same response if there are none."""
    texts = corrected_texts(outcomes)
    if not texts:
        return response
    edited = response.model_copy()
    edited.choices = [
        with_choice_text(choice, texts[index]) if index in texts else choice
        for index, choice in enumerate(response.choices)
    ]
    return edited


def decoder(data: Mapping[str, Any]) -> ChunkDecoder:
    """A decoder for one stream of chunks."""
    turns = base.read_turns(data.get("messages"))
    form = RequestedForm.from_request(data)
    return ChunkDecoder(lambda builder, index, first: builder.make_exchange(data, index, turns, first, form))


def opens_answer(chunk: Any) -> bool:
    """Whether the deltas of a chunk hold only roles and reasoning."""
    return choices_of(chunk) is not None and all(map(_opens_choice, chunk.choices))


def _opens_choice(choice: Any) -> bool:
    """Whether a choice of a chunk has nothing but a delta with a role or reasoning."""
    delta = _filled_fields(getattr(choice, "delta", None) or ())
    fields = delta.get("provider_specific_fields", {})
    return (
        _filled_fields(choice).keys() <= {"index", "delta"}
        and delta.keys() <= _OPENING_FIELDS
        and fields.keys() <= set(REASONING_FIELDS)
    )


def _filled_fields(model: Any) -> dict[str, Any]:
    return {name: value for name, value in model if has_content(value)}


def choices_of(response: object) -> Any:
    """The `choices` of a response or chunk, of whatever type; None if it has none."""
    return getattr(response, "choices", None)


def choice_text(choice: Any) -> str:
    """The text of a choice, or the piece that a delta adds."""
    _, content = _find_content(choice)
    return content if isinstance(content, str) else ""


def with_choice_text(choice: Any, text: str) -> Any:
    """A copy of the choice with a new text, without fields that describe or point into the old one."""
    name, _ = _find_content(choice)
    edited = choice.model_copy()
    if name is None:
        edited.text = text
    else:
        setattr(edited, name, _with_content(getattr(choice, name), text))
    # token probabilities describe the old text
    if has_content(getattr(edited, "logprobs", None)):
        edited.logprobs = None
    return edited


def build_choices(response: Any) -> Iterator[ChoiceBuilder]:
    """Yield a builder for each choice of a whole response."""
    choices = choices_of(response)
    if choices is None:
        raise_if_answer(response)
    fields = list_unusual_fields(response)
    for choice in choices or ():
        builder = ChoiceBuilder()
        builder.note_unusual_fields(fields)
        read_choice(builder, choice)
        yield builder


def read_choice(builder: ChoiceBuilder, choice: Any) -> str:
    """Add a choice, or a delta of one, to a builder; return its text, or the piece that a delta adds."""
    fields = fields_by_name(choice, _CHOICE_FIELDS)
    message = fields.get("message")
    body = fields.get("delta") if message is None else message
    body_fields = fields_by_name(body, _BODY_FIELDS)
    content = body_fields.get("content")
    if content is None:
        _, content = _find_content(choice)
    if isinstance(content, str):
        builder.pieces.append(content)
    # parts of any kind in place of a text
    elif content is not None:
        builder.non_text = True
    builder.finish_reason = fields.get("finish_reason") or builder.finish_reason
    builder.tool_calls |= has_content(body_fields.get("tool_calls")) or has_content(body_fields.get("function_call"))
    # without a message the choice has a delta, which brings only a piece of the refusal
    builder.add_refusal(_refusal(body_fields), piece=message is None)
    builder.non_text |= has_content(body_fields.get("audio")) or has_content(body_fields.get("images"))
    builder.note_unusual_fields(list_unusual_fields(body, _USUAL))
    builder.note_unusual_fields(list_unusual_fields(choice, _USUAL))
    builder.annotations |= has_citations(body_fields.get("provider_specific_fields"))
    builder.logprobs |= has_content(fields.get("logprobs"))
    return content if isinstance(content, str) else ""


class ChunkDecoder:
    """Decoder of chunks with choices, the stream format of chat and text completions.

    `exchange` makes an exchange of a builder, its index and the first item of the stream, with which LiteLLM stores the
    upstream's headers.
    """

    is_one_answer = False

    def __init__(self, exchange: Callable[[ChoiceBuilder, int, object], Exchange]) -> None:
        self._exchange = exchange
        self._builders: defaultdict[int, ChoiceBuilder] = defaultdict(ChoiceBuilder)
        """By index of the choice."""
        self._first: object = None
        """The first item of the stream; None before it has come."""

    def feed(self, item: Any) -> list[StreamEvent]:
        """The item as one event."""
        if self._first is None:
            self._first = item
        if choices_of(item) is None:
            raise_if_answer(item)
            return [StreamEvent(item)]
        pieces: list[tuple[int, str]] = []
        ended_indices: list[int] = []
        fields = list_unusual_fields(item)
        for choice in item.choices:
            index = choice.index
            builder = self._builders[index]
            builder.note_unusual_fields(fields)
            if text := read_choice(builder, choice):
                pieces.append((index, text))
            if choice.finish_reason:
                ended_indices.append(index)
        number = item.choices[0].index if len(item.choices) == 1 else None
        event = StreamEvent(item, tuple(pieces), (), tuple(ended_indices), self._rewrite_chunk, text_number=number)
        return [event]

    def flush(self) -> list[StreamEvent]:
        """Nothing, since chunks arrive whole."""
        return []

    def exchange(self, index: int) -> Exchange:
        return self._exchange(self._builders.get(index, ChoiceBuilder()), index, self._first)

    def exchange_without_text(self, index: int) -> Exchange:
        """A choice without its text."""
        builder = replace(self._builders.get(index, ChoiceBuilder()), pieces=GrowingText())
        return self._exchange(builder, index, self._first)

    @property
    def has_refusal(self) -> bool:
        """Whether any choice has filled its refusal field."""
        return any(builder.refusal for builder in self._builders.values())

    @property
    def contradicts_itself(self) -> bool:
        """Always false, since no chunk repeats the text of another."""
        return False

    def exchanges(self) -> list[Exchange]:
        return [self.exchange(index) for index in sorted(self._builders)]

    def beginning(self) -> object:
        """None, since a failure needs no chunk before it."""
        return None

    def empty_event(self, delivered: Sequence[Any], received: Any) -> object:
        """A chunk that adds an empty text to a choice that has not ended; None without such a choice."""
        # from the last chunk back, so that the end of a choice is met before its earlier chunks
        finished_indices: set[object] = set()
        for chunk in chain(reversed(delivered), (received,)):
            for choice in getattr(chunk, "choices", None) or ():
                if getattr(choice, "finish_reason", None) and chunk is not received:
                    finished_indices.add(choice.index)
                elif choice.index not in finished_indices:
                    return _empty_chunk(chunk, choice)
        return None

    def _rewrite_chunk(self, chunk: Any, pieces: Sequence[str], _whole_texts: Mapping[int, str]) -> object:
        """A copy of a chunk with new pieces, one for each choice that has text."""
        remaining_pieces = iter(pieces)
        copy = chunk.model_copy()
        copy.choices = [_replace_piece(choice, remaining_pieces) for choice in chunk.choices]
        return copy


def _replace_piece(choice: Any, remaining_pieces: Iterator[str]) -> Any:
    """The choice with the next piece as its text; the same object if it has no text, or already this one."""
    old = choice_text(choice)
    new = next(remaining_pieces) if old else old
    return choice if new == old else with_choice_text(choice, new)


def _empty_chunk(chunk: Any, choice: Any) -> Any:
    """A copy of a chunk with only the fields of all chunks (`_SHARED_FIELDS`) and an empty text of this choice."""
    copy = chunk.model_copy()
    for name, value in chunk:
        if name not in _SHARED_FIELDS and value is not None:
            setattr(copy, name, None)
    delta = getattr(choice, "delta", None)
    # LiteLLM drops a chunk without any field in its delta
    body = {"text": ""} if delta is None else {"delta": type(delta)(content="")}
    copy.choices = [type(choice)(index=choice.index, **body)]
    return copy


def _find_content(choice: Any) -> tuple[str | None, object]:
    """The content of a choice (a text, parts of any kind, or None) and the field whose object holds it.

    That is None if the choice holds the text itself.
    """
    fields = fields_by_name(choice, _CHOICE_FIELDS)
    for name in _BODIES:
        body = fields.get(name)
        content = None if body is None else fields_by_name(body, _CONTENT).get("content")
        if content is not None:
            return name, content
    return None, fields.get("text")


def _with_content(body: Any, text: str) -> Any:
    """A copy of a message or delta with a new text, without annotations and citations of the old one."""
    copy = body.model_copy()
    copy.content = text
    if has_content(getattr(copy, "annotations", None)):
        copy.annotations = None
    fields = getattr(copy, "provider_specific_fields", None) or {}
    if has_citations(fields):
        copy.provider_specific_fields = {name: value for name, value in fields.items() if name not in CITATIONS}
    return copy


def _refusal(body_fields: Mapping[str, Any]) -> object:
    """The refusal field, which LiteLLM stores as an attribute of the body or among the provider fields."""
    fields = body_fields.get("provider_specific_fields")
    provider_refusal = fields.get("refusal") if isinstance(fields, Mapping) else None
    body_refusal = body_fields.get("refusal")
    return body_refusal if has_content(body_refusal) else provider_refusal
