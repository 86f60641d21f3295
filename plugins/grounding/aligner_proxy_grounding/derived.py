"""Facts that follow from other numbers, such as sums, products, halves or "an hour before closing".

No statement of a reference gives such a number, so it must not be replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import pairwise, permutations, product

from aligner_proxy_grounding.facts import HALF_A_DAY, Fact, FactKind, RangeEnd
from aligner_proxy_grounding.words import stem

_ENDS_AND_VALUE = 3
"""Two ends of a range and the value between them."""
_MAX_TERMS = 40
"""How many numbers of an answer, the latest ones, are tried as terms of a sum."""
_OF_TWO = re.compile(
    r"\b(?:half|halves|both|twice|double[ds]?|doubling)\b(?! past\b| an? hour\b|-(?:hour|day|term))", re.IGNORECASE
)
"""Words that may halve or double a number."""
_MULTIPLIED = (FactKind.MONEY, FactKind.PERCENT, FactKind.AMOUNT, FactKind.DURATION)
"""Kinds of numbers that are quoted as multiples of what a reference states."""
_CHARACTERS = {*map(stem, ("character", "letter", "digit", "sign"))}
_CODE = re.compile(r"\b(?=\S*\d)\w{4,}\b")
"""A word with a digit, such as a password or an order number."""
_FACTORS = (FactKind.COUNT, FactKind.AMOUNT, FactKind.DURATION)
"""Kinds of numbers by which the kinds above are multiplied."""


def is_length_of_word(fact: Fact, text: str) -> bool:
    """Whether a number counts the characters of a word that the client wrote: a password, a code."""
    if fact.kind is not FactKind.COUNT or _CHARACTERS.isdisjoint(fact.unit.split()):
        return False
    return any(len(word) == fact.value for word in _CODE.findall(text))


def is_result(fact: Fact, terms: Sequence[Fact]) -> bool:
    """Whether an amount of money can be computed from two of `terms`, one of them an amount of money.

    `terms` are the facts of question and answer; the fact itself is not used.
    """
    if fact.kind is not FactKind.MONEY or not isinstance(fact.value, Decimal) or fact.value == 0:
        return False
    other_terms = [term for term in terms[-_MAX_TERMS:] if term is not fact]
    money = {term.value for term in other_terms if term.kind is FactKind.MONEY and isinstance(term.value, Decimal)}
    amounts = money - {0}
    factors = {*_written_numbers(term for term in other_terms if term.kind not in (FactKind.MONEY, FactKind.TIME))}
    factors -= {0, 1}
    shares = {*_written_numbers(term for term in other_terms if term.kind is FactKind.PERCENT)} - {0}
    # "12 + 9 euros" and "12 - 9 euros"
    results = {first + second for first, second in permutations(amounts, 2)}
    results |= {first - second for first, second in product(amounts, repeat=2)}
    # "3 tickets at 12 euros"
    results |= {amount * factor for amount, factor in product(amounts, factors)}
    # "20 % of 45 euros", "20 % off 45 euros"
    percentages = {*shares, *(100 - share for share in shares)}
    cents = Decimal("0.01")
    results |= {(amount * percentage / 100).quantize(cents) for amount, percentage in product(amounts, percentages)}
    return fact.value in results


def follows_from_question(fact: Fact, client_facts: Sequence[Fact], answer_facts: Sequence[Fact]) -> bool:
    """Whether a number can be computed from what the client gave, so that no reference needs to state it.

    It may be one side of the client's parcel, the hours between two of the client's times, or the sum or difference of
    a number of the client and one of the answer ("60 km left" of 160).
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
    others = _written_numbers(term for term in answer_facts[-_MAX_TERMS:] if term is not fact)
    return any(
        number in (abs(client_fact - other), client_fact + other)
        for client_fact in client_numbers
        for other in others
        if client_fact != other
    )


def _written_numbers(facts: Iterable[Fact]) -> list[Decimal]:
    """The numbers of facts as they are written: 3 of "3 kg", which are stored as grams."""
    return [fact.value * fact.scale for fact in facts if isinstance(fact.value, Decimal)]


def _hours_between(own: Sequence[Fact]) -> set[Decimal]:
    """The number of hours between consecutive times of day that the client gave."""
    times = [one.value for one in own if one.kind is FactKind.TIME and isinstance(one.value, Decimal)]
    return {(later - earlier) / 60 for earlier, later in pairwise(times) if later > earlier}


def is_multiple(fact: Fact, stated: Fact, beside: Iterable[Fact], text: str) -> bool:
    """Whether a number is half or a multiple of the `stated` one: "half of it", "for both", "for three books".

    `beside` are the other facts of sentence and question. `text` is the sentence with the sentences before it.
    """
    if fact.kind not in _MULTIPLIED or fact.unit != stated.unit:
        return False
    if not (isinstance(fact.value, Decimal) and isinstance(stated.value, Decimal) and stated.value):
        return False
    times = fact.value / stated.value
    if times in (2, Decimal("0.5")) and _OF_TWO.search(text):
        return True
    return times > 1 and times in _written_numbers(term for term in beside if term.kind in _FACTORS)


def is_within_range(fact: Fact, stated: Sequence[Fact]) -> bool:
    """Whether a value is between the two ends of a range; `stated` are the facts of a sentence of a reference.

    False for a time of day: "open until 5" contradicts opening hours from 9 to 6.
    """
    if fact.kind is FactKind.TIME:
        return False
    for low, high in pairwise(stated):
        if not (low.ranged and high.ranged and (low.side, high.side) == (RangeEnd.LOW, RangeEnd.HIGH)):
            continue
        values = [term.value for term in (low, fact, high) if fact.same_form(term) and fact.unit == term.unit]
        if len(values) == _ENDS_AND_VALUE and all(isinstance(value, Decimal) for value in values):
            return values[0] < values[1] < values[2]  # type: ignore[operator]
    return False


def is_offset_from(fact: Fact, beside: Iterable[Fact], minutes: Iterable[Decimal]) -> bool:
    """Whether a time of day is one of these numbers of `minutes` before or after a time among `beside`.

    Example: with an hour among `minutes`, "at 4 pm" in "closes at 5 pm, last entry at 4 pm".
    """
    if fact.kind is not FactKind.TIME or not isinstance(fact.value, Decimal):
        return False
    other_times = [term.value for term in beside if term.kind is FactKind.TIME and isinstance(term.value, Decimal)]
    # Compare within 12 hours, since "half past six" may be morning or evening.
    gaps = {
        (later - earlier) % HALF_A_DAY
        for earlier in other_times
        for later, earlier in ((fact.value, earlier), (earlier, fact.value))
    }
    return not gaps.isdisjoint(minutes)
