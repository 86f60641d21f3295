"""Look-alikes of plain Latin letters, letter by letter: styled letters, and letters of other alphabets.

A styled letter (full-width, mathematical, circled, superscript, small capital) is a Latin letter by its Unicode
compatibility form or its Unicode name. Letters of other alphabets come from Unicode's table of confusables. Whether a
look-alike is a disguise depends on its word (disguise_rules.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache

_LATIN_LETTER_NAME = re.compile(r"(?:.* )?LATIN (?:(SMALL|CAPITAL) )?LETTER (?:SMALL CAPITAL )?([A-Z])")
_LETTER_CATEGORIES = frozenset({"Lu", "Ll", "Lt", "Lo", "Lm", "Nl", "So", "Nd"})
"""Unicode categories of letters, letter-like numbers and symbols, and digits."""
_NAMED_DIFFERENTLY = {"\u0138": "k", "\u028d": "m"}
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
    if char.isascii() or category not in _LETTER_CATEGORIES:
        return ""
    compatibility_form = unicodedata.normalize("NFKC", char)
    if compatibility_form.isascii() and compatibility_form.isalnum():
        return compatibility_form
    name = _LATIN_LETTER_NAME.fullmatch(unicodedata.name(char, ""))
    if name is None:
        return ""
    case, letter = name.groups()
    # Squared and negative letters exist only as capitals, so a capital among them is no sign of shouting.
    is_capital = case == "CAPITAL" and "SQUARED" not in name[0] and "NEGATIVE" not in name[0]
    return letter if is_capital else letter.lower()


def is_twin(char: str) -> bool:
    """Whether a letter of another alphabet looks the same as a plain letter, and not only like a small capital."""
    return char in _look_alikes() and char not in _small_capital_look_alikes()


def cyrillic_twin(letter: str) -> str:
    """The Cyrillic letter that a plain Latin one looks like; empty if none."""
    return _cyrillic_by_latin().get(letter, "")


@cache
def _look_alikes() -> Mapping[str, str]:
    """Maps each non-ASCII letter that Unicode lists as confusable to the plain letter."""
    letters = dict[str, str]()
    for char, similar_chars in _confusables():
        plain_letter = next(filter(None, map(_plain_form, similar_chars)), "")
        if plain_letter:
            # The table pairs look-alikes of both capital I and small l with "l".
            letters[char] = "I" if plain_letter == "l" and char.isupper() else plain_letter
    return letters


@cache
def _small_capital_look_alikes() -> frozenset[str]:
    """The look-alikes that the table of confusables pairs with no plain letter, only with small capitals."""
    return frozenset(char for char, similar_chars in _confusables() if not any(map(str.isascii, similar_chars)))


def _confusables() -> Iterator[tuple[str, list[str]]]:
    """Yield (non-ASCII letter, the single characters that Unicode's table of confusables pairs it with)."""
    # Imported on first use: most texts have no such letter, and the table takes some time and memory.
    from confusable_homoglyphs.confusables import confusables_data

    for char, confusables in confusables_data.items():
        if len(char) == 1 and char.isalpha() and not char.isascii():
            # "c" is the confusable character, or several characters
            yield char, [confusable["c"] for confusable in confusables if len(confusable["c"]) == 1]


def _plain_form(char: str) -> str:
    """The plain Latin letter that a character is, or of which it is a styled form; empty if none."""
    if char.isascii() and char.isalpha():
        return char
    return _NAMED_DIFFERENTLY.get(char) or plain_of_styled(char)


@cache
def _cyrillic_by_latin() -> Mapping[str, str]:
    """Maps each plain Latin letter to the basic Cyrillic letter that looks like it."""
    look_alikes = _look_alikes()
    pairs = ((look_alikes.get(chr(code_point), ""), chr(code_point)) for code_point in _BASIC_CYRILLIC)
    # Both letters must be of the same case, so that a word keeps its capitals.
    return {latin: cyrillic for latin, cyrillic in pairs if latin and latin.isupper() == cyrillic.isupper()}
