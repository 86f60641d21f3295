"""/v1/responses: between `ResponsesAPIResponse` / its stream events and exchanges.

Each text part of an output message is an answer by itself; it is judged against the conversation of the request alone
(what `previous_response_id` stands for is not visible here). A stream holds a part several times: in deltas, when the
text, the part and the item are done, and in the last event. One walk reads all of these places and the same walk writes
them (`response_walk.py`), so they always agree; where they disagree from the start, nothing is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

from litellm.types.llms.openai import ResponsesAPIResponse

from aligner_proxy.rewrite import request
from aligner_proxy.rewrite.choice import ChoiceBuilder, carries, cites, corrected
from aligner_proxy.rewrite.response_walk import (
    DELTA,
    ITEM,
    ITEM_DONE,
    PART,
    PART_DONE,
    TERMINAL,
    TEXT_DONE,
    Where,
    as_list,
    get,
    kind_of,
    put,
    walk,
    walk_response,
)
from aligner_proxy.rewrite.telling import StreamEvent
from aligner_proxy.types import Exchange, Outcome, Turn

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
    return _with_texts(response, corrected(outcomes), count())


@dataclass(slots=True)
class _Part:
    """One text part of a stream: the pieces it came in, and the texts that were given as the whole of it."""

    pieces: list[str] = field(default_factory=list)
    wholes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces) if self.pieces else next(iter(self.wholes), "")

    @property
    def agrees(self) -> bool:
        text = self.text
        return all(whole == text for whole in self.wholes)


class Decoder:
    """Decoder of one stream of typed events; parts are numbered as they are first given a text."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._turns = _turns(data)
        self._builder = ChoiceBuilder()
        self._numbers: dict[Where, int] = {}
        self._parts: list[_Part] = []
        self._responses: list[list[str]] = []
        """The texts of every event that holds a whole response with texts."""
        self._unplaced = False
        """Some event does not say which part it is about: a part could not be followed from event to event."""
        self._began = False
        self._ended = False

    def feed(self, item: object) -> list[StreamEvent]:
        """The item: every one is an event."""
        kind = kind_of(item)
        self._began |= bool(kind)
        self._ended |= kind in TERMINAL
        _absorb_event(self._builder, item)
        pieces: list[tuple[int, str]] = []
        wholes: list[int] = []

        def note(where: Where, text: str, piece: bool) -> str:
            if text and piece:
                pieces.append((self._number(where), text))
                self._parts[pieces[-1][0]].pieces.append(text)
            elif text:
                wholes.append(self._number(where))
                self._parts[wholes[-1]].wholes.append(text)
            return text

        walk(item, note)
        ends = wholes if kind in _DONE else []
        if self._holds_response(item) or kind in TERMINAL:
            wholes = list(self._numbers.values())
            ends = wholes if kind in TERMINAL else []
        return [StreamEvent(item, pieces, wholes, ends, partial(self._rewritten, item))]

    def flush(self) -> list[StreamEvent]:
        """Nothing: events come whole."""
        return []

    def exchange(self, index: int) -> Exchange:
        """A part as far as it has come in pieces."""
        pieces = self._parts[index].pieces if self._parts else []
        inconsistent = self._builder.inconsistent or self._unplaced
        builder = replace(self._builder, pieces=pieces, inconsistent=inconsistent)
        return builder.exchange(self._data, index, self._turns, None)

    def exchanges(self) -> list[Exchange]:
        """Every part in the order of the output; a stream without its last event did not come to an end."""
        if not self._began:
            return []
        texts = {number: self._parts[number].text for number in self._order()}
        agree = all(self._parts[number].agrees for number in texts)
        agree &= all(response == list(texts.values()) for response in self._responses)
        builder = replace(
            self._builder,
            finish_reason=self._builder.finish_reason if self._ended else "error",
            inconsistent=self._builder.inconsistent or not agree,
        )
        return builder.exchanges(self._data, texts, self._turns, None)

    def _number(self, where: Where) -> int:
        if where not in self._numbers:
            self._unplaced |= min(where) < 0
            self._numbers[where] = len(self._numbers)
            self._parts.append(_Part())
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
            self._responses.append([text for _, text in texts])
        return bool(texts)

    def _rewritten(self, event: object, pieces: Sequence[str], wholes: Mapping[int, str]) -> object:
        texts = iter(pieces)

        def edit(where: Where, text: str, piece: bool) -> str:
            if not text:
                return text
            return next(texts) if piece else wholes.get(self._numbers[where], text)

        edited = walk(event, edit)
        response = get(event, "response")
        return edited if response is None else put(edited, "response", _with_texts(response, wholes, self._order()))


decoder = Decoder


def _texts(response: object) -> list[tuple[Where, str]]:
    """Every text of a response that is not empty, in order, and where it stands."""
    texts: list[tuple[Where, str]] = []

    def note(where: Where, text: str, _: bool) -> str:
        if text:
            texts.append((where, text))
        return text

    walk_response(response, note)
    return texts


def _with_texts(response: object, texts: Mapping[int, str], numbers: Iterable[int]) -> object:
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
    return request.system(data.get("instructions")) + request.turns(with_role)


def _absorb_response(builder: ChoiceBuilder, response: object) -> None:
    status = get(response, "status")
    details = get(get(response, "incomplete_details"), "reason")
    reason = details if status == "incomplete" and details else status
    builder.finish_reason = str(reason) if reason else None
    builder.annotations |= cites(get(response, "provider_specific_fields"))
    # A second copy of the text on the wire, which we do not know; LiteLLM's type also has a property of this name.
    fields = response if isinstance(response, dict) else getattr(response, "model_extra", None)
    builder.inconsistent |= carries((fields or {}).get("output_text"))
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
    builder.refusal |= kind in _REFUSAL
    builder.annotations |= kind == _ANNOTATION
    builder.logprobs |= kind in (DELTA, TEXT_DONE) and carries(get(event, "logprobs"))


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
        builder.annotations |= carries(get(part, "annotations"))
        builder.logprobs |= carries(get(part, "logprobs"))
    elif kind == "refusal":
        builder.refusal = True
    elif kind != "reasoning_text":
        builder.non_text = True
