"""The state of reading one text, and the marks around numbers that all forms share."""

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
JOIN = rf"{SPACE}(?:-|\u2013|\u2014|\bto\b|\buntil\b|\btill\b|\band\b|\bor\b|\bthrough\b|\b(?:{JOINS})(?=\s)){SPACE}"
# A number does not begin inside a word, an address or a longer number.
BEFORE = r"(?<![\w.,:/#+'\u2019])(?<!\d[-\u2013])"
AFTER = r"(?![\w]|[.,:/]\d)"
"""A number does not end inside a longer one either."""
# A hyphen may join the ends of a range in digits, but between words it joins the parts of one number.
RANGE = rf"(?:(?P<low>{NUMBER})(?P<join>{JOIN})(?<![a-z]-))?"
LOOK_BACK = 24
"""How many characters before a fact are searched for words such as "about" or "until"."""
# How many of the stored unit make one of the written unit.
_FACTORS = {"fortnight": Decimal(14), "cent": Decimal("0.01"), "pence": Decimal("0.01")}
_LARGER = {"fortnight": "day", "pence": "GBP"}
"""The unit in which a smaller or larger one is stored."""


@dataclass(frozen=True, slots=True)
class Conventions:
    """How the pages write what can be read in two ways."""

    pounds_weigh: bool = False
    """Whether "pounds" are a weight and not money."""
    month_first: bool | None = None
    """Whether "3/4/2026" is in March; None if no date of the pages shows it."""


PLAIN = Conventions()


@dataclass(slots=True)
class FactReading:
    """State of reading one text; recognised parts are blanked out so that nothing is read twice."""

    text: str
    """The whole text."""
    rest: str
    """The text with NUL characters in place of what has been read; positions are the same."""
    conventions: Conventions = PLAIN
    facts: list[Fact] = field(default_factory=list)
    """What has been read, in the order of reading."""

    def take(self, fact: Fact) -> None:
        """Append a fact, and blank out its characters."""
        self.facts.append(fact)
        self.blank(fact.start, fact.end)

    def blank(self, start: int, end: int) -> None:
        """Blank out characters that have been read."""
        self.rest = self.rest[:start] + "\0" * (end - start) + self.rest[end:]

    def matches(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Matches of a pattern in the text not read yet."""
        return pattern.finditer(self.rest)


def take_number(
    reading: FactReading, match: re.Match[str], kind: FactKind, unit: str, factor: Decimal = Decimal(1)
) -> None:
    """Append the fact of a number with its unit, or the two facts of a range.

    The groups of `match` are `n` (the number) or `one` ("a"), and maybe `low` and `join` (the lower end of a range) and
    `magnitude`. `factor` is how many of the stored unit make one of the written unit: 1000 g for a kilogram.
    """
    groups = match.groupdict()
    article = groups.get("one")
    number_text = groups.get("n")
    value = Decimal(1) if article else value_of(str(number_text))
    start, end = match.span("one" if article else "n")
    factor *= _FACTORS.get(unit, 1)
    if magnitude := groups.get("magnitude"):
        factor *= magnitude_of(magnitude)
    is_fortnight = unit == "fortnight"
    unit = _LARGER.get(unit, unit)
    fact_start = match.start() if groups.get("low") is None else start
    join = (groups.get("join") or "").strip()
    text = reading.text
    if groups.get("low") is not None and makes_range(text[: match.start("low")], join):
        low = match.span("low")
        fact = Fact(
            kind, value_of(match["low"]) * factor, *low, match["low"], unit, RangeEnd.LOW, ranged=True, number=low
        )
        reading.take(replace(fact, scale=1 / factor))
        side = RangeEnd.HIGH
    else:
        side = RangeEnd.NONE
        fact_start = start if groups.get("low") is not None else fact_start
    # the counted thing is not part of the fact: of "12 rooms" only "12" is
    fact_end = end if kind is FactKind.COUNT else match.end()
    fact = Fact(
        kind,
        value * factor,
        fact_start,
        fact_end,
        text[fact_start:fact_end],
        unit,
        side,
        side is RangeEnd.HIGH,
        (start, end),
    )
    # a fortnight has become 14 days, so the written number cannot be replaced alone
    if is_fortnight:
        fact = replace(fact, number=None)
    reading.take(replace(fact, scale=1 / factor))


def makes_range(before: str, join: str) -> bool:
    """Whether these words between two numbers make them a range; "and" does so only after "between"."""
    return join.lower() != "and" or before.rstrip().lower().endswith("between")
