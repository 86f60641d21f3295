"""Truncation of the prompt: as many of the last turns as fit the aligner's window.

The prompt, the answer once more and some room to write must fit; the oldest turns go first. An answer that does not
fit even with the last turn alone is refused, never cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.model.tokenizer import PromptTokenizer
from aligner_proxy.errors import AnswerTooLong

F = TypeVar("F")
CHARS_PER_TOKEN = 24
"""No tokenizer known to us averages more; a longer text is refused before time is spent on tokenising it."""
_ROOM = 64


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits, its tokens with their characters, the answer's tokens, and room (tokens) to write in."""

    prompt: prompts.Prompt
    ids: list[int]
    offsets: list[tuple[int, int]]
    answer: list[int]
    room: int


def fit(request: AlignRequest, family: prompts.Template, tokenizer: PromptTokenizer, window: int) -> Fitted:
    """Fill the template with as many of the last turns as leave room; raises `AnswerTooLong`.

    Halving keeps a long conversation from being tokenised more than a few times.
    """
    if len(request.answer) > window * CHARS_PER_TOKEN:
        raise _too_long(request, window)
    best = fewest_dropped(len(request.turns), lambda dropped: _try(request, family, tokenizer, window, dropped))
    if best is None:
        raise _too_long(request, window)
    return best


def fewest_dropped(turns: int, attempt: Callable[[int], F | None]) -> F | None:
    """The first fit with as few of the oldest turns dropped as halving finds; None: not even the last turn fits."""
    best = attempt(0)
    low = 0
    high = max(0, turns - 1)
    while best is None and low < high:
        middle = (low + high) // 2
        if attempt(middle) is None:
            low = middle + 1
        else:
            high = middle
    return best or attempt(low)


def _try(
    request: AlignRequest, family: prompts.Template, tokenizer: PromptTokenizer, window: int, dropped: int
) -> Fitted | None:
    query = prompts.query(family, request.turns[dropped:])
    prompt = prompts.render(family, query, request.answer, request.objectives)
    if len(prompt.text) > window * CHARS_PER_TOKEN:
        return None
    encoded = tokenizer.prompt(prompt.text)
    answer = tokenizer.continuation(prompt.shown)
    room = len(answer) + max(_ROOM, len(answer) // 2)
    if len(encoded.ids) + room > window:
        return None
    return Fitted(prompt, encoded.ids, encoded.offsets, answer, room)


def _too_long(request: AlignRequest, window: int) -> AnswerTooLong:
    return AnswerTooLong(
        f"an answer of {len(request.answer)} characters with its last turn and objectives "
        f"does not fit the aligner's window of {window} tokens"
    )
