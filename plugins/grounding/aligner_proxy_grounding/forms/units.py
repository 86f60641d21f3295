"""Physical units: how each is written, and its size in the unit in which amounts are stored."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = (
    # spellings (a regular expression), stored unit, how many stored units one of it is
    ("mg|milligrams?", "g", "0.001"),
    ("g|grams?|grammes?|Gramm", "g", "1"),
    ("kg|kgs|kilograms?|kilogrammes?|kilos?|Kilogramm", "g", "1000"),
    ("t|tonnes?|Tonnen?", "g", "1000000"),
    ("lbs?", "lbs", "1"),
    ("mm|millimet(?:re|er)s?", "m", "0.001"),
    ("cm|centimet(?:re|er)s?|Zentimeter", "m", "0.01"),
    ("m|met(?:re|er)s?|Meter", "m", "1"),
    ("km|kms|kilomet(?:re|er)s?|Kilometer", "m", "1000"),
    ("miles?", "mile", "1"),
    ("inch(?:es)?", "inch", "1"),
    ("ft|feet|foot", "ft", "1"),
    ("m[lL]|millilit(?:re|er)s?", "l", "0.001"),
    ("cl|centilit(?:re|er)s?", "l", "0.01"),
    ("[lL]|lit(?:re|er)s?|Liter", "l", "1"),
    ("m\u00b2|m2|sqm|sq ?m|qm|square met(?:re|er)s?|Quadratmeter", "m\u00b2", "1"),
    ("ha|hectares?|Hektar", "m\u00b2", "10000"),
    ("m\u00b3|m3|cubic met(?:re|er)s?|Kubikmeter", "m\u00b3", "1"),
    ("[kK]B|kilobytes?", "MB", "0.001"),
    ("MB|megabytes?", "MB", "1"),
    ("GB|gigabytes?", "MB", "1000"),
    ("TB|terabytes?", "MB", "1000000"),
    ("Mbit/s|Mbps|megabits per second", "Mbit/s", "1"),
    ("Gbit/s|Gbps|gigabits per second", "Mbit/s", "1000"),
    ("Wh|watt[ -]hours?", "Wh", "1"),
    ("kWh|kilowatt[ -]hours?|Kilowattstunden?", "Wh", "1000"),
    ("MWh|megawatt[ -]hours?", "Wh", "1000000"),
    ("W|watts?|Watt", "W", "1"),
    ("kW|kilowatts?|Kilowatt", "W", "1000"),
    ("MW|megawatts?", "W", "1000000"),
    ("mAh", "mAh", "1"),
    ("V|volts?|Volt", "V", "1"),
    ("A|amps?|amperes?|Ampere", "A", "1"),
    ("km/h|kph|kilomet(?:re|er)s per hour", "km/h", "1"),
    ("mph|miles per hour", "mph", "1"),
    ("\u00b0C|degrees? Celsius|degrees?|Grad", "\u00b0C", "1"),
    ("\u00b0F|degrees? Fahrenheit", "\u00b0F", "1"),
)
UNIT = "|".join(f"(?P<u{row}>{spellings})" for row, (spellings, _, _) in enumerate(_UNITS))
"""Regular expression of all units. Its groups `u0`, `u1` and so on, one for each row, show which row has matched."""


def unit_of(match: re.Match[str]) -> tuple[str, Decimal]:
    """(stored unit, how many of it one written unit is) for a match of `UNIT`: ("g", 1000) for "kg"."""
    row = next(row for row in range(len(_UNITS)) if match[f"u{row}"] is not None)
    _, stored_unit, factor = _UNITS[row]
    return stored_unit, Decimal(factor)
