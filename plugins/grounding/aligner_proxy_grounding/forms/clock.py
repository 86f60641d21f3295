"""Readers of times of day and ranges of them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd
from aligner_proxy_grounding.forms.dates import DAYS
from aligner_proxy_grounding.forms.reading import BEFORE, JOIN, SPACE, FactReading
from aligner_proxy_grounding.numerals import WORD, value_of

NOON = 12 * 60
"""In minutes after midnight."""
_PART_OF_DAY = r"(?:in the (?:morning|afternoon|evening)\b|at night\b)"
"""Words that tell morning from evening after an hour."""


class Clock(NamedTuple):
    """A time of day."""

    minutes: int
    """Minutes after midnight."""
    notation: str
    """"12" if the text does not tell morning from afternoon, else "24"."""


def _clock_pattern(prefix: str) -> str:
    """Regular expression of a time of day in any notation; the names of its groups begin with `prefix`."""
    return (
        rf"(?:(?P<{prefix}uhr>[01]?\d|2[0-4])(?:[.:](?P<{prefix}uhrmin>[0-5]\d))?{SPACE}Uhr\b"
        rf"|(?P<{prefix}heure>[01]?\d|2[0-4]){SPACE}h{SPACE}(?P<{prefix}heuremin>[0-5]\d)?(?!\w)"
        rf"|(?P<{prefix}hour>\d{{1,2}})(?:[:.](?P<{prefix}min>[0-5]\d))?{SPACE}"
        rf"(?P<{prefix}half>[ap]m\b|[ap]\.{SPACE}m\b\.?|{_PART_OF_DAY})"
        rf"|(?P<{prefix}hour24>[01]?\d|2[0-4]):(?P<{prefix}min24>[0-5]\d)(?:{SPACE}(?:h|hrs|hours|o'clock)\b)?(?![\d:])"
        rf"|(?P<{prefix}inwords>{WORD}) (?P<{prefix}ofday>{_PART_OF_DAY})"
        rf"|(?P<{prefix}oclock>{WORD}|\d{{1,2}}){SPACE}o['\u2019]clock(?: (?P<{prefix}oclockof>{_PART_OF_DAY}))?"
        rf"|(?P<{prefix}part>half past|quarter past|quarter to)"
        rf" (?P<{prefix}past>noon|midday|midnight|{WORD}|\d{{1,2}})\b(?: (?P<{prefix}pastof>{_PART_OF_DAY}))?"
        rf"|(?P<{prefix}word>(?:12{SPACE})?(?:noon|midday|midnight))\b)"
    )


# A single time is in the groups with "b". Of a range, the first time is in "number" or in the groups with "a".
_TIME = re.compile(
    rf"{BEFORE}(?:(?:(?P<number>\d{{1,2}}(?:[:.][0-5]\d)?)|{_clock_pattern('a')}){JOIN})?{_clock_pattern('b')}",
    re.IGNORECASE,
)
# Hours without minutes or "am" count as times only behind a day, "daily", "open" or "hours".
_BARE_HOURS = re.compile(
    rf"\b(?:(?:{'|'.join(DAYS)}|weekday|weekend)s?|Mon|Tue|Wed|Thu|Fri|Sat|Sun|daily|every day|hours|open(?:s|ed)?)"
    r",?:? (?:from )?(?P<open>\d{1,2})\s?(?:[\u2013-]|to|till|until)\s?(?P<close>\d{1,2})"
    r"(?!\.?\d|:|\s?[ap]\.?m|[ -](?:days|weeks|months|years|hours|minutes|people|%))",
    re.IGNORECASE,
)
_AT_BEFORE = re.compile(
    r"(?:\b(?:at|until|till|to|from|by|before|after|between|and|around|about|opens?|closes?|than)|[\u2013-])\s*$",
    re.IGNORECASE,
)
"""What precedes an hour in words; without these, "two in the morning" may count something."""
_HEURE_BEFORE = re.compile(r"(?:\b(?:d\u00e8s|avant|vers|jusqu['\u2019]\u00e0)|(?<!\w)\u00e0)\s*$", re.IGNORECASE)
_NAMED_TIMES = {"noon": NOON, "midday": NOON, "midnight": 0}
_AFTERNOON_BEGINNINGS = ("p", "in the a", "in the e", "at")
"""How the words for the second half of the day begin: pm, in the afternoon, in the evening, at night."""


def read_times(reading: FactReading) -> None:
    """Read times of day and ranges of them: "9 to 5:30 pm", "half past six"."""
    for match in reading.matches(_TIME):
        last_clock = _read_clock(match, "b")
        if last_clock is None:
            continue
        first_clock = _read_clock(match, "a")
        has_bare_number = match["number"] is not None
        if has_bare_number:
            bare_fact = _bare_time_fact(match, last_clock)
            if bare_fact is not None:
                reading.take(bare_fact)
        elif first_clock is not None:
            reading.take(_make_time(reading.text, *_find_span(match, "a"), first_clock, RangeEnd.LOW))
        side = RangeEnd.HIGH if has_bare_number or first_clock is not None else RangeEnd.NONE
        start, _ = _find_span(match, "b")
        reading.take(_make_time(reading.text, start, match.end(), last_clock, side))
        reading.blank(match.start(), match.end())


def _make_time(text: str, start: int, end: int, clock: Clock, side: RangeEnd) -> Fact:
    """Make the fact of the time from `start` to `end` of `text`; `side` is NONE unless it is an end of a range."""
    minutes, notation = clock
    is_range = side is not RangeEnd.NONE
    return Fact(FactKind.TIME, Decimal(minutes), start, end, text[start:end], notation, side, ranged=is_range)


def _bare_time_fact(match: re.Match[str], last_clock: Clock) -> Fact | None:
    """The fact of the first time of a range, which is only a number: the 9 of "9 to 5 pm"; None if it may be no time.

    `last_clock` is the second time of the range.
    """
    last_minutes, last_notation = last_clock
    number_text = match["number"]
    minutes = _read_bare_clock(number_text, last_minutes)
    if minutes is None:
        return None
    # a bare number is an hour in "9 to 5 pm", but not surely before "17:00" or "noon"
    has_minutes = re.search(r"[:.]\d\d", number_text) is not None
    last_has_mark = match["bhalf"] is not None or match["buhr"] is not None
    if last_notation == "24" and not has_minutes and not last_has_mark:
        return None
    # In "6:30 to 8:30 pm" the first time may be in either half of the day.
    is_ambiguous = last_notation == "24" and match["bhalf"] and minutes < NOON and minutes + NOON < last_minutes
    span = match.span("number")
    return Fact(
        FactKind.TIME,
        Decimal(minutes),
        *span,
        number_text,
        "12" if is_ambiguous else last_notation,
        RangeEnd.LOW,
        ranged=True,
        number=span,
    )


def read_bare_hours(reading: FactReading) -> None:
    """Read the opening hours after a day of the week: "weekdays 8-20"."""
    for match in reading.matches(_BARE_HOURS):
        opening_hour = int(match["open"])
        closing_hour = int(match["close"])
        if opening_hour > 24 or closing_hour > 24:
            continue
        opening_minutes = opening_hour * 60
        closing_minutes = closing_hour * 60
        if closing_hour <= opening_hour <= 12:
            closing_minutes += NOON  # "9 to 5" ends in the afternoon
        for name, side, minutes in (("open", RangeEnd.LOW, opening_minutes), ("close", RangeEnd.HIGH, closing_minutes)):
            span = match.span(name)
            fact = Fact(FactKind.TIME, Decimal(minutes), *span, match[name], "24", side, ranged=True, number=span)
            reading.take(fact)


def _read_clock(match: re.Match[str], prefix: str) -> Clock | None:
    """Return the time in the groups of a match of `_TIME` whose names begin with `prefix`; None if none has matched.

    `prefix` is "a" for the first time of a range, and "b" for its last time or a single time.
    """
    return _read_clock_in_words(match, prefix) or _read_clock_in_digits(match, prefix)


def _read_clock_in_words(match: re.Match[str], prefix: str) -> Clock | None:
    """Return the time as `_read_clock` does, if it has words such as "noon", "half past" or "o'clock"."""
    if (word := match[f"{prefix}word"]) is not None:
        named_minutes = _NAMED_TIMES[word.lower().removeprefix("12").strip()]
        return Clock(named_minutes, "24")
    if (hour := match[f"{prefix}past"]) is not None:
        # the default is "quarter to"
        minutes_past = {"half past": 30, "quarter past": 15}.get(match[f"{prefix}part"].lower(), -15)
        if (named_time := _NAMED_TIMES.get(hour.lower())) is not None:
            # the modulo is for "quarter to midnight", which is 23:45
            return Clock((named_time + minutes_past) % (2 * NOON), "24")
        return _apply_part_of_day(int(value_of(hour)) * 60 + minutes_past, match[f"{prefix}pastof"])
    if (hour := match[f"{prefix}oclock"]) is not None:
        return _apply_part_of_day(int(value_of(hour)) * 60, match[f"{prefix}oclockof"])
    if (hour := match[f"{prefix}inwords"]) is not None:
        minutes = int(value_of(hour)) * 60
        if minutes <= NOON and _AT_BEFORE.search(match.string, 0, match.start(f"{prefix}inwords")):
            return _apply_part_of_day(minutes, match[f"{prefix}ofday"])
    return None


def _read_clock_in_digits(match: re.Match[str], prefix: str) -> Clock | None:
    """Return the time as `_read_clock` does, if it is written as "18 Uhr", "18 h 30", "18:30" or "6.30 pm"."""
    for name in ("uhr", "heure"):
        if (hour := match[f"{prefix}{name}"]) is not None and (name == "uhr" or _is_heure(match, prefix)):
            return Clock(int(hour) * 60 + int(match[f"{prefix}{name}min"] or 0), "24")
    if (hour := match[f"{prefix}hour24"]) is not None:
        minutes = int(hour) * 60 + int(match[f"{prefix}min24"])
        # "9:00" may mean the evening, while two digits as in "09:00" are 24-hour notation
        return Clock(minutes, "12" if len(hour) == 1 else "24")
    if (hour := match[f"{prefix}hour"]) is None:
        return None
    # 12 am is midnight, 12 pm is noon
    minutes = int(hour) % 12 * 60 + int(match[f"{prefix}min"] or 0)
    if match[f"{prefix}half"].lower().startswith(_AFTERNOON_BEGINNINGS):
        minutes += NOON
    return Clock(minutes, "24")


def _is_heure(match: re.Match[str], prefix: str) -> bool:
    """Whether "9 h" is a time of day and not nine hours: in a range, with minutes, or behind a word such as "à"."""
    is_in_range = match["aheure"] is not None and match["bheure"] is not None
    follows_preposition = _HEURE_BEFORE.search(match.string, 0, match.start(f"{prefix}heure")) is not None
    return is_in_range or match[f"{prefix}heuremin"] is not None or follows_preposition


def _apply_part_of_day(minutes: int, part_of_day: str | None) -> Clock:
    """Return the time, moved to the part of the day that the text names, if any.

    Example: 6 o'clock "in the evening" is 18:00 in notation "24"; without a part of the day it stays 6:00, "12". A time
    from 13:00 on stays as it is, whatever part of the day is named.
    """
    if part_of_day is None or minutes >= NOON + 60:
        return Clock(minutes, "12")
    is_afternoon = part_of_day.lower().startswith(_AFTERNOON_BEGINNINGS)
    return Clock(minutes % NOON + (NOON if is_afternoon else 0), "24")


def _find_span(match: re.Match[str], prefix: str) -> tuple[int, int]:
    """(start, end) of the time in the groups of `_TIME` whose names begin with `prefix`."""
    names = [name for name in match.re.groupindex if name.startswith(prefix) and match[name] is not None]
    return min(map(match.start, names)), max(map(match.end, names))


def _read_bare_clock(number_text: str, last_minutes: int) -> int | None:
    """Minutes after midnight of a number such as "9" or "9:30" that begins a range; None if it is no time of day.

    `last_minutes` is the second time of the range. If this is in the afternoon, a first hour before 6 is read as an
    afternoon hour, as long as that is the earlier time: "2 to 5 pm" begins at 14:00.
    """
    hour_text, _, minute_text = number_text.replace(".", ":").partition(":")
    hour = int(hour_text)
    minutes = hour * 60 + int(minute_text or 0)
    if hour > 24:
        return None
    if last_minutes >= NOON and minutes < NOON and minutes + NOON < last_minutes and hour < 6:
        return minutes + NOON
    return minutes
