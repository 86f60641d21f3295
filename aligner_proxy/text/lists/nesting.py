"""Nesting of lists: if an item is removed and the items nested in it stay, they move to the removed item's level.

- You fool.                 - Take a coat.
  - Take a coat.            - Take gloves.
  - Take gloves.            - Leave.
- Leave.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from aligner_proxy.text.lists import marks
from aligner_proxy.text.structure import Segment

_LINE = re.compile(r"[^\n]*\n?")
_MAX_SEARCHED_LINES = 64
"""Most lines of the original among which the original of an output line is searched."""
_LineKey = tuple[str, str]
"""(white space before a line, "-" for a bullet, "#" for a number, otherwise the beginning of the line).

A line of the output has the same key as its original, though its number may be another."""
_KEY_CHARS = 20
"""Characters of a line in its key."""


@dataclass(slots=True)
class _RemovedItem:
    """A removed item in which the present line may be nested."""

    indent: int
    """Columns before the item's marker."""
    shift: int | None = None
    """Columns by which the lines nested in the item move to the left; None until the first of them is read."""


class Nesting:
    """Moves nested items to the left where the item above them is removed. The answer may come piece by piece."""

    def __init__(self) -> None:
        self._begins_line = True
        """Whether the next segment begins a line."""
        self._removed_items: list[_RemovedItem] = []
        """The removed items in which the present line is nested, the outermost first."""

    def move_up(self, pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
        """Move the items in `text` to the left whose item above is removed.

        `text` is what is left of the segments `pieces` without those at the indexes `removed`.
        """
        lines = list(self._read_lines(pieces, removed))
        if not any(shift for _, shift in lines):
            return text
        return "".join(_shift_lines(lines, text))

    def _read_lines(self, pieces: Sequence[Segment], removed: Collection[int]) -> Iterator[tuple[_LineKey, int]]:
        """Yield (key, columns by which it moves to the left) for each line that remains."""
        for index, segment in enumerate(pieces):
            begins_line = self._begins_line
            self._begins_line = "\n" in segment.gap or not segment.text.strip()
            if not begins_line or not segment.text.strip():
                continue
            indent = marks.indent_of(_read_indentation(segment.text))
            while self._removed_items and self._removed_items[-1].indent >= indent:
                self._removed_items.pop()
            is_item = marks.read(segment.text) is not None
            is_removed = index in removed
            if is_removed and not is_item:
                continue
            if self._removed_items and self._removed_items[-1].shift is None:
                item_above = self._removed_items[-1]
                item_above.shift = indent - item_above.indent if is_item else 0
            if is_removed:
                self._removed_items.append(_RemovedItem(indent))
            else:
                yield _make_key(segment.text), sum(item.shift or 0 for item in self._removed_items)


def _shift_lines(original_lines: Sequence[tuple[_LineKey, int]], text: str) -> Iterator[str]:
    """Yield the lines of the output `text`, each moved to the left by as many columns as its original line.

    `original_lines` has (key, columns) for each line of the original that remains.
    """
    next_index = 0
    shift = 0
    for match in _LINE.finditer(text):
        line = match.group()
        key = _make_key(line)
        searched_end = min(next_index + _MAX_SEARCHED_LINES, len(original_lines))
        for index in range(next_index, searched_end):
            original_key, original_shift = original_lines[index]
            if original_key == key:
                next_index = index + 1
                shift = original_shift
                break
        # a line without an original, such as one within a block of code, moves like the line above
        yield _cut_indentation(line, shift)


def _cut_indentation(line: str, columns: int) -> str:
    """The line without so many columns of white space at its beginning, or without all that it has."""
    indentation = _read_indentation(line)
    for end in range(len(indentation)):
        if marks.indent_of(indentation[:end]) >= columns:
            return line[end:]
    return line[len(indentation) :]


def _make_key(line: str) -> _LineKey:
    """The key of a line."""
    indentation = _read_indentation(line)
    mark = marks.read(line)
    if mark is None:
        return indentation, line.strip()[:_KEY_CHARS]
    return indentation, "-" if mark.is_bullet else "#"


def _read_indentation(line: str) -> str:
    """The white space at the beginning of a line."""
    return line[: len(line) - len(line.lstrip(" \t"))]
