"""Numbers in digits or words: their values, and how to write another number in the same notation."""

from __future__ import annotations

import re
from decimal import Decimal

from aligner_proxy_grounding.languages import NUMBERS, language_of_number, number_in_words

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS) if word}
_VALUES["hundred"] = 100
_LARGEST_IN_WORDS = 100
"""The largest number that is read and written in words."""
_TENS_WORD = "|".join(word for word in _TENS if word)
_ONES_WORD = "|".join(sorted(_ONES[1:10]))
_LOW_WORD = "|".join(sorted(_ONES[1:], key=len, reverse=True))
WORD = rf"(?:(?:{_TENS_WORD})(?:[- ](?:{_ONES_WORD}))?|(?:one|a) hundred|{_LOW_WORD})"
"""A number in words; its first letter may be a capital."""
# With separators of thousands, or plain; up to three decimals, of which money has one or two.
DIGITS = r"(?:[1-9]\d{0,2}(?:[,.\u00a0\u202f' ]\d{3})+(?![\d])(?:[.,]\d{1,2})?|\d{1,7}(?:[.,]\d{1,3})?)"
NUMBER = rf"(?:{DIGITS}|{WORD})"
_MAGNITUDES = (
    ("k|K|thousand|grand|Tausend|Tsd\\.?|mil", 1_000),
    ("m|M|mn|mio\\.?|Mio\\.?|millions?|Million(?:en)?|mill[o\u00f3]n(?:es)?", 1_000_000),
    ("bn|billions?|mrd\\.?|Mrd\\.?|Milliarden?|milliards?", 1_000_000_000),
)
MAGNITUDE = rf"(?:[ \u00a0-]?(?P<magnitude>{'|'.join(names for names, _ in _MAGNITUDES)})(?!\w))"
"""What multiplies the number before it: "58k", "1.2 million"."""
_ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth", "thirteenth", "fourteenth", "fifteenth",
)  # fmt: skip
ORDINAL = rf"(?:\d{{1,2}}(?:st|nd|rd|th)|{'|'.join(_ORDINALS)})"
FRACTION_OF_MONEY = 2
"""Decimal places of an amount of money that has cents."""
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:([,.\u00a0\u202f' ])\d{3})+")
# Numbers spoken with a vowel first: "eight" to "eighty", "eleven", "eighteen".
_VOWEL_SOUND = re.compile(r"(?:8\d*|11|18)(?!\d)|eight|eleven|eighteen|eighty", re.IGNORECASE)


def value_of(text: str) -> Decimal:
    """The value of a number that `NUMBER` matches; a separator before exactly three digits groups thousands."""
    if not text[0].isdigit():
        low = text.lower()
        return Decimal(NUMBERS[low] if low in NUMBERS else _parse_number_words(low))
    grouped = _GROUPED.match(text)
    if grouped:
        head = grouped.group()
        rest = text[len(head) :]
        whole = re.sub(r"\D", "", head)
        return Decimal(f"{whole}.{rest[1:]}" if len(rest) > 1 else whole)
    return Decimal(text.replace(",", "."))


def magnitude_of(text: str) -> Decimal:
    """The number that a magnitude multiplies by: 1,000 for "k" and "thousand"."""
    return next(Decimal(size) for names, size in _MAGNITUDES if re.fullmatch(names, text, re.IGNORECASE))


def _parse_number_words(text: str) -> int:
    """The value of a number in words."""
    parts = [part for part in re.split(r"[- ]", text) if part != "a"]
    # "a hundred" and "one hundred" are the only numbers with this word
    if parts[-1] == "hundred":
        return _LARGEST_IN_WORDS
    return sum(_VALUES[part] for part in parts)


def format_number(value: Decimal, like: str, other: str = "", *, money: bool = False) -> str:
    """Write a value in the notation of the number `like`; where that leaves a choice, in the notation of `other`."""
    if not like[0].isdigit():
        words = _number_in_words(value, like)
        if words is not None:
            return words.capitalize() if like[0].isupper() else words
        # too long in words, so written as in the reference
        like = other if other and other[0].isdigit() else ""
    mark, places = _fraction(like)
    if value != value.to_integral_value():
        digits = -int(value.normalize().as_tuple().exponent)
        # money is written with cents, other numbers only with the digits that they need
        places = max(places if money else 0, digits, FRACTION_OF_MONEY if money else 0)
    elif not money:
        places = 0
    whole, _, rest = f"{value:.{places}f}".partition(".")
    return _with_groups(whole, like, other) + (f"{mark or _fraction(other)[0] or '.'}{rest}" if rest else "")


def _number_in_words(value: Decimal, like: str) -> str | None:
    """Write a value in words of the language of `like`; None for a fraction, a negative number, or one above 100."""
    if value != value.to_integral_value() or not 0 <= value <= _LARGEST_IN_WORDS:
        return None
    number = int(value)
    if language_of_number(like) is not None and like.lower() not in _VALUES:
        return number_in_words(number, like)
    if number == _LARGEST_IN_WORDS:
        return "a hundred"
    if number < len(_ONES):
        return _ONES[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")


def _fraction(text: str) -> tuple[str, int]:
    """(decimal separator, number of digits after it) of a number in digits; ("", 0) for a whole number."""
    grouped = _GROUPED.match(text)
    rest = text[grouped.end() :] if grouped else text.lstrip("0123456789")
    return (rest[0], len(rest) - 1) if len(rest) > 1 else ("", 0)


def _with_groups(whole: str, like: str, other: str) -> str:
    """Insert the thousands separator that `like` or else `other` uses; unchanged if neither has one."""
    marks = [match.group(1) for text in (like, other) if (match := _GROUPED.match(text))]
    if not marks or len(whole) <= len("999"):
        return whole
    head = len(whole) % 3
    groups = [whole[:head]] if head else []
    return marks[0].join(groups + [whole[at : at + 3] for at in range(head, len(whole), 3)])


def ordinal_value(text: str) -> str:
    """The number of an ordinal in digits: "3" for "third" and "3rd"; "last" and "ground" stay words."""
    low = text.lower()
    if low in _ORDINALS:
        return str(_ORDINALS.index(low) + 1)
    return low[:-2] if low[0].isdigit() else low


def format_ordinal(value: str, like: str) -> str:
    """Write an ordinal like another one: "fourth", or "4th"."""
    if not value.isdigit():
        text = value
    elif not like[0].isdigit() and int(value) <= len(_ORDINALS):
        text = _ORDINALS[int(value) - 1]
    else:
        teens = 11 <= int(value) % 100 <= 13
        text = f"{value}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(int(value) % 10, 'th')}"
    return text.capitalize() if like[0].isupper() else text


def article(number: str) -> str:
    """The indefinite article before this number: an 8, a 30."""
    return "an" if _VOWEL_SOUND.match(number) else "a"
