"""Readers of numbers that name a thing: "room 12", "the fourth floor", "the second Monday", "version 4.2"."""

from __future__ import annotations

import re

from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd
from aligner_proxy_grounding.forms.dates import DAYS
from aligner_proxy_grounding.forms.reading import JOIN, FactReading
from aligner_proxy_grounding.numerals import ORDINAL, ordinal_value
from aligner_proxy_grounding.words import stem

_PLACES = (
    "form room gate concourse terminal platform counter window building hall zone level floor line bus tram bay block "
    "entrance locker court studio ward pier dock stop tariff class page pages chapter week row port"
)
_LABEL = re.compile(
    rf"(?<!\w)(?P<place>{'|'.join(_PLACES.split())})(?:(?<=port) is)?[ \u00a0]"
    r"(?P<label>[A-Z]{0,2}-?\d{1,4}(?:\.\d{1,3}|[A-Za-z])?|[A-Z])\b(?![.:,]\d)"
    rf"(?:{JOIN}(?P<last>\d{{1,4}})\b(?![.:,]\d))?",
    re.IGNORECASE,
)
_PLACE_OF_RANGE = "pages"
"""The only word of `_PLACES` behind which a second number is the end of a range: "pages 14 to 22"."""
_ORDINAL_PLACES = "floor storey basement level week quarter edition generation grade row"
_NTH = re.compile(
    rf"(?<!\w)(?P<ordinal>{ORDINAL}|last|ground)[ \u00a0-]"
    rf"(?P<place>{'|'.join([*_ORDINAL_PLACES.split(), *DAYS])})(?!\w)",
    re.IGNORECASE,
)
_NTH_DAY = "day of a month"
"""The unit of "second" in "the second Monday in March"."""
_SOFTWARE = (
    r"iOS|iPadOS|macOS|Android|Windows|Ubuntu|Debian|Python|Node(?:\.js)?|Java|JDK|PHP|Ruby|\.NET|Chrome|Firefox|Safari|"
    r"TLS|HTTP|USB|Bluetooth|HDMI|PostgreSQL|Postgres|MySQL|MariaDB|Redis|Kubernetes|Docker|OpenSSL|CUDA|Excel|Word"
)
_VERSION_WORD = r"(?:versions?|release|firmware|software)"
_NUMBERED = r"\d{1,4}(?:\.\d{1,4}){0,3}"
_VERSION = re.compile(
    rf"(?<![\w.-])(?:(?:(?P<name>{_SOFTWARE})[ -](?:(?:version |v)(?=\d))?|(?P<word>{_VERSION_WORD})\b"
    r"(?:[ :]+(?:is|are|was|of|at|least|has|have|to|must|should|be|now|number|currently|v)){0,5}[ :]+v?|v\.? ?)"
    rf"(?P<version>{_NUMBERED})|(?P<bare>\d{{1,3}}\.\d{{1,3}}\.\d{{1,3}}))"
    r"(?![\w%\u20ac$\u00a3]|[.,:/]\d|[ \u00a0](?:%|per|euros?|days?|weeks?|months?|years?))",
    re.IGNORECASE,
)
"""A number after the name of a program, after "version" or "v", and anywhere if it has two points."""


def names_place(text: str) -> bool:
    """Whether a text is a word such as "room" or "form", behind which a number is a name and not an amount."""
    return text.lower() in _PLACES.split()


def read_labels(reading: FactReading) -> None:
    """Read labels such as "room 12", "form B-7" or "the fourth floor"."""
    for match in reading.matches(_NTH):
        is_day = match["place"].lower() in DAYS
        ordinal = match["ordinal"]
        # "last" belongs only to a day ("the last Monday"), "ground" only to a floor
        if (ordinal.lower() == "last" and not is_day) or (ordinal.lower() == "ground" and is_day):
            continue
        unit = _NTH_DAY if is_day else stem(match["place"])
        reading.take(Fact(FactKind.LABEL, ordinal_value(ordinal), *match.span("ordinal"), ordinal, unit))
    for match in reading.matches(_LABEL):
        label = match["label"]
        # the pattern ignores case because of the place's name, but "form a queue" has no label
        if not (label[0].isupper() or label[0].isdigit() or label[0] == "-"):
            continue
        unit = stem(match["place"])
        last_label = match["last"]
        is_range = last_label is not None and match["place"].lower() == _PLACE_OF_RANGE
        side = RangeEnd.LOW if is_range else RangeEnd.NONE
        reading.take(Fact(FactKind.LABEL, label.upper(), *match.span("label"), label, unit, side, ranged=is_range))
        if is_range:
            last_span = match.span("last")
            reading.take(Fact(FactKind.LABEL, last_label, *last_span, last_label, unit, RangeEnd.HIGH, ranged=True))


def read_versions(reading: FactReading) -> None:
    """Read versions of programs: "Python 3.11", "release 4.2.1", "v3"; the unit is the program's name, or empty."""
    for match in reading.matches(_VERSION):
        group = "bare" if match["bare"] else "version"
        unit = (match["name"] or "").lower().removesuffix(".js")
        if not unit and (match["word"] or "").lower() == "firmware":
            unit = "firmware"
        reading.take(Fact(FactKind.VERSION, match[group], *match.span(group), match[group], unit))
