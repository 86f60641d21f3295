"""The closed beginning of a growing text, whose facts are read once and joined with those of the open rest.

A reader is a function that returns the facts of one kind in a text, such as its numbers. Facts within a sentence can be
joined, since a text is closed before a sentence begins (closing.py). So can facts of a line (`by_line`), since those
are read from the beginning of the line.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

_T = TypeVar("_T")
Reader = Callable[[str], Any]
_LINE_CHARS = 200
"""Characters at the beginning of a line that suffice to recognise a heading, a row, an item or a speaker."""


@dataclass(frozen=True, slots=True)
class _FactJoining:
    """How the facts of two consecutive texts are joined."""

    join_facts: Callable[[Any, Any], Any] = operator.or_
    """Called with the facts of the first and of the second text; returns the facts of both together."""
    by_line: bool = False
    """Whether facts depend on the beginning of their line, so that only whole lines can be read."""


_JOINED_BY_OR = _FactJoining()
"""For readers that return sets or booleans."""
_JOINING_BY_READER: dict[Reader, _FactJoining] = {}
"""For all other readers, and those that read whole lines."""


def joins(
    join_facts: Callable[[Any, Any], Any] = operator.or_, *, by_line: bool = False
) -> Callable[[Callable[[str], _T]], Callable[[str], _T]]:
    """Return a decorator that declares how the facts of a reader are joined.

    `join_facts` is called with the facts of two consecutive texts (`operator.add` for counts). `by_line` says whether
    the facts depend on the beginning of a line.
    """

    def declare(reader: Callable[[str], _T]) -> Callable[[str], _T]:
        _JOINING_BY_READER[reader] = _FactJoining(join_facts, by_line)
        return reader

    return declare


class ClosedText:
    """The closed beginning of a growing text, with a cache of the facts read from it."""

    def __init__(self) -> None:
        self.text = ""
        self.ends_in_table = False
        """Whether the open rest begins with a further row of a table."""
        self._last_line_start = 0
        """Offset at which its last line begins."""
        self._facts: dict[Reader, tuple[int, Any]] = {}
        """For each reader, (offset up to which it has read, the facts that it found)."""

    def extend(self, text: str, *, ends_in_table: bool) -> None:
        """Add `text` to the closed beginning; `ends_in_table` says whether the next row would belong to a table."""
        self.ends_in_table = ends_in_table
        # 0 if `text` has no line break: then it continues the last line
        line_start = text.rfind("\n") + 1
        if line_start:
            self._last_line_start = len(self.text) + line_start
        self.text += text

    @property
    def line(self) -> str:
        """The closed part of the line that the open rest continues, at most its first `_LINE_CHARS` characters."""
        return self.text[self._last_line_start : self._last_line_start + _LINE_CHARS]

    def read_with(self, rest: str, reader: Callable[[str], _T]) -> _T:
        """The facts that `reader` finds in the closed text and in `rest`, the open text behind it."""
        joining = _JOINING_BY_READER.get(reader, _JOINED_BY_OR)
        # a line that begins in the closed text can only be recognised with its beginning
        facts_of_rest = reader(self.line + rest if joining.by_line else rest)
        facts_so_far = self.read(reader)
        joined: _T = facts_of_rest if facts_so_far is None else joining.join_facts(facts_so_far, facts_of_rest)
        return joined

    def read(self, reader: Callable[[str], _T]) -> _T | None:
        """The facts that `reader` finds in the closed text alone; None if there is nothing to read.

        Each call reads only the text that was added since the last call. Readers of whole lines skip the last line,
        which may be unfinished.
        """
        joining = _JOINING_BY_READER.get(reader, _JOINED_BY_OR)
        stop = self._last_line_start if joining.by_line else len(self.text)
        start, facts_so_far = self._facts.get(reader, (0, None))
        if start < stop:
            new_facts = reader(self.text[start:stop])
            facts_so_far = joining.join_facts(facts_so_far, new_facts) if start else new_facts
            self._facts[reader] = (stop, facts_so_far)
        facts: _T | None = facts_so_far
        return facts


NOTHING_CLOSED = ClosedText()
"""The closed beginning of a text that does not grow: empty."""
