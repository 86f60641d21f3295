"""Counts behind the lists of an answer that is still being written: "All four are free" behind three remaining items.

For whole answers `counts.py` does this. A count above a list was sent before any item came, so it stays.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.counts import update_later_count
from aligner_proxy.text.lists.lines import STROKE
from aligner_proxy.text.lists.marks import Mark
from aligner_proxy.text.structure import FENCES, Segment

_LINES_OF_HEAD = 2
"""The first row of a table and the rule below it, which no count counts."""


@dataclass(slots=True)
class _OpenList:
    """A list, or a table, to which a further item or row may be added."""

    depth: int
    """Depth of the indentation of its items in steps of two columns; -1 for a table."""
    is_bulleted: bool = False
    all_count: int = 0
    """Number of items or rows, with those that are removed."""
    kept_count: int = 0
    """Number of items or rows of which anything remains."""
    is_last_kept: bool = False
    """Whether anything remains of the last item or row."""
    column_count: int = 0
    """Number of columns of a table."""

    def add(self) -> None:
        """Add an item or row, of which nothing remains so far."""
        self.all_count += 1
        self.is_last_kept = False

    def keep_last(self) -> None:
        """Record that something remains of the last item or row."""
        self.kept_count += not self.is_last_kept
        self.is_last_kept = True

    def counts(self) -> tuple[int, int]:
        """(number of items or rows before, number after).

        (0, 0) if none was removed, and for a table whose columns may be counted: one with a label before them.
        """
        head = _LINES_OF_HEAD if self.depth < 0 else 0
        all_count = self.all_count - head
        lost_any = self.kept_count < self.all_count
        means_columns = self.column_count == all_count + 1
        return (all_count, self.kept_count - head) if lost_any and not means_columns else (0, 0)


class LaterCounts:
    """The lists of an answer as far as it was read, with how many of their items remain."""

    def __init__(self) -> None:
        self.changed = 0
        """Number of segments with a new count."""
        self._list: _OpenList | None = None
        """The last list, until the line behind it ends."""
        self._begins_line = True
        """Whether the next segment begins a line."""
        self._is_behind = False
        """Whether the present line is the one behind the list."""

    def update(self, pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
        """Update the counts in `text` that refer back to a list.

        `text` is what is left of the segments `pieces` without those at the indexes `removed`.
        """
        position = 0
        for index, segment in enumerate(pieces):
            remains = index not in removed
            old_count, new_count = self._read(segment, remains=remains)
            if not old_count or not remains:
                continue
            start = text.find(segment.text, position)
            # a segment that was changed otherwise keeps its count
            if start >= 0:
                new_text = update_later_count(segment.text, old_count, new_count)
                self.changed += new_text != segment.text
                text = text[:start] + new_text + text[start + len(segment.text) :]
                position = start + len(new_text)
        return text

    def _read(self, segment: Segment, *, remains: bool) -> tuple[int, int]:
        """Read the next segment: (items before, items after) of the list that a count in it means; (0, 0) if none."""
        if self._begins_line and segment.text.strip():
            self._begin_line(segment.text)
        self._begins_line = "\n" in segment.gap or not segment.text.strip()
        if self._list is None:
            return 0, 0
        if not self._is_behind:
            if remains:
                self._list.keep_last()
            return 0, 0
        counts = self._list.counts()
        if self._begins_line:
            self._list = None
            self._is_behind = False
        return counts

    def _begin_line(self, text: str) -> None:
        """Begin a line: a row, an item, a line of an item, or the line behind the list."""
        depth = marks.indent_of(text[: len(text) - len(text.lstrip(" \t>"))]) // 2
        mark = None if text.lstrip().startswith((*FENCES, "|")) else marks.read(text)
        if text.lstrip().startswith("|"):
            self._add_row(text)
        elif mark is not None and not mark.level:
            self._add_item(mark, depth)
        elif self._list is None or text.lstrip().startswith(FENCES):
            return
        elif text.lstrip().startswith("#"):
            self._list = None
        elif depth <= max(self._list.depth, 0):
            self._is_behind = True

    def _add_row(self, text: str) -> None:
        """Add a row of a table."""
        if self._list is None or self._list.depth >= 0:
            self._list = _OpenList(-1, column_count=len(STROKE.split(text.strip().strip("|"))))
        self._list.add()

    def _add_item(self, mark: Mark, depth: int) -> None:
        """Add an item, if it is no nested one."""
        open_list = self._list
        if open_list is not None and (depth > open_list.depth >= 0 or (mark.is_bullet and not open_list.is_bulleted)):
            return
        _, value = mark.readings[0]
        begins_list = open_list is None or depth < open_list.depth or open_list.depth < 0
        if open_list is None or begins_list or mark.is_bullet != open_list.is_bulleted or value == 1:
            open_list = _OpenList(depth, is_bulleted=mark.is_bullet)
            self._list = open_list
        open_list.add()
