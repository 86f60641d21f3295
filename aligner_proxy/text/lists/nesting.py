"""Nesting of lists: items move up to the level of the item above them, if that is removed without them.

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
_MOST = 64
"""Maximum number of lines searched for one of the output."""
_LineKey = tuple[str, str]
"""What a line has in common with the output for it: its indentation, and "-" for a bullet, "#" for a number, or its
beginning."""
_KEY_CHARS = 20


@dataclass(slots=True)
class _RemovedItem:
    """An item that is removed, inside of which the present line may be."""

    indent: int
    """Columns before its marker."""
    shift: int | None = None
    """Columns by which the lines inside it move to the left; None until one of them is read."""


class Nesting:
    """The removed items that are open in an answer, which may be read piece by piece."""

    def __init__(self) -> None:
        self._begins_line = True
        """Whether the next segment begins a line."""
        self._removed_items: list[_RemovedItem] = []
        """The removed items that the present line is inside of, the outermost first."""

    def move_up(self, pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
        """Move items in `text`, the output for these pieces, to the left where the item above them is `removed`."""
        lines = list(self._read_lines(pieces, removed))
        if not any(shift for _, shift in lines):
            return text
        return "".join(_shift_lines(lines, text))

    def _read_lines(self, pieces: Sequence[Segment], removed: Collection[int]) -> Iterator[tuple[_LineKey, int]]:
        """Yield the key of each remaining line, and by how many columns it moves."""
        for number, piece in enumerate(pieces):
            begins_line = self._begins_line
            self._begins_line = "\n" in piece.gap or not piece.text.strip()
            if not begins_line or not piece.text.strip():
                continue
            indent = marks.indent_of(_read_lead(piece.text))
            while self._removed_items and self._removed_items[-1].indent >= indent:
                self._removed_items.pop()
            is_item = marks.read(piece.text) is not None
            is_removed = number in removed
            if is_removed and not is_item:
                continue
            if self._removed_items and self._removed_items[-1].shift is None:
                self._removed_items[-1].shift = indent - self._removed_items[-1].indent if is_item else 0
            if is_removed:
                self._removed_items.append(_RemovedItem(indent))
            else:
                yield _make_key(piece.text), sum(item.shift or 0 for item in self._removed_items)


def _shift_lines(lines: Sequence[tuple[_LineKey, int]], text: str) -> Iterator[str]:
    """Yield the lines of the output, each moved as the line that it stands for."""
    next_line = 0
    shift = 0
    for match in _LINE.finditer(text):
        line = match.group()
        key = _make_key(line)
        near = range(next_line, min(next_line + _MOST, len(lines)))
        number = next((number for number in near if lines[number][0] == key), None)
        # a line without a number goes on with the segment of the line above, as in a block of code
        if number is not None:
            next_line = number + 1
            shift = lines[number][1]
        yield _cut_indent(line, shift)


def _cut_indent(line: str, columns: int) -> str:
    """The line without so many columns of white space at its beginning, or without all that it has."""
    lead = _read_lead(line)
    cut = next((end for end in range(len(lead)) if marks.indent_of(lead[:end]) >= columns), len(lead))
    return line[cut:]


def _make_key(line: str) -> _LineKey:
    lead = _read_lead(line)
    mark = marks.read(line)
    if mark is None:
        return lead, line.strip()[:_KEY_CHARS]
    return lead, "-" if mark.is_bullet else "#"


def _read_lead(line: str) -> str:
    """The white space at the beginning of a line."""
    return line[: len(line) - len(line.lstrip(" \t"))]
