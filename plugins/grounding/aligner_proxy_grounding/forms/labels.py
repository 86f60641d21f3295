"""Numbers that name a thing: "room 12", "form B-7"."""

from __future__ import annotations

import re

from aligner_proxy_grounding.facts import Fact, FactKind
from aligner_proxy_grounding.forms.reading import FactReading
from aligner_proxy_grounding.words import stem

_PLACES = (
    "form room gate concourse terminal platform counter window building hall zone level floor line bus tram bay block "
    "entrance locker court studio ward pier dock stop tariff class"
)
_LABEL = re.compile(
    rf"(?<!\w)(?P<place>{'|'.join(_PLACES.split())})[ \u00a0]"
    r"(?P<label>[A-Z]{0,2}-?\d{1,4}(?:\.\d{1,3}|[A-Za-z])?|[A-Z])\b(?![.:,]\d)",
    re.IGNORECASE,
)


def read_labels(reading: FactReading) -> None:
    """Read labels such as "room 12" or "form B-7"."""
    for match in reading.matches(_LABEL):
        label = match["label"]
        # the pattern ignores case because of the place's name, but "form a queue" has no label
        if not (label[0].isupper() or label[0].isdigit() or label[0] == "-"):
            continue
        start, end = match.span("label")
        reading.take(Fact(FactKind.LABEL, label.upper(), start, end, label, stem(match["place"])))
        reading.blank(start, end)
