"""The conversation of a prompt, cut to the room that it may take. Text only, no model.

An answer is judged whatever was asked: of a question that is too long the beginning and the end are read, with a mark
between them, of the turns before it as many as fit. What is repeated again and again is read twice: a small model that
has read one word two thousand times notices nothing any more. A text is folded before it is cut (text/folding.py), so
that letters which nobody sees take no room.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from aligner_proxy.text.folding import fold
from aligner_proxy.types import Turn

CUT = " [...] "
"""Stands where something was left out."""
_TURN_TOKENS = 8
"""What a template puts around a turn, about."""
_LEAST_TOKENS = 24
"""A turn of which less would be left is left out."""
_CHARS_PER_TOKEN = 8
"""So much text is looked at for each token of room, half of it from either end; prose has four to five."""
_DISGUISED = 2
"""So many times as much is folded: of a text in disguise there may be less to read."""
_LONG_TURNS = 4
"""So many are folded at most: that takes time, and of each of them nothing may be left."""
_PLAIN_CHARS = 1_000
"""A conversation of at most so many characters is read as it is."""
_WORD = re.compile(r"\S+\s*|\s+")
_OTHER = re.compile(rb"[^\0]")
_COPIES_READ = 2
_WIDTH = array("I").itemsize


@dataclass(frozen=True, slots=True)
class Repetition:
    """What counts as a repetition: at most `longest` items, at least `copies` times, in all at least `items` items."""

    longest: int
    copies: int
    items: int


_WORDS = Repetition(longest=64, copies=4, items=24)
"""Tables and refrains are shorter."""
_LETTERS = Repetition(longest=8, copies=32, items=32)
"""Of text without spaces; the lines that people draw may be as long."""


class Ruler(Protocol):
    """A measure of texts in tokens, exact or by estimate."""

    def count(self, text: str) -> int:
        """Tokens of a text that goes on behind another."""
        ...

    def first(self, text: str, tokens: int) -> str:
        """The beginning of a text, of at most so many tokens."""
        ...

    def last(self, text: str, tokens: int) -> str:
        """The end of a text, of at most so many tokens."""
        ...


def cut(turns: Sequence[Turn], ruler: Ruler, room: int) -> tuple[Turn, ...]:
    """The last turns, in at most `room` tokens; the first of them may be cut. Takes time in proportion to the room."""
    spoken = [turn for turn in turns if turn.role in ("user", "assistant") and turn.content]
    # No character takes more tokens than bytes.
    if sum(len(turn.content.encode("utf-8", "surrogatepass")) for turn in spoken) <= min(_PLAIN_CHARS, room):
        return tuple(spoken)
    last_turns: list[Turn] = []
    remaining_tokens = room
    reach = room * _CHARS_PER_TOKEN * _DISGUISED * _LONG_TURNS
    for turn in reversed(spoken):
        remaining_tokens -= _TURN_TOKENS
        if remaining_tokens < min(_LEAST_TOKENS, room - _TURN_TOKENS) or reach <= 0:
            break
        content, size = shorten_text(turn.content, ruler, remaining_tokens)
        last_turns.append(replace(turn, content=content))
        remaining_tokens -= size
        reach -= min(len(turn.content), room * _CHARS_PER_TOKEN * _DISGUISED)
    return tuple(reversed(last_turns))


def shorten_text(text: str, ruler: Ruler, room: int) -> tuple[str, int]:
    """The text in at most `room` tokens, and how many it takes; head and tail of it where it has more."""
    ends = _ends(text, room * _CHARS_PER_TOKEN)
    plain = CUT.join(collapse_repeats(end) for end in ends)
    size = ruler.count(plain)
    if size <= room:
        return plain, size
    half = max(0, room - ruler.count(CUT)) // 2
    middle = len(plain) // 2 if len(ends) == 1 else len(collapse_repeats(ends[0]))
    cut_text = ruler.first(plain[:middle], half) + CUT + ruler.last(plain[middle:], half)
    return cut_text, ruler.count(cut_text)


def _ends(text: str, most: int) -> tuple[str, ...]:
    """The text as it is read, or where that is longer than `most` characters its beginning and its end."""
    half = most // 2
    reach = half * _DISGUISED
    if len(text) > 2 * reach:
        return fold(text[:reach]).text[:half], fold(text[-reach:]).text[-half:]
    folded = fold(text).text
    return (folded,) if len(folded) <= most else (folded[:half], folded[-half:])


def collapse_repeats(text: str) -> str:
    """The text with what is repeated many times in a row written twice, and a mark in place of the other copies."""
    if len(text) <= _PLAIN_CHARS:
        return text
    letters = text.encode("utf-32-le", "surrogatepass")
    text = "".join(_drop_copies(text, _repetitions(letters, _LETTERS)))
    words = _WORD.findall(text)
    return "".join(_drop_copies(words, _repetitions(_number_words(words), _WORDS)))


def _drop_copies(items: Sequence[str], repetitions: Iterable[tuple[int, int, int]]) -> list[str]:
    """The items with the copies left out, those that overlap with an earlier repetition apart."""
    pieces: list[str] = []
    at = 0
    for start, stop, unit in repetitions:
        if start >= at:
            pieces += [*items[at : start + unit * _COPIES_READ], CUT]
            at = stop
    return [*pieces, *items[at:]]


def _number_words(words: Sequence[str]) -> bytes:
    """Each word as four bytes, equal ones alike whatever white space follows them."""
    numbers: dict[str, int] = {}
    return array("I", [numbers.setdefault(word.rstrip(), len(numbers)) for word in words]).tobytes()


def _repetitions(items: bytes, kind: Repetition) -> list[tuple[int, int, int]]:
    """(start, stop, items of the unit) of repetitions, by their start; of one start the shortest unit comes first.

    A text is compared with itself moved by each length of unit, as one large number: what is equal becomes zeros.
    """
    result: list[tuple[int, int, int]] = []
    count = len(items) // _WIDTH
    for unit in range(1, min(kind.longest, count // kind.copies) + 1):
        least = max(kind.copies * unit, kind.items) - unit
        moved = items[unit * _WIDTH :]
        fixed = items[: -unit * _WIDTH]
        differences = (int.from_bytes(moved) ^ int.from_bytes(fixed)).to_bytes(len(fixed))
        for start, stop in _zeros(differences, least):
            result.append((start, stop + unit, unit))
    return sorted(result)


def _zeros(differences: bytes, least: int) -> Iterator[tuple[int, int]]:
    """Stretches of at least so many equal items."""
    zeros = bytes(least * _WIDTH)
    at = differences.find(zeros)
    while at >= 0:
        other = _OTHER.search(differences, at + len(zeros))
        end = other.start() if other else len(differences)
        start = -(-at // _WIDTH)
        stop = end // _WIDTH
        if stop - start >= least:
            yield start, stop
        at = differences.find(zeros, end)
