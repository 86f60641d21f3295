"""Sentences that look like repetitions and are none: parallel facts, and refrains.

Objectives about brevity have the detector flag sentences of one form. "The bakery opens at 7. The bakery on Mill Lane
opens at 8." says two things, and a line that comes again between others is a refrain.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aligner_proxy.text.languages import language_signs

_WORD = re.compile(r"\w+")
_ALIKE = 0.5
"""Sentences are of one form if they share so much of the words of the shorter one."""
_NUMBERS = frozenset(
    {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "twenty"}
    | {"hundred", "thousand"}
)


def is_parallel(sentences: Sequence[str], number: int) -> bool:
    """Whether a sentence has a name or number that the most similar other one has not, or is a line of a refrain."""
    own = _WORD.findall(sentences[number])
    own_folded = {word.casefold() for word in own}
    others = [(at, set(_WORD.findall(text.casefold()))) for at, text in enumerate(sentences) if at != number]
    if any(abs(at - number) > 1 and words == own_folded for at, words in others):
        return True
    near = max(others, key=lambda other: len(other[1] & own_folded), default=None)
    if near is None or len(near[1] & own_folded) < _ALIKE * min(len(near[1]), len(own_folded)):
        # it repeats no sentence, so what it says must be said in all of them
        told_words = set[str]().union(*(words for _, words in others))
        return any(_tells_apart(word) for word in own[1:] if word.casefold() not in told_words)
    return any(_tells_apart(word) for word in own if word.casefold() not in near[1])


def _tells_apart(word: str) -> bool:
    """Whether a word is a name or a number; a small word ("That") has a capital only at the beginning of a sentence."""
    is_name = word[:1].isupper() and not language_signs(word).hits.total()
    return is_name or any(map(str.isdigit, word)) or word.casefold() in _NUMBERS
