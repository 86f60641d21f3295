"""Facts that a format reveals (amounts, times, dates, addresses), and whether two facts agree.

A fact has a comparable value and the position of its characters. Claims without a recognisable format, such as who did
what, are not facts here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum


class FactKind(StrEnum):
    """Kinds of facts that can be recognised by their format."""

    WEB = "web address"
    MAIL = "mail address"
    PHONE = "telephone number"
    DATE = "date"
    TIME = "time of day"
    MONEY = "amount of money"
    PERCENT = "percentage"
    SIZE = "measures"
    DURATION = "duration"
    AMOUNT = "number with a unit"
    AGE = "age"
    COUNT = "number of things"
    WEEKDAY = "day of the week"
    VERSION = "version"
    LABEL = "number of a room, form or the like"
    ADDRESS = "street and number"
    NAME = "name"


class RangeEnd(StrEnum):
    """Which end of a range a fact is.

    In "from 9 to 5" the 9 is LOW and the 5 is HIGH; "at least" is LOW, "at most" HIGH.
    """

    NONE = ""
    LOW = "low"
    HIGH = "high"


Value = Decimal | str | tuple[int | None, ...] | tuple[Decimal, ...]
"""A number in the fact's unit (a time of day in minutes after midnight), a text, (year, month, day) of a date with None
for what is not given, or the sides of a size."""
DAY_OR_MONTH = "day or month"
"""The unit of a date in which either number may be the day and either the month: "3/4/2026"."""
_MAX_COUNTRY_DIGITS = 3
"""Length in digits of the longest country code of telephone numbers."""
_MIN_PHONE_DIGITS = 7
"""A telephone number with at least this many digits is the same as a longer number that ends with it."""
SMALL_CHANGE = "cent"
"""The unit for cents; several currencies share it."""
HALF_A_DAY = 12 * 60
"""In minutes."""
APPROXIMATE = Decimal("0.2")
"""Largest relative difference at which a number called approximate ("about 10") still agrees."""
_SECONDS_OF_UNIT: dict[str, tuple[int, int, int]] = {
    # unit: (shortest length of one unit, its longest length, what may be added once to any number of units), in seconds
    "second": (1, 1, 0),
    "minute": (60, 60, 0),
    "hour": (3_600, 3_600, 0),
    "day": (86_400, 86_400, 0),
    "calendar day": (86_400, 86_400, 0),
    # Five business days may span a week, or longer with a holiday.
    "business day": (86_400, 129_600, 172_800),
    "week": (604_800, 604_800, 0),
    "month": (2_419_200, 2_678_400, 0),
    "year": (31_536_000, 31_622_400, 0),
}
UNITS_OF_TIME = tuple(_SECONDS_OF_UNIT)


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact of a text; `start` and `end` delimit its characters."""

    kind: FactKind
    value: Value
    start: int
    end: int
    text: str = field(repr=False)
    unit: str = ""
    """The currency, the unit, or the stems of the words for what is counted; of a time of day "12" or "24" hours."""
    side: RangeEnd = RangeEnd.NONE
    ranged: bool = False
    """Whether the fact is one end of a range of which the text gives both ends."""
    number: tuple[int, int] | None = None
    """Start and end of the fact's number in the text; the rest of the fact is its unit. None if no number can be
    replaced alone."""
    scale: Decimal = Decimal(1)
    """The written number divided by the value: 100 if the amount is written in cents, 0.001 for "$58k"."""
    bound: RangeEnd = RangeEnd.NONE
    """Of a number of things, LOW if only larger numbers are meant ("more than 8"), HIGH if only smaller ones are."""
    approximate: bool = False
    """Whether the text calls the value approximate ("about 10")."""
    inherited: bool = False
    """Whether the unit was taken over from an earlier number; this is a guess, so the fact is never replaced."""

    @property
    def first_value(self) -> Value:
        """The nearest whole number that is meant: 9 for "more than 8 people", 11 for "fewer than 12"; else `value`."""
        if self.kind is not FactKind.COUNT or not isinstance(self.value, Decimal):
            return self.value
        return self.value + {RangeEnd.LOW: 1, RangeEnd.HIGH: -1, RangeEnd.NONE: 0}[self.bound]

    def same_form(self, other: Fact) -> bool:
        """Whether the other fact could replace this one, because both have the same kind and comparable units."""
        if self.kind is not other.kind:
            return False
        if self.kind in (FactKind.COUNT, FactKind.LABEL):
            # the unit may be several words for what is counted; one common word is enough
            common_words = set(self.unit.split()) & set(other.unit.split())
            return bool(common_words)
        if self.kind is FactKind.MONEY:
            return self.unit == other.unit or SMALL_CHANGE in (self.unit, other.unit)
        if self.kind in (FactKind.AMOUNT, FactKind.SIZE, FactKind.VERSION):
            return self.unit == other.unit
        return True

    def agrees(self, other: Fact) -> bool:
        """Whether both facts state the same value, whatever their notation and unit."""
        if self.kind is FactKind.DURATION and other.kind is FactKind.DURATION and self.unit != other.unit:
            return _same_duration(self, other)
        if self.kind is FactKind.TIME and "12" in (self.unit, other.unit):
            # at least one of the times may be in the morning or in the evening
            return _minutes(self) % HALF_A_DAY == _minutes(other) % HALF_A_DAY
        if self.kind is FactKind.DATE:
            return any(
                _same_date(date, other_date) for date in _possible_dates(self) for other_date in _possible_dates(other)
            )
        if self.kind is FactKind.VERSION:
            return _same_version(str(self.value), str(other.value))
        if self.kind is FactKind.PHONE:
            return _same_phone(str(self.value), str(other.value))
        if self.value == other.value or self.first_value == other.first_value:
            return True
        if self.approximate and isinstance(self.value, Decimal) and isinstance(other.value, Decimal):
            return _is_near(self.value, other.value)
        return False


def _is_near(one: Decimal, other: Decimal) -> bool:
    """Whether two values differ by no more than the share `APPROXIMATE` of the larger one."""
    return abs(one - other) <= APPROXIMATE * max(abs(one), abs(other))


def _same_duration(one: Fact, other: Fact) -> bool:
    """Whether two durations in different units may be equally long."""
    if _is_in_other_days(one, other) or _is_in_other_days(other, one):
        return False
    shortest, longest = _length_limits(one)
    other_shortest, other_longest = _length_limits(other)
    is_near = one.approximate and _is_near(shortest, other_shortest)
    return is_near or (shortest <= other_longest and other_shortest <= longest)


def _is_in_other_days(calendar: Fact, business: Fact) -> bool:
    """Whether calendar days cannot be these business days: ten calendar days are fewer than ten business days."""
    if (calendar.unit, business.unit) != ("calendar day", "business day"):
        return False
    return calendar.value <= business.value  # type: ignore[operator]


def _length_limits(duration: Fact) -> tuple[Decimal, Decimal]:
    """(shortest, longest) length of a duration, in seconds."""
    shortest_unit, longest_unit, extra_seconds = _SECONDS_OF_UNIT[duration.unit]
    assert isinstance(duration.value, Decimal)
    return duration.value * shortest_unit, duration.value * longest_unit + extra_seconds


def seconds(duration: Fact) -> Decimal:
    """The shortest length of a duration, in seconds."""
    shortest, _ = _length_limits(duration)
    return shortest


def _minutes(fact: Fact) -> int:
    """A time of day in minutes after midnight."""
    assert isinstance(fact.value, Decimal)
    return int(fact.value)


def date_parts(date: Fact) -> tuple[int | None, int | None, int | None]:
    """(year, month, day) of a date, each None if the date does not give it."""
    assert isinstance(date.value, tuple)
    year, month, day = date.value
    assert not isinstance(year, Decimal)
    assert not isinstance(month, Decimal)
    assert not isinstance(day, Decimal)
    return year, month, day


def _possible_dates(date: Fact) -> list[Value]:
    """The values that a date may have: also the one with day and month exchanged if their order is unknown."""
    year, month, day = date_parts(date)
    return [date.value, (year, day, month)] if date.unit == DAY_OR_MONTH else [date.value]


def _same_version(first: str, second: str) -> bool:
    """Whether two versions agree in all parts that both give: "4.2" agrees with "4.2.1"."""
    return all(part == other_part for part, other_part in zip(first.split("."), second.split("."), strict=False))


def _same_phone(one: str, other: str) -> bool:
    """Whether two telephone numbers (digits only) are the same, with or without country code and leading zeros."""
    shorter, longer = sorted((one.lstrip("0"), other.lstrip("0")), key=len)
    if not longer.endswith(shorter) or len(shorter) < _MIN_PHONE_DIGITS:
        return one == other
    return len(longer) - len(shorter) <= _MAX_COUNTRY_DIGITS


def _same_date(first: Value, second: Value) -> bool:
    """Whether two dates (year, month, day) agree in every part that both give; None stands for a missing part."""
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    return all(
        part is None or other_part is None or part == other_part for part, other_part in zip(first, second, strict=True)
    )
