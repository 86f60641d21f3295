"""Age limits and age ranges."""

from __future__ import annotations

import re

from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd
from aligner_proxy_grounding.forms.reading import AFTER, BEFORE, JOIN, FactReading
from aligner_proxy_grounding.numerals import NUMBER, value_of

_NO_THING = (
    r"(?=\s*(?:[.,;:)|!?]|$|years? (?:old|of age)\b)|\s(?:and|or|to|who|pays?|gets?|is|are|may|must|can|you|we)\b)"
)
"""What follows a number that does not count anything."""
_PEOPLE = r"(?:children|kids|child|minors|infants|babies|people|persons|passengers|anyone|everyone|those|pupils|adults)"
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
_SOMEBODY = re.compile(r"[ -]year-old$", re.IGNORECASE)
"""The age of a person ("a 12-year-old"), as opposed to an age limit."""


def read_ages(reading: FactReading) -> None:
    """Read age limits and age ranges, but not the age of one person; "years" after an age is not a duration."""
    for match in reading.matches(_AGE):
        # exactly one alternative of the pattern has matched
        name = next(name for name in ("old", "aged", "under", "least", "child") if match[name] is not None)
        # the group with the lower end of the range, in the alternatives that may have one
        low = {"old": "low", "aged": "low2", "child": "low3"}.get(name, "")
        if low and match[low] is not None:
            span = match.span(low)
            fact = Fact(
                FactKind.AGE, value_of(match[low]), *span, match[low], side=RangeEnd.LOW, ranged=True, number=span
            )
            reading.take(fact)
        span = match.span(name)
        ranged = bool(low and match[low] is not None)
        side = RangeEnd.HIGH if ranged else RangeEnd.NONE
        reading.take(
            Fact(FactKind.AGE, value_of(match[name]), *span, match[name], side=side, ranged=ranged, number=span)
        )
        if name == "old":
            reading.blank(span[1], match.end())  # so that "years" is not read as a duration
            if _SOMEBODY.search(match.group()):
                reading.facts.pop()
