"""References, taken apart."""

from __future__ import annotations

from aligner_proxy_grounding.contradictions import find_contradiction
from aligner_proxy_grounding.page import ABOVE, read_page

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
    assert {"basic", "cost", "month"} <= statements["€10"].about.keys()
    assert {"plu", "contract"} <= statements["€20"].about.keys()
    assert {"basic", "storag"} <= statements["5 GB"].about.keys()


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
    by_value = {s.fact.text: s.about for s in read_page("B.md", text).statements}
    assert "los" in by_value["3 months"]
    assert by_value["\u20ac20"]["meal"] == ABOVE
