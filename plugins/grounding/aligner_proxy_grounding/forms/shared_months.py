"""Reader of two days that share one month: "from 3 to 5 May", "am 20. und 21. Mai", "May 3-5"."""

from __future__ import annotations

import re

from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd
from aligner_proxy_grounding.forms.dates import MONTH, MONTH_NUMBERS, MONTHS, YEAR, is_verb
from aligner_proxy_grounding.forms.reading import BEFORE, JOIN, SPACE, FactReading

_ENDING = r"(?:st|nd|rd|th|\.)"
_TWO_DAYS = (
    rf"(?P<first>\d{{1,2}})(?P<first_ending>{_ENDING})?(?P<join>{JOIN}|{SPACE}\b(?:und|oder|au|et|y)\b{SPACE})"
    rf"(?:(?:the|dem|den|zum|le|el) )?(?P<last>\d{{1,2}})(?P<last_ending>{_ENDING})?"
)
_MONTH_BEHIND = re.compile(
    rf"{BEFORE}(?<![$\u20ac\u00a3]){_TWO_DAYS}(?:{SPACE}(?:of |de )?(?P<month>{MONTH})\b"
    rf"{YEAR}|(?<=\.)(?P<digits>\d{{1,2}})\.(?P<year_behind>(?:19|20)\d\d)?(?!\d))",
    re.IGNORECASE,
)
_MONTH_BEFORE = re.compile(
    rf"(?<!\w)(?P<month>{MONTH})\b\.?{SPACE}(?:the )?{_TWO_DAYS}"
    # "May 3 to 5 pm" has a time, and "May 3 and 20 people" counts people, so words may follow only two days with a dash
    rf"(?:(?=\s*(?:[;!?)|]|[.,](?!\d)|$|,?\s(?:19|20)\d\d\b))|(?<=\d[-\u2013]\d)(?=\s)|(?<=\d[-\u2013]\d\d)(?=\s))"
    rf"(?!\s?[ap]\.?m\b){YEAR}",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"\b(?:between|zwischen|entre)(?: (?:the|dem|den|le|el))?\s*$", re.IGNORECASE)
_LIST_JOINS = ("and", "or", "und", "oder", "et", "y")
"""Words that join two single days; only behind "between" they join the ends of a range."""


def read_shared_months(reading: FactReading) -> None:
    """Read pairs of days with one month; the `number` of each date is its day, since only the day may be replaced."""
    for pattern in (_MONTH_BEHIND, _MONTH_BEFORE):
        for match in reading.matches(pattern):
            _take_two_days(reading, match)


def _take_two_days(reading: FactReading, match: re.Match[str]) -> None:
    """Append the facts of both days of a match to the reading, unless its numbers are hardly days of one month."""
    groups = match.groupdict()
    month = MONTH_NUMBERS[match["month"].lower()] if match["month"] else int(groups["digits"])
    sides = _sides_of(match)
    if sides is None or month not in range(1, len(MONTHS) + 1) or is_verb(match):
        return
    if not 1 <= int(match["first"]) < int(match["last"]) <= 31:
        return
    year = match["year"] or groups.get("year_behind")
    for name, side, (start, end) in zip(("first", "last"), sides, _spans_of(match), strict=True):
        value = (int(year) if year else None, month, int(match[name]))
        text = reading.text[start:end]
        is_ranged = side is not RangeEnd.NONE
        reading.take(Fact(FactKind.DATE, value, start, end, text, side=side, ranged=is_ranged, number=match.span(name)))
    reading.blank(match.start(), match.end())


def _sides_of(match: re.Match[str]) -> tuple[RangeEnd, RangeEnd] | None:
    """The sides of the two days: those of a range or, in a list, none; None if they may be no days of one month."""
    has_points = match["first_ending"] == ".", match["last_ending"] == "."
    # German days have a point each: "Zone 1 bis 5. Mai" has only one day
    if has_points[0] is not has_points[1]:
        return None
    if match["join"].strip().lower() not in _LIST_JOINS or _BETWEEN.search(match.string, 0, match.start()):
        return RangeEnd.LOW, RangeEnd.HIGH
    return (RangeEnd.NONE, RangeEnd.NONE) if match["first_ending"] and match["last_ending"] else None


def _spans_of(match: re.Match[str]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(start, end) of both dates: each day with its ordinal ending, one of them with the month beside it."""
    first_start, first_end = match.span("first")
    last_start, last_end = match.span("last")
    if match["first_ending"] not in (None, "."):
        first_end = match.end("first_ending")
    if match["last_ending"] not in (None, "."):
        last_end = match.end("last_ending")
    if match.start("month") == match.start():
        return (match.start(), first_end), (last_start, last_end)
    return (first_start, first_end), (last_start, match.end())
