"""Tests whether a number of an answer is computed from other numbers: a sum, a half, "an hour before closing".

No reference states a computed number, so it must not be replaced by a number of a reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import pairwise, permutations, product

from aligner_proxy_grounding.facts import HALF_A_DAY, Fact, FactKind, RangeEnd, date_parts
from aligner_proxy_grounding.words import stem

_MAX_TERMS = 40
"""How many facts of question and answer, the last ones, are tried as terms of a computation."""
_HALF_OR_DOUBLE = re.compile(
    r"\b(?:half|halves|both|twice|double[ds]?|doubling)\b(?! past\b| an? hour\b|-(?:hour|day|term))", re.IGNORECASE
)
"""Words that may halve or double a number."""
_KINDS_MULTIPLIED = (FactKind.MONEY, FactKind.PERCENT, FactKind.AMOUNT, FactKind.DURATION)
"""Kinds of facts of which an answer may give a multiple of what a reference states."""
_KINDS_OF_FACTORS = (FactKind.COUNT, FactKind.AMOUNT, FactKind.DURATION)
"""Kinds of facts that may be the factor of such a multiple."""
_CASE_BEFORE = re.compile(r"(?:\b(?:with|for|of|are)|['\u2019]re)\s+$", re.IGNORECASE)
"""Words before a number of things that is an example and no limit: "with 30 users"."""
_CHARACTER_STEMS = {*map(stem, ("character", "letter", "digit", "sign"))}
_CODE = re.compile(r"\b(?=\S*\d)\w{4,}\b")
"""A word with a digit, such as a password or an order number."""


def is_length_of_word(fact: Fact, text: str) -> bool:
    """Whether a number counts the characters of a word in `text`, which the client wrote: a password, a code."""
    if fact.kind is not FactKind.COUNT or _CHARACTER_STEMS.isdisjoint(fact.unit.split()):
        return False
    return any(len(word) == fact.value for word in _CODE.findall(text))


def is_result(fact: Fact, terms: Sequence[Fact]) -> bool:
    """Whether a fact is an amount of money that can be computed from two of `terms`, one of them money, too.

    Such a result needs no reference. `terms` are the facts of question and answer in text order; `fact` itself, which
    may be among them, is ignored.
    """
    if fact.kind is not FactKind.MONEY or not isinstance(fact.value, Decimal) or fact.value == 0:
        return False
    other_terms = [term for term in terms[-_MAX_TERMS:] if term is not fact]
    amounts = {term.value for term in other_terms if term.kind is FactKind.MONEY and isinstance(term.value, Decimal)}
    amounts -= {0}
    factors = {*_written_numbers(term for term in other_terms if term.kind not in (FactKind.MONEY, FactKind.TIME))}
    factors -= {0, 1}
    percentages = {*_written_numbers(term for term in other_terms if term.kind is FactKind.PERCENT)} - {0}
    # "12 + 9 euros" and "12 - 9 euros"
    results = {first + second for first, second in permutations(amounts, 2)}
    results |= {first - second for first, second in product(amounts, repeat=2)}
    # "3 tickets at 12 euros"
    results |= {amount * factor for amount, factor in product(amounts, factors)}
    # "20 % of 45 euros", "20 % off 45 euros"
    percentages |= {100 - percentage for percentage in percentages}
    cent = Decimal("0.01")
    results |= {(amount * percentage / 100).quantize(cent) for amount, percentage in product(amounts, percentages)}
    return fact.value in results


def follows_from_question(fact: Fact, client_facts: Sequence[Fact], answer_facts: Sequence[Fact]) -> bool:
    """Whether a number can be computed from the client's facts, so that no reference needs to state it.

    The number may be a side of a size that the client gave, the hours between two of the client's times, or the sum or
    difference of a number of the client and a number of the answer ("60 km left" of 160).
    """
    if not isinstance(fact.value, Decimal) or fact.kind not in (FactKind.AMOUNT, FactKind.DURATION, FactKind.COUNT):
        return False
    (number,) = _written_numbers([fact])
    if any(
        isinstance(client_fact.value, tuple) and number in client_fact.value
        for client_fact in client_facts
        if client_fact.kind is FactKind.SIZE
    ):
        return True
    if fact.kind is FactKind.DURATION:
        # a duration is compared only with the client's times of day
        return fact.unit == "hour" and fact.value in _hours_between(client_facts)
    client_numbers = _written_numbers(client_fact for client_fact in client_facts if client_fact.same_form(fact))
    answer_numbers = _written_numbers(term for term in answer_facts[-_MAX_TERMS:] if term is not fact)
    return any(
        number in (abs(client_number - answer_number), client_number + answer_number)
        for client_number in client_numbers
        for answer_number in answer_numbers
        if client_number != answer_number
    )


def _written_numbers(facts: Iterable[Fact]) -> list[Decimal]:
    """The numbers of facts as the text gives them: 3 for "3 kg", which is stored in grams; without facts of text."""
    return [fact.value * fact.scale for fact in facts if isinstance(fact.value, Decimal)]


def _hours_between(client_facts: Sequence[Fact]) -> set[Decimal]:
    """The hours from each time of day that the client gave to the next one, if that is later."""
    times = [fact.value for fact in client_facts if fact.kind is FactKind.TIME and isinstance(fact.value, Decimal)]
    return {(later - earlier) / 60 for earlier, later in pairwise(times) if later > earlier}


def is_multiple(fact: Fact, stated_fact: Fact, other_facts: Iterable[Fact], text: str) -> bool:
    """Whether a fact of an answer is half or a multiple of a reference's fact: "half of it", "for three books".

    A multiple counts only if the factor is among `other_facts`, the numbers of sentence and question, or, for half and
    double, if a word of `text`, the sentence with the sentences before it, says so.
    """
    if fact.kind not in _KINDS_MULTIPLIED or fact.unit != stated_fact.unit:
        return False
    if not (isinstance(fact.value, Decimal) and isinstance(stated_fact.value, Decimal) and stated_fact.value):
        return False
    factor = fact.value / stated_fact.value
    if factor in (2, Decimal("0.5")) and _HALF_OR_DOUBLE.search(text):
        return True
    return factor > 1 and factor in _written_numbers(term for term in other_facts if term.kind in _KINDS_OF_FACTORS)


def is_within_range(fact: Fact, stated_facts: Sequence[Fact]) -> bool:
    """Whether a value is between the two ends of a range in `stated_facts`, the facts of a sentence of a reference.

    False for a time of day: "open until 5" contradicts opening hours from 9 to 6.
    """
    if fact.kind is FactKind.TIME:
        return False
    for low, high in pairwise(stated_facts):
        if not (low.ranged and high.ranged and (low.side, high.side) == (RangeEnd.LOW, RangeEnd.HIGH)):
            continue
        if all(fact.same_form(end) and fact.unit == end.unit for end in (low, high)):
            if fact.kind is FactKind.DATE:
                return _is_between_dates(fact, low, high)
            values = (low.value, fact.value, high.value)
            if all(isinstance(value, Decimal) for value in values):
                return values[0] < values[1] < values[2]  # type: ignore[operator]
    return False


def is_allowed_case(fact: Fact, stated: Fact, text: str) -> bool:
    """Whether a number of things is a case that a limit of a reference allows: "with 30 users" of "up to 150 users".

    `text` is the sentence of the answer.
    """
    if (
        fact.kind is not FactKind.COUNT
        or fact.side is not RangeEnd.NONE
        or not _CASE_BEFORE.search(text, 0, fact.start)
    ):
        return False
    if not (isinstance(fact.value, Decimal) and isinstance(stated.value, Decimal)):
        return False
    is_allowed = fact.value < stated.value if stated.side is RangeEnd.HIGH else fact.value > stated.value
    return is_allowed and stated.side is not RangeEnd.NONE and not stated.ranged


def _is_between_dates(date: Fact, low: Fact, high: Fact) -> bool:
    """Whether a date is between two others; years count only if all three dates have one.

    False if one of them is only a day of any month.
    """
    dates = [date_parts(each) for each in (low, date, high)]
    if any(month is None or day is None for _, month, day in dates):
        return False
    have_years = all(year is not None for year, _, _ in dates)
    first, middle, last = ((year if have_years else 0, month, day) for year, month, day in dates)
    return first < middle < last


def is_offset_from(fact: Fact, other_facts: Iterable[Fact], offsets: Iterable[Decimal]) -> bool:
    """Whether a time of day is one of `offsets`, in minutes, before or after another time of its sentence.

    For example, with an offset of 60, "at 4 pm" in "closes at 5 pm, last entry at 4 pm". The offsets are durations that
    the references state; `other_facts` are those of the sentence.
    """
    if fact.kind is not FactKind.TIME or not isinstance(fact.value, Decimal):
        return False
    differences: set[Decimal] = set()
    for other_fact in other_facts:
        if other_fact.kind is FactKind.TIME and isinstance(other_fact.value, Decimal):
            # Compare within 12 hours, since "half past six" may be morning or evening.
            differences.add((fact.value - other_fact.value) % HALF_A_DAY)
            differences.add((other_fact.value - fact.value) % HALF_A_DAY)
    return not differences.isdisjoint(offsets)
