"""Readers of dates, days of a month and days of the week."""

from __future__ import annotations

import re

from aligner_proxy_grounding.facts import DAY_OR_MONTH, Fact, FactKind
from aligner_proxy_grounding.forms.reading import AFTER, BEFORE, SPACE, Conventions, FactReading
from aligner_proxy_grounding.languages import LANGUAGES, either
from aligner_proxy_grounding.numerals import ORDINAL, ordinal_value

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTH_NUMBERS = {
    name.lower(): number
    for months in (MONTHS, [month[:3] for month in MONTHS], *(language.months for language in LANGUAGES))
    for number, name in enumerate(months, 1)
} | {"sept": 9}
MONTH = either([*MONTH_NUMBERS])
"""Regular expression of the names of months in all languages, and of the short names in English."""
YEAR = rf"(?:,?{SPACE}(?:de |del )?(?P<year>(?:19|20)\d\d)\b)?"
"""Regular expression of the year behind day and month, which may be left out."""
# A date with slashes is in "one" and "other", since either may be the day.
_DATE = re.compile(
    rf"{BEFORE}(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th|er|\.)?{SPACE}(?:of |de )?(?P<month>{MONTH})\b\.?"
    rf"{YEAR}"
    rf"|(?P<month2>{MONTH})\b\.?{SPACE}(?:the )?(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?{AFTER}"
    rf"{YEAR.replace('<year>', '<year2>')}"
    rf"|(?P<year3>(?:19|20)\d\d)-(?P<month3>\d\d)-(?P<day3>\d\d)"
    rf"|(?P<day4>\d{{1,2}})\.(?P<month4>\d{{1,2}})\.(?P<year4>(?:19|20)\d\d)?(?!\d)"
    rf"|(?P<one>\d{{1,2}})/(?P<other>\d{{1,2}})/(?P<year5>(?:19|20)\d\d)(?![\d/]))",
    re.IGNORECASE,
)
_VERBS = ("may", "march")
"""Names of months that are verbs if they begin with a small letter: "children of 3 to 5 may enter"."""
_BEFORE_DATE = re.compile(r"\b(?:on|by|before|since)(?: the)?\s*$", re.IGNORECASE)
"""What precedes a date with a month in small letters, as in "by 5 may"."""
_DAY_OF_MONTH = re.compile(
    rf"\bthe (?P<day>{ORDINAL}) of "
    r"(?:each|every|a|any|(?:the )?(?:next|following|same)|the) month\b"
    r"|\b(?:on|by|until|before|after|around) the (?P<day2>\d{1,2}(?:st|nd|rd|th))"
    r"(?=\s*(?:[.,;:)!?]|$)|\s(?:and|or|at|in)\b)"
    r"|\b(?:am|zum|dem|den|der|jeden) (?P<day3>\d{1,2})"
    r"(?=\. (?:(?:eines )?jede[sn]|des(?: \w+en)?|eines|im) (?:Kalender)?Monate?s?\b)"
    r"|\ble (?P<day4>\d{1,2}(?:er)?)(?= (?:de chaque|du|de tous les) mois\b)"
    r"|\bd[i\u00ed]a (?P<day5>\d{1,2})(?= (?:de cada|del|de todos los) mes(?:es)?\b)",
    re.IGNORECASE,
)
_WEEKDAY = re.compile(
    rf"(?<!\w)(?P<day>{'|'.join(DAYS)}|mon|tues?|wed|thurs?|fri|sat|sun)(?P<many>s?)\b(?!\w)", re.IGNORECASE
)
_DATE_BEFORE = re.compile(
    r"(?:^|[,:(\u2013-]|\b(?:am|bis|ab|vom|von|zum|den|der|dem|und|on|by|until|till|from|before|after|since|to|and))\s*$",
    re.IGNORECASE,
)
"""What precedes a date such as "3.7.", which without it may be a decimal number."""
_FOREIGN_DAYS = {day.lower(): n for language in LANGUAGES for n, day in enumerate(language.days)}
"""Weekdays in other languages by their index in `DAYS`."""
_FOREIGN_DAY = re.compile(rf"(?<!\w)(?P<day>{either([*_FOREIGN_DAYS])})(?:s|en)?(?!\w)", re.IGNORECASE)
# Matched with its case, unlike the pattern above.
_SHORT_DAY = re.compile(r"(?:Mon|Tues?|Wed|Thurs?|Fri|Sat|Sun)\b")


def read_dates(reading: FactReading) -> None:
    """Read dates in words, ISO dates, and dates with points or slashes.

    The groups of `_DATE` that have the same part of a date in different notations end in a number.
    """
    for match in reading.matches(_DATE):
        groups = match.groupdict()
        if groups["day4"] and not groups["year4"] and not _DATE_BEFORE.search(reading.text, 0, match.start()):
            continue  # "an average of 3.7."
        if is_verb(match):
            continue
        is_month_first = groups["one"] is not None and _reads_month_first(match, reading.conventions)
        day = (
            groups["day"]
            or groups["day2"]
            or groups["day3"]
            or groups["day4"]
            or groups["other" if is_month_first else "one"]
        )
        year = groups["year"] or groups["year2"] or groups["year3"] or groups["year4"] or groups["year5"]
        month_name = groups["month"] or groups["month2"]
        month_digits = groups["month3"] or groups["month4"] or groups["one" if is_month_first else "other"]
        month = MONTH_NUMBERS[month_name.lower()] if month_name else int(month_digits)
        if 1 <= int(day) <= 31 and 1 <= month <= len(MONTHS):
            value = (int(year) if year else None, month, int(day))
            end = match.end()
            if match.group().endswith(".") and groups["day4"] is None:
                end -= 1  # the point of "3 Sept." may end the sentence; only in "3.9." it belongs to the date
            unit = DAY_OR_MONTH if _is_ambiguous(match, reading.conventions) else ""
            reading.take(Fact(FactKind.DATE, value, match.start(), end, reading.text[match.start() : end], unit))
            reading.blank(match.start(), match.end())


def is_verb(match: re.Match[str]) -> bool:
    """Whether the group `month` of a date is more likely a verb: "may" in "children aged 3 to 5 may enter"."""
    if match["month"] not in _VERBS or match["year"] or "of" in match.group():
        return False
    return _BEFORE_DATE.search(match.string, 0, match.start()) is None


def _reads_month_first(match: re.Match[str], conventions: Conventions) -> bool:
    """Whether a date with slashes begins with its month, as "3/14/2026" does.

    If both numbers may be months, the order is that of the references; False if they do not show an order.
    """
    if int(match["one"]) > len(MONTHS):
        return False
    return int(match["other"]) > len(MONTHS) or bool(conventions.month_first)


def _is_ambiguous(match: re.Match[str], conventions: Conventions) -> bool:
    """Whether a date has slashes and either of its numbers may be the month; False if the pages show the order."""
    if conventions.month_first is not None or match["one"] is None:
        return False
    return int(match["one"]) <= len(MONTHS) and int(match["other"]) <= len(MONTHS)


def read_days_of_month(reading: FactReading) -> None:
    """Read days of a month without a month's name: "the 3rd of each month", "am 3. jedes Monats"."""
    for match in reading.matches(_DAY_OF_MONTH):
        name = match.lastgroup or "day"
        day_text = match[name]
        day = int(day_text if day_text.isdigit() else ordinal_value(day_text))
        if 1 <= day <= 31:
            reading.take(Fact(FactKind.DATE, (None, None, day), *match.span(name), day_text))


def read_weekdays(reading: FactReading) -> None:
    """Read days of the week; the English names must begin with a capital."""
    for match in reading.matches(_FOREIGN_DAY):
        day = DAYS[_FOREIGN_DAYS[match["day"].lower()]]
        reading.take(Fact(FactKind.WEEKDAY, day, *match.span(), match.group()))
    for match in reading.matches(_WEEKDAY):
        day_text = match.group()
        # short names need the usual case, since "sat" and "SUN" are words as well
        if len(match["day"]) < len("monday") and not _SHORT_DAY.match(day_text):
            continue
        if not day_text[0].isupper():
            continue
        weekday = next(day for day in DAYS if day.startswith(match["day"].lower()[:3]))
        # not blanked out, since it may be a name: "with Tuesday Weld"
        reading.facts.append(Fact(FactKind.WEEKDAY, weekday, *match.span(), day_text))
