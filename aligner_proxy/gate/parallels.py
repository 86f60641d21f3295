"""Sentences that look like repetitions but are not: parallel facts, and refrains.

Objectives about brevity have the detector flag sentences of one form. "The bakery opens at 7. The bakery on Mill Lane
opens at 8." says two things, and a line that comes again between others is a refrain.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property

from aligner_proxy.text.languages import language_signs

_WORD = re.compile(r"\w+")
_ALIKE = 0.5
"""Sentences are of one form if they share at least this share of the words of the shorter one."""
_NUMBERS = frozenset(
    {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "twenty"}
    | {"hundred", "thousand"}
)


class BrevityFlags:
    """The sentences of a text that were flagged for an objective about brevity; each is looked into once."""

    def __init__(self, sentences: Sequence[str], flagged: Collection[int]) -> None:
        self._sentences = sentences
        self._flagged = flagged
        """Numbers of the flagged sentences."""
        self._verdicts: dict[int, bool] = {}
        """By number, whether a sentence is no repetition."""

    @cached_property
    def _words(self) -> list[set[str]]:
        """The words of each sentence, without regard to case."""
        return [set(_WORD.findall(text.casefold())) for text in self._sentences]

    def is_wrongly_flagged(self, number: int) -> bool:
        """Whether a sentence was flagged for brevity and is no repetition."""
        if number not in self._flagged:
            return False
        if number not in self._verdicts:
            self._verdicts[number] = self._is_parallel(number)
        return self._verdicts[number]

    def _is_parallel(self, number: int) -> bool:
        """Whether a sentence has a name or number that the most similar sentence lacks, or is a line of a refrain."""
        words_here = _WORD.findall(self._sentences[number])
        own_words = {word.casefold() for word in words_here}
        # a line that comes again, but not at once
        if any(abs(index - number) > 1 and words == own_words for index, words in enumerate(self._words)):
            return True
        others = [words for index, words in enumerate(self._words) if index != number]
        nearest = max(others, key=lambda words: len(words & own_words), default=set[str]())
        is_alike = bool(others) and len(nearest & own_words) >= _ALIKE * min(len(nearest), len(own_words))
        if not is_alike:
            # no sentence is of its form, so it can only repeat what the others say together
            other_words = set[str]().union(*others)
            return any(_tells_apart(word) for word in words_here[1:] if word.casefold() not in other_words)
        return any(_tells_apart(word) for word in words_here if word.casefold() not in nearest)


def _tells_apart(word: str) -> bool:
    """Whether a word is a name or a number; a small word ("That") has a capital only at the beginning of a sentence."""
    is_name = word[:1].isupper() and not language_signs(word).hits.total()
    return is_name or any(map(str.isdigit, word)) or word.casefold() in _NUMBERS
