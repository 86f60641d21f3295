"""The conversation of a prompt, cut to its token limit. Text only, no model.

An answer is judged even if the question is too long: then the beginning and the end of the question are read, with a
mark between them. Of the turns before it, as many are read as fit. Text that is repeated many times is read twice only,
because a small model that has read one word two thousand times notices nothing any more. Text is undisguised before it
is cut (text/disguises.py), so that invisible characters take no tokens."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from aligner_proxy.text.disguises import undisguise
from aligner_proxy.types import Turn

CUT = " [...] "
"""Mark in place of text that was left out."""
_TURN_TOKENS = 8
"""Approximate tokens that a template adds around a turn."""
_LEAST_TURN_TOKENS = 24
"""A turn is left out if fewer tokens than this would remain for it."""
_CHARS_READ_PER_TOKEN = 8
"""Characters to look at per available token, half of them at either end of the text; prose has four to five."""
_DISGUISE_FACTOR = 2
"""How many times as many characters are undisguised, because disguised text may become shorter without its
disguises."""
_LONG_TURNS = 4
"""Most long turns that are undisguised. This takes time, and afterwards a turn may be empty, so it needs a limit."""
_PLAIN_CHARS = 1_000
"""A conversation of at most this size (counted in bytes), and a text of at most this length, are read unchanged."""
_WORD = re.compile(r"\S+\s*|\s+")
"""A word with the white space after it, or white space at the beginning."""
_NONZERO_BYTE = re.compile(rb"[^\0]")
"""A byte other than zero."""
_COPIES_READ = 2
"""Copies of a repeated unit that are read."""
_ITEM_BYTES = array("I").itemsize
"""Bytes per item, a letter or the number of a word."""


@dataclass(frozen=True, slots=True)
class Repetition:
    """What counts as a repetition: a unit of at most `longest` items that occurs at least `copies` times in a row.

    All copies together have at least `items` items. An item is a letter or a word.
    """

    longest: int
    copies: int
    items: int


_WORDS = Repetition(longest=64, copies=4, items=24)
"""Repetition of words; the limits are above the repetitions in tables and refrains."""
_LETTERS = Repetition(longest=8, copies=32, items=32)
"""Repetition of letters, for text without spaces; lines drawn with characters may be as long."""


class Ruler(Protocol):
    """Measures texts in tokens, exactly or by estimate."""

    def count(self, text: str) -> int:
        """Number of tokens of a text that follows other text."""
        ...

    def first(self, text: str, tokens: int) -> str:
        """The beginning of a text, at most `tokens` tokens long."""
        ...

    def last(self, text: str, tokens: int) -> str:
        """The end of a text, at most `tokens` tokens long."""
        ...


def cut_turns(turns: Sequence[Turn], ruler: Ruler, room: int) -> tuple[Turn, ...]:
    """The last turns that fit into `room` tokens, in order; the earliest of them may be cut.

    Takes time in proportion to `room`, however long the turns are.
    """
    spoken = [turn for turn in turns if turn.role in ("user", "assistant") and turn.content]
    # A text never has more tokens than bytes, so short conversations need no counting.
    if sum(len(turn.content.encode("utf-8", "surrogatepass")) for turn in spoken) <= min(_PLAIN_CHARS, room):
        return tuple(spoken)
    last_turns: list[Turn] = []
    remaining_tokens = room
    # characters that may still be undisguised: as many as `_LONG_TURNS` long turns have
    chars_left = room * _CHARS_READ_PER_TOKEN * _DISGUISE_FACTOR * _LONG_TURNS
    for turn in reversed(spoken):
        remaining_tokens -= _TURN_TOKENS
        # the latest turn is read however small the room is
        if remaining_tokens < min(_LEAST_TURN_TOKENS, room - _TURN_TOKENS) or chars_left <= 0:
            break
        content, size = shorten_text(turn.content, ruler, remaining_tokens)
        last_turns.append(replace(turn, content=content))
        remaining_tokens -= size
        chars_left -= min(len(turn.content), room * _CHARS_READ_PER_TOKEN * _DISGUISE_FACTOR)
    return tuple(reversed(last_turns))


def shorten_text(text: str, ruler: Ruler, room: int) -> tuple[str, int]:
    """The text cut to `room` tokens, and its token count; a longer text is reduced to its beginning and end."""
    ends = _undisguise_ends(text, room * _CHARS_READ_PER_TOKEN)
    plain = CUT.join(collapse_repeats(end) for end in ends)
    size = ruler.count(plain)
    if size <= room:
        return plain, size
    tokens_of_half = max(0, room - ruler.count(CUT)) // 2
    # if a mark already joins two ends, the first of them ends where the mark begins
    middle = len(plain) // 2 if len(ends) == 1 else len(collapse_repeats(ends[0]))
    beginning = ruler.first(plain[:middle], tokens_of_half)
    end = ruler.last(plain[middle:], tokens_of_half)
    cut_text = beginning + CUT + end
    return cut_text, ruler.count(cut_text)


def _undisguise_ends(text: str, limit: int) -> tuple[str, ...]:
    """The undisguised text as one item, or its beginning and end as two if it is longer than `limit` characters."""
    half = limit // 2
    reach = half * _DISGUISE_FACTOR
    if len(text) > 2 * reach:
        return undisguise(text[:reach]).text[:half], undisguise(text[-reach:]).text[-half:]
    undisguised = undisguise(text).text
    return (undisguised,) if len(undisguised) <= limit else (undisguised[:half], undisguised[-half:])


def collapse_repeats(text: str) -> str:
    """The text with long repetitions reduced to two copies and a mark in place of the others.

    "no no no ... no" (a thousand times) -> "no no  [...] "
    """
    if len(text) <= _PLAIN_CHARS:
        return text
    letters = text.encode("utf-32-le", "surrogatepass")
    text = "".join(_drop_copies(text, _find_repetitions(letters, _LETTERS)))
    words = _WORD.findall(text)
    return "".join(_drop_copies(words, _find_repetitions(_number_words(words), _WORDS)))


def _drop_copies(items: Sequence[str], repetitions: Iterable[tuple[int, int, int]]) -> list[str]:
    """The items without the surplus copies; a repetition that overlaps an earlier one is left unchanged."""
    pieces: list[str] = []
    position = 0
    for start, stop, unit in repetitions:
        if start >= position:
            pieces += [*items[position : start + unit * _COPIES_READ], CUT]
            position = stop
    return [*pieces, *items[position:]]


def _number_words(words: Sequence[str]) -> bytes:
    """Encode each word as four bytes; equal words get equal bytes, whatever white space follows them.

    "a b a" gets the numbers 0, 1, 0.
    """
    numbers: dict[str, int] = {}
    return array("I", [numbers.setdefault(word.rstrip(), len(numbers)) for word in words]).tobytes()


def _find_repetitions(items: bytes, kind: Repetition) -> list[tuple[int, int, int]]:
    """The repetitions as (start, stop, unit length), sorted by start and then by unit length.

    For each unit length, the text is shifted by it and compared with itself as one large number. Bytes that are equal
    become zeros. Of "xabababy", shifted by 2, four letters agree: (1, 7, 2).
    """
    result: list[tuple[int, int, int]] = []
    count = len(items) // _ITEM_BYTES
    for unit in range(1, min(kind.longest, count // kind.copies) + 1):
        # shifted by one unit, n copies agree over n - 1 of them
        least = max(kind.copies * unit, kind.items) - unit
        shifted = items[unit * _ITEM_BYTES :]
        unshifted = items[: -unit * _ITEM_BYTES]
        differences = (int.from_bytes(shifted) ^ int.from_bytes(unshifted)).to_bytes(len(unshifted))
        for start, stop in _find_equal_runs(differences, least):
            result.append((start, stop + unit, unit))
    return sorted(result)


def _find_equal_runs(differences: bytes, least: int) -> Iterator[tuple[int, int]]:
    """The (start, stop) of runs of at least `least` equal items, which are zeros in `differences`."""
    zeros = bytes(least * _ITEM_BYTES)
    position = differences.find(zeros)
    while position >= 0:
        other = _NONZERO_BYTE.search(differences, position + len(zeros))
        end = other.start() if other else len(differences)
        # rounded up, and `stop` down, to whole items: zeros may begin or end within one
        start = -(-position // _ITEM_BYTES)
        stop = end // _ITEM_BYTES
        if stop - start >= least:
            yield start, stop
        position = differences.find(zeros, end)
