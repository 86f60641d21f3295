"""The conversation of a prompt, cut to its token limit. This module runs no model.

An answer is judged even if the question is too long: then the beginning and the end of the question are read, with a
mark between them. Of the turns before the question, as many are read as fit. Text that is repeated many times is read
twice only, because a small model that has read one word two thousand times notices nothing any more. Text is
undisguised before it is cut (text/disguises.py), so that invisible characters take no tokens."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from aligner_proxy.text.disguises import undisguise
from aligner_proxy.types import Turn

CUT_MARK = " [...] "
"""Mark in place of text that was left out."""
_TURN_TOKENS = 8
"""Approximate tokens that a template adds around a turn."""
_LEAST_TURN_TOKENS = 24
"""A turn is left out if fewer tokens than this would remain for it."""
_CHARS_READ_PER_TOKEN = 8
"""Characters of a text that are read per available token, half of them at either end; a token of prose has four to
five."""
_DISGUISE_FACTOR = 2
"""How many characters are undisguised for each one that is read, because text becomes shorter without its disguises."""
_LONG_TURNS = 4
"""Most long turns that are undisguised. A limit is needed because undisguising takes time and may leave turns empty."""
_UNCHANGED_CHARS = 1_000
"""A conversation of at most so many bytes, and a text of at most so many characters, are read unchanged."""
_WORD = re.compile(r"\S+\s*|\s+")
"""A word with the white space after it, or white space at the beginning."""
_NONZERO_BYTE = re.compile(rb"[^\0]")
"""A byte other than zero."""
_COPIES_READ = 2
"""Copies of a repeated unit that are read."""
_ITEM_BYTES = array("I").itemsize
"""Bytes that encode an item: a letter, or a word by its number."""


@dataclass(frozen=True, slots=True)
class Repetition:
    """What counts as a repetition: a unit of at most `max_unit` letters or words, at least `min_copies` times in a row.

    All copies together have at least `min_items` letters or words.
    """

    max_unit: int
    min_copies: int
    min_items: int


_WORD_REPETITION = Repetition(max_unit=64, min_copies=4, min_items=24)
"""Repetition of words; the limits are above the repetitions in tables and refrains."""
_LETTER_REPETITION = Repetition(max_unit=8, min_copies=32, min_items=32)
"""Repetition of letters, for text without spaces; lines drawn with characters may be as long."""


class Ruler(Protocol):
    """Measures texts in tokens, exactly or by estimate."""

    def count(self, text: str) -> int:
        """Return the number of tokens of a text that follows other text."""
        ...

    def first(self, text: str, tokens: int) -> str:
        """Return the beginning of a text, at most `tokens` tokens long."""
        ...

    def last(self, text: str, tokens: int) -> str:
        """Return the end of a text, at most `tokens` tokens long."""
        ...


def cut_turns(turns: Sequence[Turn], ruler: Ruler, room: int) -> tuple[Turn, ...]:
    """Return the last turns of user and assistant that fit into `room` tokens, in order; the earliest may be shortened.

    The time that this takes is proportional to `room`, however long the turns are.
    """
    spoken_turns = [turn for turn in turns if turn.role in ("user", "assistant") and turn.content]
    # A text never has more tokens than bytes, so short conversations need no counting.
    if sum(len(turn.content.encode("utf-8", "surrogatepass")) for turn in spoken_turns) <= min(_UNCHANGED_CHARS, room):
        return tuple(spoken_turns)
    last_turns: list[Turn] = []
    remaining_tokens = room
    max_turn_chars = room * _CHARS_READ_PER_TOKEN * _DISGUISE_FACTOR  # most that are undisguised of one turn
    remaining_chars = max_turn_chars * _LONG_TURNS  # characters that may still be undisguised
    for turn in reversed(spoken_turns):
        remaining_tokens -= _TURN_TOKENS
        # the minimum lets the latest turn be read however small the room is
        if remaining_tokens < min(_LEAST_TURN_TOKENS, room - _TURN_TOKENS) or remaining_chars <= 0:
            break
        content, token_count = shorten_text(turn.content, ruler, remaining_tokens)
        last_turns.append(replace(turn, content=content))
        remaining_tokens -= token_count
        remaining_chars -= min(len(turn.content), max_turn_chars)
    return tuple(reversed(last_turns))


def shorten_text(text: str, ruler: Ruler, room: int) -> tuple[str, int]:
    """Return the undisguised text, or its beginning and end, in at most `room` tokens, and its token count."""
    text_ends = [collapse_repeats(text_end) for text_end in _undisguise_ends(text, room * _CHARS_READ_PER_TOKEN)]
    plain_text = CUT_MARK.join(text_ends)
    token_count = ruler.count(plain_text)
    if token_count <= room:
        return plain_text, token_count
    tokens_of_half = max(0, room - ruler.count(CUT_MARK)) // 2
    # if the text already consists of two ends, it is cut again where the first one ends
    middle = len(plain_text) // 2 if len(text_ends) == 1 else len(text_ends[0])
    beginning = ruler.first(plain_text[:middle], tokens_of_half)
    end = ruler.last(plain_text[middle:], tokens_of_half)
    cut_text = beginning + CUT_MARK + end
    return cut_text, ruler.count(cut_text)


def _undisguise_ends(text: str, max_chars: int) -> tuple[str, ...]:
    """Return the undisguised text as a tuple of one, or its beginning and end if it exceeds `max_chars` characters."""
    half = max_chars // 2
    disguised_half = half * _DISGUISE_FACTOR  # so long, because it becomes shorter
    if len(text) > 2 * disguised_half:
        return undisguise(text[:disguised_half]).text[:half], undisguise(text[-disguised_half:]).text[-half:]
    undisguised = undisguise(text).text
    return (undisguised,) if len(undisguised) <= max_chars else (undisguised[:half], undisguised[-half:])


def collapse_repeats(text: str) -> str:
    """Return the text with two copies of long repetitions, and a mark: "no no no ... no" -> "no no  [...] "."""
    if len(text) <= _UNCHANGED_CHARS:
        return text
    letters = text.encode("utf-32-le", "surrogatepass")  # `_ITEM_BYTES` for each letter
    text = "".join(_drop_copies(text, _find_repetitions(letters, _LETTER_REPETITION)))
    words = _WORD.findall(text)
    return "".join(_drop_copies(words, _find_repetitions(_number_words(words), _WORD_REPETITION)))


def _drop_copies(items: Sequence[str], repetitions: Iterable[tuple[int, int, int]]) -> list[str]:
    """Return the items without the surplus copies in `repetitions`; one that overlaps an earlier one stays."""
    kept_items: list[str] = []
    position = 0
    for start, stop, unit_length in repetitions:
        if start >= position:
            kept_items += items[position : start + unit_length * _COPIES_READ]
            kept_items.append(CUT_MARK)
            position = stop
    return [*kept_items, *items[position:]]


def _number_words(words: Sequence[str]) -> bytes:
    """Encode each word as four bytes, without the white space after it: "a b a" gets the numbers 0, 1, 0."""
    numbers: dict[str, int] = {}
    return array("I", [numbers.setdefault(word.rstrip(), len(numbers)) for word in words]).tobytes()


def _find_repetitions(items: bytes, limits: Repetition) -> list[tuple[int, int, int]]:
    """Return the repetitions among encoded items as (start, stop, unit length), sorted by start, then by unit length.

    All three are counted in items. For each unit length, the text is shifted by it and compared with itself as one
    large number, in which equal bytes become zeros. Of "xabababy", shifted by 2, four letters agree: (1, 7, 2).
    """
    repetitions: list[tuple[int, int, int]] = []
    item_count = len(items) // _ITEM_BYTES
    for unit_length in range(1, min(limits.max_unit, item_count // limits.min_copies) + 1):
        # n copies of a unit and their shifted form agree over the length of n - 1 copies
        min_equal_items = max(limits.min_copies * unit_length, limits.min_items) - unit_length
        shifted = items[unit_length * _ITEM_BYTES :]
        unshifted = items[: -unit_length * _ITEM_BYTES]
        differences = (int.from_bytes(shifted) ^ int.from_bytes(unshifted)).to_bytes(len(unshifted))
        for start, stop in _find_equal_runs(differences, min_equal_items):
            repetitions.append((start, stop + unit_length, unit_length))
    return sorted(repetitions)


def _find_equal_runs(differences: bytes, min_items: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop), in items, of each run of at least `min_items` equal items: zero bytes in `differences`."""
    zeros = bytes(min_items * _ITEM_BYTES)
    position = differences.find(zeros)
    while position >= 0:
        nonzero = _NONZERO_BYTE.search(differences, position + len(zeros))
        end = nonzero.start() if nonzero else len(differences)
        # zeros may begin or end within an item, so `start` is rounded up and `stop` down to whole items
        start = -(-position // _ITEM_BYTES)
        stop = end // _ITEM_BYTES
        if stop - start >= min_items:
            yield start, stop
        position = differences.find(zeros, end)
