"""Readers of mail and web addresses, telephone numbers, streets, and names of persons."""

from __future__ import annotations

import re

from aligner_proxy.text.facts import MAIL, WEB
from aligner_proxy_grounding.facts import Fact, FactKind
from aligner_proxy_grounding.forms.reading import FactReading
from aligner_proxy_grounding.words import is_common

# National numbers in groups, American numbers of seven digits, and international numbers; but not "120 000".
_PHONE = re.compile(
    r"(?<![\w.,/-])(?!\d{1,3}(?: \d{3})* 000\b)(?:1-\d{3}-\d{3}-\d{4}|\(\d{2,5}\) ?\d{2,4}-\d{2,5}"
    r"|\d{3}-\d{3}-\d{4}|[2-9]\d{2}\.\d{3}\.\d{4}|[2-9]\d{2}-\d{4}"
    r"|[1-9]\d{1,3}(?: \d{2,4}){2,4}|\+\d[\d ().\u00a0/-]{5,20}\d|\(?0\d{1,5}\)?(?: / |[ .\u00a0/-])\d{2,8}"
    r"(?:[ .\u00a0/-]\d{2,8}){0,4})(?![\w/-]|[.,]\d)"
)
_MIN_PHONE_DIGITS = 7
_MAX_PHONE_DIGITS = 15
"""By international agreement."""
_STREET = r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Boulevard|Court|Place|Square|Terrace|Row|Way|Quay|Yard|Hill)"
_STRASSE = (
    r"(?:stra\u00dfe|strasse|gasse|allee|platz|weg|ring|damm|ufer|gat[ae]n?|gade|vej|veien|v\u00e4gen|straat|laan|"
    r"plein)"
)
_ADDRESS = re.compile(
    rf"\b(?:\d{{1,4}}[a-zA-Z]?,? (?:[A-Z][\w'.-]{{0,30}} ){{1,3}}{_STREET}"
    rf"|(?:[A-Z][\w'.-]{{0,30}} ){{1,3}}{_STREET} \d{{1,4}}[a-z]?"
    rf"|[A-Z][\w\u00e4\u00f6\u00fc\u00df-]{{0,40}}{_STRASSE} \d{{1,4}}[a-z]?)\b"
)
_DOMAIN = re.compile(
    r"(?<![\w@.-])(?:[a-z0-9](?:[a-z0-9-]{0,62})\.){1,4}"
    r"(?:com|org|net|info|example|test|io|app|de|eu|co\.uk|uk|ch|at|fr|ie|us|ca|nl)"
    r"(?:/[\w./%#?=&+-]*[\w/])?(?![\w@-])",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?:\b(?:is|are|to|with|by|for|contact|Mr\.?|Mrs\.?|Ms\.?|Dr\.?|Frau|Herrn?|Mme|Madame|Monsieur|Se\u00f1ora?|"
    r"Sra?\.)|:|,|\() "
    r"(?P<name>(?:Dr\.? )?[A-Z][a-z\u00df-\u00ff'\u2019-]+(?: [A-Z]\.| (?:de|van|von|der|la|O'))? "
    r"[A-Z][A-Za-z\u00df-\u00ff'\u2019-]+)"
    r"(?=[.,;:)!?]|\s(?:[a-z(]|$)|$)"
)
_TRAILING_MARKS = ".,;:!?)]}'\"*_\u201d\u2019"
"""Marks that may follow an address without belonging to it."""


def read_addresses(reading: FactReading) -> None:
    """Read mail and web addresses, and add their facts to the reading."""
    for kind, pattern in ((FactKind.MAIL, MAIL), (FactKind.WEB, WEB), (FactKind.WEB, _DOMAIN)):
        for match in reading.matches(pattern):
            # a punctuation mark after an address belongs to the sentence
            address = match.group().rstrip(_TRAILING_MARKS)
            value = _normalise_address(address)
            reading.take(Fact(kind, value, match.start(), match.start() + len(address), address))


def read_phones(reading: FactReading) -> None:
    """Read telephone numbers."""
    for match in reading.matches(_PHONE):
        digits = re.sub(r"\D", "", match.group())
        if _MIN_PHONE_DIGITS <= len(digits) <= _MAX_PHONE_DIGITS:
            reading.take(Fact(FactKind.PHONE, digits, *match.span(), match.group()))


def _normalise_address(address: str) -> str:
    """Write an address in lower case, without the parts that may be left out: "http://", "www." and a final slash."""
    address_without_scheme = re.sub(r"^https?://", "", address.lower())
    return address_without_scheme.removeprefix("www.").rstrip("/")


def read_streets(reading: FactReading) -> None:
    """Read street addresses."""
    for match in reading.matches(_ADDRESS):
        value = re.sub(r"[\s,]+", " ", match.group().lower())
        reading.take(Fact(FactKind.ADDRESS, value, *match.span(), match.group()))


def read_names(reading: FactReading) -> None:
    """Read names of persons after words such as "contact" or "Dr."; a name that has a common word is no name."""
    for match in reading.matches(_NAME):
        name = match["name"]
        words = re.findall(r"[^\W\d_]+", name)
        if any(is_common(word) for word in words):
            continue
        reading.take(Fact(FactKind.NAME, name.lower(), *match.span("name"), name))
