"""Writer of a reference's value (`new`) in the notation of the answer's fact that it replaces (`old`).

The functions return None if no notation is safe; then nothing is replaced.
"""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from aligner_proxy_grounding.facts import DAY_OR_MONTH, UNITS_OF_TIME, Fact, FactKind, date_parts, seconds
from aligner_proxy_grounding.forms.clock import NOON
from aligner_proxy_grounding.forms.dates import DAYS, MONTH, MONTHS
from aligner_proxy_grounding.languages import LANGUAGES
from aligner_proxy_grounding.numerals import ORDINAL, article, format_number, format_ordinal

_HOUR_MINUTES = 60
# Hours of a clock face, and months of a year.
_TWELVE = 12
_LARGEST_NUMBER_IN_WORDS = 12
"""The largest number for which "a" becomes a word and not digits."""
_MAX_SCALED_DECIMALS = 2
"""A number in thousands, kilograms or the like is not written with more decimals."""
_AM_OR_PM = re.compile(r"([ap])(\.?\s?)m(\.?)", re.IGNORECASE)
_PART_OF_DAY = re.compile(r"\s*(?:in the (?:morning|afternoon|evening)|at night)$", re.IGNORECASE)
_CLOCK_IN_WORDS = re.compile(
    r"(?:(?:half|quarter) (?:past|to) )?(?P<hour>[a-z]+|\d{1,2})(?P<oclock> o['\u2019]clock)?", re.IGNORECASE
)
# The separator is in "point", and "Uhr" or "h" in "name".
_CLOCK_IN_DIGITS = re.compile(
    r"(?P<hour>\d{1,2})(?:(?P<point>[:.])\d\d)?(?P<name>\s*(?:Uhr|h)\s*)?(?:\d\d)?(?P<rest>.*)"
)
_PARTS_OF_HOUR = {15: "quarter past ", 30: "half past ", 45: "quarter to "}
_DAY_OF_DATE = re.compile(r"\d{1,2}(st|nd|rd|th|er)?", re.IGNORECASE)
_ARTICLE = re.compile(r"an?", re.IGNORECASE)
_MONTH = re.compile(rf"(?:{MONTH})\b", re.IGNORECASE)
_GENITIVE_ENDING = re.compile(r"['\u2019](?:s\b)?(?= )")
"""The ending of a unit in "two months' notice" and "one month's notice"."""
_ENGLISH_UNIT_OF_TIME = re.compile(
    r"(?:seconds?|secs?|minutes?|mins?|hours?|hrs?|h|days?|weeks?|fortnights?|months?|years?|yrs?)(?: and a half)?$",
    re.IGNORECASE,
)
_FOREIGN_ONE_WITHOUT_DATIVE = re.compile(r"(?:eine?n?|une?|una)\b", re.IGNORECASE)
_DATIVE_PLURAL = re.compile(r"(?:Jahren|Monaten|[Tt]agen)$")
"""A German unit as it is after "seit" or "nach", which cannot take the place of "ein Jahr"."""
_PLAIN_UNIT = re.compile(r"[a-z -]+", re.IGNORECASE)


class Rewriting(NamedTuple):
    """A change of a text: `replacement` replaces the characters from `start` to before `end`."""

    start: int
    end: int
    replacement: str


def rewrite_fact(old: Fact, new: Fact, text: str) -> Rewriting | None:
    """Return the change by which the fact `old` in `text` states the value of `new`; None if no notation is safe."""
    if new.bound is not old.bound and isinstance(new.first_value, Decimal):
        # "from 9 people on" of "more than 10 people" becomes "from 11 people on"
        shift = replace(old, value=Decimal(0)).first_value
        assert isinstance(shift, Decimal)
        new = replace(new, value=new.first_value - shift)
    rewriting = _rewrite_by_kind(old, new, text)
    return None if rewriting is None else _fix_article(text, rewriting)


def _rewrite_by_kind(old: Fact, new: Fact, text: str) -> Rewriting | None:
    """Return the change of `rewrite_fact`, which does not include the article before the fact yet."""
    match old.kind:
        case FactKind.LABEL:
            replacement: str | None = _rewrite_label(old, new)
        case FactKind.TIME:
            replacement = _rewrite_time(old, new)
        case FactKind.DATE:
            replacement = _rewrite_date(old, new)
        case FactKind.WEEKDAY:
            replacement = _rewrite_weekday(old, new)
        case FactKind.DURATION:
            return _rewrite_duration(old, new, text)
        case FactKind.MONEY | FactKind.PERCENT | FactKind.AMOUNT | FactKind.AGE | FactKind.COUNT:
            return _rewrite_quantity(old, new, text)
        case _:
            replacement = new.text
    return None if replacement is None else Rewriting(old.start, old.end, replacement)


def _fix_article(text: str, rewriting: Rewriting) -> Rewriting:
    """Extend a change to the article before it if this article changes, too: "a 30-day" -> "an 8-day"."""
    start, end, replacement = rewriting
    # four characters are enough for " an "
    old_article = re.search(r"\b(an?) $", text[max(0, start - 4) : start], re.IGNORECASE)
    if old_article is None or not replacement[:1].isdigit():
        return rewriting
    new_article = article(replacement)
    if old_article.group(1).lower() == new_article:
        return rewriting
    if old_article.group(1)[0].isupper():
        new_article = new_article.capitalize()
    return Rewriting(start - len(old_article.group()), end, f"{new_article} {replacement}")


def _rewrite_quantity(old: Fact, new: Fact, text: str) -> Rewriting | None:
    """Return the change of the number, with its unit if this changes between singular and plural.

    Examples: "$9" -> "$12", "1 euro" -> "2 euros".
    """
    if old.number is None or not isinstance(new.value, Decimal):
        return None
    start, end = old.number
    scale = old.scale
    is_money = old.kind is FactKind.MONEY
    if is_money and new.scale == 1 and scale > 1 and new.value >= 1:
        return None  # "180 cents" is an odd way to write a price
    value_in_old_unit = new.value * scale
    if scale < 1 and round(value_in_old_unit, _MAX_SCALED_DECIMALS) != value_in_old_unit:
        # "0.0045 km" is an odd way to write a length, so the reference's number and unit are written
        may_copy = old.kind is FactKind.AMOUNT and new.number is not None
        return Rewriting(old.start, old.end, new.text) if may_copy else None
    # there is no fraction of a cent
    if is_money and scale > 1 and value_in_old_unit != value_in_old_unit.to_integral_value():
        return None
    new_number = format_number(value_in_old_unit, text[start:end], _number_of(new), money=is_money and scale == 1)
    new_unit: str | None = ""
    # of money, the unit is a word in "12 euros" and none in "12 €"
    has_named_unit = text[end : old.end].strip().isalpha()
    if old.kind in (FactKind.COUNT, FactKind.AMOUNT) or scale > 1 or has_named_unit:
        new_unit = _unit_in_number(old, new, text)
    if new_unit is None:
        return None
    if new_unit:
        return Rewriting(start, old.end, new_number + new_unit)
    return Rewriting(start, end, new_number)


def _number_of(fact: Fact) -> str:
    """The number of a fact as written; empty for a fact without one."""
    if fact.number is None:
        return ""
    return fact.text[fact.number[0] - fact.start : fact.number[1] - fact.start]


def _unit_in_number(old: Fact, new: Fact, text: str) -> str | None:
    """The unit of `old` in singular or plural, as the new number needs it; "" if it stays, None if unknown."""
    assert old.number is not None
    _, number_end = old.number
    unit = text[number_end : old.end]
    assert isinstance(old.value, Decimal)
    assert isinstance(new.value, Decimal)
    was_one = old.value * old.scale == 1
    is_one = new.value * old.scale == 1
    # symbols of one or two letters have no plural
    if was_one == is_one or not unit.strip().isalpha() or len(unit.strip()) <= len("kg"):
        # A counted noun stands behind the fact, where this function cannot put it into the singular or plural.
        return None if old.kind is FactKind.COUNT and was_one != is_one else ""
    if is_one:
        return unit.rstrip("s")
    return unit if unit.endswith("s") else f"{unit}s"


def _rewrite_duration(old: Fact, new: Fact, text: str) -> Rewriting | None:
    """Return the change of a duration, which keeps the old unit if this gives a whole number; None if none is safe.

    For example, "two weeks" becomes "four weeks" and not "28 days".
    """
    assert isinstance(new.value, Decimal)
    # a range's end that is only a number: the 3 of "3 to 5 days"
    is_only_number = old.number == (old.start, old.end)
    if old.ranged and is_only_number:
        # The unit follows only the other end of the range, so it cannot change here.
        if old.unit != new.unit:
            return None
        return Rewriting(old.start, old.end, format_number(new.value, like=old.text, other=_number_of(new)))
    if not (_ENGLISH_UNIT_OF_TIME.search(old.text) and _ENGLISH_UNIT_OF_TIME.search(new.text)):
        return _rewrite_foreign_duration(old, new)
    value, unit = _convert_unit(old, new)
    is_plural = value != 1
    if old.number is None:  # "half an hour"
        new_number = format_number(value, like="1", other=_number_of(new))
        return Rewriting(old.start, old.end, f"{new_number} {unit}{'s' if is_plural else ''}")
    start, number_end = old.number
    notation_sample = text[start:number_end]
    old_unit = text[number_end : old.end]
    # "a week" becomes "two weeks", or "14 weeks" with a large number
    if _ARTICLE.fullmatch(notation_sample):
        number_word = "One" if notation_sample[0].isupper() else "one"
        notation_sample = number_word if value <= _LARGEST_NUMBER_IN_WORDS else "1"
    new_number = format_number(value, like=notation_sample, other=_number_of(new))
    if unit != old.unit:
        other_unit = _write_other_unit(unit, new, like=old_unit)
        return Rewriting(start, old.end, new_number + _inflect_unit(other_unit, plural=is_plural))
    new_unit = _inflect_unit(old_unit, plural=is_plural)
    if genitive := _GENITIVE_ENDING.match(text, old.end):
        return Rewriting(start, genitive.end(), new_number + new_unit + ("'" if is_plural else "'s"))
    return Rewriting(start, old.end, new_number + new_unit)


def _rewrite_foreign_duration(old: Fact, new: Fact) -> Rewriting | None:
    """Return the change of a duration whose unit is not English; None if no change is safe.

    If both units are equal, only the number changes; otherwise the whole duration is copied from the reference. A
    range, whose two numbers share one unit, cannot change its unit. A change between one and several is unsafe, too,
    because the words around the duration would need another form ("seit einem Jahr", "seit zwei Jahren").
    """
    assert isinstance(new.value, Decimal)
    is_one = old.value == 1 and not old.ranged and _FOREIGN_ONE_WITHOUT_DATIVE.match(old.text)
    # "ein Jahr" is in a case to which any duration without a dative fits, so the reference's words can stand there
    if is_one and not _DATIVE_PLURAL.search(new.text):
        return Rewriting(old.start, old.end, new.text)
    if old.number is None or new.number is None or 1 in (old.value, new.value):
        return None
    if old.unit != new.unit:
        return None if old.ranged else Rewriting(old.start, old.end, new.text)
    start, end = old.number
    return Rewriting(start, end, format_number(new.value, _number_of(old), _number_of(new)))


def _write_other_unit(unit: str, new: Fact, *, like: str) -> str:
    """The reference's own words for its unit, behind the space or hyphen with which the old unit, `like`, begins.

    For "a 3-day pass" and the reference's "5 hours", the result is "-hour". `unit` is the name of the new unit, which
    is written if the reference has no plain words for the unit after its number.
    """
    new_unit = ""
    if new.number is not None:
        _, number_end = new.number
        new_unit = new.text[number_end - new.start :]
    if not new_unit.strip() or not _PLAIN_UNIT.fullmatch(new_unit):
        new_unit = f" {unit}s" if unit in UNITS_OF_TIME else ""
    if new_unit and like.startswith("-") == new_unit.startswith("-"):
        return new_unit
    words = new_unit[1:]
    return f"-{words.rstrip('s')}" if like.startswith("-") else f" {words}"


def _inflect_unit(unit: str, *, plural: bool) -> str:
    """Return the singular or plural of a unit of time; a short ("h") or hyphenated unit ("-day") stays as it is."""
    if unit.startswith("-") or not unit.strip()[-3:].isalpha() or len(unit.strip()) < len("day"):
        return unit
    return f"{unit.rstrip('s')}s" if plural else unit.removesuffix("s")


def _convert_unit(old: Fact, new: Fact) -> tuple[Decimal, str]:
    """Return (value, unit) of the new duration: in the old unit if that gives a whole number, else in its own."""
    assert isinstance(new.value, Decimal)
    units = {old.unit, new.unit}
    if units == {"month", "year"}:
        value_in_old_unit = new.value * _TWELVE if new.unit == "year" else new.value / _TWELVE
    elif len(units) == 1 or units & {"business day", "month", "year"}:
        # business days, months and years have no fixed length in other units
        return new.value, new.unit
    else:
        seconds_of_old_unit = seconds(old) / old.value  # type: ignore[operator]
        value_in_old_unit = seconds(new) / seconds_of_old_unit
    is_whole = value_in_old_unit == value_in_old_unit.to_integral_value()
    return (value_in_old_unit, old.unit) if is_whole else (new.value, new.unit)


def _rewrite_time(old: Fact, new: Fact) -> str | None:
    """Write the new time in the notation of the old one.

    For example, "9 am" becomes "10:30 am", and "half past six" becomes "quarter past seven". None if that is unsafe.
    """
    assert isinstance(new.value, Decimal)
    # the reference does not tell morning from evening, so only its own text is safe, and only in the same notation
    if new.unit == "12":
        return new.text if _clock_notation(old.text) == _clock_notation(new.text) else None
    am_or_pm = _AM_OR_PM.search(old.text)
    # few readers know whether "12 pm" is noon
    if am_or_pm is not None and ":" not in old.text and new.text.lower().endswith(("noon", "midday", "midnight")):
        return new.text
    hour, minutes = divmod(int(new.value), _HOUR_MINUTES)
    part_of_day = _PART_OF_DAY.search(old.text)
    clock = _CLOCK_IN_WORDS.fullmatch(old.text[: part_of_day.start()] if part_of_day else old.text)
    if (
        clock is not None
        and not clock.group().isdigit()
        and clock.group().lower() not in ("noon", "midday", "midnight")
    ):
        return _time_in_words(old, hour, minutes, part_of_day, clock)
    if part_of_day is not None:
        return _time_before_part_of_day(old, hour, minutes, part_of_day)
    if am_or_pm is None:
        return _time_of_24_hours(old, hour, minutes)
    old_clock = old.text[: am_or_pm.start()]
    old_digits = old_clock.rstrip()
    space = old_clock[len(old_digits) :]
    separator = next((sign for sign in old_digits if sign in ":."), "")
    clock_hour = hour % _TWELVE or _TWELVE
    new_clock = f"{clock_hour}{separator or ':'}{minutes:02}" if minutes or separator else str(clock_hour)
    new_letter = "p" if hour >= _TWELVE else "a"
    if am_or_pm.group(1).isupper():
        new_letter = new_letter.upper()
    # the old "m", with its points and spaces, stays
    return f"{new_clock}{space}{new_letter}{am_or_pm.group()[1:]}"


def _time_in_words(
    old: Fact, hour: int, minutes: int, part_of_day: re.Match[str] | None, clock: re.Match[str]
) -> str | None:
    """Write a time in words: "half past seven", "eight o'clock".

    The new time is `hour` (0 to 23) and `minutes` past it. In the old text, `clock` matches the time, and `part_of_day`
    the words behind it, if any. None if these words, such as "in the morning", would become wrong.
    """
    assert isinstance(old.value, Decimal)
    if part_of_day is not None and (old.value >= NOON) is not (hour >= _TWELVE):
        return None
    words_behind = part_of_day.group() if part_of_day else ""
    # there are no usual words for these minutes
    if minutes and minutes not in _PARTS_OF_HOUR:
        return f"{hour % _TWELVE or _TWELVE}:{minutes:02}{words_behind}"
    # "quarter to" names the next hour
    spoken_hour = (hour + (minutes == 45)) % _TWELVE or _TWELVE
    hour_word = format_number(Decimal(spoken_hour), clock["hour"])
    ending = " o'clock" if not minutes and (clock["oclock"] or part_of_day is None) else ""
    text = f"{_PARTS_OF_HOUR.get(minutes, '')}{hour_word}{ending}{words_behind}"
    return text[0].upper() + text[1:] if old.text[0].isupper() else text


def _time_before_part_of_day(old: Fact, hour: int, minutes: int, part_of_day: re.Match[str]) -> str | None:
    """Write a time in digits before words such as "in the afternoon": "3:30 in the afternoon".

    The new time is `hour` (0 to 23) and `minutes` past it. None if it is in the other half of the day than the old
    time, so that the words would become wrong.
    """
    assert isinstance(old.value, Decimal)
    if (old.value >= NOON) is not (hour >= _TWELVE):
        return None
    clock_hour = hour % _TWELVE or _TWELVE
    separator = "." if "." in old.text else ":"
    written_minutes = f"{separator}{minutes:02}" if minutes else ""
    return f"{clock_hour}{written_minutes}{part_of_day.group()}"


def _time_of_24_hours(old: Fact, hour: int, minutes: int) -> str | None:
    """Write a time without "am" or "pm" with the digits and separator of the old one: "9.30 Uhr", "18 h", "17:00".

    The new time is `hour` (0 to 23) and `minutes` past it; "noon" and the like become "10 am". None if the old time is
    in no such notation, or is a bare hour in the other half of the day.
    """
    assert isinstance(old.value, Decimal)
    if old.text.lower().endswith(("noon", "midday", "midnight")):
        written_minutes = f":{minutes:02}" if minutes else ""
        return f"{hour % _TWELVE or _TWELVE}{written_minutes} {'pm' if hour >= _TWELVE else 'am'}"
    clock = _CLOCK_IN_DIGITS.fullmatch(old.text)
    if clock is None:
        return None
    # If the old hour has two digits, it is unknown whether the text writes "9:00" or "09:00"; assume the latter.
    width = len(clock["hour"]) if clock["point"] or len(clock["hour"]) == 1 else 1
    name = clock["name"] or ""
    if name.strip() == "h":
        written_minutes = f"{minutes:02}" if minutes else ""
        return f"{hour:0{width}}{name}{written_minutes}".rstrip() + clock["rest"]
    if not clock["point"] and not name and int(clock["hour"]) <= _TWELVE:
        # "5" of "9 to 5" is in the afternoon, and so must the new hour be
        if (old.value >= NOON + 60) is not (hour > _TWELVE):
            return None
        hour = hour - _TWELVE if hour > _TWELVE else hour
    separator = clock["point"] or (":" if minutes else "")
    written_minutes = f"{minutes:02}" if separator else ""
    return f"{hour:0{width}}{separator}{written_minutes}{name}{clock['rest']}"


def _clock_notation(text: str) -> tuple[bool, bool]:
    """(whether a time has minutes, whether it has "am" or "pm")."""
    return bool(re.search(r"\d[:.]\d\d", text)), bool(_AM_OR_PM.search(text))


def _rewrite_date(old: Fact, new: Fact) -> str | None:
    """Write the new date in the notation of the old one: "3 May" -> "5 June", "May 3rd, 2025" -> "June 5th, 2026".

    None if the old date gives a month or day that the new one lacks, or if only the old date has a year and the days
    differ, since the old year may not be that of the new day.
    """
    year, month, day = date_parts(new)
    old_year, old_month, old_day = date_parts(old)
    # A day of the month alone: "on the 3rd" -> "on the 5th".
    if month is None and old_month is None and old.text[0].isdigit():
        return _replace_day(old.text, int(day or 0))
    if month is None or day is None or (old_year and not year and (old_month, old_day) != (month, day)):
        return None
    # of two days that share a month, only the day may change: "from 3 to 5 May"
    if old.number is not None:
        return _replace_day(old.text, day) if month == old_month and year in (None, old_year) else None
    month_name = _MONTH.search(old.text)
    if month_name is None:
        return _date_in_digits(old, new)
    text_before = old.text[: month_name.start()]
    text_after = old.text[month_name.end() :]
    # The day may precede the month ("3 May") or follow it ("May 3").
    if _DAY_OF_DATE.match(text_before):
        text_before = _replace_day(text_before, day)
    else:
        text_after = _replace_day(text_after, day)
    text = text_before + _format_month(month, month_name.group()) + text_after
    return re.sub(r"(?:19|20)\d\d", str(year), text) if year is not None else text


def _date_in_digits(old: Fact, new: Fact) -> str | None:
    """Write a date in the order and with the marks of the old one: "03/05/2026" -> "12/06/2026".

    None if it is unknown of only one of the dates which number is the day, or if the new date lacks a part.
    """
    if DAY_OR_MONTH in (old.unit, new.unit):
        # "03/05" may begin with day or month; if both dates may, they are written alike, so the new text fits
        return new.text if old.unit == new.unit else None
    old_numbers = re.findall(r"\d+", old.text)
    _, _, old_day = date_parts(old)
    year, month, day = date_parts(new)
    if len(old_numbers[0]) == len("2026"):
        new_numbers = [year, month, day]
    elif old_day == int(old_numbers[0]):
        new_numbers = [day, month, year]
    else:
        new_numbers = [month, day, year]
    if None in new_numbers[: len(old_numbers)]:
        return None
    remaining_numbers = iter(new_numbers)
    # a number gets as many digits as the old number in its place
    return re.sub(r"\d+", lambda match: str(next(remaining_numbers)).zfill(len(match.group())), old.text)


def _format_month(month: int, like: str) -> str:
    """Write a month in the language and length of the name `like`: "Sept" -> "Jun"; "May" counts as a full name."""
    names_by_language = (MONTHS, *(language.months for language in LANGUAGES))
    fitting_names = [names for names in names_by_language if like.lower() in [name.lower() for name in names]]
    # only the capital tells German "Mai" from French "mai"; English names are stored in small letters
    full_names = next((names for names in fitting_names if names is MONTHS or like in names), None)
    full_names = full_names or next(iter(fitting_names), None)
    name = full_names[month - 1] if full_names else MONTHS[month - 1][:3]
    return name.capitalize() if like[0].isupper() else name


def _replace_day(text: str, day: int) -> str:
    """Replace the first day number of a text, with an ordinal ending if it had one: "3rd" -> "5th", "3" -> "5"."""

    def format_day(match: re.Match[str]) -> str:
        # in French only the first of a month is an ordinal
        is_ordinal = match.group(1) and match.group(1).lower() != "er"
        return format_ordinal(str(day), match.group()) if is_ordinal else str(day)

    return _DAY_OF_DATE.sub(format_day, text, count=1)


def _rewrite_label(old: Fact, new: Fact) -> str:
    """Write a label as an ordinal ("on the second floor") if the old one is, else in digits ("on floor 2")."""
    if re.fullmatch(rf"{ORDINAL}|last|ground", old.text, re.IGNORECASE):
        return format_ordinal(str(new.value), old.text)
    return str(new.value) if re.fullmatch(ORDINAL, new.text, re.IGNORECASE) else new.text


def _rewrite_weekday(old: Fact, new: Fact) -> str:
    """Write the new weekday in the form of the old one: "Mondays" -> "Fridays", "Mon" -> "Fri", "lundi" -> "mardi"."""
    old_index = DAYS.index(str(old.value))
    new_index = DAYS.index(str(new.value))
    for language in LANGUAGES:
        old_name = language.days[old_index]
        if old.text.lower().startswith(old_name.lower()):
            ending = old.text[len(old_name) :]
            name = language.days[new_index] + ending
            return name.capitalize() if old.text[0].isupper() else name.lower()
    name = DAYS[new_index].capitalize()
    # a name without "day" is a short one if it is at most as long as "Thurs"
    if "day" not in old.text.lower():
        return name[:3] if len(old.text.rstrip(".")) <= len("thurs") else name
    return f"{name}s" if old.text.lower().endswith("days") else name
