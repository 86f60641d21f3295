"""Reader of the facts of a sentence: it calls the modules of this folder, each of which knows some written formats."""

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
    read_foreign_counts,
    read_foreign_durations,
    read_fractions,
    read_money,
    read_percentages,
    read_sizes,
)
from aligner_proxy_grounding.forms.reading import JOIN, LOOK_BACK, PLAIN, Conventions, FactReading, makes_range
from aligner_proxy_grounding.forms.shared_months import read_shared_months
from aligner_proxy_grounding.words import stem

_MAX_CHARS = 1_000
"""A longer text is not read, because it is hardly a sentence."""
# Words before the upper end of a range, or before a limit that must not be exceeded.
_HIGH_END_BEFORE = re.compile(
    r"(?:\b(?:until|till|to|by|before|no later than|latest|clos(?:e|es|ed|ing)(?: at)?|ends?(?: at)?|up to|at most|"
    r"maximum(?: of)?|max\.?|no more than|not more than|never more than|as many as|as much as)|\u2013|-)\s*$",
    re.IGNORECASE,
)
# Words before the lower end of a range, or before a minimum.
_LOW_END_BEFORE = re.compile(
    r"\b(?:from|at least|minimum(?: of)?|min\.?|no(?:t)? (?:less|fewer) than|open(?:s|ing)?(?: at)?|starts?(?: at)?|"
    r"begins?(?: at)?|after|more than|above|between|starting(?: at)?|as little as)\s*$",
    re.IGNORECASE,
)
# Words before a number that is not meant itself. "Over" is none of them: a course "runs over eight evenings".
_ABOVE_BEFORE = re.compile(
    r"(?<!\bno )(?<!\bnot )(?<!\bnever )(?<!\bnicht )"
    r"\b(?:more than|above|mehr als|plus de|m\u00e1s de)\s*$",
    re.IGNORECASE,
)
_BELOW_BEFORE = re.compile(
    r"(?<!\bno )(?<!\bnot )(?<!\bnicht )\b(?:fewer than|less than|under|below|weniger als|unter|moins de|menos de)\s*$",
    re.IGNORECASE,
)
_ABOUT_BEFORE = re.compile(
    r"\b(?:about|around|roughly|approximately|approx\.?|some|nearly|almost|circa|ca\.|just (?:over|under)|a good|"
    r"a (?:bit|little) (?:more than|less than|over|under)|close to)\s*$",
    re.IGNORECASE,
)
_TIMES = stem("times")
"""The unit of "three times"; this word says nothing about what is counted."""


def read_facts(text: str, conventions: Conventions = PLAIN) -> list[Fact]:
    """Read the facts of a sentence, in text order; a text of more than `_MAX_CHARS` characters has none.

    `conventions` say how the references mean what can be read in two ways, such as "pounds" and "3/4/2026".
    """
    if len(text) > _MAX_CHARS:
        return []
    reading = FactReading(text, text, conventions)
    read_addresses(reading)
    read_versions(reading)
    read_shared_months(reading)
    read_dates(reading)
    read_phones(reading)
    # Emphasis marks may separate a number from its unit, so the formats below are read without them.
    reading.rest = reading.rest.translate({ord("*"): " ", ord("_"): " ", ord("`"): " "})
    for read_format in _FORMAT_READERS:
        read_format(reading)
    facts = _inherit_units(sorted(reading.facts, key=lambda fact: fact.start))
    if conventions.pounds_weigh:
        facts = [_as_weight(fact) for fact in facts]
    return [_apply_words_before(fact, text) for fact in _link_ranges(facts, text)]


def _as_weight(fact: Fact) -> Fact:
    """Turn an amount of money in "pounds" into a weight; return any other fact as it is."""
    is_in_pounds = fact.kind is FactKind.MONEY and fact.unit == "GBP" and "pound" in fact.text.lower()
    return replace(fact, kind=FactKind.AMOUNT, unit="lbs") if is_in_pounds else fact


# The order matters: each function reads what the functions before it left, so plain counts come after all units.
_FORMAT_READERS: tuple[Callable[[FactReading], None], ...] = (
    read_streets, read_labels, read_money, read_percentages, read_days_of_month, read_times,
    read_bare_hours, read_sizes, read_fractions, read_ages, read_durations,
    read_foreign_durations, read_amounts, read_counts, read_foreign_counts, read_weekdays,
    read_names,
)  # fmt: skip


def _inherit_units(facts: list[Fact]) -> list[Fact]:
    """Give each number of things without a unit the unit of the number before it; changes `facts`, and returns it.

    In "20 items, with a card 30" the 30 are items, too.
    """
    last_unit = ""
    for index, fact in enumerate(facts):
        if fact.kind is FactKind.COUNT:
            last_unit = fact.unit or last_unit
            # `inherited` marks a guessed unit; "three times" does not say what is counted either
            facts[index] = replace(fact, unit=last_unit, inherited=fact.unit in ("", _TIMES))
    return facts


def _link_ranges(facts: list[Fact], text: str) -> list[Fact]:
    """Mark two neighbouring facts of one kind as the ends of a range if a dash or "to" joins them: "3-5 days".

    Changes `facts`, and returns it.
    """
    for index in range(len(facts) - 1):
        fact, next_fact = facts[index : index + 2]
        text_between = text[fact.end : next_fact.start]
        if fact.ranged or next_fact.ranged or not fact.same_form(next_fact) or not re.fullmatch(JOIN, text_between):
            continue
        # "5 euros or 7 euros" are alternatives and no range
        if text_between.strip() == "or" or not makes_range(text[: fact.start], text_between.strip()):
            continue
        facts[index] = replace(fact, side=RangeEnd.LOW, ranged=True)
        facts[index + 1] = replace(next_fact, side=RangeEnd.HIGH, ranged=True)
    return facts


def _apply_words_before(fact: Fact, text: str) -> Fact:
    """Set which end of a range a fact is ("until"), and whether it is approximate ("about"), by the words before it."""
    text_before = text[max(0, fact.start - LOOK_BACK) : fact.start]
    if _ABOUT_BEFORE.search(text_before):
        fact = replace(fact, approximate=True)
    if fact.kind is FactKind.COUNT:
        is_above = _ABOVE_BEFORE.search(text_before) is not None
        is_below = _BELOW_BEFORE.search(text_before) is not None
        fact = replace(fact, bound=RangeEnd.LOW if is_above else RangeEnd.HIGH if is_below else RangeEnd.NONE)
    if fact.side is not RangeEnd.NONE:
        # the fact is one of two ends that the text gives, so its end is known
        return fact
    if _HIGH_END_BEFORE.search(text_before):
        return replace(fact, side=RangeEnd.HIGH)
    return replace(fact, side=RangeEnd.LOW) if _LOW_END_BEFORE.search(text_before) else fact
