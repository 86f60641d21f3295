"""Rows of tables of which only amounts remain go, and the totals below them are those of the rows that stay."""

from __future__ import annotations

import pytest

from tests.gate.lists import judged


def _table(*rows: str) -> str:
    return "\n".join(("| Item | Price | Note |", "|---|---|---|", *rows))


@pytest.mark.parametrize(
    ("rows", "total", "expected"),
    [
        (("| Tea | 4 € | |", "| A fool. | 3 € | |", "| Milk | 2 € | |"), "| **Total** | **9 €** | |", "**6 €**"),
        (("| Tea | 1,200.50 | |", "| A fool. | 300.25 | |"), "| Total | 1,500.75 | |", "1,200.50"),
        (("| Tee | 1.200,50 € | |", "| A fool. | 99,50 € | |"), "| Gesamt | 1.300,00 € | |", "1.200,50 €"),
        # no sum of the rows, and no row of totals
        (("| Tea | 4 | |", "| A fool. | 3 | |"), "| Total | 8 | |", "8"),
        (("| Tea | 4 | |", "| A fool. | 3 | |"), "| Milk | 7 | |", "7"),
    ],
)
def test_the_total_is_that_of_the_rows_that_stay(rows: tuple[str, ...], total: str, expected: str) -> None:
    kept = [row for row in rows if "fool" not in row]
    cells = total.split("|")
    new_total = "|".join((*cells[:2], f" {expected} ", *cells[3:]))
    assert judged(_table(*rows, total)).text == _table(*kept, new_total)


def test_a_total_that_is_repeated_elsewhere_stays() -> None:
    behind = "\n\nIn all you pay 9 €."
    table = _table("| Tea | 4 € | |", "| A fool. | 5 € | |", "| Total | 9 € | |")
    assert judged(table + behind).text == table.replace("| A fool. | 5 € | |\n", "") + behind


@pytest.mark.parametrize(
    ("row", "left"),
    [
        ("| A fool. | 9:20 | 4 km |", ""),
        ("| 1 | A fool. | 9:20 |", ""),
        ("| A fool. | 5 euros a month | on request |", ""),
        ("| A fool. | 4 GB | with films |", "| | 4 GB | with films |\n"),
        ("| A fool. | 9:20 | By bus |", "| | 9:20 | By bus |\n"),
        ("| 2024 | A fool. | 9:20 |", "| 2024 | | 9:20 |\n"),
    ],
)
def test_a_row_without_its_name_goes_if_only_amounts_stay(row: str, left: str) -> None:
    assert judged(_table(row, "| Tea | 4 | |")).text == _table("@", "| Tea | 4 | |").replace("@\n", left)
