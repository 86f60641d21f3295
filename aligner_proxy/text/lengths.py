"""Counters of words, sentences, paragraphs and characters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from aligner_proxy.text.structure import split
from aligner_proxy.types import LengthUnit

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")


def count_words(text: str) -> int:
    return len(_WORD.findall(text))


def count_sentences(text: str) -> int:
    """Number of sentences, headings and list items; a list marker alone does not count."""
    return sum(bool(_WORD.search(segment.text)) for segment in split(text))


def count_paragraphs(text: str) -> int:
    """Number of paragraphs: blocks between blank lines."""
    return sum(bool(block.strip()) for block in _BLANK_LINE.split(text))


LENGTHS: Mapping[LengthUnit, Callable[[str], int]] = MappingProxyType(
    {
        LengthUnit.WORDS: count_words,
        LengthUnit.SENTENCES: count_sentences,
        LengthUnit.PARAGRAPHS: count_paragraphs,
        LengthUnit.CHARACTERS: len,
    }
)


def contains_any(text: str, phrases: Iterable[str]) -> bool:
    """Whether a text contains one of the `phrases` as whole words, ignoring case."""
    lower_text = text.casefold()
    return any(re.search(rf"(?<!\w){re.escape(phrase.casefold())}(?!\w)", lower_text) for phrase in phrases)
