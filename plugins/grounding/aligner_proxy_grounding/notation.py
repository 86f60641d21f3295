"""Writes the value of a reference in the notation of the answer's fact that it replaces.

Functions return None if no notation is safe; then nothing is replaced.
"""

from __future__ import annotations

import re
from decimal import Decimal

from aligner_proxy_grounding.facts import DAY_OR_MONTH, UNITS_OF_TIME, Fact, FactKind, date_parts, seconds
from aligner_proxy_grounding.forms.clock import NOON
from aligner_proxy_grounding.forms.dates import DAYS, MONTH, MONTHS
from aligner_proxy_grounding.languages import LANGUAGES
from aligner_proxy_grounding.numerals import ORDINAL, article, format_number, format_ordinal

_HOUR = 60
"""In minutes."""
# Hours of a clock face, months of a year, and the largest number for which "a" becomes a word and not digits.
_TWELVE = 12
_FEW_DECIMALS = 2
"""A number in thousands, kilograms or the like has no more decimals."""
_LAST_HALF = re.compile(r"([ap])(\.?\s?)m(\.?)", re.IGNORECASE)
_SPOKEN_HALF = re.compile(r"\s*(?:in the (?:morning|afternoon|evening)|at night)$", re.IGNORECASE)
_SPOKEN_CLOCK = re.compile(
    r"(?:(?:half|quarter) (?:past|to) )?(?P<hour>[a-z]+|\d{1,2})(?P<oclock> o['\u2019]clock)?", re.IGNORECASE
)
_CLOCK_IN_DIGITS = re.compile(
    r"(?P<hour>\d{1,2})(?:(?P<point>[:.])\d\d)?(?P<name>\s*(?:Uhr|h)\s*)?(?:\d\d)?(?P<rest>.*)"
)
_PARTS_OF_HOUR = {15: "quarter past ", 30: "half past ", 45: "quarter to "}
_DAY_OF_DATE = re.compile(r"\d{1,2}(st|nd|rd|th)?", re.IGNORECASE)
_ARTICLE = re.compile(r"an?", re.IGNORECASE)
_MONTH = re.compile(rf"(?:{MONTH})\b", re.IGNORECASE)
_OWNER = re.compile(r"['\u2019](?:s\b)?(?= )")
"""The genitive ending of a unit: two months' notice, one month's notice."""
_IN_ENGLISH = re.compile(
    r"(?:seconds?|secs?|minutes?|mins?|hours?|hrs?|h|days?|weeks?|fortnights?|months?|years?|yrs?)$", re.IGNORECASE
)
_ONE_WITHOUT_DATIVE = re.compile(r"(?:eine?n?|une?|una)\b", re.IGNORECASE)
_DATIVE = re.compile(r"(?:Jahren|Monaten|[Tt]agen)$")
"""A German plural after "seit" or "nach", which cannot take the place of "ein Jahr"."""
_PLAIN_UNIT = re.compile(r"[a-z -]+", re.IGNORECASE)


def rewrite_fact(old: Fact, new: Fact, text: str) -> tuple[int, int, str] | None:
    """Return (start, end, replacement) so that the fact `old` in `text` states the value of `new`; None if unsafe."""
    place = _rewrite_place(old, new, text)
    if place is None:
        return None
    start, end, instead = place
    return _fix_article(text, start, end, instead)


def _rewrite_place(old: Fact, new: Fact, text: str) -> tuple[int, int, str] | None:
    """Return what `rewrite_fact` does, by the kind of fact; the article before the fact is not considered yet."""
    match old.kind:
        case FactKind.WEB | FactKind.MAIL | FactKind.PHONE | FactKind.NAME | FactKind.ADDRESS | FactKind.VERSION:
            instead: str | None = new.text
        case FactKind.SIZE:
            instead = new.text
        case FactKind.LABEL:
            instead = _rewrite_label(old, new)
        case FactKind.TIME:
            instead = _rewrite_time(old, new)
        case FactKind.DATE:
            instead = _rewrite_date(old, new)
        case FactKind.WEEKDAY:
            instead = _rewrite_weekday(old, new)
        case FactKind.DURATION:
            return _rewrite_duration(old, new, text)
        case _:
            return _rewrite_quantity(old, new, text)
    return None if instead is None else (old.start, old.end, instead)


def _fix_article(text: str, start: int, end: int, instead: str) -> tuple[int, int, str]:
    """Return (start, end, replacement), extended to the article if that changes: "a 30-day" -> "an 8-day"."""
    # four characters are enough for " an "
    before = re.search(r"\b(an?) $", text[max(0, start - 4) : start], re.IGNORECASE)
    if before is None or not instead[:1].isdigit():
        return start, end, instead
    right = article(instead)
    if before.group(1).lower() == right:
        return start, end, instead
    right = right.capitalize() if before.group(1)[0].isupper() else right
    return start - len(before.group()), end, f"{right} {instead}"


def _rewrite_quantity(old: Fact, new: Fact, text: str) -> tuple[int, int, str] | None:
    """Return the change of the number, and of the unit if its form changes: "$9" -> "$12", "1 euro" -> "2 euros"."""
    if old.number is None or not isinstance(new.value, Decimal):
        return None
    start, end = old.number
    scale = old.scale
    if old.kind is FactKind.MONEY and new.scale == 1 and scale > 1 and new.value >= 1:
        return None  # "180 cents" is an odd way to write a price
    in_old_scale = new.value * scale
    if scale < 1 and round(in_old_scale, _FEW_DECIMALS) != in_old_scale:
        # "0.0045 million" is an odd way to write a number; the page's own is written, and the unit with it
        return (old.start, old.end, new.text) if old.kind is FactKind.AMOUNT and new.number else None
    # there is no fraction of a cent
    if old.kind is FactKind.MONEY and scale > 1 and in_old_scale != in_old_scale.to_integral_value():
        return None
    new_number = format_number(
        in_old_scale, text[start:end], _number_of(new), money=old.kind is FactKind.MONEY and scale == 1
    )
    new_unit = (
        _unit_in_number(old, new, text)
        if old.kind in (FactKind.COUNT, FactKind.AMOUNT) or scale > 1 or _has_named_unit(old, text)
        else ""
    )
    if new_unit is None:
        return None
    return (start, end, new_number) if not new_unit else (start, old.end, new_number + new_unit)


def _has_named_unit(fact: Fact, text: str) -> bool:
    """Whether the unit of an amount is a word after the number: "12 euros"."""
    return fact.number is not None and text[fact.number[1] : fact.end].strip().isalpha()


def _number_of(fact: Fact) -> str:
    """The number of a fact as written; empty for a fact without one."""
    if fact.number is None:
        return ""
    return fact.text[fact.number[0] - fact.start : fact.number[1] - fact.start]


def _unit_in_number(old: Fact, new: Fact, text: str) -> str | None:
    """The unit after the number if its form changes; "" if it stays, None if the right form is not known."""
    assert old.number is not None
    unit = text[old.number[1] : old.end]
    assert isinstance(old.value, Decimal)
    assert isinstance(new.value, Decimal)
    was_one = old.value * old.scale == 1
    is_one = new.value * old.scale == 1
    # symbols of one or two letters have no plural
    if was_one == is_one or not unit.strip().isalpha() or len(unit.strip()) <= len("kg"):
        # The counted noun follows the fact; if singular and plural change, it would have to change as well.
        return None if old.kind is FactKind.COUNT and was_one != is_one else ""
    return unit.rstrip("s") if is_one else (unit if unit.endswith("s") else f"{unit}s")


def _rewrite_duration(old: Fact, new: Fact, text: str) -> tuple[int, int, str] | None:
    """Return the change to the new duration, in the old unit if that gives a whole number.

    For example, "two weeks" becomes "four weeks" and not "28 days".
    """
    assert isinstance(new.value, Decimal)
    # a range's end that is only a number: the 3 of "3 to 5 days"
    if old.ranged and old.number == (old.start, old.end):
        # The unit follows only the other end of the range, so it cannot change here.
        if old.unit != new.unit:
            return None
        return old.start, old.end, format_number(new.value, old.text, _number_of(new))
    if not (_IN_ENGLISH.search(old.text) and _IN_ENGLISH.search(new.text)):
        return _foreign_duration(old, new)
    value, unit = _convert_unit(old, new)
    start, end = old.number or (old.start, old.end)
    old_number = text[start:end] if old.number else ""
    old_unit = text[end : old.end] if old.number else ""
    if not old_number:  # "half an hour"
        return start, end, f"{format_number(value, '1', _number_of(new))} {unit}{'' if value == 1 else 's'}"
    # "a week" becomes "two weeks", or "14 weeks" with a large number
    if _ARTICLE.fullmatch(old_number):
        old_number = ("One" if old_number[0].isupper() else "one") if value <= _TWELVE else "1"
    number = format_number(value, old_number, _number_of(new))
    if unit == old.unit:
        possessive = _OWNER.match(text, old.end)
        ending = "" if possessive is None else "'" if value != 1 else "'s"
        return (
            start,
            possessive.end() if possessive else old.end,
            number + _inflect_unit(old_unit, plural=value != 1) + ending,
        )
    return start, old.end, number + _inflect_unit(_other_unit(new, unit, old_unit), plural=value != 1)


def _foreign_duration(old: Fact, new: Fact) -> tuple[int, int, str] | None:
    """Return (start, end, new text) for a duration whose unit is not English, or None if it cannot be changed safely.

    If both units are equal, only the number changes; otherwise the whole duration is copied from the reference. A
    range, whose two numbers share one unit, cannot change its unit. Nor can a duration of one change to or from
    several, because the words around it would need another form ("seit einem Jahr", "seit zwei Jahren").
    """
    assert isinstance(new.value, Decimal)
    # "ein Jahr" is in a case to which any duration without a dative fits, so the reference's words can stand there
    if old.value == 1 and not old.ranged and _ONE_WITHOUT_DATIVE.match(old.text) and not _DATIVE.search(new.text):
        return old.start, old.end, new.text
    if old.number is None or new.number is None or 1 in (old.value, new.value):
        return None
    if old.unit != new.unit:
        return None if old.ranged else (old.start, old.end, new.text)
    return *old.number, format_number(new.value, _number_of(old), _number_of(new))


def _other_unit(new: Fact, unit: str, old_unit: str) -> str:
    """The reference's own words for its unit, joined to the number (space or hyphen) like `old_unit`.

    For "a 3-day pass" and the reference's "5 hours" it is "-hour". `unit` is used if the reference's text has no plain
    unit after its number.
    """
    # the text after the number
    new_unit = new.text[new.number[1] - new.start :] if new.number and new.end > new.number[1] else ""
    if not new_unit.strip() or not _PLAIN_UNIT.fullmatch(new_unit):
        new_unit = f" {unit}s" if unit in UNITS_OF_TIME else ""
    if not new_unit or old_unit.startswith("-") != new_unit.startswith("-"):
        new_unit = old_unit[:1] + new_unit[1:].rstrip("s") if old_unit.startswith("-") else f" {new_unit[1:]}"
    return new_unit


def _inflect_unit(unit: str, *, plural: bool) -> str:
    """Singular or plural of a unit of time; a hyphenated unit such as in "30-day" stays unchanged."""
    if unit.startswith("-") or not unit.strip()[-3:].isalpha() or len(unit.strip()) < len("day"):
        return unit
    return f"{unit.rstrip('s')}s" if plural else unit.removesuffix("s")


def _convert_unit(old: Fact, new: Fact) -> tuple[Decimal, str]:
    """Return (value, unit) of the new duration: in the old unit if that gives a whole number, else in its own."""
    assert isinstance(new.value, Decimal)
    # months and business days have no fixed length, so only years and months are converted
    if old.unit == new.unit or "business day" in (old.unit, new.unit) or {"month", "year"} & {old.unit, new.unit}:
        if {old.unit, new.unit} == {"month", "year"}:
            value = new.value * _TWELVE if new.unit == "year" else new.value / _TWELVE
            return (value, old.unit) if value == value.to_integral_value() else (new.value, new.unit)
        return new.value, new.unit
    # divided by the seconds of one old unit
    value = seconds(new) / (seconds(old) / old.value)  # type: ignore[operator]
    return (value, old.unit) if value == value.to_integral_value() else (new.value, new.unit)


def _rewrite_time(old: Fact, new: Fact) -> str | None:
    """Write the new time in the notation of the old one.

    For example, "9 am" becomes "10:30 am", and "half past six" becomes "quarter past seven". None if that is unsafe.
    """
    assert isinstance(new.value, Decimal)
    of_day = int(new.value)
    # morning and evening cannot be told apart, so only a text in the same style is safe
    if new.unit == "12":
        return new.text if _style(old.text) == _style(new.text) else None
    half_of_day = _LAST_HALF.search(old.text)
    # few readers know whether "12 pm" is noon
    if half_of_day is not None and ":" not in old.text and new.text.lower().endswith(("noon", "midday", "midnight")):
        return new.text
    hour, minutes_past = divmod(of_day, _HOUR)
    day_phrase = _SPOKEN_HALF.search(old.text)
    clock = _SPOKEN_CLOCK.fullmatch(old.text[: day_phrase.start()] if day_phrase else old.text)
    if (
        clock is not None
        and not clock.group().isdigit()
        and clock.group().lower() not in ("noon", "midday", "midnight")
    ):
        return _time_in_words(old, hour, minutes_past, day_phrase, clock)
    if day_phrase is not None:
        return _time_of_same_half(old, hour, minutes_past, day_phrase)
    if half_of_day is None:
        return _time_of_24_hours(old, hour, minutes_past)
    mark = "p" if of_day >= NOON else "a"
    mark = mark.upper() if half_of_day.group(1).isupper() else mark
    letters = old.text[half_of_day.start() : half_of_day.end()]
    gap = old.text[: half_of_day.start()][len(old.text[: half_of_day.start()].rstrip()) :]
    digits = old.text[: half_of_day.start()].rstrip()
    point = next((sign for sign in digits if sign in ":."), "")
    clock_hour = hour % _TWELVE or _TWELVE
    number = f"{clock_hour}{point or ':'}{minutes_past:02}" if minutes_past or point else str(clock_hour)
    return f"{number}{gap}{mark}{letters[1:]}"


def _time_in_words(
    old: Fact, hour: int, minutes: int, day_phrase: re.Match[str] | None, clock: re.Match[str]
) -> str | None:
    """Write a time in words: "half past seven", "eight o'clock"; None if "in the morning" would become wrong.

    `rest` are the minutes after the hour, `spoken` matches the part of the day, `clock` the time before it.
    """
    assert isinstance(old.value, Decimal)
    # "in the morning" would be wrong for the other half of the day
    if day_phrase is not None and (old.value >= NOON) is not (hour >= _TWELVE):
        return None
    # there are no usual words for these minutes
    if minutes and minutes not in _PARTS_OF_HOUR:
        return f"{hour % _TWELVE or _TWELVE}:{minutes:02}{day_phrase.group() if day_phrase else ''}"
    # "quarter to" names the next hour
    spoken_hour = (hour + (minutes == 45)) % _TWELVE or _TWELVE
    number = format_number(Decimal(spoken_hour), clock["hour"])
    ending = " o'clock" if not minutes and (clock["oclock"] or day_phrase is None) else ""
    text = f"{_PARTS_OF_HOUR.get(minutes, '')}{number}{ending}{day_phrase.group() if day_phrase else ''}"
    return text[0].upper() + text[1:] if old.text[0].isupper() else text


def _time_of_same_half(old: Fact, hour: int, minutes: int, day_phrase: re.Match[str]) -> str | None:
    """Write a time before a phrase such as "in the afternoon": "3:30 in the afternoon".

    None if the new time is in the other half of the day than the `old` one, so that the phrase would become wrong.
    """
    assert isinstance(old.value, Decimal)
    if (old.value >= NOON) is not (hour >= _TWELVE):
        return None
    clock_hour = hour % _TWELVE or _TWELVE
    point = "." if "." in old.text else ":"
    written_minutes = f"{point}{minutes:02}" if minutes else ""
    return f"{clock_hour}{written_minutes}{day_phrase.group()}"


def _time_of_24_hours(old: Fact, hour: int, minutes: int) -> str | None:
    """Write a time without "am" or "pm" with the digits and separator of the old one: "9.30 Uhr", "18 h", "17:00".

    None if the old time has none of these forms, or if a bare hour would be in the other half of the day.
    """
    assert isinstance(old.value, Decimal)
    if old.text.lower().endswith(("noon", "midday", "midnight")):
        return f"{hour % _TWELVE or _TWELVE}{f':{minutes:02}' if minutes else ''} {'pm' if hour >= _TWELVE else 'am'}"
    clock = _CLOCK_IN_DIGITS.fullmatch(old.text)
    if clock is None:
        return None
    # With a two-digit hour, whether the text pads hours with zeros ("9:00" or "09:00") is unknown; assume so.
    width = len(clock["hour"]) if clock["point"] or len(clock["hour"]) == 1 else 1
    name = clock["name"] or ""
    if name.strip() == "h":
        return f"{hour:0{width}}{name}{f'{minutes:02}' if minutes else ''}".rstrip() + clock["rest"]
    if not clock["point"] and not name:
        # "5" of "9 to 5" is in the afternoon, and so must the new hour be
        if (old.value >= NOON + 60) is not (hour > _TWELVE) and int(clock["hour"]) <= _TWELVE:
            return None
        hour = hour - _TWELVE if int(clock["hour"]) <= _TWELVE < hour else hour
    point = clock["point"] or (":" if minutes else "")
    return f"{hour:0{width}}{point}{f'{minutes:02}' if point else ''}{name}{clock['rest']}"


def _style(text: str) -> tuple[bool, bool]:
    """Whether a time has minutes, and whether it has "am" or "pm"."""
    return bool(re.search(r"\d[:.]\d\d", text)), bool(_LAST_HALF.search(text))


def _rewrite_date(old: Fact, new: Fact) -> str | None:
    """Write the new date in the notation of the old one: "3 May" -> "5 June", "May 3rd, 2025" -> "June 5th, 2026".

    None if that is unsafe because only the old date names a year and the days differ.
    """
    year, month, day = date_parts(new)
    old_year, old_month, old_day = date_parts(old)
    # A day of the month alone: "on the 3rd" -> "on the 5th".
    if month is None and old_month is None and old.text[0].isdigit():
        return _DAY_OF_DATE.sub(lambda match: _format_day(int(day or 0), match), old.text, count=1)
    if month is None or day is None or (old_year and not year and (old_month, old_day) != (month, day)):
        return None
    name = _MONTH.search(old.text)
    if name is None:
        return _date_in_digits(old, new)
    new_month = _format_month(int(month), name.group())
    before = old.text[: name.start()]
    after = old.text[name.end() :]
    # The day may precede the month ("3 May") or follow it ("May 3").
    if _DAY_OF_DATE.match(before):
        before = _DAY_OF_DATE.sub(lambda match: _format_day(int(day), match), before, count=1)
    else:
        after = _DAY_OF_DATE.sub(lambda match: _format_day(int(day), match), after, count=1)
    text = before + new_month + after
    return re.sub(r"(?:19|20)\d\d", str(year), text) if year is not None else text


def _date_in_digits(old: Fact, new: Fact) -> str | None:
    """Write a date in the order and with the marks of the old one: "03/05/2026" -> "12/06/2026".

    None if the order is unknown, or the new date lacks a part that the old one gives.
    """
    if DAY_OR_MONTH in (old.unit, new.unit):
        # what is the day is open, but both are written alike
        return new.text if old.unit == new.unit else None
    numbers = re.findall(r"\d+", old.text)
    year, month, day = date_parts(new)
    if len(numbers[0]) == len("2026"):
        parts = [year, month, day]
    elif date_parts(old)[2] == int(numbers[0]):
        parts = [day, month, year]
    else:
        parts = [month, day, year]
    if None in parts[: len(numbers)]:
        return None
    remaining_parts = iter(parts)
    return re.sub(r"\d+", lambda match: f"{next(remaining_parts):0{len(match.group())}}", old.text)


def _format_month(month: int, like: str) -> str:
    """The name of a month in the language of another; a short one stays short: "Sept" -> "Jun". "May" is full."""
    tables = (MONTHS, *(language.months for language in LANGUAGES))
    full_names = next((names for names in tables if like.lower() in [name.lower() for name in names]), None)
    name = full_names[month - 1] if full_names else MONTHS[month - 1][:3]
    return name.capitalize() if like[0].isupper() else name


def _format_day(day: int, match: re.Match[str]) -> str:
    """A day number with its ordinal ending if the old one had an ending: "3rd" -> "5th", "3" -> "5"."""
    return format_ordinal(str(day), match.group()) if match.group(1) else str(day)


def _rewrite_label(old: Fact, new: Fact) -> str:
    """Write a label; an ordinal stays one: "on the second floor", "on floor 2"."""
    if re.fullmatch(rf"{ORDINAL}|last|ground", old.text, re.IGNORECASE):
        return format_ordinal(str(new.value), old.text)
    return str(new.value) if re.fullmatch(ORDINAL, new.text, re.IGNORECASE) else new.text


def _rewrite_weekday(old: Fact, new: Fact) -> str:
    """Write the new weekday in the form of the old one: "Mondays" -> "Fridays", "Mon" -> "Fri", "lundi" -> "mardi"."""
    number = DAYS.index(str(new.value))
    for language in LANGUAGES:
        was = language.days[DAYS.index(str(old.value))]
        if old.text.lower().startswith(was.lower()):
            name = language.days[number] + old.text[len(was) :]
            return name.capitalize() if old.text[0].isupper() else name.lower()
    name = DAYS[number].capitalize()
    # without "day" it is a short name, at most as long as "Thurs", and stays one
    if "day" not in old.text.lower():
        return name[:3] if len(old.text.rstrip(".")) <= len("thurs") else name
    return f"{name}s" if old.text.lower().endswith("days") else name
