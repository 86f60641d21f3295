"""Reader of age limits and age ranges."""

from __future__ import annotations

import re

from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd
from aligner_proxy_grounding.forms.reading import AFTER, BEFORE, JOIN, FactReading
from aligner_proxy_grounding.numerals import NUMBER, value_of

_NO_THING = (
    r"(?=\s*(?:[.,;:)|!?]|$|years? (?:old|of age)\b)|\s(?:and|or|to|who|pays?|gets?|is|are|may|must|can|you|we)\b)"
)
"""What follows a number that does not count things, so it may be an age."""
_PEOPLE = r"(?:children|kids|child|minors|infants|babies|people|persons|passengers|anyone|everyone|those|pupils|adults)"
# An age is in the group "old", "aged", "under", "least" or "child", by the words around it.
_AGE = re.compile(
    rf"{BEFORE}(?:(?:(?P<low>{NUMBER})(?P<join>{JOIN})(?<![a-z]-))?(?P<old>{NUMBER})"
    r"(?:[ -]years?[ -](?:olds?|of age|and (?:older|over|up)|upwards?)\b|"
    r"(?= (?:and|or) (?:older|over|above|under|younger)\b))"
    rf"|(?:ages?|aged|age of|ages of) (?:(?P<low2>{NUMBER})(?P<join2>{JOIN})(?<![a-z]-))?(?P<aged>{NUMBER}){_NO_THING}"
    rf"|(?:under|over)[- ](?P<under>{NUMBER})(?:s\b|{_NO_THING})"
    rf"|(?:(?:be|is|are) (?:at least |over |under )|(?:must|to|should) be )(?P<least>{NUMBER}){_NO_THING}"
    rf"|{_PEOPLE} (?:aged |of |under |over |below |up to (?:the age of )?|from |between )+"
    rf"(?:(?P<low3>{NUMBER})(?P<join3>{JOIN})(?<![a-z]-))?(?P<child>{NUMBER}){AFTER}(?!\s*(?:months?|weeks?|days?|hours?|minutes?|kg|km|cm|%)\b))",
    re.IGNORECASE,
)
_AGE_OF_PERSON = re.compile(r"[ -]year-old$", re.IGNORECASE)
"""The age of a person ("a 12-year-old"), as opposed to an age limit."""


def read_ages(reading: FactReading) -> None:
    """Read age limits and age ranges, but not the age of one person."""
    for match in reading.matches(_AGE):
        # exactly one alternative of the pattern has matched
        group = next(name for name in ("old", "aged", "under", "least", "child") if match[name] is not None)
        # the group with the lower end of the range, in the alternatives that may have one
        low_group = {"old": "low", "aged": "low2", "child": "low3"}.get(group, "")
        is_range = bool(low_group and match[low_group] is not None)
        if is_range:
            reading.take(_make_age(match, low_group, RangeEnd.LOW))
        reading.take(_make_age(match, group, RangeEnd.HIGH if is_range else RangeEnd.NONE))
        if group == "old":
            # so that "years" behind the age is not read as a duration
            reading.blank(match.end(group), match.end())
            if _AGE_OF_PERSON.search(match.group()):
                reading.facts.pop()


def _make_age(match: re.Match[str], group: str, side: RangeEnd) -> Fact:
    """Make the fact of the age in a group of a match of `_AGE`; `side` is NONE unless it is an end of a range."""
    span = match.span(group)
    is_range = side is not RangeEnd.NONE
    return Fact(FactKind.AGE, value_of(match[group]), *span, match[group], side=side, ranged=is_range, number=span)
