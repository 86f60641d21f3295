"""Wire format of /v1/responses: between `ResponsesAPIResponse` / its stream events and exchanges.

Each text part of an output message is an answer by itself; it is judged against the conversation of the request alone
(what `previous_response_id` stands for is not visible here). A stream tells a part several times: in deltas, when the
text, the part and the item are done, and in the last event. One walk reads all of these places and the same walk writes
them, so they always agree; where they disagree from the start, nothing is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from litellm.types.llms.openai import ResponsesAPIResponse

from aligner_proxy.formats import base
from aligner_proxy.formats.base import (
    ChoiceBuilder,
    GrowingText,
    RequestedForm,
    StreamEvent,
    corrected_texts,
    has_citations,
    has_content,
)
from aligner_proxy.types import Exchange, Outcome, Turn

DELTA = "response.output_text.delta"
TEXT_DONE = "response.output_text.done"
PART_DONE = "response.content_part.done"
ITEM_DONE = "response.output_item.done"
PART = ("response.content_part.added", PART_DONE)
ITEM = ("response.output_item.added", ITEM_DONE)
TERMINAL = ("response.completed", "response.incomplete", "response.failed")

Where = tuple[int, int]
"""Output index and content index."""
Edit = Callable[[Where, str, bool], str]
"""Given where a text stands, the text, and whether it is a piece; returns the text that is to stand there."""
_REFUSAL = ("response.refusal.delta", "response.refusal.done")
_ANNOTATION = "response.output_text.annotation.added"
_ERROR = "error"
_DONE = (TEXT_DONE, PART_DONE, ITEM_DONE)
# Calls that the client has to carry out, and items beside which a message is still an answer to the user. Any other
# item may be read together with the text.
_CALLS = {
    "function_call",
    "custom_tool_call",
    "computer_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "mcp_approval_request",
}
_BESIDE = {
    "reasoning",
    "compaction",
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "mcp_call",
    "mcp_list_tools",
}


def walk(event: object, edit: Edit) -> object:
    """The event with `edit` applied to each place that holds a text; the same object if nothing changed."""
    kind = kind_of(event)
    where = (_number(get(event, "output_index")), _number(get(event, "content_index")))
    if kind in (DELTA, TEXT_DONE):
        name = "delta" if kind == DELTA else "text"
        text = get(event, name)
        return _replace_text(event, name, edit(where, text, kind == DELTA)) if isinstance(text, str) else event
    if kind in PART:
        return put(event, "part", _walk_part(get(event, "part"), where, edit))
    if kind in ITEM:
        return put(event, "item", _walk_message(get(event, "item"), where[0], edit))
    return event


def walk_response(response: object, edit: Edit) -> object:
    """The response with `edit` applied to each of its texts; the same object if nothing changed."""
    items = as_list(get(response, "output"))
    edited = [_walk_message(item, number, edit) for number, item in enumerate(items)]
    return response if _same(edited, items) else put(response, "output", edited)


def _walk_message(item: object, index: int, edit: Edit) -> object:
    if get(item, "type") != "message":
        return item
    content = get(item, "content")
    if isinstance(content, str):  # some upstreams give the text in place of its parts
        return _replace_text(item, "content", edit((index, 0), content, False))
    parts = as_list(content)
    edited = [_walk_part(part, (index, number), edit) for number, part in enumerate(parts)]
    return item if _same(edited, parts) else put(item, "content", edited)


def _walk_part(part: object, where: Where, edit: Edit) -> object:
    text = get(part, "text")
    is_text = get(part, "type") == "output_text" and isinstance(text, str)
    return _replace_text(part, "text", edit(where, text, False)) if is_text else part


def _replace_text(thing: Any, name: str, text: str) -> Any:
    """A copy with another text, without what describes the old one; the same object if nothing changed."""
    if get(thing, name) == text:
        return thing
    for pointers in ("annotations", "logprobs"):
        if has_content(get(thing, pointers)):
            thing = put(thing, pointers, [])
    return put(thing, name, text)


def _same(edited: list[Any], original: list[Any]) -> bool:
    return all(new is old for new, old in zip(edited, original, strict=True))


def as_list(value: object) -> list[Any]:
    """A list, or what is none as an empty one."""
    return value if isinstance(value, list) else []


def _number(value: object) -> int:
    """An index of an event; some upstreams leave it out."""
    return value if isinstance(value, int) else -1


def kind_of(event: object) -> str:
    """The type of an event or item, enum or text."""
    kind = get(event, "type")
    return str(getattr(kind, "value", kind) or "")


def get(thing: object, name: str) -> Any:
    """LiteLLM's types, the OpenAI client's types and plain dicts stand side by side in one response."""
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)


def put(thing: Any, name: str, value: object) -> Any:
    """A copy with another value in it; the same object if it is the same value."""
    old = get(thing, name)
    if old is value or (isinstance(value, str) and old == value):
        return thing
    return {**thing, name: value} if isinstance(thing, dict) else thing.model_copy(update={name: value})


def exchanges(data: Mapping[str, Any], response: object) -> list[Exchange]:
    """One exchange per text part that is not empty, numbered in the order of the output."""
    if not isinstance(response, ResponsesAPIResponse):
        return []
    builder = ChoiceBuilder()
    _absorb_response(builder, response)
    texts = (text for _, text in _texts(response))
    return builder.exchanges(data, dict(enumerate(texts)), _turns(data), response)


def apply(response: Any, outcomes: Sequence[Outcome]) -> Any:
    """The same response if nothing is corrected, else a copy with new texts in it."""
    return _replace_texts(response, corrected_texts(outcomes), count())


@dataclass(slots=True)
class _OutputPart:
    """One text part of a stream: the pieces it came in, and the texts that were given as the whole of it."""

    pieces: GrowingText = field(default_factory=GrowingText)
    whole: str | None = None
    """The first text that was given as the whole of it."""
    agrees: bool = True
    """Whether the others are the same as the first."""

    def repeat(self, whole: str) -> bool:
        """A text is given as the whole of it; whether its pieces say the same so far."""
        if self.whole is None:
            self.whole = whole
        self.agrees &= whole == self.whole
        return self.agrees and whole == str(self.pieces)

    @property
    def text(self) -> str:
        """The text as far as it has come."""
        return str(self.pieces) if self.pieces else self.whole or ""


class ResponsesDecoder:
    """Decoder of one stream of typed events; parts are numbered as they are first given a text."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._turns = _turns(data)
        self._builder = ChoiceBuilder()
        self._numbers: dict[Where, int] = {}
        self._parts: list[_OutputPart] = []
        self._response: list[str] | None = None
        """The texts of the first event that holds a whole response with texts."""
        self._form = RequestedForm.from_request(data)
        self._unplaced = False
        """Some event does not say which part it is about: a part could not be followed from event to event."""
        self._disagrees = False
        """A text was given as the whole of one whose pieces do not say the same so far."""
        self._has_events = False
        self._is_complete = False

    def feed(self, item: object) -> list[StreamEvent]:
        """The item: every one is an event."""
        kind = kind_of(item)
        self._has_events |= bool(kind)
        self._is_complete |= kind in TERMINAL
        _absorb_event(self._builder, item)
        pieces: list[tuple[int, str]] = []
        wholes: list[int] = []

        def note(where: Where, text: str, piece: bool) -> str:
            if text and piece:
                pieces.append((self._number(where), text))
                self._parts[pieces[-1][0]].pieces.append(text)
            elif text:
                wholes.append(self._number(where))
                self._disagrees |= not self._parts[wholes[-1]].repeat(text)
            return text

        walk(item, note)
        ends = wholes if kind in _DONE else []
        if self._holds_response(item) or kind in TERMINAL:
            wholes = list(self._numbers.values())
            ends = wholes if kind in TERMINAL else []
        return [StreamEvent(item, tuple(pieces), tuple(wholes), tuple(ends), self._rewrite_event)]

    def flush(self) -> list[StreamEvent]:
        """Nothing: events come whole."""
        return []

    def exchange(self, index: int) -> Exchange:
        """A part as far as it has come in pieces."""
        return self._exchange(index, self._parts[index].pieces if self._parts else GrowingText())

    def facts(self, index: int) -> Exchange:
        """A part without its text."""
        return self._exchange(index, GrowingText())

    def _exchange(self, index: int, pieces: GrowingText) -> Exchange:
        inconsistent = self._builder.inconsistent or self._unplaced
        builder = replace(self._builder, pieces=pieces, inconsistent=inconsistent)
        return builder.exchange(self._data, index, self._turns, None, self._form)

    @property
    def refusing(self) -> bool:
        """Whether the upstream says something in a field for refusals."""
        return self._builder.refusal

    @property
    def disagrees(self) -> bool:
        """Whether events contradict one another, as far as they have come."""
        return self._disagrees or self._unplaced or self._builder.inconsistent

    def exchanges(self) -> list[Exchange]:
        """Every part in the order of the output; a stream without its last event did not come to an end."""
        if not self._has_events:
            return []
        texts = {number: self._parts[number].text for number in self._order()}
        parts = [self._parts[number] for number in texts]
        agree = all(part.agrees and part.whole in (None, part.text) for part in parts)
        agree &= self._response in (None, list(texts.values()))
        builder = replace(
            self._builder,
            finish_reason=self._builder.finish_reason if self._is_complete else "error",
            inconsistent=self._builder.inconsistent or not agree,
        )
        return builder.exchanges(self._data, texts, self._turns, None)

    def _number(self, where: Where) -> int:
        if where not in self._numbers:
            self._unplaced |= min(where) < 0
            self._numbers[where] = len(self._numbers)
            self._parts.append(_OutputPart())
        return self._numbers[where]

    def _order(self) -> list[int]:
        """The numbers of the parts that have a text, in the order of the output."""
        return [number for _, number in sorted(self._numbers.items()) if self._parts[number].text]

    def _holds_response(self, event: object) -> bool:
        """Whether the event holds a response with texts: they stand for the parts, whatever their numbers are there."""
        texts = _texts(get(event, "response"))
        for where, _ in texts:
            self._number(where)
        if texts:
            whole = [text for _, text in texts]
            self._response = self._response or whole
            self._builder.inconsistent |= whole != self._response
            self._disagrees |= whole != [str(self._parts[number].pieces) for number in self._order()]
        return bool(texts)

    def _rewrite_event(self, event: object, pieces: Sequence[str], wholes: Mapping[int, str]) -> object:
        texts = iter(pieces)

        def edit(where: Where, text: str, piece: bool) -> str:
            if not text:
                return text
            return next(texts) if piece else wholes.get(self._numbers[where], text)

        edited = walk(event, edit)
        response = get(event, "response")
        return edited if response is None else put(edited, "response", _replace_texts(response, wholes, self._order()))


decoder = ResponsesDecoder


def _texts(response: object) -> list[tuple[Where, str]]:
    """Every text of a response that is not empty, in order, and where it stands."""
    texts: list[tuple[Where, str]] = []

    def note(where: Where, text: str, _: bool) -> str:
        if text:
            texts.append((where, text))
        return text

    walk_response(response, note)
    return texts


def _replace_texts(response: object, texts: Mapping[int, str], numbers: Iterable[int]) -> object:
    """The response with other texts in it; `numbers` are those of its texts in order."""
    rest = iter(numbers)

    def edit(_where: Where, text: str, _: bool) -> str:
        return texts.get(next(rest, -1), text) if text else text

    return walk_response(response, edit) if texts else response


def _turns(data: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The conversation as far as this request holds it. Items without a role are calls, their outputs and reasoning."""
    items = data.get("input")
    messages = [{"role": "user", "content": items}] if isinstance(items, str) else items
    with_role = [message for message in messages if get(message, "role")] if isinstance(messages, list) else []
    return base.system_turn(data.get("instructions")) + base.turns(with_role)


def _absorb_response(builder: ChoiceBuilder, response: object) -> None:
    status = get(response, "status")
    details = get(get(response, "incomplete_details"), "reason")
    reason = details if status == "incomplete" and details else status
    builder.finish_reason = str(reason) if reason else None
    builder.annotations |= has_citations(get(response, "provider_specific_fields"))
    # A second copy of the text on the wire, which we do not know; LiteLLM's type also has a property of this name.
    fields = response if isinstance(response, dict) else getattr(response, "model_extra", None)
    builder.inconsistent |= has_content((fields or {}).get("output_text"))
    for item in as_list(get(response, "output")):
        _absorb_item(builder, item)


def _absorb_event(builder: ChoiceBuilder, event: object) -> None:
    kind = kind_of(event)
    if kind in TERMINAL:
        _absorb_response(builder, get(event, "response"))
    elif kind in ITEM:
        _absorb_item(builder, get(event, "item"))
    elif kind in PART:
        _absorb_part(builder, get(event, "part"))
    elif kind == _ERROR:
        builder.finish_reason = "error"
    if kind in _REFUSAL:
        piece = kind == _REFUSAL[0]
        builder.decline(get(event, "delta" if piece else "refusal"), piece=piece)
    builder.annotations |= kind == _ANNOTATION
    builder.logprobs |= kind in (DELTA, TEXT_DONE) and has_content(get(event, "logprobs"))


def _absorb_item(builder: ChoiceBuilder, item: object) -> None:
    kind = kind_of(item)
    if kind == "message":
        for part in as_list(get(item, "content")):
            _absorb_part(builder, part)
    elif kind in _CALLS:
        builder.tool_calls = True
    elif kind not in _BESIDE:
        builder.non_text = True


def _absorb_part(builder: ChoiceBuilder, part: object) -> None:
    kind = get(part, "type")
    if kind == "output_text":
        builder.annotations |= has_content(get(part, "annotations"))
        builder.logprobs |= has_content(get(part, "logprobs"))
    elif kind == "refusal":
        builder.refusal = True
        builder.decline(get(part, "refusal"), piece=False)
    elif kind != "reasoning_text":
        builder.non_text = True
