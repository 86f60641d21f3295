"""Signs of lines that an edit must leave as they are: the markers of items, and the number of cells of table rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from aligner_proxy.text.lists.lines import STROKE, read_lines
from aligner_proxy.text.lists.ordinals import begins_with_number
from aligner_proxy.text.lists.tables import find_tables
from aligner_proxy.text.structure import Segment


def marked_lines(pieces: Sequence[Segment]) -> list[tuple[range, str]]:
    """Find the lines with a marker: (segments of the line, the marker's number, or a dash for any bullet).

    A line that has further numbers, such as "1) Eat. 2) Sleep.", is left out.
    """
    marks_by_line: list[tuple[range, str]] = []
    for line in read_lines(pieces):
        if line.mark is None or any(begins_with_number(pieces, i) for i in line.segments[1:]):
            continue
        marks_by_line.append((line.segments, "-" if line.mark.is_bullet else line.mark.number))
    return marks_by_line


def row_signs(pieces: Sequence[Segment], *, in_table: bool = False) -> list[tuple[range, str]]:
    """Find the rows of tables: (segments of the row, its number of cells as text).

    `in_table` says whether the text begins with further rows of a table.
    """
    if not any("|" in segment.text for segment in pieces):
        return []
    tables = find_tables(list(read_lines(pieces, in_table=in_table)), in_table=in_table)
    table_rows = (row for table in tables if not table.is_loose for row in (*table.head, *table.rows))
    return [(row.segments, str(_count_cells(row.text))) for row in table_rows]


def _count_cells(row: str) -> int:
    """The number of cells of a row. Each bar begins a cell, a bar at the end an empty one."""
    bar_count = len(STROKE.findall(row))
    begins_with_bar = row.lstrip(" \t>").startswith("|")
    return bar_count if begins_with_bar else bar_count + 1


def remaining_signs(lines: Iterable[tuple[range, str]], removed: Collection[int] = ()) -> list[str]:
    """The signs of the lines, as `marked_lines` or `row_signs` return them, of which not all segments are removed."""
    return [sign for segments, sign in lines if any(i not in removed for i in segments)]
