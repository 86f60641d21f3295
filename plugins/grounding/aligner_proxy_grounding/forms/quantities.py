"""Readers of amounts of money, percentages, durations, measures, and numbers of things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

from aligner_proxy_grounding.facts import UNITS_OF_TIME, Fact, FactKind
from aligner_proxy_grounding.forms.reading import AFTER, BEFORE, JOIN, LOOK_BACK, RANGE, SPACE, FactReading, take_number
from aligner_proxy_grounding.forms.units import UNIT, unit_of
from aligner_proxy_grounding.languages import LANGUAGES, NUMBERS, LanguageWords, either, language_of_number
from aligner_proxy_grounding.numerals import DIGITS, MAGNITUDE, NUMBER, value_of
from aligner_proxy_grounding.words import stem, stems_of

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
    rf"(?P<unit>(?:(?P<working>{_WORKING})|(?P<calendar>calendar)|consecutive|full|clear|whole|more|further|additional|complete)?"
    rf"[ -]?(?P<time>{'|'.join(sorted(_UNITS_OF_TIME, key=len, reverse=True))})\b)"
)
_STOPS = (
    "of to and or in on at for if is are was were by from with per the a an as but than that which who until till when "
    "then you we they it he she i will would can may must should has have had do does did not no so up out off each "
    "every all any p"
)
_NO_UNIT = frozenset(_STOPS.split())
"""Words behind a number that are not what it counts."""
_ADJECTIVES = "more free further additional extra different other full new whole separate paid working"
_QUALIFIERS = frozenset(_ADJECTIVES.split())
"""Words between a number and what it counts."""
_MONEY_BEHIND = re.compile(
    rf"{BEFORE}{RANGE}(?P<n>{NUMBER}){MAGNITUDE}?{SPACE}(?:-|de |d['\u2019])?(?P<unit>{_CURRENCY_BEHIND})(?!\w)",
    re.IGNORECASE,
)
_MONEY_IN_PARTS = re.compile(
    rf"{BEFORE}(?P<n>{NUMBER}){SPACE}(?P<unit>(?!cents?\b|pence\b|ct\b){_CURRENCY_BEHIND})(?!\w)(?: and | )"
    rf"(?P<cents>{NUMBER}){SPACE}(?:cents?|centimes?|pence|\u00f8re|ct|(?<=\d)p)(?!\w)"
    r"(?! (?:an?|per|for|each|every)\b)",
    re.IGNORECASE,
)
"""An amount whose cents have a number of their own: "twelve euros and fifty cents". Not "2 euros and 50 cents a page",
which may be two prices."""
_CENTS_IN_UNIT = 100
# The currency before the number; its letters must have the usual case.
_MONEY_BEFORE = re.compile(
    rf"(?<![\w.])(?:US(?=\$))?(?P<unit>{_CURRENCY}){SPACE}(?:(?P<low>{DIGITS})(?P<join>{JOIN})(?!{_CURRENCY}))?"
    rf"(?P<n>{DIGITS})(?![\d]|[.,]\d)(?:{MAGNITUDE}|(?:[.,][-\u2013]+)?)"
)
_PERCENT_NAME = r"(?:percent|per cent|Prozent|pour cent|por ciento)"
_PERCENT = re.compile(rf"{BEFORE}{RANGE}(?P<n>{NUMBER}){SPACE}(?P<unit>%|{_PERCENT_NAME}\b)(?!\w)", re.IGNORECASE)
_SIZE = re.compile(
    rf"{BEFORE}(?P<sides>{DIGITS}(?:{SPACE}(?:cm|mm|m)?{SPACE}(?:[x\u00d7]|by){SPACE}{DIGITS}){{1,2}}){SPACE}"
    r"(?P<unit>cm|mm|m|in)\b"
)
_DURATION = re.compile(
    rf"{BEFORE}(?:{RANGE}(?P<n>{NUMBER})(?:[ \u00a0\u202f-]{{1,4}}|(?<=\d)(?=h\b))|(?P<one>an?|one) (?=\w))"
    rf"{_DURATION_UNIT}",
    re.IGNORECASE,
)


def _foreign_patterns(language: LanguageWords) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Return the patterns of durations, percentages and amounts in euros in one language, also for numbers in words.

    In a match of a duration, the group that is named after the unit ("business_day") is not None.
    """
    words = either([*language.numbers])
    number = rf"(?P<n>{DIGITS}|{words})"
    # The order is reversed to try business days before days, since their names begin alike.
    units = "|".join(f"(?P<{unit.replace(' ', '_')}>{language.units[unit]})" for unit in reversed([*language.units]))
    join = rf"{SPACE}(?:-|\u2013|{either(language.between)}){SPACE}"
    low = rf"(?:(?P<low>{DIGITS}|{words})(?P<join>{join}))?"
    patterns = (
        # "un an et demi" is not one year
        rf"{low}{number}[ \u00a0\u202f]{{1,2}}(?P<unit>{units})(?! (?:et demie?|y medi[oa])\b)",
        rf"(?P<n>{words}) (?P<unit>%|{_PERCENT_NAME})",
        rf"(?P<n>{words}) (?P<unit>euros?)",
    )
    durations, percentages, money = (re.compile(rf"{BEFORE}{pattern}(?!\w)", re.IGNORECASE) for pattern in patterns)
    return durations, percentages, money


_FOREIGN_DURATIONS, _FOREIGN_PERCENTAGES, _FOREIGN_MONEY = zip(
    *(_foreign_patterns(language) for language in LANGUAGES), strict=True
)
# Without ignoring case, since "W" is a unit and "w" is none.
_AMOUNT = re.compile(rf"{BEFORE}{RANGE}(?P<n>{NUMBER})[ \u00a0\u202f-]{{0,4}}(?:{UNIT})(?![\w\u00b2\u00b3/])")
_COUNT = re.compile(rf"{BEFORE}{RANGE}(?P<n>{NUMBER})(?:{MAGNITUDE}(?<![\dmM][mM])(?<!\b[mM]))?{AFTER}", re.IGNORECASE)
_OR_MORE = r"(?:[ \u00a0](?:or|and) (?:more|fewer|less|over|above|under|up))?"
_THING = re.compile(rf"{_OR_MORE}[ \u00a0-]{{1,4}}([^\W\d_][\w'\u2019]*)(?:[ -]([^\W\d_][\w'\u2019]*))?")
_GROUP_BEFORE = re.compile(r"\b([^\W\d_]+s) of (?:at least |at most |up to |over |under )?$")
"""What is counted, if it stands before the number: "groups of 8"."""
_SCORE_BEFORE = re.compile(
    r"\b((?:[^\W\d_]+ )?(?:score|mark|grade|rating|average)) of (?:at least |at most )?$", re.IGNORECASE
)
"""What a bare number measures, if it stands before the number: "an overall score of 7.5"."""
_NOT_FOREIGN_COUNTS = ("once", "six", "sept", "cent", "dos", "quince")
"""Numbers in words of other languages that are English words as well."""
_FOREIGN_STOPS = "der die das des von vom bis und oder de des du la le les et ou \u00e0 au y o del al el los las"
"""Words behind a number in words of another language that are not what it counts."""
_FOREIGN_NUMBER = either([word for word, value in NUMBERS.items() if value > 1 and word not in _NOT_FOREIGN_COUNTS])
_FOREIGN_COUNT = re.compile(rf"{BEFORE}(?P<n>{_FOREIGN_NUMBER})(?!\w)", re.IGNORECASE)
# The number and the unit of each text.
_FRACTIONS = {
    "half a year": (6, "month"), "half a day": (12, "hour"), "half an hour": (30, "minute"),
    "a quarter of an hour": (15, "minute"), "three quarters of an hour": (45, "minute"),
    "three-quarters of an hour": (45, "minute"), "an hour and a half": (90, "minute"),
    "an hour and a quarter": (75, "minute"), "an hour and three quarters": (105, "minute"),
    "one and a half hours": (90, "minute"), "two and a half hours": (150, "minute"),
    "a year and a half": (18, "month"), "one and a half years": (18, "month"), "a day and a half": (36, "hour"),
}  # fmt: skip
_FRACTION_OF_TIME = re.compile(rf"\b(?:{'|'.join(sorted(_FRACTIONS, key=len, reverse=True))})\b", re.IGNORECASE)
_AND_A_HALF = re.compile(
    rf"{BEFORE}(?:(?P<n>{NUMBER}|an?) (?P<unit>minute|hour|day|week|month|year)s? and a half"
    rf"|(?P<many>{NUMBER}) and a half (?P<units>minute|hour|day|week|month|year)s)\b",
    re.IGNORECASE,
)
"""A duration with a half, which is none of `_FRACTIONS`: "a minute and a half", "three and a half days"."""
_PERCENT_OF_PARTS = {"half": 50, "a quarter": 25, "one quarter": 25, "three quarters": 75, "a fifth": 20, "a tenth": 10}
_PART = re.compile(
    rf"\b(?P<part>{'|'.join(_PERCENT_OF_PARTS)}) (?=(?:of )?(?:the|its|your|that|what|this)\b)", re.IGNORECASE
)
_LASTS_BEFORE = re.compile(
    r"(?:^|\b(?:within|for|in|after|before|takes?|lasts?|about|around|least|most|to|than|until|only|is|of|every|be|you|have|us))"
    r"\s*$|'s\s*$",
    re.IGNORECASE,
)
"""What precedes "a week" if it is a duration; elsewhere "a week" is usually a rate."""
_AHEAD = re.compile(r" (?:in advance|ahead|beforehand|afterwards|later)\b|['\u2019]s notice\b", re.IGNORECASE)
"""What follows "a week" if it is a duration: "a week in advance"."""
_MIN_ID_DIGITS = 5
"""A plain number with at least this many digits is an identifier (order, contract) and does not count anything."""


def read_money(reading: FactReading) -> None:
    """Read amounts of money: "5 euros 20 cents", "$5", "5 dollars"."""
    for match in reading.matches(_MONEY_IN_PARTS):
        _take_amount_in_parts(reading, match)
    for pattern in (_MONEY_BEFORE, _MONEY_BEHIND, *_FOREIGN_MONEY):
        for match in reading.matches(pattern):
            take_number(reading, match, FactKind.MONEY, _name_currency(match["unit"]))


def _take_amount_in_parts(reading: FactReading, match: re.Match[str]) -> None:
    """Add the fact of an amount such as "5 euros 20 cents" to the reading.

    The fact has no `number`, because two numbers would have to be replaced together, so it is never rewritten.
    """
    cents = value_of(match["cents"])
    if cents < _CENTS_IN_UNIT:
        value = value_of(match["n"]) + cents / _CENTS_IN_UNIT
        unit = _name_currency(match["unit"])
        reading.take(Fact(FactKind.MONEY, value, *match.span(), match.group(), unit))


def _name_currency(written_unit: str) -> str:
    """The stored unit of a currency's symbol, code or name: "EUR" for "€" and "euros"; raises KeyError if unknown."""
    return _SYMBOLS.get(written_unit.upper()) or _SYMBOLS.get(written_unit) or _NAMED[written_unit.lower()]


def read_percentages(reading: FactReading) -> None:
    """Read percentages: "20 %", "ten per cent"."""
    for pattern in (_PERCENT, *_FOREIGN_PERCENTAGES):
        for match in reading.matches(pattern):
            take_number(reading, match, FactKind.PERCENT, "%")


def read_sizes(reading: FactReading) -> None:
    """Read measures with two or three sides: "60 x 40 cm"."""
    for match in reading.matches(_SIZE):
        sides = tuple(value_of(side) for side in re.findall(DIGITS, match["sides"]))
        # only measures with equally many sides can be compared
        unit = f"{match['unit']} {len(sides)}"
        reading.take(Fact(FactKind.SIZE, sides, *match.span(), match.group(), unit))


def read_durations(reading: FactReading) -> None:
    """Read durations such as "3 days", but no rates such as "5 euros a day"."""
    for match in reading.matches(_DURATION):
        unit = _UNITS_OF_TIME[match["time"].lower()]
        text_before = reading.text[max(0, match.start() - LOOK_BACK) : match.start()]
        # behind a fact that has been read, "£5 a week in advance" is a rate
        is_rate = reading.rest[: match.start()].rstrip().endswith("\0")
        is_length = _LASTS_BEFORE.search(text_before) or (not is_rate and _AHEAD.match(reading.text, match.end()))
        if match["one"] is not None and (match["working"] is not None or not is_length):
            continue  # without a word such as "lasts" before it, "a day" is usually a rate
        if unit == "day" and (match["working"] or match["calendar"]):
            unit = "business day" if match["working"] else "calendar day"
        take_number(reading, match, FactKind.DURATION, unit)


def read_foreign_durations(reading: FactReading) -> None:
    """Read durations in German, French and Spanish: "zwei Jahre", "sous 30 jours"."""
    for pattern in _FOREIGN_DURATIONS:
        for match in reading.matches(pattern):
            unit = next(name for name in UNITS_OF_TIME if match.groupdict().get(name.replace(" ", "_")))
            take_number(reading, match, FactKind.DURATION, unit)


def read_amounts(reading: FactReading) -> None:
    """Read numbers with a physical unit: "3 kg", "2 miles"."""
    for match in reading.matches(_AMOUNT):
        unit, factor = unit_of(match)
        take_number(reading, match, FactKind.AMOUNT, unit, factor)


def read_counts(reading: FactReading) -> None:
    """Read numbers of things, but no identifiers; the unit is the stems of the words for the things.

    The unit is empty if no word says what is counted; the caller then takes the unit of an earlier number.
    """
    for match in reading.matches(_COUNT):
        # "10,000" is no identifier, because it has a separator
        if match["n"].isdigit() and len(match["n"]) >= _MIN_ID_DIGITS:
            continue
        words_behind = _THING.match(reading.rest, match.end())
        unit = " ".join(_stems_of_things(words_behind)) if words_behind else ""
        text_before = reading.rest[max(0, match.start() - LOOK_BACK) : match.start()]
        if group := _GROUP_BEFORE.search(text_before):
            unit = f"{stem(group[1])} {unit}".strip()
        elif not unit and (score := _SCORE_BEFORE.search(text_before)):
            unit = " ".join(map(stem, score[1].split()))
        # without a thing, "one" is mostly a pronoun: "the old one"
        if match["n"].lower() == "one" and not unit:
            continue
        take_number(reading, match, FactKind.COUNT, unit)


def read_foreign_counts(reading: FactReading) -> None:
    """Read numbers in words of German, French and Spanish before what they count: "zwei Hunde".

    In German, one of the two words behind the number must have a capital, as a noun has.
    """
    for match in reading.matches(_FOREIGN_COUNT):
        things = _THING.match(reading.rest, match.end())
        if things is None or things[1].lower() in _FOREIGN_STOPS.split():
            continue
        language = language_of_number(match["n"])
        needs_capital = language is not None and language.has_capital_nouns
        if not needs_capital or any(word and word[0].isupper() for word in things.groups()):
            take_number(reading, match, FactKind.COUNT, " ".join(_stems_of_things(things)))


def _stems_of_things(words_behind: re.Match[str]) -> Iterator[str]:
    """Yield the stems of the words behind a number that may say what is counted: large and room for "6 large rooms".

    `words_behind` is a match of `_THING`, with one word in each group.
    """
    for word in words_behind.groups():
        if word is None or word.lower() in _NO_UNIT:
            return
        if word.lower() not in _QUALIFIERS:
            # only the first stem of a compound; a function word, which has none, stands for itself
            stems = [*stems_of(word)] or [stem(word)]
            yield stems[0]


def read_fractions(reading: FactReading) -> None:
    """Read fractions in words: "half an hour" as a duration, "three quarters of the price" as 75 percent."""
    for match in reading.matches(_FRACTION_OF_TIME):
        number, unit = _FRACTIONS[match.group().lower()]
        reading.take(Fact(FactKind.DURATION, Decimal(number), *match.span(), match.group(), unit))
    for match in reading.matches(_AND_A_HALF):
        number_text = match["n"] or match["many"]
        whole = Decimal(1) if number_text.lower() in ("a", "an") else value_of(number_text)
        unit = (match["unit"] or match["units"]).lower()
        reading.take(Fact(FactKind.DURATION, whole + Decimal("0.5"), *match.span(), match.group(), unit))
    for match in reading.matches(_PART):
        span = match.span("part")
        percent = Decimal(_PERCENT_OF_PARTS[match["part"].lower()])
        reading.take(Fact(FactKind.PERCENT, percent, *span, match["part"], "%"))
