"""Sentences that look like repetitions but are not: parallel facts, and refrains.

For objectives about brevity the detector also flags sentences that only resemble each other. But "The bakery opens at
7. The bakery on Mill Lane opens at 8." states two facts, and a line that returns after other lines is a refrain.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property

from aligner_proxy.text.languages import language_signs

_WORD = re.compile(r"\w+")
_SIMILAR_SHARE = 0.5
"""Sentences are similar if they have in common at least this share of the words of the shorter sentence."""
_NUMBER_WORDS = frozenset(
    {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "twenty"}
    | {"hundred", "thousand"}
)


class BrevityFlags:
    """Finds the sentences of a text that were wrongly flagged for an objective about brevity.

    `flagged` are the indexes of the sentences that were flagged for such an objective.
    """

    def __init__(self, sentences: Sequence[str], flagged: Collection[int]) -> None:
        self._sentences = sentences
        self._flagged = flagged
        self._verdicts: dict[int, bool] = {}
        """For each flagged sentence that was asked about, whether it was wrongly flagged."""

    @cached_property
    def _words(self) -> list[set[str]]:
        """The words of each sentence, without regard to case."""
        return [set(_WORD.findall(text.casefold())) for text in self._sentences]

    def is_wrongly_flagged(self, index: int) -> bool:
        """Whether sentence `index` was flagged for an objective about brevity, but is no repetition."""
        if index not in self._flagged:
            return False
        if index not in self._verdicts:
            self._verdicts[index] = self._is_no_repetition(index)
        return self._verdicts[index]

    def _is_no_repetition(self, index: int) -> bool:
        """Whether a sentence has a name or number that the most similar sentence lacks, or is a line of a refrain."""
        words = _WORD.findall(self._sentences[index])
        own_words = set(map(str.casefold, words))
        # a line of a refrain returns, but not as the next line
        if any(abs(other - index) > 1 and other_words == own_words for other, other_words in enumerate(self._words)):
            return True
        others = [other_words for other, other_words in enumerate(self._words) if other != index]
        nearest = max(others, key=lambda other_words: len(other_words & own_words), default=set[str]())
        is_similar = bool(others) and len(nearest & own_words) >= _SIMILAR_SHARE * min(len(nearest), len(own_words))
        if is_similar:
            return any(_is_name_or_number(word) for word in words if word.casefold() not in nearest)
        # no sentence is similar, so it can only repeat what all others say together
        all_other_words = set[str]().union(*others)
        return any(_is_name_or_number(word) for word in words[1:] if word.casefold() not in all_other_words)


def _is_name_or_number(word: str) -> bool:
    """Whether a word is a number or has a capital and is no small word, such as "That" at the beginning."""
    is_name = word[:1].isupper() and not language_signs(word).hits.total()
    return is_name or any(map(str.isdigit, word)) or word.casefold() in _NUMBER_WORDS
