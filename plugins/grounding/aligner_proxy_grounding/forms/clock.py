"""Times of day and ranges of them."""

from __future__ import annotations

import re
from decimal import Decimal

from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd
from aligner_proxy_grounding.forms.dates import DAYS
from aligner_proxy_grounding.forms.reading import BEFORE, JOIN, SPACE, FactReading
from aligner_proxy_grounding.numerals import WORD, value_of

NOON = 12 * 60
"""In minutes after midnight."""
_TWELVE = 12
_PART_OF_DAY = r"(?:in the (?:morning|afternoon|evening)\b|at night\b)"
"""Words that tell morning from evening after an hour."""


def _clock_form(n: str) -> str:
    """Regular expression of a time of day; the names of its groups begin with `n`."""
    return (
        rf"(?:(?P<{n}uhr>[01]?\d|2[0-4])(?:[.:](?P<{n}uhrmin>[0-5]\d))?{SPACE}Uhr\b"
        rf"|(?P<{n}heure>[01]?\d|2[0-4]){SPACE}h{SPACE}(?P<{n}heuremin>[0-5]\d)?(?!\w)"
        rf"|(?P<{n}hour>\d{{1,2}})(?:[:.](?P<{n}min>[0-5]\d))?{SPACE}(?P<{n}half>[ap]m\b|[ap]\.{SPACE}m\b\.?|"
        rf"{_PART_OF_DAY})"
        rf"|(?P<{n}hour24>[01]?\d|2[0-4]):(?P<{n}min24>[0-5]\d)(?:{SPACE}(?:h|hrs|hours|o'clock)\b)?(?![\d:])"
        rf"|(?P<{n}inwords>{WORD}) (?P<{n}ofday>{_PART_OF_DAY})"
        rf"|(?P<{n}oclock>{WORD}|\d{{1,2}}){SPACE}o['\u2019]clock(?: (?P<{n}oclockof>{_PART_OF_DAY}))?"
        rf"|(?P<{n}part>half past|quarter past|quarter to) (?P<{n}past>noon|midday|midnight|{WORD}|\d{{1,2}})\b"
        rf"(?: (?P<{n}pastof>{_PART_OF_DAY}))?"
        rf"|(?P<{n}word>(?:12{SPACE})?(?:noon|midday|midnight))\b)"
    )


_TIME = re.compile(
    rf"{BEFORE}(?:(?:(?P<bare>\d{{1,2}}(?:[:.][0-5]\d)?)|{_clock_form('a')}){JOIN})?{_clock_form('b')}", re.IGNORECASE
)
# Bare hours, without minutes or "am", count as times only behind a day, "daily", "open" or "hours".
_HOURS = re.compile(
    rf"\b(?:(?:{'|'.join(DAYS)}|weekday|weekend)s?|Mon|Tue|Wed|Thu|Fri|Sat|Sun|daily|every day|hours|open(?:s|ed)?)"
    r",?:? (?:from )?(?P<open>\d{1,2})\s?(?:[\u2013-]|to|till|until)\s?(?P<close>\d{1,2})"
    r"(?!\.?\d|:|\s?[ap]\.?m|[ -](?:days|weeks|months|years|hours|minutes|people|%))",
    re.IGNORECASE,
)
_AT_BEFORE = re.compile(
    r"(?:\b(?:at|until|till|to|from|by|before|after|between|and|around|about|opens?|closes?|than)|[\u2013-])\s*$",
    re.IGNORECASE,
)
"""What precedes an hour in words; otherwise "two in the morning" may count something."""
_HEURE_BEFORE = re.compile(r"(?:\b(?:d\u00e8s|avant|vers|jusqu['\u2019]\u00e0)|(?<!\w)\u00e0)\s*$", re.IGNORECASE)
_NAMED_TIMES = {"noon": NOON, "midday": NOON, "midnight": 0}
_LATE_HALF = ("p", "in the a", "in the e", "at")
"""How the words for the second half of the day begin: pm, in the afternoon, in the evening, at night."""


def read_times(reading: FactReading) -> None:
    """Read times of day and ranges of them: "9 to 5:30 pm", "half past six"."""
    for match in reading.matches(_TIME):
        # the groups of a single time, and of the second time of a range, begin with "b", those of the first with "a"
        last_clock = _read_clock(match, "b")
        if last_clock is None:
            continue
        first_clock = _read_clock(match, "a")
        has_bare_number = match.start("bare") >= 0
        if has_bare_number:
            bare_fact = _bare_time_fact(match, last_clock)
            if bare_fact is not None:
                reading.take(bare_fact)
        elif first_clock is not None:
            start, minutes, unit = first_clock
            end = _end_of_clock(match, "a")
            text = reading.text[start:end]
            reading.take(Fact(FactKind.TIME, Decimal(minutes), start, end, text, unit, RangeEnd.LOW, ranged=True))
        start, minutes, unit = last_clock
        ranged = has_bare_number or first_clock is not None
        side = RangeEnd.HIGH if ranged else RangeEnd.NONE
        text = reading.text[start : match.end()]
        reading.take(Fact(FactKind.TIME, Decimal(minutes), start, match.end(), text, unit, side, ranged=ranged))
        reading.blank(match.start(), match.end())


def _bare_time_fact(match: re.Match[str], last_clock: tuple[int, int, str]) -> Fact | None:
    """The fact of a first time that is only a number: the 9 of "9 to 5 pm"; None if it is perhaps no time.

    `last_clock` is the second time, as `_read_clock` gives it.
    """
    _, last_minutes, unit = last_clock
    number_text = match["bare"]
    minutes = _read_bare_clock(number_text, last_minutes)
    if minutes is None:
        return None
    # a bare number is an hour in "9 to 5 pm", but not surely before "17:00" or "noon"
    has_minutes = re.search(r"[:.]\d\d", number_text) is not None
    is_marked = match["bhalf"] is not None or match["buhr"] is not None
    if unit == "24" and not has_minutes and not is_marked:
        return None
    # In "6:30 to 8:30 pm" the first time may be in either half of the day.
    is_ambiguous = unit == "24" and match["bhalf"] and minutes < NOON and minutes + NOON < last_minutes
    span = match.span("bare")
    return Fact(
        FactKind.TIME,
        Decimal(minutes),
        *span,
        number_text,
        "12" if is_ambiguous else unit,
        RangeEnd.LOW,
        ranged=True,
        number=span,
    )


def read_bare_hours(reading: FactReading) -> None:
    """Read the opening hours after a day of the week: "weekdays 8-20"."""
    for match in reading.matches(_HOURS):
        if int(match["open"]) > 24 or int(match["close"]) > 24:
            continue
        # "9 to 5" ends in the afternoon
        later = NOON if int(match["close"]) <= int(match["open"]) and int(match["open"]) <= _TWELVE else 0
        for name, side, shift in (("open", RangeEnd.LOW, 0), ("close", RangeEnd.HIGH, later)):
            hour = Decimal(int(match[name]) * 60 + shift)
            span = match.span(name)
            fact = Fact(FactKind.TIME, hour, *span, match[name], "24", side, ranged=True, number=span)
            reading.take(fact)


def _read_clock(match: re.Match[str], n: str) -> tuple[int, int, str] | None:
    """Return (start, minutes after midnight, notation) of the time in the groups with the prefix `n`; None without one.

    The notation is "12" if morning and afternoon cannot be told apart, else "24".
    """
    return _read_clock_in_words(match, n) or _read_clock_in_digits(match, n)


def _read_clock_in_words(match: re.Match[str], n: str) -> tuple[int, int, str] | None:
    """Return what `_read_clock` does, for times with words such as "noon", "half past" or "o'clock"."""
    if (word := match[f"{n}word"]) is not None:
        return match.start(f"{n}word"), _NAMED_TIMES[word.lower().removeprefix("12").strip()], "24"
    if (past := match[f"{n}past"]) is not None:
        # the default is "quarter to"
        minutes = {"half past": 30, "quarter past": 15}.get(match[f"{n}part"].lower(), -15)
        # the modulo is for "quarter to midnight", which is 23:45
        if (named_time := _NAMED_TIMES.get(past.lower())) is not None:
            return match.start(f"{n}part"), (named_time + minutes) % (2 * NOON), "24"
        return match.start(f"{n}part"), *_of_day(int(value_of(past)) * 60 + minutes, match[f"{n}pastof"])
    if (oclock := match[f"{n}oclock"]) is not None:
        return match.start(f"{n}oclock"), *_of_day(int(value_of(oclock)) * 60, match[f"{n}oclockof"])
    if (word := match[f"{n}inwords"]) is not None:
        minutes = int(value_of(word)) * 60
        start = match.start(f"{n}inwords")
        is_time = minutes <= NOON and _AT_BEFORE.search(match.string, 0, start)
        return (start, *_of_day(minutes, match[f"{n}ofday"])) if is_time else None
    return None


def _read_clock_in_digits(match: re.Match[str], n: str) -> tuple[int, int, str] | None:
    """Return what `_read_clock` does, for "18 Uhr", "18 h 30", "18:30" and "6.30 pm"."""
    for name in ("uhr", "heure"):
        if (hour := match[f"{n}{name}"]) is not None and (name == "uhr" or _is_heure(match, n)):
            return match.start(f"{n}{name}"), int(hour) * 60 + int(match[f"{n}{name}min"] or 0), "24"
    if (hour := match[f"{n}hour24"]) is not None:
        minutes = int(hour) * 60 + int(match[f"{n}min24"])
        # "9:00" may mean the evening, while two digits as in "09:00" are 24-hour notation
        return match.start(f"{n}hour24"), minutes, "12" if len(hour) == 1 else "24"
    if (hour := match[f"{n}hour"]) is None:
        return None
    afternoon = match[f"{n}half"].lower().startswith(_LATE_HALF)
    # 12 am is midnight, 12 pm is noon
    minutes = int(hour) % 12 * 60 + int(match[f"{n}min"] or 0) + (NOON if afternoon else 0)
    return match.start(f"{n}hour"), minutes, "24"


def _is_heure(match: re.Match[str], n: str) -> bool:
    """Whether "9 h" is a time of day and not nine hours: in a range, with minutes, or behind a word such as "à"."""
    in_range = match["aheure"] is not None and match["bheure"] is not None
    behind_word = _HEURE_BEFORE.search(match.string, 0, match.start(f"{n}heure")) is not None
    return in_range or match[f"{n}heuremin"] is not None or behind_word


def _of_day(minutes: int, part: str | None) -> tuple[int, str]:
    """Return (minutes after midnight, notation) of an hour with the named part of the day, if any.

    Example: 6 o'clock "in the evening" is 18:00 in notation "24"; without a part of the day it stays 6:00, "12". An
    hour from 13 on stays as it is, whatever part of the day is named.
    """
    if part is None or minutes >= NOON + 60:
        return minutes, "12"
    return minutes % NOON + (NOON if part.lower().startswith(_LATE_HALF) else 0), "24"


def _end_of_clock(match: re.Match[str], n: str) -> int:
    """Where the time in the groups that begin with `n` ends."""
    names = (
        "uhr", "uhrmin", "heure", "heuremin", "half", "min24", "hour24", "oclockof", "oclock", "pastof", "past",
        "ofday", "word", "min", "hour",
    )  # fmt: skip
    # the end of a group that has not matched is -1
    return max(match.end(f"{n}{name}") for name in names)


def _read_bare_clock(text: str, late: int) -> int | None:
    """Minutes after midnight of the first of two times, whose second is at `late`; None if it is no time of day.

    If the second time is in the afternoon, a first hour before 6 is in the afternoon, too, if that is still earlier:
    "2 to 5 pm" begins at 14:00.
    """
    hour, _, rest = text.replace(".", ":").partition(":")
    minutes = int(hour) * 60 + int(rest or 0)
    if int(hour) > 24:
        return None
    if late >= NOON and minutes < NOON and minutes + NOON < late and int(hour) < 6:
        return minutes + NOON
    return minutes
