"""Recogniser of facts: the written formats of amounts, times, dates and addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import pairwise

from aligner_proxy.text.facts import MAIL, WEB
from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd
from aligner_proxy_grounding.numerals import DIGITS, NUMBER, WORD, value_of
from aligner_proxy_grounding.words import is_common, stem, stems_of

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
NOON = 12 * 60
"""In minutes after midnight."""
_MOST_CHARS = 1_000
"""Longer sentences are not read, because they are hardly sentences."""
_SPACE = r"[ \u00a0\u202f]{0,4}"
"""Spaces, plain or not breaking a line."""
_JOIN = rf"{_SPACE}(?:-|\u2013|\u2014|\bto\b|\buntil\b|\btill\b|\band\b|\bor\b|\bthrough\b){_SPACE}"
# A number does not begin inside a word, an address or a longer number.
_BEFORE = r"(?<![\w.,:/#+'\u2019])(?<!\d[-\u2013])"
_AFTER = r"(?![\w]|[.,:/]\d)"
"""A number does not end inside a longer one either."""
_CODES = (
    "EUR", "USD", "GBP", "CHF", "PLN", "INR", "SEK", "NOK", "DKK", "CZK", "HUF", "CAD", "AUD", "NZD", "JPY",
    "CNY", "BRL", "ZAR", "TRY", "SGD", "HKD", "AED",
)  # fmt: skip
_SYMBOLS = {code: code for code in _CODES} | {
    "\u20ac": "EUR", "\u00a3": "GBP", "$": "USD", "KR": "kr", "RS": "INR", "RS.": "INR",
    "\u20b9": "INR", "\u00a5": "JPY",
}  # fmt: skip
_NAMED = {
    "euro": "EUR", "euros": "EUR", "pound": "GBP", "pounds": "GBP", "dollar": "USD", "dollars": "USD",
    "franc": "CHF", "francs": "CHF", "kr": "kr", "kroner": "kr", "kronor": "kr",
    "krone": "kr", "\u00f8re": "cent", "cent": "cent", "cents": "cent", "pence": "pence", "p": "pence", "ct": "cent",
    "z\u0142": "PLN", "z\u0142oty": "PLN", "zloty": "PLN", "rupee": "INR", "rupees": "INR", "yen": "JPY",
}  # fmt: skip
# How many of the stored unit make one of the written unit.
_FACTORS = {"fortnight": Decimal(14), "cent": Decimal("0.01"), "pence": Decimal("0.01")}
_LARGER = {"fortnight": "day", "pence": "GBP"}
"""The unit in which a smaller or larger one is stored."""
_CURRENCY = rf"(?:[€£$\u20b9\u00a5]|(?:{'|'.join(_CODES)})\b|\bRs\b\.?)"
_CURRENCY_NAME = (
    r"(?:euros?|pounds?|dollars?|francs?|rupees?|yen|z\u0142(?:oty)?|zloty|kr|kron[eo]r?|\u00f8re|cents?|pence|ct)"
)
_CURRENCY_BEHIND = rf"(?:{_CURRENCY}|{_CURRENCY_NAME}\b|(?<=\d)p\b)"
_UNITS_OF_TIME = {
    "seconds": "second", "secs": "second", "minute": "minute",
    "minutes": "minute", "min": "minute", "mins": "minute", "hour": "hour", "hours": "hour", "hr": "hour",
    "hrs": "hour", "h": "hour", "day": "day", "days": "day", "week": "week", "weeks": "week", "month": "month",
    "months": "month", "year": "year", "years": "year", "yr": "year", "yrs": "year", "fortnight": "fortnight",
}  # fmt: skip
_WORKING = r"(?:business|working|work|banking|bank|week)"
_DURATION_UNIT = (
    rf"(?P<unit>(?:(?P<working>{_WORKING})|calendar|consecutive|full|clear|whole|more|further|additional|complete)?"
    rf"[ -]?(?P<time>{'|'.join(sorted(_UNITS_OF_TIME, key=len, reverse=True))})\b)"
)
_PHYSICAL = (
    "kg", "g", "lbs", "lb", "km", "cm", "mm", "m", "ml", "l", "GB", "MB", "TB", "KB", "kWh", "MWh", "kW", "MW", "W",
    "V", "A", "°C", "°F", "m²", "m³", "Mbit/s", "Mbps", "Gbps", "kilograms?", "kilos?", "grams?", "litres?", "liters?",
    "metres?", "meters?", "kilometres?", "kilometers?", "centimetres?", "centimeters?", "miles?", "inches",
    "gigabytes?", "megabytes?", "terabytes?", "megabits per second", "kilowatt[ -]hours?", "degrees?",
)  # fmt: skip
_SAME_UNIT = {
    "kilogram": "kg", "kilo": "kg", "gram": "g", "litre": "l", "liter": "l", "metre": "m", "meter": "m",
    "kilometre": "km", "kilometer": "km", "centimetre": "cm", "centimeter": "cm", "gigabyte": "GB", "megabyte": "MB",
    "terabyte": "TB", "kilowatt hour": "kWh", "kilowatt-hour": "kWh", "mbps": "Mbit/s",
    "megabits per second": "Mbit/s", "lb": "lbs",
}  # fmt: skip
# Words behind a number that are not what it counts.
_NO_UNIT = frozenset(
    [
        "of",
        "to",
        "and",
        "or",
        "in",
        "on",
        "at",
        "for",
        "if",
        "is",
        "are",
        "was",
        "were",
        "by",
        "from",
        "with",
        "per",
        "the",
        "a",
        "an",
        "as",
        "but",
        "than",
        "that",
        "which",
        "who",
        "until",
        "till",
        "when",
        "then",
        "you",
        "we",
        "they",
        "it",
        "he",
        "she",
        "i",
        "will",
        "would",
        "can",
        "may",
        "must",
        "should",
        "has",
        "have",
        "had",
        "do",
        "does",
        "did",
        "not",
        "no",
        "so",
        "up",
        "out",
        "off",
        "each",
        "every",
        "all",
        "any",
        "p",
    ]
)
# Words between a number and what it counts.
_QUALIFIERS = frozenset(
    [
        "more",
        "free",
        "further",
        "additional",
        "extra",
        "different",
        "other",
        "full",
        "new",
        "whole",
        "separate",
        "further",
        "paid",
        "working",
    ]
)
_DATE = re.compile(
    rf"{_BEFORE}(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.)?{_SPACE}(?:of )?(?P<month>{'|'.join(MONTHS)}|"
    rf"{'|'.join(m[:3] for m in MONTHS)}|sept)\b\.?(?:,?{_SPACE}(?P<year>(?:19|20)\d\d)\b)?"
    rf"|(?P<month2>{'|'.join(MONTHS)}|{'|'.join(m[:3] for m in MONTHS)}|sept)\b\.?{_SPACE}(?:the )?"
    rf"(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?{_AFTER}(?:,?{_SPACE}(?P<year2>(?:19|20)\d\d)\b)?"
    rf"|(?P<year3>(?:19|20)\d\d)-(?P<month3>\d\d)-(?P<day3>\d\d)"
    rf"|(?P<day4>\d{{1,2}})\.(?P<month4>\d{{1,2}})\.(?P<year4>(?:19|20)\d\d)?(?!\d))",
    re.IGNORECASE,
)


_PART_OF_DAY = r"(?:in the (?:morning|afternoon|evening)\b|at night\b)"
"""Words that tell morning from evening after an hour."""


def _clock_form(n: str) -> str:
    """Regular expression of a time of day; the names of its groups begin with `n`."""
    return (
        rf"(?:(?P<{n}hour>\d{{1,2}})(?:[:.](?P<{n}min>[0-5]\d))?{_SPACE}(?P<{n}half>[ap]m\b|[ap]\.{_SPACE}m\b\.?|"
        rf"{_PART_OF_DAY})"
        rf"|(?P<{n}hour24>[01]?\d|2[0-4]):(?P<{n}min24>[0-5]\d)(?:{_SPACE}(?:h|hrs|hours|o'clock|Uhr)\b)?(?![\d:])"
        rf"|(?P<{n}inwords>{WORD}) (?P<{n}ofday>{_PART_OF_DAY})"
        rf"|(?P<{n}oclock>{WORD}|\d{{1,2}}){_SPACE}o['\u2019]clock(?: (?P<{n}oclockof>{_PART_OF_DAY}))?"
        rf"|(?P<{n}part>half past|quarter past|quarter to) (?P<{n}past>noon|midday|midnight|{WORD}|\d{{1,2}})\b"
        rf"(?: (?P<{n}pastof>{_PART_OF_DAY}))?"
        rf"|(?P<{n}word>noon|midday|midnight)\b)"
    )


_TIME = re.compile(
    rf"{_BEFORE}(?:(?:(?P<bare>\d{{1,2}}(?:[:.][0-5]\d)?)|{_clock_form('a')}){_JOIN})?{_clock_form('b')}", re.IGNORECASE
)
# A hyphen may join the ends of a range in digits, but between words it joins the parts of one number.
_RANGE = rf"(?:(?P<low>{NUMBER})(?P<join>{_JOIN})(?<![a-z]-))?"
# Bare hours, without minutes or "am", count as times only behind a day, "daily" or "hours".
_HOURS = re.compile(
    rf"(?:\b(?:{'|'.join(DAYS)}|weekday|weekend)s?|\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|daily)|\bhours),?:? "
    r"(?P<open>\d{1,2})\s?[\u2013-]\s?(?P<close>\d{1,2})(?!\.?\d|:|\s?[ap]\.?m)",
    re.IGNORECASE,
)
_MONEY_BEHIND = re.compile(
    rf"{_BEFORE}{_RANGE}(?P<n>{NUMBER}){_SPACE}-?(?P<unit>{_CURRENCY_BEHIND})(?!\w)", re.IGNORECASE
)
# The currency before the number; its letters must have the usual case.
_MONEY_BEFORE = re.compile(
    rf"(?<![\w.])(?P<unit>{_CURRENCY}){_SPACE}(?:(?P<low>{DIGITS})(?P<join>{_JOIN})(?!{_CURRENCY}))?(?P<n>{DIGITS})"
    r"(?![\d]|[.,]\d)(?:[.,][-\u2013]+)?"
)
_PERCENT = re.compile(rf"{_BEFORE}{_RANGE}(?P<n>{NUMBER}){_SPACE}(?P<unit>%|percent\b|per cent\b)(?!\w)", re.IGNORECASE)
_SIZE = re.compile(
    rf"{_BEFORE}(?P<sides>{DIGITS}(?:{_SPACE}(?:cm|mm|m)?{_SPACE}(?:[x\u00d7]|by){_SPACE}{DIGITS}){{1,2}}){_SPACE}"
    r"(?P<unit>cm|mm|m|in)\b"
)
_DURATION = re.compile(
    rf"{_BEFORE}(?:{_RANGE}(?P<n>{NUMBER})(?:[ \u00a0\u202f-]{{1,4}}|(?<=\d)(?=h\b))|(?P<one>an?|one) (?=\w))"
    rf"{_DURATION_UNIT}",
    re.IGNORECASE,
)
# Without ignoring case, since "W" is a unit and "w" is none.
_AMOUNT = re.compile(
    rf"{_BEFORE}{_RANGE}(?P<n>{NUMBER})[ \u00a0\u202f-]{{0,4}}(?P<unit>{'|'.join(_PHYSICAL)})(?![\w\u00b2])"
)
_COUNT = re.compile(rf"{_BEFORE}{_RANGE}(?P<n>{NUMBER}){_AFTER}", re.IGNORECASE)
_THING = re.compile(r"[ \u00a0-]{1,4}([^\W\d_][\w'\u2019]*)(?:[ -]([^\W\d_][\w'\u2019]*))?")
_NO_THING = (
    r"(?=\s*(?:[.,;:)|!?]|$|years? (?:old|of age)\b)|\s(?:and|or|to|who|pays?|gets?|is|are|may|must|can|you|we)\b)"
)
"""What follows a number that does not count anything."""
_PEOPLE = r"(?:children|kids|child|minors|infants|babies|people|persons|passengers|anyone|everyone|those|pupils|adults)"
_AGE = re.compile(
    rf"{_BEFORE}(?:(?:(?P<low>{NUMBER})(?P<join>{_JOIN})(?<![a-z]-))?(?P<old>{NUMBER})"
    r"(?:[ -]years?[ -](?:olds?|of age|and (?:older|over|up)|upwards?)\b|"
    r"(?= (?:and|or) (?:older|over|above|under|younger)\b))"
    rf"|(?:ages?|aged|age of|ages of) (?:(?P<low2>{NUMBER})(?P<join2>{_JOIN})(?<![a-z]-))?(?P<aged>{NUMBER}){_NO_THING}"
    rf"|(?:under|over)[- ](?P<under>{NUMBER})(?:s\b|{_NO_THING})"
    rf"|(?:(?:be|is|are) (?:at least |over |under )|(?:must|to|should) be )(?P<least>{NUMBER}){_NO_THING}"
    rf"|{_PEOPLE} (?:aged |of |under |over |below |up to (?:the age of )?|from |between )+"
    rf"(?:(?P<low3>{NUMBER})(?P<join3>{_JOIN})(?<![a-z]-))?(?P<child>{NUMBER}){_AFTER}(?!\s*(?:months?|weeks?|days?|hours?|minutes?|kg|km|cm|%)\b))",
    re.IGNORECASE,
)
_SOMEBODY = re.compile(r"[ -]year-old$", re.IGNORECASE)
"""The age of a person ("a 12-year-old"), as opposed to an age limit."""
_FRACTIONS = {
    "half a year": (6, "month"), "half a day": (12, "hour"), "half an hour": (30, "minute"),
    "a quarter of an hour": (15, "minute"), "three quarters of an hour": (45, "minute"),
    "three-quarters of an hour": (45, "minute"), "an hour and a half": (90, "minute"),
    "an hour and a quarter": (75, "minute"), "an hour and three quarters": (105, "minute"),
    "one and a half hours": (90, "minute"), "two and a half hours": (150, "minute"),
    "a year and a half": (18, "month"), "one and a half years": (18, "month"), "a day and a half": (36, "hour"),
}  # fmt: skip
_FRACTION_OF_TIME = re.compile(rf"\b(?:{'|'.join(sorted(_FRACTIONS, key=len, reverse=True))})\b", re.IGNORECASE)
# In per cent.
_PARTS = {"half": 50, "a quarter": 25, "one quarter": 25, "three quarters": 75, "a fifth": 20, "a tenth": 10}
_PART = re.compile(rf"\b(?P<part>{'|'.join(_PARTS)}) (?=(?:of )?(?:the|its|your|that|what|this)\b)", re.IGNORECASE)
_ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth", "thirteenth", "fourteenth", "fifteenth",
)  # fmt: skip
_DAY_OF_MONTH = re.compile(
    rf"\bthe (?P<day>\d{{1,2}}(?:st|nd|rd|th)|{'|'.join(_ORDINALS)}) of (?:each|every|the|a|any|next|following) month\b"
    r"|\b(?:on|by|until|before|after|around) the (?P<day2>\d{1,2}(?:st|nd|rd|th))"
    r"(?=\s*(?:[.,;:)!?]|$)|\s(?:and|or|at|in)\b)",
    re.IGNORECASE,
)
_MILLIONS = re.compile(r"[ \u00a0-]?(?:millions?|billions?|thousand|bn|m|k)\b", re.IGNORECASE)
_WEEKDAY = re.compile(
    rf"(?<!\w)(?P<day>{'|'.join(DAYS)}|mon|tues?|wed|thurs?|fri|sat|sun)(?P<many>s?)\b(?!\w)", re.IGNORECASE
)
# Matched with its case, unlike the pattern above.
_SHORT_DAY = re.compile(r"(?:Mon|Tues?|Wed|Thurs?|Fri|Sat|Sun)\b")
# National forms in groups, seven digits as in America, and international ones.
_PHONE = re.compile(
    r"(?<![\w.,/-])(?:1-\d{3}-\d{3}-\d{4}|\(\d{2,5}\) ?\d{2,4}-\d{2,5}|\d{3}-\d{3}-\d{4}|[2-9]\d{2}-\d{4}"
    r"|[1-9]\d{1,3}(?: \d{2,4}){2,4}|\+\d[\d ().\u00a0/-]{5,20}\d|\(?0\d{1,5}\)?(?:[ .\u00a0/-]\d{2,8}){1,4})"
    r"(?![\w/-]|[.,]\d)"
)
_PLACES = (
    "form room gate concourse terminal platform counter window building hall zone level floor line bus tram bay block "
    "entrance locker court studio ward pier dock stop tariff class"
)
_LABEL = re.compile(
    rf"(?<!\w)(?P<place>{'|'.join(_PLACES.split())})[ \u00a0]"
    r"(?P<label>[A-Z]{0,2}-?\d{1,4}(?:\.\d{1,3}|[A-Za-z])?|[A-Z])\b(?![.:,]\d)",
    re.IGNORECASE,
)
_STREET = r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Boulevard|Court|Place|Square|Terrace|Row|Way|Quay|Yard|Hill)"
_STRASSE = r"(?:stra\u00dfe|strasse|gasse|allee|platz|weg|ring|damm|ufer)"
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
    r"(?:\b(?:is|are|to|with|by|for|contact|Mr\.?|Mrs\.?|Ms\.?|Dr\.?)|:|,|\() "
    r"(?P<name>(?:Dr\.? )?[A-Z][a-z\u00df-\u00ff'\u2019-]+(?: [A-Z]\.| (?:de|van|von|der|la|O'))? "
    r"[A-Z][A-Za-z\u00df-\u00ff'\u2019-]+)"
    r"(?=[.,;:)!?]|\s(?:[a-z(]|$)|$)"
)
_TRAILING = ".,;:!?)]}'\"*_\u201d\u2019"
"""Marks that may follow an address without belonging to it."""
# Words before the upper end of a range, or before a limit that must not be exceeded.
_HIGH_BEFORE = re.compile(
    r"(?:\b(?:until|till|to|by|before|no later than|latest|clos(?:e|es|ed|ing)(?: at)?|ends?(?: at)?|up to|at most|"
    r"maximum(?: of)?|max\.?|no more than|not more than|never more than|as many as|as much as)|\u2013|-)\s*$",
    re.IGNORECASE,
)
# Words before the lower end of a range, or before a minimum.
_LOW_BEFORE = re.compile(
    r"\b(?:from|at least|minimum(?: of)?|min\.?|no(?:t)? (?:less|fewer) than|open(?:s|ing)?(?: at)?|starts?(?: at)?|"
    r"begins?(?: at)?|after|more than|above|between|starting(?: at)?|as little as)\s*$",
    re.IGNORECASE,
)
_LASTS_BEFORE = re.compile(
    r"(?:^|\b(?:within|for|in|after|before|takes?|lasts?|about|around|least|most|to|than|until|only|is|of|every|be|you|have|us))"
    r"\s*$|'s\s*$",
    re.IGNORECASE,
)
"""What precedes "a week" if it is a duration; elsewhere "a week" is usually a rate."""
_ABOUT_BEFORE = re.compile(
    r"\b(?:about|around|roughly|approximately|approx\.?|some|nearly|almost|circa|ca\.|just (?:over|under)|a good|"
    r"a (?:bit|little) (?:more than|less than|over|under)|close to)\s*$",
    re.IGNORECASE,
)
_TIMES = stem("times")
""""Three times" has no noun of its own, so it can refer to anything."""
_LOOK_BACK = 24
"""How many characters before a fact are searched for words such as "about" or "until"."""
_LONGEST_ID = 5
"""A plain number with at least this many digits is an identifier (order, contract) and does not count anything."""


@dataclass(slots=True)
class _FactReading:
    """State of reading one text; recognised parts are blanked out so that nothing is read twice."""

    text: str
    rest: str
    facts: list[Fact] = field(default_factory=list)

    def take(self, fact: Fact) -> None:
        """Append a fact."""
        self.facts.append(fact)

    def blank(self, start: int, end: int) -> None:
        """Blank out characters that have been read."""
        self.rest = self.rest[:start] + "\0" * (end - start) + self.rest[end:]

    def matches(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Matches of a pattern in the text not read yet."""
        return pattern.finditer(self.rest)


def read_facts(text: str, *, pounds_weigh: bool = False) -> list[Fact]:
    """The facts of a sentence in text order; with `pounds_weigh`, "pounds" are a weight and not money."""
    if len(text) > _MOST_CHARS:
        return []
    reading = _FactReading(text, text)
    _addresses(reading)
    # Emphasis marks may separate a number from its unit.
    reading.rest = reading.rest.translate({ord("*"): " ", ord("_"): " ", ord("`"): " "})
    for step in _STEPS:
        step(reading)
    facts = _inherit_units(sorted(reading.facts, key=lambda fact: fact.start))
    if pounds_weigh:
        facts = [_as_weight(fact) for fact in facts]
    return [_with_side(fact, text) for fact in _link_ranges(facts, text)]


def _as_weight(fact: Fact) -> Fact:
    """Turn an amount in "pounds" into a weight."""
    in_words = fact.kind is FactKind.MONEY and fact.unit == "GBP" and "pound" in fact.text.lower()
    return replace(fact, kind=FactKind.AMOUNT, unit="lbs") if in_words else fact


def _addresses(reading: _FactReading) -> None:
    """Read mail and web addresses and telephone numbers."""
    for kind, pattern in (
        (FactKind.MAIL, MAIL),
        (FactKind.WEB, WEB),
        (FactKind.WEB, _DOMAIN),
        (FactKind.PHONE, _PHONE),
    ):
        for match in reading.matches(pattern):
            # a mark after an address belongs to the sentence; a telephone number ends in a digit anyway
            address = match.group().rstrip(_TRAILING) if kind is not FactKind.PHONE else match.group()
            value = re.sub(r"\D", "", address) if kind is FactKind.PHONE else _address(address)
            # no telephone number is shorter or longer (15 digits is the international limit)
            if kind is FactKind.PHONE and not 7 <= len(value) <= 15:
                continue
            reading.take(Fact(kind, value, match.start(), match.start() + len(address), address))
            reading.blank(match.start(), match.start() + len(address))


def _address(address: str) -> str:
    """The address in lower case, without the parts that may be left out."""
    bare = re.sub(r"^https?://", "", address.lower()).removeprefix("www.")
    return bare.rstrip("/")


def _places(reading: _FactReading) -> None:
    """Read street addresses, and labels such as "room 12" or "form B-7"."""
    for match in reading.matches(_ADDRESS):
        value = re.sub(r"[\s,]+", " ", match.group().lower())
        reading.take(Fact(FactKind.ADDRESS, value, match.start(), match.end(), match.group()))
        reading.blank(*match.span())
    for match in reading.matches(_LABEL):
        label = match["label"]
        # the pattern ignores case because of the place's name, but "form a queue" has no label
        if not (label[0].isupper() or label[0].isdigit() or label[0] == "-"):
            continue
        start, end = match.span("label")
        reading.take(Fact(FactKind.LABEL, label.upper(), start, end, label, stem(match["place"])))
        reading.blank(start, end)


def _dates(reading: _FactReading) -> None:
    """Read dates in words, ISO dates and dates with points."""
    for match in reading.matches(_DATE):
        parts = match.groupdict()
        day = parts["day"] or parts["day2"] or parts["day3"] or parts["day4"]
        year = parts["year"] or parts["year2"] or parts["year3"] or parts["year4"]
        month = parts["month"] or parts["month2"]
        number = _month(month) if month else int(parts["month3"] or parts["month4"])
        if 1 <= int(day) <= 31 and 1 <= number <= len(MONTHS):
            value = (int(year) if year else None, number, int(day))
            # the point of "3 Sept." may end the sentence; that of "3.9." is part of the date
            end = match.end() - (match.group().endswith(".") and parts["day4"] is None)
            reading.take(Fact(FactKind.DATE, value, match.start(), end, reading.text[match.start() : end]))
            reading.blank(match.start(), match.end())


def _days_of_month(reading: _FactReading) -> None:
    """Read days of a month without a month's name: "the 3rd of each month"."""
    for match in reading.matches(_DAY_OF_MONTH):
        name = "day" if match["day"] else "day2"
        day_text = match[name]
        day = int(day_text[:-2]) if day_text[0].isdigit() else _ORDINALS.index(day_text.lower()) + 1
        if 1 <= day <= 31:
            start, end = match.span(name)
            reading.take(Fact(FactKind.DATE, (None, None, day), start, end, day_text))
            reading.blank(start, end)


def _ages(reading: _FactReading) -> None:
    """Read age limits and age ranges, and skip ages of persons; blanks their "years", which are no duration."""
    for match in reading.matches(_AGE):
        # exactly one alternative of the pattern has matched
        name = next(name for name in ("old", "aged", "under", "least", "child") if match[name] is not None)
        low = {"old": "low", "aged": "low2", "child": "low3"}.get(name, "")
        if low and match[low] is not None:
            span = match.span(low)
            fact = Fact(
                FactKind.AGE, value_of(match[low]), *span, match[low], side=RangeEnd.LOW, ranged=True, number=span
            )
            reading.take(fact)
            reading.blank(*span)
        span = match.span(name)
        ranged = bool(low and match[low] is not None)
        side = RangeEnd.HIGH if ranged else RangeEnd.NONE
        reading.take(
            Fact(FactKind.AGE, value_of(match[name]), *span, match[name], side=side, ranged=ranged, number=span)
        )
        reading.blank(*span)
        if name == "old":
            reading.blank(span[1], match.end())  # so that "years" is not read as a duration
            if _SOMEBODY.search(match.group()):
                reading.facts.pop()


def _fractions(reading: _FactReading) -> None:
    """Read fractions in words: "half an hour", "three quarters of the price"."""
    for match in reading.matches(_FRACTION_OF_TIME):
        number, unit = _FRACTIONS[match.group().lower()]
        reading.take(Fact(FactKind.DURATION, Decimal(number), *match.span(), match.group(), unit))
        reading.blank(*match.span())
    for match in reading.matches(_PART):
        span = match.span("part")
        reading.take(Fact(FactKind.PERCENT, Decimal(_PARTS[match["part"].lower()]), *span, match["part"], "%"))
        reading.blank(*span)


def _month(name: str) -> int:
    return next(n for n, month in enumerate(MONTHS, 1) if month.startswith(name.lower()[:3]))


def _times(reading: _FactReading) -> None:
    """Read times of day and ranges of them: "9 to 5:30 pm", "half past six"."""
    for match in reading.matches(_TIME):
        late = _clock(match, "b")
        if late is None:
            continue
        start, minutes, unit = late
        if match.start("bare") >= 0:
            early = _bare_clock(match["bare"], minutes)
            # a bare number is an hour in "9 to 5 pm", but not surely before "17:00" or "noon"
            if early is not None and re.search(r"[:.]\d\d", match["bare"]) is None and unit == "24":
                early = None if match["bhalf"] is None else early
            if early is not None:
                # In "6:30 to 8:30 pm" the first time may be in either half of the day.
                either = "12" if unit == "24" and match["bhalf"] and early < NOON and early + NOON < minutes else unit
                fact = Fact(
                    FactKind.TIME, Decimal(early), *match.span("bare"), match["bare"], either, RangeEnd.LOW, ranged=True
                )
                reading.take(replace(fact, number=match.span("bare")))
        elif (first := _clock(match, "a")) is not None:
            end = _end_of_clock(match, "a")
            text = reading.text[first[0] : end]
            reading.take(
                Fact(FactKind.TIME, Decimal(first[1]), first[0], end, text, first[2], RangeEnd.LOW, ranged=True)
            )
        ranged = match.start("bare") >= 0 or _clock(match, "a") is not None
        side = RangeEnd.HIGH if ranged else RangeEnd.NONE
        text = reading.text[start : match.end()]
        reading.take(Fact(FactKind.TIME, Decimal(minutes), start, match.end(), text, unit, side, ranged=ranged))
        reading.blank(match.start(), match.end())


def _bare_hours(reading: _FactReading) -> None:
    """Read the opening hours after a day of the week: "weekdays 8-20"."""
    for match in reading.matches(_HOURS):
        if int(match["open"]) > 24 or int(match["close"]) > 24:
            continue
        for name, side in (("open", RangeEnd.LOW), ("close", RangeEnd.HIGH)):
            hour = Decimal(int(match[name]) * 60)
            span = match.span(name)
            fact = Fact(FactKind.TIME, hour, *span, match[name], "24", side, ranged=True, number=span)
            reading.take(fact)
            reading.blank(*span)


_AT_BEFORE = re.compile(
    r"(?:\b(?:at|until|till|to|from|by|before|after|between|and|around|about|opens?|closes?|than)|[\u2013-])\s*$",
    re.IGNORECASE,
)
"""What precedes an hour in words; otherwise "two in the morning" may count something."""
_NAMED_TIMES = {"noon": NOON, "midday": NOON, "midnight": 0}
_LATE_HALF = ("p", "in the a", "in the e", "at")


def _clock(match: re.Match[str], n: str) -> tuple[int, int, str] | None:
    """Return (start, minutes after midnight, notation) of one time; None without one.

    The notation is "12" if morning and afternoon cannot be told apart, else "24".
    """
    if (word := match[f"{n}word"]) is not None:
        return match.start(f"{n}word"), _NAMED_TIMES[word.lower()], "24"
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


def _of_day(minutes: int, part: str | None) -> tuple[int, str]:
    """Return (minutes after midnight, notation) given the named part of the day; "12" if none is named.

    An hour from 13 on stays as it is, whatever part of the day is named.
    """
    if part is None or minutes >= NOON + 60:
        return minutes, "12"
    return minutes % NOON + (NOON if part.lower().startswith(_LATE_HALF) else 0), "24"


def _end_of_clock(match: re.Match[str], n: str) -> int:
    names = ("half", "min24", "hour24", "oclockof", "oclock", "pastof", "past", "ofday", "word", "min", "hour")
    # the end of a group that has not matched is -1
    return max(match.end(f"{n}{name}") for name in names)


def _bare_clock(text: str, late: int) -> int | None:
    """Minutes of the first of two times; None if it is not a time of day.

    If the second is in the afternoon, an hour before 6 is too, provided that it then still precedes the second.
    """
    hour, _, rest = text.replace(".", ":").partition(":")
    minutes = int(hour) * 60 + int(rest or 0)
    if int(hour) > 24:
        return None
    if late >= NOON and minutes < NOON and minutes + NOON < late and int(hour) < 6:
        return minutes + NOON
    return minutes


def _money(reading: _FactReading) -> None:
    """Read amounts of money; skips "3 million euros" and the like."""
    for pattern in (_MONEY_BEFORE, _MONEY_BEHIND):
        for match in reading.matches(pattern):
            if _MILLIONS.match(reading.rest, match.end()):
                continue
            unit_text = match["unit"]
            unit = _SYMBOLS.get(unit_text.upper()) or _SYMBOLS.get(unit_text) or _NAMED[unit_text.lower()]
            _number(reading, match, FactKind.MONEY, unit)


def _percentages(reading: _FactReading) -> None:
    for match in reading.matches(_PERCENT):
        _number(reading, match, FactKind.PERCENT, "%")


def _sizes(reading: _FactReading) -> None:
    """Read measures with two or three sides: "60 x 40 cm"."""
    for match in reading.matches(_SIZE):
        sides = tuple(value_of(side) for side in re.findall(DIGITS, match["sides"]))
        # only measures with equally many sides can be compared
        unit = f"{match['unit']} {len(sides)}"
        reading.take(Fact(FactKind.SIZE, sides, match.start(), match.end(), match.group(), unit))
        reading.blank(match.start(), match.end())


def _durations(reading: _FactReading) -> None:
    """Read durations, except rates such as "a day"."""
    for match in reading.matches(_DURATION):
        unit = _UNITS_OF_TIME[match["time"].lower()]
        before = reading.text[max(0, match.start() - _LOOK_BACK) : match.start()]
        if match["one"] is not None and (match["working"] is not None or not _LASTS_BEFORE.search(before)):
            continue  # "a day" is usually a rate
        if unit == "day" and match["working"]:
            unit = "business day"
        _number(reading, match, FactKind.DURATION, unit)


def _amounts(reading: _FactReading) -> None:
    for match in reading.matches(_AMOUNT):
        unit_text = match["unit"]
        name = re.sub(r"s$", "", unit_text.lower())
        _number(reading, match, FactKind.AMOUNT, _SAME_UNIT.get(name, unit_text))


def _counts(reading: _FactReading) -> None:
    """Read numbers of things, but no identifiers; a number without a thing may get its unit from an earlier one."""
    for match in reading.matches(_COUNT):
        # with a separator, "10,000" is no identifier
        if match["n"].isdigit() and len(match["n"]) >= _LONGEST_ID:
            continue
        thing = _THING.match(reading.rest, match.end())
        unit = " ".join(_things(thing)) if thing else ""
        word = match["n"].lower()
        # without a thing, "one" is mostly a pronoun: "the old one"
        if word == "one" and not unit:
            continue
        _number(reading, match, FactKind.COUNT, unit)


def _things(match: re.Match[str]) -> Iterator[str]:
    """Stems of what is counted: the next word, and the word after it if that may be the noun."""
    for word in match.groups():
        if word is None or word.lower() in _NO_UNIT:
            return
        if word.lower() not in _QUALIFIERS:
            # one stem a word, though a compound has several and a function word none
            yield from ([*stems_of(word)] or [stem(word)])[:1]


def _number(reading: _FactReading, match: re.Match[str], kind: FactKind, unit: str) -> None:
    """Append the fact of a number with its unit, or the two facts of a range."""
    groups = match.groupdict()
    one = groups.get("one")
    number_text = groups.get("n")
    value = Decimal(1) if one else value_of(str(number_text))
    start, end = match.span("one" if one else "n")
    factor = Decimal(_FACTORS.get(unit, 1))
    unit = _LARGER.get(unit, unit)
    first = match.start() if groups.get("low") is None else start
    join = (groups.get("join") or "").strip()
    text = reading.text
    if groups.get("low") is not None and _joins(text[: match.start("low")], join):
        low = match.span("low")
        fact = Fact(
            kind, value_of(match["low"]) * factor, *low, match["low"], unit, RangeEnd.LOW, ranged=True, number=low
        )
        reading.take(replace(fact, scale=_scale(factor)))
        reading.blank(*low)
        side = RangeEnd.HIGH
    else:
        side = RangeEnd.NONE
        first = start if groups.get("low") is not None else first
    # what is counted is not part of the fact
    last = end if kind is FactKind.COUNT else match.end()
    fact = Fact(kind, value * factor, first, last, text[first:last], unit, side, side is RangeEnd.HIGH, (start, end))
    # a fortnight has become 14 days, so the written number cannot be replaced alone
    if factor > 1:
        fact = replace(fact, number=None)
    reading.take(replace(fact, scale=_scale(factor)))
    reading.blank(first, last)


def _scale(factor: Decimal) -> int:
    """The written number divided by the value, when the written unit is `factor` times the stored unit."""
    return int(1 / factor) if factor < 1 else 1


def _joins(before: str, join: str) -> bool:
    """Whether these words between two numbers make them a range; "and" does so only after "between"."""
    return join.lower() != "and" or before.rstrip().lower().endswith("between")


def _names(reading: _FactReading) -> None:
    """Read names of persons after words such as "contact" or "Dr."."""
    for match in reading.matches(_NAME):
        name = match["name"]
        if any(is_common(token) for token in re.findall(r"[^\W\d_]+", name)):
            continue
        start, end = match.span("name")
        reading.take(Fact(FactKind.NAME, name.lower(), start, end, name))
        reading.blank(start, end)


def _weekdays(reading: _FactReading) -> None:
    """Read days of the week, which must have a capital."""
    for match in reading.matches(_WEEKDAY):
        day_text = match.group()
        # short names need the usual case, since "sat" and "SUN" are words as well
        if len(match["day"]) < len("monday") and not _SHORT_DAY.match(day_text):
            continue
        if not day_text[0].isupper():
            continue
        number = next(n for n, day in enumerate(DAYS) if day.startswith(match["day"].lower()[:3]))
        reading.take(Fact(FactKind.WEEKDAY, DAYS[number], match.start(), match.end(), day_text))


# In this order: each step reads what the earlier ones left, so plain counts come after all units.
_STEPS: tuple[Callable[[_FactReading], None], ...] = (
    _places, _money, _percentages, _dates, _days_of_month, _times, _bare_hours, _sizes, _fractions, _ages,
    _durations, _amounts, _counts, _weekdays,
    _names,
)  # fmt: skip


def _inherit_units(facts: list[Fact]) -> list[Fact]:
    """Give a bare number the unit of the preceding number.

    In "20 items, with a card 30" the 30 are items, too.
    """
    unit = ""
    for n, fact in enumerate(facts):
        if fact.kind is FactKind.COUNT:
            unit = fact.unit or unit
            facts[n] = replace(fact, unit=unit, inherited=fact.unit in ("", _TIMES))
    return facts


def _link_ranges(facts: list[Fact], text: str) -> list[Fact]:
    """Mark two facts of one kind as the ends of a range if a dash or "to" joins them: "9 to 5", "3-5 days"."""
    for n, (one, other) in enumerate(pairwise(list(facts))):
        between = text[one.end : other.start]
        if one.ranged or other.ranged or not one.same_form(other) or not re.fullmatch(_JOIN, between):
            continue
        # "5 euros or 7 euros" are alternatives and no range
        if between.strip() in ("or",) or not _joins(text[: one.start], between.strip()):
            continue
        facts[n] = replace(one, side=RangeEnd.LOW, ranged=True)
        facts[n + 1] = replace(other, side=RangeEnd.HIGH, ranged=True)
    return facts


def _with_side(fact: Fact, text: str) -> Fact:
    """Set which end of a range a fact is, and whether it is approximate, from the words before it."""
    before = text[max(0, fact.start - _LOOK_BACK) : fact.start]
    if _ABOUT_BEFORE.search(before):
        fact = replace(fact, approximate=True)
    # a range that is written out says it itself
    if fact.side is not RangeEnd.NONE:
        return fact
    if _HIGH_BEFORE.search(before):
        return replace(fact, side=RangeEnd.HIGH)
    return replace(fact, side=RangeEnd.LOW) if _LOW_BEFORE.search(before) else fact
