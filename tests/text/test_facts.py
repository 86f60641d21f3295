"""What counts as a number, an address, a code block and a name."""

from __future__ import annotations

import pytest

from aligner_proxy.text.facts import addresses, citations, code_blocks, code_spans, names, numbers, quotations


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
    assert code_blocks("Try:\n```py\nx = 1\n```\nthen `y`.") == {"```py\nx = 1\n```"}
    assert code_blocks("~~~\nopen end") == {"~~~\nopen end"}


def test_code_inside_sentences() -> None:
    assert code_spans("Call `x` or `y()`.\n```\n`z`\n```\n``no``") == {"`x`", "`y()`"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So it is [1], also [2, 3] and [^4].", {"[1]", "[2]", "[3]", "[4]"}),
        ("As shown (Okafor, 2019; see Li & Ruiz 2020a, p. 4).", {"okafor 2019", "li 2020a"}),
        ("As Okafor et al. (2019) and Li (2020) say", {"okafor 2019", "li 2020"}),
        ("It fell (May 2020), or (in 1990), or (Version 2001).", set()),
        ("See doi:10.1000/182.x and arXiv:2403.17141.", {"10.1000/182.x", "arxiv:2403.17141"}),
        ("Take `a[1]` or\n```\nb[2]\n```\n", set()),
        ("A list [] and [x]", set()),
    ],
)
def test_citations(text: str, expected: set[str]) -> None:
    assert citations(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('She said "it is  quite late now", no "more".', {"it is quite late now"}),
        (
            "\u201cIt is quite late\u201d and \u201eEs ist recht sp\u00e4t\u201c",
            {"It is quite late", "Es ist recht sp\u00e4t"},
        ),
        (
            "\u00ab Il est bien tard \u00bb \u300c\u3082\u3046\u9045\u3044\u3067\u3059\u300d",
            {"Il est bien tard", "\u3082\u3046\u9045\u3044\u3067\u3059"},
        ),
        ('A 5" pipe and a 6" pipe, or print("hello to you all")', {"hello to you all"}),
        ('`say "it is quite late"`', set()),
    ],
)
def test_quotations(text: str, expected: set[str]) -> None:
    assert quotations(text) == expected


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


@pytest.mark.some(3)
@pytest.mark.parametrize(
    "text",
    [
        "a" * 500_000,
        "1," * 250_000,
        "www." * 120_000,
        "a@" * 250_000,
        "A b, " * 100_000,
        "(A b, " * 90_000,
        '"a ' * 200_000,
    ],
)
def test_hostile_texts_are_read_in_linear_time(text: str) -> None:
    """Quadratic patterns would take minutes here; the suite's own time limit is the assertion."""
    for fact in (numbers, addresses, names, citations, quotations, code_spans):
        fact(text)
