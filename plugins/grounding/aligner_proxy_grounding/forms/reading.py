"""State of reading the facts of one text, and the patterns around numbers that all written formats share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal

from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd
from aligner_proxy_grounding.languages import JOINS
from aligner_proxy_grounding.numerals import NUMBER, magnitude_of, value_of

SPACE = r"[ \u00a0\u202f]{0,4}"
"""Spaces, plain or not breaking a line; there may be none."""
# What joins two numbers that may be a range: a dash, "to", "and", or a word of another language.
JOIN = rf"{SPACE}(?:-|\u2013|\u2014|\bto\b|\buntil\b|\btill\b|\band\b|\bor\b|\bthrough\b|\b(?:{JOINS})(?=\s)){SPACE}"
# A number does not begin inside a word, an address or a longer number.
BEFORE = r"(?<![\w.,:/#+'\u2019])(?<!\d[-\u2013])"
AFTER = r"(?![\w]|[.,:/]\d)"
"""A number does not end inside a word or a longer number either."""
# The lower end of a range. A hyphen may join ends in digits; between words it joins the parts of one number.
RANGE = rf"(?:(?P<low>{NUMBER})(?P<join>{JOIN})(?<![a-z]-))?"
LOOK_BACK = 24
"""How many characters before a fact are searched for words such as "about" or "until"."""
_STORED_UNITS_IN_UNIT = {"fortnight": Decimal(14), "cent": Decimal("0.01"), "pence": Decimal("0.01")}
"""How many stored units one written unit is; 1 for units that are not here."""
_STORED_UNITS = {"fortnight": "day", "pence": "GBP"}
"""The unit in which a written unit is stored; units that are not here are stored as they are."""


@dataclass(frozen=True, slots=True)
class Conventions:
    """How the pages of the references mean what can be read in two ways."""

    pounds_weigh: bool = False
    """Whether "pounds" are a weight and not money."""
    month_first: bool | None = None
    """Whether "3/4/2026" is in March; None if no date of the pages shows the order."""


PLAIN = Conventions()
"""The conventions of references of which nothing is known."""


@dataclass(slots=True)
class FactReading:
    """State of reading the facts of one text; characters that are read are blanked out, so that none is read twice."""

    text: str
    """The whole text."""
    rest: str
    """The text with a NUL in place of each character that has been read, so positions are those of `text`."""
    conventions: Conventions = PLAIN
    facts: list[Fact] = field(default_factory=list)
    """The facts that have been read, in the order of reading."""

    def take(self, fact: Fact) -> None:
        """Append a fact to `facts`, and blank out its characters."""
        self.facts.append(fact)
        self.blank(fact.start, fact.end)

    def blank(self, start: int, end: int) -> None:
        """Blank out the characters from `start` to before `end`."""
        self.rest = self.rest[:start] + "\0" * (end - start) + self.rest[end:]

    def matches(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Iterate over the matches of a pattern in `rest`, as `rest` is when the iteration begins."""
        return pattern.finditer(self.rest)


def take_number(
    reading: FactReading, match: re.Match[str], kind: FactKind, written_unit: str, factor: Decimal = Decimal(1)
) -> None:
    """Append the fact of a number with its unit to the reading, or the two facts of a range.

    The groups of `match` are `n` (the number) or `one` ("a"), and maybe `low` and `join` (the lower end of a range and
    the "to" behind it) and `magnitude` ("million"). Values are stored in one unit of each sort, such as grams; `factor`
    is how many of these units one written unit is: 1000 for a kilogram.
    """
    groups = match.groupdict()
    article = groups.get("one")
    number_text = groups.get("n")
    value = Decimal(1) if article else value_of(str(number_text))
    number_start, number_end = match.span("one" if article else "n")
    factor *= _STORED_UNITS_IN_UNIT.get(written_unit, 1)
    if magnitude := groups.get("magnitude"):
        factor *= magnitude_of(magnitude)
    unit = _STORED_UNITS.get(written_unit, written_unit)
    low_text = groups.get("low")
    join = (groups.get("join") or "").strip()
    text = reading.text
    side = RangeEnd.NONE
    if low_text is not None and makes_range(text[: match.start("low")], join):
        low_span = match.span("low")
        low_value = value_of(low_text) * factor
        low_fact = Fact(kind, low_value, *low_span, low_text, unit, RangeEnd.LOW, ranged=True, number=low_span)
        reading.take(replace(low_fact, scale=1 / factor))
        side = RangeEnd.HIGH
    # the currency before a single number belongs to its fact; behind a lower end, the fact begins with its number
    fact_start = match.start() if low_text is None else number_start
    # the counted thing does not belong to the fact: of "12 rooms" only "12" does
    fact_end = number_end if kind is FactKind.COUNT else match.end()
    fact = Fact(
        kind,
        value * factor,
        fact_start,
        fact_end,
        text[fact_start:fact_end],
        unit,
        side,
        ranged=side is RangeEnd.HIGH,
        # a fortnight has become 14 days, so the written number cannot be replaced alone
        number=None if written_unit == "fortnight" else (number_start, number_end),
        scale=1 / factor,
    )
    reading.take(fact)


def makes_range(text_before: str, join: str) -> bool:
    """Whether `join` makes the numbers around it a range; "and" does so only if `text_before` ends with "between"."""
    return join.lower() != "and" or text_before.rstrip().lower().endswith("between")
