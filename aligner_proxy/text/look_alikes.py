"""Look-alikes of plain Latin letters, letter by letter: styled letters, and letters of other alphabets.

A styled letter (full-width, mathematical, circled, superscript, small capital) is Latin by its compatibility form or
its name. Letters of other alphabets come from Unicode's table of confusables. Whether a letter is obfuscated depends on
its word (disguises.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache

_NAMED = re.compile(r"(?:.* )?LATIN (?:(SMALL|CAPITAL) )?LETTER (?:SMALL CAPITAL )?([A-Z])")
_CATEGORIES = frozenset({"Lu", "Ll", "Lt", "Lo", "Lm", "Nl", "So", "Nd"})
"""Unicode categories of letters, letter-like numbers and symbols, and digits."""
_NAMELESS = {"\u0138": "k", "\u028d": "m"}
"""Characters that the table pairs with Cyrillic and Greek letters, and whose names do not end in the plain letter."""
_BASIC_CYRILLIC = range(0x400, 0x460)


@lru_cache(maxsize=8192)
def plain(char: str) -> str:
    """The plain letters or digits that a character stands for or looks like; empty if none."""
    if char.isascii():
        return char if char.isalnum() else ""
    return plain_of_styled(char) or _look_alikes().get(char, "")


@lru_cache(maxsize=8192)
def plain_of_styled(char: str) -> str:
    """The plain letters or digits of which a character is a styled form; empty if none."""
    category = unicodedata.category(char)
    if char.isascii() or category not in _CATEGORIES:
        return ""
    form = unicodedata.normalize("NFKC", char)
    if form.isascii() and form.isalnum():
        return form
    name = _NAMED.fullmatch(unicodedata.name(char, ""))
    if name is None:
        return ""
    case, letter = name.groups()
    # Squared and negative letters exist only as capitals, so there a capital is no sign of shouting.
    return letter if case == "CAPITAL" and "SQUARED" not in name[0] and "NEGATIVE" not in name[0] else letter.lower()


def is_twin(char: str) -> bool:
    """Whether a letter of another alphabet looks the same as a plain one, not just like a small capital."""
    return char in _look_alikes() and char not in _like_small_capitals()


def cyrillic_twin(letter: str) -> str:
    """The Cyrillic letter that a plain Latin one looks like; empty if none."""
    return _cyrillic_by_latin().get(letter, "")


@cache
def _look_alikes() -> Mapping[str, str]:
    """Maps each non-ASCII letter that Unicode lists as confusable to the plain letter."""
    letters = dict[str, str]()
    for char, similar in _confusables():
        if form := next(filter(None, map(_plain_form, similar)), ""):
            # The table has one form for capital I and small l.
            letters[char] = "I" if form == "l" and char.isupper() else form
    return letters


@cache
def _like_small_capitals() -> frozenset[str]:
    """The look-alikes that the table pairs with no plain letter, only with small capitals."""
    return frozenset(char for char, similar in _confusables() if not any(map(str.isascii, similar)))


def _confusables() -> Iterator[tuple[str, list[str]]]:
    """Yield non-ASCII letters, each with the characters that Unicode's table pairs it with."""
    # Imported on first use: most texts have no such letter, and the table takes some time and memory.
    from confusable_homoglyphs.confusables import confusables_data

    for char, similar in confusables_data.items():
        if len(char) == 1 and char.isalpha() and not char.isascii():
            yield char, [each["c"] for each in similar if len(each["c"]) == 1]


def _plain_form(char: str) -> str:
    """The plain Latin letter that a confusable character is or is named after; empty if none."""
    return char if char.isascii() and char.isalpha() else _NAMELESS.get(char) or plain_of_styled(char)


@cache
def _cyrillic_by_latin() -> Mapping[str, str]:
    """Maps each plain Latin letter to the basic Cyrillic letter that looks like it."""
    look_alikes = _look_alikes()
    # Only pairs of the same case, so that a word keeps its capitals.
    pairs = ((look_alikes.get(chr(code), ""), chr(code)) for code in _BASIC_CYRILLIC)
    return {letter: char for letter, char in pairs if letter and letter.isupper() == char.isupper()}
