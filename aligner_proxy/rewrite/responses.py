"""/v1/responses: between `ResponsesAPIResponse` / its stream events and exchanges.

Each text part of an output message is an answer by itself; it is judged against the conversation of the request alone
(what `previous_response_id` stands for is not visible here). A stream tells a part several times: in deltas, when the
text, the part and the item are done, and in the last event. One walk reads all of these places and the same walk writes
them (`response_walk.py`), so they always agree; where they disagree from the start, nothing is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

from litellm.types.llms.openai import ResponsesAPIResponse

from aligner_proxy.rewrite import request
from aligner_proxy.rewrite.choice import Reading, Speech, carries, cites, corrected, per_part, spread
from aligner_proxy.rewrite.response_walk import (
    DELTA,
    ITEM,
    PART,
    TERMINAL,
    TEXT_DONE,
    Say,
    Where,
    as_list,
    get,
    kind_of,
    put,
    walk,
    walk_response,
)
from aligner_proxy.rewrite.telling import Told
from aligner_proxy.types import Exchange, Outcome, Turn

_REFUSAL = ("response.refusal.delta", "response.refusal.done")
_ANNOTATION, _ERROR = "response.output_text.annotation.added", "error"
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
    """One exchange per text part that says something, numbered in the order of the output."""
    if not isinstance(response, ResponsesAPIResponse):
        return []
    reading = Reading()
    _absorb_response(reading, response)
    return per_part(reading, _texts(response), data, _turns(data), response)


def apply(response: Any, outcomes: Sequence[Outcome]) -> Any:
    """The same response if nothing is corrected, else a copy with new texts in it."""
    return _with_texts(response, corrected(outcomes))


def stream_exchanges(data: Mapping[str, Any], items: Sequence[object]) -> list[Exchange]:
    """The same from all events of a stream; one without its last event did not come to an end."""
    if not any(kind_of(item) for item in items):
        return []
    told, reading = _told(items), Reading(finish_reason="error")
    for item in items:
        _absorb_event(reading, item)
    texts = [part.text for part in told.values()]
    reading.inconsistent |= not all(part.agrees for part in told.values())
    reading.inconsistent |= any(_texts(get(item, "response")) not in ([], texts) for item in items)
    return per_part(reading, texts, data, _turns(data), None)


def opening(data: Mapping[str, Any], index: int) -> Exchange:
    """What is known of a part before the upstream has said anything."""
    return Reading().exchange(data, index, _turns(data), None)


def speech() -> Speech:
    """A listener for one stream; parts are numbered as they begin to speak."""
    numbers: dict[Where, int] = {}

    def hear(event: object) -> list[tuple[int, str]]:
        said: list[tuple[int, str]] = []

        def note(where: Where, text: str, piece: bool) -> str:
            if piece and text:
                said.append((numbers.setdefault(where, len(numbers)), text))
            return text

        walk(event, note)
        return said

    return hear


class _Telling:
    """Typed events one by one; parts are numbered as they begin to speak, which has to be the order of the output."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data, self._reading = data, Reading()
        self._numbers: dict[Where, int] = {}
        self._texts: list[list[str]] = []

    def take(self, event: object) -> list[Told]:
        """Every item is one event."""
        _absorb_event(self._reading, event)
        pieces, wholes = list[tuple[int, str]](), list[int]()

        def note(where: Where, text: str, piece: bool) -> str:
            if piece and text:
                pieces.append((self._number(where), text))
                self._texts[pieces[-1][0]].append(text)
            elif text and where in self._numbers:
                wholes.append(self._numbers[where])
            return text

        walk(event, note)
        if kind_of(event) in TERMINAL:
            wholes = list(self._numbers.values())
        return [Told(event, tuple(pieces), tuple(wholes), tuple(wholes), partial(self._said, event))]

    def flush(self) -> list[Told]:
        return []  # events come whole

    def exchange(self, index: int) -> Exchange:
        """A part as far as it has been told."""
        return replace(self._reading, pieces=self._texts[index] if self._texts else []).exchange(
            self._data, index, _turns(self._data), None
        )

    def _number(self, where: Where) -> int:
        if where not in self._numbers:
            self._reading.inconsistent |= min(where) < 0 or any(where < other for other in self._numbers)
            self._numbers[where] = len(self._numbers)
            self._texts.append([])
        return self._numbers[where]

    def _said(self, event: object, pieces: Sequence[str], wholes: Mapping[int, str]) -> object:
        texts = iter(pieces)

        def say(where: Where, text: str, piece: bool) -> str:
            if piece:
                return next(texts) if text else text
            return wholes.get(self._numbers.get(where, -1), text) if text else text

        return _replayed(event, say, wholes)


telling = _Telling


def stream_apply(items: Sequence[object], outcomes: Sequence[Outcome]) -> list[object]:
    """The new texts in every event that told the old ones; every other item is the same object."""
    texts = corrected(outcomes)
    if not texts:
        return list(items)
    told = _told(items)
    whole = {where: texts[index] for index, where in enumerate(told) if index in texts}
    pieces = {where: iter(spread(text, [len(p) for p in told[where].pieces])) for where, text in whole.items()}

    def say(where: Where, text: str, piece: bool) -> str:
        if where not in whole or not (piece or text):
            return text
        return next(pieces[where]) if piece else whole[where]

    return [_replayed(item, say, texts) for item in items]


def _replayed(item: object, say: Say, texts: Mapping[int, str]) -> object:
    response = get(item, "response")
    return put(item, "response", _with_texts(response, texts)) if response is not None else walk(item, say)


@dataclass(slots=True)
class _Told:
    """One text part of a stream: the pieces it came in, and what was said to be the whole of it."""

    pieces: list[str] = field(default_factory=list)
    wholes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces) if self.pieces else next(iter(self.wholes), "")

    @property
    def agrees(self) -> bool:
        return all(whole == self.text for whole in self.wholes)


def _told(items: Sequence[object]) -> dict[Where, _Told]:
    """The parts that say something, in the order of the output. An empty whole is a part that only begins."""
    found: dict[Where, _Told] = {}

    def note(where: Where, text: str, piece: bool) -> str:
        part = found.setdefault(where, _Told())
        if piece:
            part.pieces.append(text)
        elif text:
            part.wholes.append(text)
        return text

    for item in items:
        walk(item, note)
    return {where: found[where] for where in sorted(found) if found[where].text}


def _texts(response: object) -> list[str]:
    """Every text of a response that says something, in order."""
    found: list[str] = []

    def note(where: Where, text: str, piece: bool) -> str:
        if text:
            found.append(text)
        return text

    walk_response(response, note)
    return found


def _with_texts(response: object, texts: Mapping[int, str]) -> object:
    numbers = count()

    def say(where: Where, text: str, piece: bool) -> str:
        return texts.get(next(numbers), text) if text else text

    return walk_response(response, say) if texts else response


def _turns(data: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The conversation as far as this request tells it. Items without a role are calls, their outputs and reasoning."""
    said = data.get("input")
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
    spoken = [m for m in messages if get(m, "role")] if isinstance(messages, list) else []
    return request.system(data.get("instructions")) + request.turns(spoken)


def _absorb_response(reading: Reading, response: object) -> None:
    status, reason = get(response, "status"), get(get(response, "incomplete_details"), "reason")
    why = reason if status == "incomplete" and reason else status
    reading.finish_reason = str(why) if why else None
    reading.annotations |= cites(get(response, "provider_specific_fields"))
    # A second copy of the text on the wire, which we do not know; LiteLLM's type also has a property of this name.
    told_by_upstream = response if isinstance(response, dict) else getattr(response, "model_extra", None)
    reading.inconsistent |= carries((told_by_upstream or {}).get("output_text"))
    for item in as_list(get(response, "output")):
        _absorb_item(reading, item)


def _absorb_event(reading: Reading, event: object) -> None:
    kind = kind_of(event)
    if kind in TERMINAL:
        _absorb_response(reading, get(event, "response"))
    elif kind in ITEM:
        _absorb_item(reading, get(event, "item"))
    elif kind in PART:
        _absorb_part(reading, get(event, "part"))
    elif kind == _ERROR:
        reading.finish_reason = "error"
    reading.refusal |= kind in _REFUSAL
    reading.annotations |= kind == _ANNOTATION
    reading.logprobs |= kind in (DELTA, TEXT_DONE) and carries(get(event, "logprobs"))


def _absorb_item(reading: Reading, item: object) -> None:
    kind = kind_of(item)
    if kind == "message":
        for part in as_list(get(item, "content")):
            _absorb_part(reading, part)
    elif kind in _CALLS:
        reading.tool_calls = True
    elif kind not in _BESIDE:
        reading.non_text = True


def _absorb_part(reading: Reading, part: object) -> None:
    kind = get(part, "type")
    if kind == "output_text":
        reading.annotations |= carries(get(part, "annotations"))
        reading.logprobs |= carries(get(part, "logprobs"))
    elif kind == "refusal":
        reading.refusal = True
    elif kind != "reasoning_text":
        reading.non_text = True
