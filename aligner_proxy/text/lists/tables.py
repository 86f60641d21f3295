"""Tables of an answer: their heads and rows, and loose rows that only look like a table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from aligner_proxy.text.lists.lines import STROKE, OutlineLine


@dataclass(frozen=True, slots=True)
class OutlineTable:
    """The lines of a table."""

    head: Sequence[OutlineLine]
    """The first row and the rule below it; empty if the table began in earlier text or has no rule."""
    rows: Sequence[OutlineLine]
    """The rows below the head."""
    is_loose: bool = False
    """Whether the rows only look like a table: they are one below the other, but there is no rule."""


def _find_row_runs(lines: Sequence[OutlineLine]) -> Iterator[list[OutlineLine]]:
    """Yield the runs of consecutive rows. The first run begins with the first line, so it may be empty."""
    rows: list[OutlineLine] = []
    # None stands for the end of the text, which ends a run
    for line_index, line in enumerate((*lines, None)):
        if line is not None and line.is_row and not (rows and line.follows_blank_line):
            rows.append(line)
            continue
        if rows or line_index == 0:
            yield rows
        rows = []


def find_tables(lines: Sequence[OutlineLine], *, in_table: bool = False) -> Iterator[OutlineTable]:
    """Yield the tables and the loose rows; `in_table` says whether the lines begin with further rows of a table."""
    for run_index, rows in enumerate(_find_row_runs(lines)):
        if in_table and run_index == 0:
            yield OutlineTable((), rows)
        elif len(rows) > 1 and rows[1].is_rule:
            yield OutlineTable(rows[:2], rows[2:])
        elif len(rows) > 1:
            yield OutlineTable((), rows, is_loose=True)


def keeps_cells(row: OutlineLine, removed: Collection[int]) -> bool:
    """Whether a row has as many cells as before, if those in the segments `removed` are emptied.

    An empty cell at the beginning or end of a row is one only if it has its outer bar.
    """
    has_right_bar = not STROKE.split(row.text)[-1].strip()
    keeps_first_cell = not row.is_open_row or row.segments.start not in removed
    return keeps_first_cell and (has_right_bar or row.segments[-1] not in removed)
