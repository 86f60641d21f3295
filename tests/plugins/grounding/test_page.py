"""References, taken apart."""

from __future__ import annotations

import pytest

from aligner_proxy_grounding.contradictions import find_contradiction
from aligner_proxy_grounding.facts import FactKind
from aligner_proxy_grounding.page import read_page
from aligner_proxy_grounding.passages import ABOVE

PAGE = """# Fees

Prices per month:

- Basic: €10
- Plus:
  - with a contract €20
  - without one €30

| Plan | Storage | Support |
|---|---|---|
| Basic | 5 GB | e-mail |

We answer
within 2 days.

```
code 99 days
```
"""


def test_each_fact_has_its_line_and_what_it_is_about() -> None:
    statements = {s.fact.text: s for s in read_page("F.md", PAGE).statements}
    assert {text: s.place for text, s in statements.items()} == {
        "€10": "F.md:5", "€20": "F.md:7", "€30": "F.md:8", "5 GB": "F.md:12", "2 days": "F.md:15",
    }  # fmt: skip
    assert {"basic", "cost", "month"} <= statements["€10"].word_weights.keys()
    assert {"plu", "contract"} <= statements["€20"].word_weights.keys()
    assert {"basic", "storag"} <= statements["5 GB"].word_weights.keys()


def test_one_sentence_with_another_fact_contradicts() -> None:
    first = read_page("A.md", "Returns are possible within 30 days of delivery.")
    second = read_page("B.md", "# Other\n\nReturns are possible within 14 days of delivery.")
    found = find_contradiction(first, second)
    assert found is not None
    assert [statement.place for statement in found] == ["A.md:1", "B.md:3"]


def test_other_sentences_and_equal_facts_do_not() -> None:
    first = read_page("A.md", "Returns are possible within 30 days of delivery.")
    assert find_contradiction(first, read_page("B.md", "Returns are possible within a month of delivery.")) is None
    assert find_contradiction(first, read_page("C.md", "Repairs are possible within 14 days of delivery.")) is None


def test_a_unit_may_stand_at_the_head_of_the_column_or_once_for_the_page() -> None:
    table = "| Group | a month | Working days |\n|---|---|---|\n| Owls | 390 | 3 |\n"
    text = f"All amounts are in pounds.\n\n**Fees**\n\n{table}"
    facts = [(str(s.fact.value), s.fact.unit) for s in read_page("F.md", text).statements]
    assert facts == [("390", "GBP"), ("3", "business day")]


def test_bold_words_are_what_the_lines_behind_them_are_about() -> None:
    text = "**Lost property**\n\nWe keep things for 3 months.\n\n**Meals.** Please order early. Dinner is \u20ac20.\n"
    by_value = {s.fact.text: s.word_weights for s in read_page("B.md", text).statements}
    assert "los" in by_value["3 months"]
    assert by_value["\u20ac20"]["meal"] == ABOVE


def test_front_matter_is_read_key_by_key() -> None:
    text = "---\ntitle: Gift cards\nmax_value: \u20ac150\nvalid_from: 2026-02-01\n---\n\nThey come within 10 minutes.\n"
    by_value = {s.fact.text: s for s in read_page("F.md", text).statements}
    assert {value: s.line for value, s in by_value.items()} == {"\u20ac150": 3, "2026-02-01": 4, "10 minutes": 7}
    assert "valu" in by_value["\u20ac150"].word_weights
    assert "valu" not in by_value["2026-02-01"].word_weights
    assert {"gift", "card"} <= by_value["10 minutes"].word_weights.keys()


def test_a_line_of_dashes_alone_begins_no_front_matter() -> None:
    assert [s.fact.text for s in read_page("F.md", "---\nA day costs \u20ac5.\n").statements] == ["\u20ac5"]


@pytest.mark.parametrize(
    ("head", "row", "expected"),
    [
        ("| | Basic | Pro |", "| Number of users | 5 | 1,000 |", [("5", "user"), ("1000", "user")]),
        ("| | Basic | Plus |", "| Users | 5 | 80 |", [("5", "user"), ("80", "user plu")]),
        ("| | Basic | Pro |", "| Users | up to 5 | at most 80 |", [("5", "user"), ("80", "user")]),
        ("| Plan | Projects |", "| Business | 500 |", [("500", "project")]),
        ("| Kurs | Plätze |", "| Italienisch | 12 |", [("12", "plätz italienisch")]),
        ("| Plan | API calls per minute |", "| Plus | 300 |", [("300", "plu api")]),
        ("| Course | Evenings | Room |", "| Pottery | 8 | 12 |", [("8", "even"), ("12", "room")]),
    ],
)
def test_a_bare_number_in_a_table_counts_what_its_row_or_column_names(
    head: str, row: str, expected: list[tuple[str, str]]
) -> None:
    page = read_page("F.md", f"{head}\n|---|---|---|\n{row}\n")
    assert [(str(statement.fact.value), statement.fact.unit) for statement in page.statements] == expected


def test_bare_hours_in_a_table_of_days_are_times() -> None:
    table = "| Day | Shop |\n|---|---|\n| Mon\u2013Fri | 8\u201317 |\n"
    facts = [s.fact for s in read_page("F.md", table).statements if s.fact.kind is FactKind.TIME]
    assert [int(str(fact.value)) for fact in facts] == [8 * 60, 17 * 60]


def test_weekends_are_saturday_and_sunday() -> None:
    (statement,) = read_page("F.md", "On weekends an hour costs \u20ac2.").statements
    assert {"saturday", "sunday"} <= statement.word_weights.keys()
    assert "monday" not in statement.word_weights
