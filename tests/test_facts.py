"""What counts as a number, an address, a code block and a name."""

from __future__ import annotations

import time

import pytest

from aligner_proxy.facts import addresses, code, names, numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The train at 9:40 costs 3.50 or 1,250,000 in all.", {"9:40", "3.50", "1250000"}),
        ("1. Boil it.\n2) Wait 5 minutes.", {"5"}),
        ("Version 2.0.1 of 3/4/2024, pages 5-7, at -4 or \u22124 degrees", {"2.0.1", "3/4/2024", "5", "7", "-4"}),
        ("See https://example.org/item/77 and 8", {"8"}),
        ("no digits", set()),
    ],
)
def test_numbers(text: str, expected: set[str]) -> None:
    assert numbers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Go to https://example.org/a?b=1, or (www.example.com).", {"https://example.org/a?b=1", "www.example.com"}),
        ("[link](https://example.org/x) and **http://b.example**!", {"https://example.org/x", "http://b.example"}),
        ("Write to first.last+tag@mail.example.org.", {"first.last+tag@mail.example.org"}),
        ("an @handle and a.b", set()),
    ],
)
def test_addresses(text: str, expected: set[str]) -> None:
    assert addresses(text) == expected


def test_code_blocks_are_whole() -> None:
    assert code("Try:\n```py\nx = 1\n```\nthen `y`.") == {"```py\nx = 1\n```"}
    assert code("~~~\nopen end") == {"~~~\nopen end"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yesterday Maria Lopez met the mayor of Porto.", {"maria", "lopez", "porto"}),
        ("Then I went. Nobody saw Eva's dog, and I'm glad.", {"eva"}),
        ("# A Title Of Words\n\nplain text", set()),
        ("- Milk\n- Bread", set()),
        ("```\ncall Some Thing\n```", set()),
    ],
)
def test_names(text: str, expected: set[str]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize("text", ["a" * 50_000, "1," * 25_000, "www." * 12_000, "a@" * 25_000, "A b, " * 10_000])
def test_hostile_texts_are_read_in_linear_time(text: str) -> None:
    started = time.perf_counter()
    for fact in (numbers, addresses, names):
        fact(text)
    assert time.perf_counter() - started < 2
