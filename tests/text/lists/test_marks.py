"""Marks of list items and the numbers in them."""

from __future__ import annotations

import pytest

from aligner_proxy.text.lists.marks import MarkKind, format_number, read, row_number, to_roman


@pytest.mark.parametrize(
    ("line", "number", "content"),
    [
        ("1. Boil", "1", "Boil"),
        ("  12) Boil", "12", "Boil"),
        ("(a) Boil", "a", "Boil"),
        ("iv. Boil", "iv", "Boil"),
        ("**2.** Boil", "2", "Boil"),
        ("**2. Boil**", "2", "Boil**"),
        ("## 3. Boil", "3", "Boil"),
        ("### Step 3", "3", ""),
        ("Step 3: Boil", "3", "Boil"),
        ("**Step 3:** Boil", "3", "Boil"),
        ("Tip #3: Boil", "3", "Boil"),
        ("2.1 Boil", "2.1", "Boil"),
        ("\u2461 Boil", "\u2461", "Boil"),
        ("2\ufe0f\u20e3 Boil", "2", "Boil"),
        ("> 3. Boil", "3", "Boil"),
        ("1\u3001\u716e", "1", "\u716e"),
        ("- Boil", "-", "Boil"),
        ("3.", "3", ""),
        ("-", "-", ""),
    ],
)
def test_a_mark_and_what_follows_it(line: str, number: str, content: str) -> None:
    mark = read(line)
    assert mark is not None
    assert (mark.number, line[mark.stop :]) == (number, content)


@pytest.mark.parametrize(
    "line",
    [
        "Step 3 is hard",
        "3.5 litres",
        "12:30 is noon",
        "I am here",
        "a dog",
        "2024. It was",
        "1.5 x",
        "---",
        "-5",
        "[3] x",
    ],
)
def test_no_mark(line: str) -> None:
    assert read(line) is None


def test_a_letter_may_be_a_roman_number() -> None:
    mark = read("i) Boil")
    assert mark is not None
    assert mark.readings == ((MarkKind.ROMAN, 1), (MarkKind.LETTER, 9))


def test_a_number_in_the_first_cell() -> None:
    mark = row_number("| 12 | Boil |")
    assert mark is not None
    assert mark.number == "12"
    assert row_number("| twelve | Boil |") is None


def test_numbers_are_shown_as_the_list_shows_them() -> None:
    assert [to_roman(value) for value in (1, 4, 9, 14, 40)] == ["i", "iv", "ix", "xiv", "xl"]
    assert format_number(MarkKind.CAPITAL_ROMAN, 4, "V") == "IV"
    assert format_number(MarkKind.LETTER, 2, "c") == "b"
    assert format_number(MarkKind.LETTER, 27, "c") == "c"
    assert format_number(MarkKind.CIRCLED, 3, "\u2463") == "\u2462"
    assert format_number(MarkKind.DIGIT, 10, "11") == "10"
    assert format_number(MarkKind.DIGIT, 12, "\uff11") == "\uff11\uff12"
