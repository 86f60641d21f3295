"""Totals of tables: the last row's sums are updated when rows above it are removed.

A total is updated only if it was the exact sum of its column before, and if no other words of the answer repeat it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from decimal import Decimal

from aligner_proxy.text.lists.lines import STROKE, OutlineLine
from aligner_proxy.text.lists.outline import Outline
from aligner_proxy.text.lists.tables import OutlineTable

_TOTAL = re.compile(
    r"[*_ ]*(?:(?:grand )?total|sum|gesamt|summe|insgesamt|total g\u00e9n\u00e9ral|somme|suma)[*_: ]*", re.I
)
"""Matches the first cell of a row with totals."""
_NUMBER = re.compile(
    r"(?<![\w.,-])(?:\d{1,3}(?:(?P<group>[.,'])\d{3})+(?:[.,]\d{1,2})?(?![\w.,]\d|\d)|\d+(?:[.,]\d{1,2})?(?![.,]?\d))"
)
"""Matches a number of a cell, perhaps with a sign between thousands and with two decimals."""


def update_totals(outline: Outline, removed: Collection[int], text: str) -> tuple[str, int]:
    """Update the totals of tables that lost rows: (the new text, number of rows with a new total).

    `text` is what is left of the answer with this outline without its segments at the indexes `removed`.
    """
    changed = 0
    for table in outline.tables:
        lost_rows = [row for row in table.rows[:-1] if all(i in removed for i in row.segments)]
        if not lost_rows or any(i in removed for i in table.rows[-1].segments):
            continue
        old_row = table.rows[-1].text
        new_row = _sum_row(table, lost_rows)
        if new_row != old_row and text.count(old_row) == 1 and not _is_repeated(old_row, text):
            text = text.replace(old_row, new_row)
            changed += 1
    return text, changed


def _sum_row(table: OutlineTable, lost_rows: Sequence[OutlineLine]) -> str:
    """The last row of a table with the sums that remain; unchanged if it has no totals."""
    cells = STROKE.split(table.rows[-1].text)
    first = next((cell for cell in cells if cell.strip()), "")
    if not _TOTAL.fullmatch(first.strip()):
        return table.rows[-1].text
    for column, cell in enumerate(cells):
        total = _NUMBER.search(cell)
        if total is None or len(_NUMBER.findall(cell)) > 1:
            continue
        lost_sum = sum((_read_number(row, column) for row in lost_rows), Decimal())
        if lost_sum and sum((_read_number(row, column) for row in table.rows[:-1]), Decimal()) == _value(total):
            cells[column] = cell[: total.start()] + _write(_value(total) - lost_sum, total) + cell[total.end() :]
    return "|".join(cells)


def _is_repeated(row: str, text: str) -> bool:
    """Whether other words of the text have a number of this row."""
    rest = text.replace(row, "")
    return any(re.search(rf"(?<![\d.,]){re.escape(m.group())}(?!\d|[.,]\d)", rest) for m in _NUMBER.finditer(row))


def _read_number(row: OutlineLine, column: int) -> Decimal:
    """The number in a cell of a row; 0 if there is none."""
    cells = STROKE.split(row.text)
    number = _NUMBER.search(cells[column]) if column < len(cells) else None
    return _value(number) if number is not None else Decimal()


def _value(number: re.Match[str]) -> Decimal:
    """The value of a number; a sign before one or two last digits divides decimals."""
    whole, decimals = _divide(number.group())
    return Decimal(f"{re.sub(r'[^0-9]', '', whole)}.{decimals or 0}")


def _divide(number: str) -> tuple[str, str]:
    """The digits of a number before its decimals, perhaps with signs, and its decimals."""
    match = re.fullmatch(r"(.*\d)[.,](\d{1,2})", number)
    return (match[1], match[2]) if match else (number, "")


def _write(value: Decimal, like: re.Match[str]) -> str:
    """A value in the notation of the number that it replaces."""
    whole, decimals = _divide(like.group())
    text = f"{value:,.{len(decimals)}f}"
    digits, _, new_decimals = text.partition(".")
    sign = like.group()[len(whole)] if decimals else ""
    return digits.replace(",", like["group"] or "") + sign + new_decimals
