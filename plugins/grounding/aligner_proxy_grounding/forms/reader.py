"""Recogniser of facts: the written formats of amounts, times, dates and addresses, in one pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd
from aligner_proxy_grounding.forms.addresses import read_addresses, read_names, read_phones, read_streets
from aligner_proxy_grounding.forms.ages import read_ages
from aligner_proxy_grounding.forms.clock import read_bare_hours, read_times
from aligner_proxy_grounding.forms.dates import read_dates, read_days_of_month, read_weekdays
from aligner_proxy_grounding.forms.labels import read_labels, read_versions
from aligner_proxy_grounding.forms.quantities import (
    read_amounts,
    read_counts,
    read_durations,
    read_foreign_durations,
    read_fractions,
    read_money,
    read_percentages,
    read_sizes,
)
from aligner_proxy_grounding.forms.reading import JOIN, LOOK_BACK, PLAIN, Conventions, FactReading, makes_range
from aligner_proxy_grounding.words import stem

_MAX_CHARS = 1_000
"""Longer sentences are not read, because they are hardly sentences."""
# Words before the upper end of a range, or before a limit that must not be exceeded.
_HIGH_BEFORE = re.compile(
    r"(?:\b(?:until|till|to|by|before|no later than|latest|clos(?:e|es|ed|ing)(?: at)?|ends?(?: at)?|up to|at most|"
    r"maximum(?: of)?|max\.?|no more than|not more than|never more than|as many as|as much as)|\u2013|-)\s*$",
    re.IGNORECASE,
)
# Words before the lower end of a range, or before a minimum.
_LOW_BEFORE = re.compile(
    r"\b(?:from|at least|minimum(?: of)?|min\.?|no(?:t)? (?:less|fewer) than|open(?:s|ing)?(?: at)?|starts?(?: at)?|"
    r"begins?(?: at)?|after|more than|above|between|starting(?: at)?|as little as)\s*$",
    re.IGNORECASE,
)
_ABOUT_BEFORE = re.compile(
    r"\b(?:about|around|roughly|approximately|approx\.?|some|nearly|almost|circa|ca\.|just (?:over|under)|a good|"
    r"a (?:bit|little) (?:more than|less than|over|under)|close to)\s*$",
    re.IGNORECASE,
)
_TIMES = stem("times")
""""Three times" has no noun of its own, so it can refer to anything."""


def read_facts(text: str, conventions: Conventions = PLAIN) -> list[Fact]:
    """The facts of a sentence in text order; none of a text with more than `_MAX_CHARS` characters.

    `conventions` say how the references write what can be read in two ways, such as "pounds" and "3/4/2026".
    """
    if len(text) > _MAX_CHARS:
        return []
    reading = FactReading(text, text, conventions)
    read_addresses(reading)
    read_versions(reading)
    read_dates(reading)
    read_phones(reading)
    # Emphasis marks may separate a number from its unit.
    reading.rest = reading.rest.translate({ord("*"): " ", ord("_"): " ", ord("`"): " "})
    for step in _STEPS:
        step(reading)
    facts = _inherit_units(sorted(reading.facts, key=lambda fact: fact.start))
    if conventions.pounds_weigh:
        facts = [_as_weight(fact) for fact in facts]
    return [_with_side(fact, text) for fact in _link_ranges(facts, text)]


def _as_weight(fact: Fact) -> Fact:
    """Turn an amount in "pounds" into a weight; any other fact stays as it is."""
    in_words = fact.kind is FactKind.MONEY and fact.unit == "GBP" and "pound" in fact.text.lower()
    return replace(fact, kind=FactKind.AMOUNT, unit="lbs") if in_words else fact


# In this order: each step reads what the earlier ones left, so plain counts come after all units.
_STEPS: tuple[Callable[[FactReading], None], ...] = (
    read_streets, read_labels, read_money, read_percentages, read_days_of_month, read_times,
    read_bare_hours, read_sizes, read_fractions, read_ages, read_durations,
    read_foreign_durations, read_amounts, read_counts, read_weekdays,
    read_names,
)  # fmt: skip


def _inherit_units(facts: list[Fact]) -> list[Fact]:
    """Give a bare number the unit of the preceding number.

    In "20 items, with a card 30" the 30 are items, too.
    """
    unit = ""
    for n, fact in enumerate(facts):
        if fact.kind is FactKind.COUNT:
            unit = fact.unit or unit
            facts[n] = replace(fact, unit=unit, inherited=fact.unit in ("", _TIMES))
    return facts


def _link_ranges(facts: list[Fact], text: str) -> list[Fact]:
    """Mark two facts of one kind as the ends of a range if a dash or "to" joins them: "9 to 5", "3-5 days"."""
    for n in range(len(facts) - 1):
        fact, next_fact = facts[n : n + 2]
        between = text[fact.end : next_fact.start]
        if fact.ranged or next_fact.ranged or not fact.same_form(next_fact) or not re.fullmatch(JOIN, between):
            continue
        # "5 euros or 7 euros" are alternatives and no range
        if between.strip() == "or" or not makes_range(text[: fact.start], between.strip()):
            continue
        facts[n] = replace(fact, side=RangeEnd.LOW, ranged=True)
        facts[n + 1] = replace(next_fact, side=RangeEnd.HIGH, ranged=True)
    return facts


def _with_side(fact: Fact, text: str) -> Fact:
    """Set which end of a range a fact is, and whether it is approximate, by the words before it: "until", "about"."""
    before = text[max(0, fact.start - LOOK_BACK) : fact.start]
    if _ABOUT_BEFORE.search(before):
        fact = replace(fact, approximate=True)
    # a range that is written out says it itself
    if fact.side is not RangeEnd.NONE:
        return fact
    if _HIGH_BEFORE.search(before):
        return replace(fact, side=RangeEnd.HIGH)
    return replace(fact, side=RangeEnd.LOW) if _LOW_BEFORE.search(before) else fact
