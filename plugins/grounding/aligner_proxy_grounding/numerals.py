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
"""The value of each English word for a number."""
_LARGEST_IN_WORDS = 100
"""The largest number that is read and written in words."""
_TENS_WORD = "|".join(word for word in _TENS if word)
_ONES_WORD = "|".join(sorted(_ONES[1:10]))
_LOW_WORD = "|".join(sorted(_ONES[1:], key=len, reverse=True))
WORD = rf"(?:(?:{_TENS_WORD})(?:[- ](?:{_ONES_WORD}))?|(?:one|a) hundred|{_LOW_WORD})"
"""A number in words; its first letter may be a capital."""
# With separators of thousands and up to two decimals, or without them and with up to three.
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
CENT_DECIMALS = 2
"""Decimal places of an amount of money that has cents."""
# Digits with separators of thousands; the group is the last separator.
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:([,.\u00a0\u202f' ])\d{3})+")
# Numbers that are spoken with a vowel first.
_VOWEL_SOUND = re.compile(r"(?:8\d*|11|18)(?!\d)|eight|eleven|eighteen|eighty", re.IGNORECASE)


def value_of(text: str) -> Decimal:
    """The value of a number that `NUMBER` matches; a separator before exactly three digits groups thousands."""
    if not text[0].isdigit():
        number_words = text.lower()
        return Decimal(NUMBERS[number_words] if number_words in NUMBERS else _parse_english_number(number_words))
    grouped = _GROUPED.match(text)
    if grouped:
        fraction = text[grouped.end() :]
        whole_digits = re.sub(r"\D", "", grouped.group())
        # the fraction begins with its separator
        return Decimal(f"{whole_digits}.{fraction[1:]}" if len(fraction) > 1 else whole_digits)
    return Decimal(text.replace(",", "."))


def magnitude_of(text: str) -> Decimal:
    """The factor that a word such as "k" or "thousand" stands for: 1,000."""
    return next(Decimal(size) for names, size in _MAGNITUDES if re.fullmatch(names, text, re.IGNORECASE))


def _parse_english_number(text: str) -> int:
    """The value of an English number in words: 42 for "forty-two"."""
    parts = [part for part in re.split(r"[- ]", text) if part != "a"]
    # "a hundred" and "one hundred" are the only numbers with this word
    if parts[-1] == "hundred":
        return _LARGEST_IN_WORDS
    return sum(_VALUES[part] for part in parts)


def format_number(value: Decimal, like: str, other: str = "", *, money: bool = False) -> str:
    """Write a value in the notation of the number `like`: in words or digits, with its separators.

    `other` is a second number, whose notation is used where `like` shows none, or empty. `money`: whether a value with
    a fraction gets two decimals, as cents.
    """
    if not like[0].isdigit():
        words = _number_in_words(value, like)
        if words is not None:
            return words.capitalize() if like[0].isupper() else words
        # the value has no short words, so it is written in digits like the other number
        like = other if other and other[0].isdigit() else ""
    separator, decimals = _split_fraction(like)
    if value != value.to_integral_value():
        needed_decimals = -int(value.normalize().as_tuple().exponent)
        decimals = max(decimals, needed_decimals, CENT_DECIMALS) if money else needed_decimals
    elif not money:
        decimals = 0
    whole, _, fraction = f"{value:.{decimals}f}".partition(".")
    grouped_whole = _with_groups(whole, like, other)
    if not fraction:
        return grouped_whole
    other_separator, _ = _split_fraction(other)
    return f"{grouped_whole}{separator or other_separator or '.'}{fraction}"


def _number_in_words(value: Decimal, like: str) -> str | None:
    """Write a value in words of the language of `like`.

    None for a fraction, a negative number, a number above 100, or a number for which the language has no short word.
    """
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


def _split_fraction(number: str) -> tuple[str, int]:
    """(decimal separator, number of digits after it) of a number in digits; ("", 0) for a whole number."""
    grouped = _GROUPED.match(number)
    fraction = number[grouped.end() :] if grouped else number.lstrip("0123456789")
    return (fraction[0], len(fraction) - 1) if len(fraction) > 1 else ("", 0)


def _with_groups(whole_digits: str, like: str, other: str) -> str:
    """Insert the thousands separator of the number `like` or, if it has none, of `other`; unchanged without both."""
    grouped = _GROUPED.match(like) or _GROUPED.match(other)
    if grouped is None or len(whole_digits) <= len("999"):
        return whole_digits
    return f"{int(whole_digits):,}".replace(",", grouped.group(1))


def ordinal_value(text: str) -> str:
    """The number of an ordinal in digits, "3" for "third" and "3rd"; "last" and "ground" are returned as words."""
    ordinal = text.lower()
    if ordinal in _ORDINALS:
        return str(_ORDINALS.index(ordinal) + 1)
    return ordinal[:-2] if ordinal[0].isdigit() else ordinal


def format_ordinal(value: str, like: str) -> str:
    """Write a result of `ordinal_value`, such as "4", in the notation of the ordinal `like`: "fourth", or "4th"."""
    if not value.isdigit():
        text = value
    elif not like[0].isdigit() and int(value) <= len(_ORDINALS):
        text = _ORDINALS[int(value) - 1]
    else:
        is_teen = 11 <= int(value) % 100 <= 13
        ending = "th" if is_teen else {1: "st", 2: "nd", 3: "rd"}.get(int(value) % 10, "th")
        text = f"{value}{ending}"
    return text.capitalize() if like[0].isupper() else text


def article(number: str) -> str:
    """The indefinite article before a number: "an" for "8", "a" for "30"."""
    return "an" if _VOWEL_SOUND.match(number) else "a"
