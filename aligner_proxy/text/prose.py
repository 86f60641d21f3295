"""Prose: whether a text is a sentence for people rather than a name, a pattern, a query or a line of code."""

from __future__ import annotations

import re

_SIGN_OF_CODE = re.compile(r"[{}$\\<>|_=\[\]]|%[-\d.]*[a-zA-Z]|[a-zA-Z]%|::|\w\(|^[#!/@;+*-]|^\d+[:/-]\d|  |\s--?\w")
"""Matches what prose has not, such as a place to be filled, the sign of a comment, or the space between columns."""
_PLAIN_WORD = re.compile(
    r"[(\"'\u201c\u201e\u2018\u00ab]*(?:[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|\d+(?:[.,:]\d+)*\s?%?)[^\w\s]{0,4}"
)
_UNSPACED_WORDS = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]{6}")
"""Matches words of a language that has no spaces."""
_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"')\u201d\u00bb]*$")
_MIN_SENTENCE_WORDS = 3
_MIN_PHRASE_WORDS = 5
"""Fewest words of a sentence without an end mark."""
_PLAIN_SHARE = 0.8
"""Least share of words that are nothing but letters, or a number."""


def is_prose(sentence: str) -> bool:
    """Whether a sentence is made of words, rather than a name, a pattern or a query."""
    has_half_of_pair = sentence.count("(") != sentence.count(")") or sentence.count('"') % 2 == 1
    if has_half_of_pair or _SIGN_OF_CODE.search(sentence):
        return False
    if has_unspaced_words(sentence):
        return True
    words = sentence.split()
    min_words = _MIN_SENTENCE_WORDS if has_end_mark(sentence) else _MIN_PHRASE_WORDS
    plain_count = sum(_PLAIN_WORD.fullmatch(word) is not None for word in words)
    is_shouted = sum(word.isupper() and len(word) > 1 for word in words) * 2 > len(words)
    return len(words) >= min_words and plain_count >= _PLAIN_SHARE * len(words) and not is_shouted


def has_unspaced_words(text: str) -> bool:
    """Whether a text has words of a language that writes no spaces between them."""
    return _UNSPACED_WORDS.search(text) is not None


def has_end_mark(text: str) -> bool:
    """Whether a text ends like a sentence."""
    return _SENTENCE_END.search(text.rstrip()) is not None
