"""/v1/completions: between `TextCompletionResponse` (whole and streamed) and exchanges.

The prompt is the one user turn. Prompts made of token ids, `echo` (the text begins with the prompt) and `suffix` (the
text must join onto what follows) are no question with an answer, so they count as non-text and are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from litellm.types.utils import TextCompletionResponse

from aligner_proxy.rewrite.choice import Reading, Speech, carries, corrected, spread
from aligner_proxy.rewrite.telling import ChunkTelling, Telling
from aligner_proxy.types import Exchange, Outcome, Turn


def exchanges(data: Mapping[str, Any], response: object) -> list[Exchange]:
    """One exchange per choice, numbered by position."""
    if not isinstance(response, TextCompletionResponse):
        return []
    found = []
    for index, choice in enumerate(response.choices):
        reading = Reading()
        _absorb(reading, choice)
        found.append(_exchange(reading, data, index, response))
    return found


def apply(response: Any, outcomes: Sequence[Outcome]) -> Any:
    """The same response if nothing is corrected, else a copy with new texts in it."""
    texts = corrected(outcomes)
    if not texts:
        return response
    edited = response.model_copy()
    edited.choices = [
        _with_text(choice, texts[index]) if index in texts else choice for index, choice in enumerate(response.choices)
    ]
    return edited


def stream_exchanges(data: Mapping[str, Any], items: Sequence[object]) -> list[Exchange]:
    """One exchange per choice index, its texts joined."""
    readings: dict[int, Reading] = {}
    for choice in _stream_choices(items):
        _absorb(readings.setdefault(choice.index, Reading()), choice)
    return [_exchange(readings[index], data, index, items[0]) for index in sorted(readings)]


def opening(data: Mapping[str, Any], index: int) -> Exchange:
    """What is known of a choice before the upstream has said anything."""
    return _exchange(Reading(), data, index, None)


def speech() -> Speech:
    """A listener for one stream."""
    return _spoken


def _spoken(item: object) -> list[tuple[int, str]]:
    return [(choice.index, choice.text) for choice in _stream_choices([item]) if choice.text]


def telling(data: Mapping[str, Any]) -> Telling:
    """A stream taken apart as it comes."""
    return ChunkTelling(
        TextCompletionResponse,
        lambda choice: choice.text or "",
        _with_text,
        _absorb,
        lambda reading, index: _exchange(reading, data, index, None),
    )


def stream_apply(items: Sequence[object], outcomes: Sequence[Outcome]) -> list[object]:
    """The new texts in the shapes of the chunks that carried the old ones; every other item is the same object."""
    pieces = {index: iter(spread(text, _sizes(items, index))) for index, text in corrected(outcomes).items()}
    return [_replayed(item, pieces) for item in items] if pieces else list(items)


def _replayed(item: object, pieces: Mapping[int, Iterator[str]]) -> object:
    if not isinstance(item, TextCompletionResponse) or not any(c.text and c.index in pieces for c in item.choices):
        return item
    edited = item.model_copy()
    edited.choices = [
        _with_text(choice, next(pieces[choice.index])) if choice.text and choice.index in pieces else choice
        for choice in item.choices
    ]
    return edited


def _stream_choices(items: Sequence[object]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, TextCompletionResponse):
            yield from item.choices


def _sizes(items: Sequence[object], index: int) -> list[int]:
    return [len(choice.text) for choice in _stream_choices(items) if choice.index == index and choice.text]


def _with_text(choice: Any, text: str) -> Any:
    edited = choice.model_copy()
    edited.text = text
    return edited


def _absorb(reading: Reading, choice: Any) -> None:
    if isinstance(choice.text, str):
        reading.pieces.append(choice.text)
    elif choice.text is not None:
        reading.non_text = True
    reading.finish_reason = choice.finish_reason or reading.finish_reason
    reading.logprobs |= carries(choice.logprobs)


def _exchange(reading: Reading, data: Mapping[str, Any], index: int, response: object) -> Exchange:
    prompt = _prompt(data, index)
    reading.non_text |= prompt is None or bool(data.get("echo")) or bool(data.get("suffix"))
    return reading.exchange(data, index, (Turn("user", prompt),) if prompt is not None else (), response)


def _prompt(data: Mapping[str, Any], index: int) -> str | None:
    """The prompt of one choice; of a list of prompts each has `n` choices in a row. None: it is not text."""
    prompt = data.get("prompt")
    if isinstance(prompt, list):
        n = data.get("n")
        position = index // max(n if isinstance(n, int) else 1, 1)
        prompt = prompt[position] if position < len(prompt) else None
    return prompt if isinstance(prompt, str) else None
