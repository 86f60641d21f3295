"""What can a request wish of its answer? Kinds of preferences, and which of them rules can check or meet.

A wish is what a text was read as (preferences/reading.py); an objective carries it, and so does the outcome, as whether
it was met. Nothing here reads a request or changes an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from aligner_proxy.segments import split


class WishSource(StrEnum):
    """Where a wish was said: in the request's own preference text, as its persona, or in its system prompt."""

    REQUEST = "request"
    PERSONA = "persona"
    SYSTEM = "system"


class WishKind(StrEnum):
    """What is wished for; the value is the objective's name in headers and logs."""

    WORDED = "preference"
    PERSONA = "persona"
    MAX_WORDS = "max-words"
    MAX_SENTENCES = "max-sentences"
    MAX_PARAGRAPHS = "max-paragraphs"
    MAX_CHARS = "max-characters"
    MIN_WORDS = "min-words"
    MIN_SENTENCES = "min-sentences"
    NO_LISTS = "no-lists"
    LISTS = "lists"
    NO_EMOJI = "no-emoji"
    EMOJI = "emoji"
    NO_EXCLAMATION = "no-exclamation-marks"
    NO_MARKDOWN = "no-markdown"
    NO_CONTRACTIONS = "no-contractions"
    NO_QUESTIONS = "no-questions"
    ENDS_WITH_QUESTION = "ends-with-question"
    LANGUAGE = "language"
    BANNED_WORDS = "banned-words"
    UPPER_CASE = "upper-case"
    LOWER_CASE = "lower-case"


IN_WORDS = frozenset({WishKind.WORDED, WishKind.PERSONA})
"""No rule says whether they are met."""
CERTAIN = frozenset(
    {
        WishKind.NO_LISTS,
        WishKind.NO_EMOJI,
        WishKind.NO_EXCLAMATION,
        WishKind.NO_MARKDOWN,
        WishKind.NO_CONTRACTIONS,
        WishKind.UPPER_CASE,
        WishKind.LOWER_CASE,
    }
)
"""An edit that keeps the text can meet them, so no aligner is asked (preferences/repairs.py)."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One wish. `number` bounds what the kind counts, `words` are those that are banned, or the code of a language."""

    kind: WishKind
    source: WishSource = WishSource.REQUEST
    number: int = 0
    words: tuple[str, ...] = ()

    @property
    def checkable(self) -> bool:
        """Whether a rule says if an answer meets it."""
        return self.kind not in IN_WORDS

    @property
    def certain(self) -> bool:
        """Whether an edit that keeps the text can meet it."""
        return self.kind in CERTAIN


@dataclass(frozen=True, slots=True)
class Adherence:
    """Whether the upstream's answer met a checkable wish, and whether the delivered one does."""

    name: str
    before: bool
    after: bool


_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


def _words(text: str) -> int:
    return len(_WORD.findall(text))


def _sentences(text: str) -> int:
    """Sentences, headings and items alike; a mark alone is none."""
    return sum(bool(_WORD.search(piece.text)) for piece in split(text))


def _paragraphs(text: str) -> int:
    return sum(bool(block.strip()) for block in re.split(r"\n[ \t]*\n", text))


MOST: Mapping[WishKind, Callable[[str], int]] = MappingProxyType(
    {
        WishKind.MAX_WORDS: _words,
        WishKind.MAX_SENTENCES: _sentences,
        WishKind.MAX_PARAGRAPHS: _paragraphs,
        WishKind.MAX_CHARS: len,
    }
)
LEAST: Mapping[WishKind, Callable[[str], int]] = MappingProxyType(
    {WishKind.MIN_WORDS: _words, WishKind.MIN_SENTENCES: _sentences}
)
"""What is counted for each bound of length."""


def too_much(wish: Wish, text: str) -> bool:
    """Whether a text is longer than this wish allows."""
    return wish.kind in MOST and MOST[wish.kind](text) > wish.number


def says(text: str, words: tuple[str, ...]) -> bool:
    """Whether one of these words or phrases stands in a text, whatever its case."""
    folded = text.casefold()
    return any(re.search(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", folded) for word in words)
