"""Words of German, French and Spanish in which facts are written: numbers, units of time, months and weekdays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class LanguageWords:
    """The words of one language."""

    numbers: Mapping[str, int]
    """The value of each number in words."""
    units: Mapping[str, str]
    """For each unit of time, by its English name, a regular expression of its words in this language."""
    months: Sequence[str]
    days: Sequence[str]
    between: Sequence[str]
    """Words between the two ends of a range."""
    has_capital_nouns: bool


def _read_language(table: Mapping[str, Any]) -> LanguageWords:
    """Read the words of one language from its table in `languages.yaml`.

    `numbers` is there a list, in which the position of an entry is its value, and `tens` has the value as the key. An
    entry is a word, a list of words of equal meaning, or empty for a number without a short word.
    """
    numbers: dict[str, int] = {}
    for value, entry in [*enumerate(table["numbers"]), *table["tens"].items()]:
        number_words = [entry] if isinstance(entry, str) else (entry or [])
        numbers.update((word, value) for word in number_words)
    return LanguageWords(
        numbers, table["units"], table["months"], table["days"], table["between"], table.get("capital nouns", False)
    )


_TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
LANGUAGES = tuple(_read_language(table) for table in _TABLES.values())
NUMBERS = {word: value for language in LANGUAGES for word, value in language.numbers.items()}
"""The value of each word for a number, in all these languages; no word has two values."""
JOINS = "|".join(word for language in LANGUAGES for word in language.between)
"""Regular expression of the words between the two ends of a range, in all these languages."""


def either(words: Sequence[str]) -> str:
    """Return a regular expression that matches any of these words; it tries the longest word first."""
    return "|".join(sorted(words, key=len, reverse=True))


def language_of_number(word: str) -> LanguageWords | None:
    """The language of a number in words; None for an English word and for digits."""
    return next((language for language in LANGUAGES if word.lower() in language.numbers), None)


def number_in_words(value: int, like: str) -> str | None:
    """Write a number in words of the language of `like`, another number in words.

    None if `like` is English or in digits, or if the language has no short word for the number.
    """
    language = language_of_number(like)
    if language is None:
        return None
    return next((word for word, number in language.numbers.items() if number == value), None)
