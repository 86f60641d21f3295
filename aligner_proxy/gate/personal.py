"""Which mail addresses, telephone numbers and postal addresses does a text hold? Found by form alone.

Meant for comparing two texts: a date or a product number that looks like a telephone number does no harm where both
have it. Postal addresses are known in the forms of a handful of languages only.
"""

from __future__ import annotations

import re

from aligner_proxy.facts import MAIL

_PHONE = re.compile(r"(?<![\w.,/-])(?:\+\d[\d ().-]{5,20}\d|\(?\d{2,5}\)?(?:[ .-]\d{2,8}){1,4})(?![\w/-]|[.,]\d)")
_NO_PHONE = re.compile(r"\d{4}-\d\d-\d\d|\d\d[.-]\d\d[.-]\d{4}|\d{4} ?- ?\d{4}|\d{1,3}(?: \d{3})+")
_FEWEST, _MOST = 7, 15
# Every run is bounded: a search that may begin at each hyphen of a long text must not go on to its end each time.
_STREETS = r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Place|Square|Terrace|Highway|Hwy)"
_STRASSEN = r"(?:stra\u00dfe|strasse|str\.|gasse|allee|platz|weg)"
_POSTAL = (
    re.compile(rf"\b\d{{1,5}}[A-Za-z]?,? (?:[A-Z][\w'.-]{{0,40}} ){{1,4}}{_STREETS}\b"),
    re.compile(rf"\b[A-Z\u00c4\u00d6\u00dc][\w-]{{0,40}}{_STRASSEN} \d{{1,4}}[a-z]?\b"),
    re.compile(r"\b\d{1,4},? (?:rue|avenue|boulevard|place|chemin) (?:de |du |des |la |l'){0,3}[A-Z][\w-]+", re.I),
    re.compile(r"\b(?:[Cc]alle|[Aa]venida|[Vv]ia|[Pp]iazza|[Rr]ua) (?:\w+ ){0,3}?[A-Z]\w+,? (?:n\.? ?)?\d{1,4}\b"),
)


def personal_data(text: str) -> set[str]:
    """Everything by which a person could be reached."""
    return {mail.casefold() for mail in MAIL.findall(text)} | _phones(text) | _places(text)


def _phones(text: str) -> set[str]:
    """The digits of telephone numbers; a leading 00 is a plus."""
    found = (match.group() for match in _PHONE.finditer(text))
    digits = (re.sub(r"\D", "", number).removeprefix("00") for number in found if not _NO_PHONE.fullmatch(number))
    return {number for number in digits if _FEWEST <= len(number) <= _MOST}


def _places(text: str) -> set[str]:
    return {" ".join(match.group().casefold().split()) for form in _POSTAL for match in form.finditer(text)}
