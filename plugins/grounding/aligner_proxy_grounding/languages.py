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
    """Unit of time, in English -> regular expression of its words in this language."""
    months: Sequence[str]
    days: Sequence[str]
    between: Sequence[str]
    """Words between the two ends of a range."""


def _read_language(table: Mapping[str, Any]) -> LanguageWords:
    """The words of one language from its table in `languages.yaml`; each word of a number gets its value."""
    # the first numbers are in the order of their values; a number may have several words, or none
    small_numbers = [(words, value) for value, words in enumerate(table["numbers"]) if words]
    all_numbers = [*small_numbers, *((words, value) for value, words in table["tens"].items())]
    numbers = {word: value for words, value in all_numbers for word in ([words] if isinstance(words, str) else words)}
    return LanguageWords(numbers, table["units"], table["months"], table["days"], table["between"])


_TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
LANGUAGES = tuple(_read_language(table) for table in _TABLES.values())
NUMBERS = {word: value for language in LANGUAGES for word, value in language.numbers.items()}
"""The values of the numbers of all languages; no word has two."""
JOINS = "|".join(word for language in LANGUAGES for word in language.between)
"""Regular expression of the words between the two ends of a range, in all these languages."""


def either(words: Sequence[str]) -> str:
    """A regular expression of any of these words; the longest is tried first."""
    return "|".join(sorted(words, key=len, reverse=True))


def language_of_number(word: str) -> LanguageWords | None:
    """The language of a number in words; None for English and for digits."""
    return next((language for language in LANGUAGES if word.lower() in language.numbers), None)


def number_in_words(value: int, like: str) -> str | None:
    """A number in words of the language of `like`; None for English and digits, and if there is no short word."""
    language = language_of_number(like)
    return None if language is None else next((word for word, n in language.numbers.items() if n == value), None)
