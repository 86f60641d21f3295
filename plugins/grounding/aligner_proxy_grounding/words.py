"""Stems of words, by which two sentences are recognised as being about the same matter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from functools import lru_cache
from pathlib import Path

import yaml

_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_FUNCTION_WORDS = frozenset((*_TABLE["function"], *_TABLE["filler"]))
"""Words that say nothing about a subject: "the", "of", "please"."""
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|\d+[^\W\d_]+|[^\W\d_]+\d+")
# (ending, what takes its place): "studies" -> "study". The first ending that fits is cut, so "ements" stands before
# "ments", and "ments" before "s".
_ENDINGS = (
    ("ational", "ate"), ("ements", ""), ("ement", ""), ("ments", ""), ("ment", ""), ("ations", ""), ("ation", ""),
    ("ings", ""), ("ing", ""), ("ions", ""), ("ion", ""), ("ies", "y"), ("ied", "y"), ("ed", ""),
     ("es", ""), ("s", ""), ("ly", ""), ("e", ""),
)  # fmt: skip
_MIN_STEM_LETTERS = 3
"""An ending is not cut if fewer letters would remain."""


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """The stem of a word, in lower case; synonyms share a stem."""
    word = word.lower().replace("\u2019", "'").removesuffix("'s").removesuffix("s'")
    return _SYNONYM_STEMS.get(word) or _cut_ending(word)


def _cut_ending(word: str) -> str:
    """Return a word in lower case without its ending: "payments" -> "pay", "studies" -> "study"."""
    # "less" and "class" have no ending
    if word.endswith("ss"):
        return word
    for ending, replacement in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _MIN_STEM_LETTERS:
            root = word[: -len(ending)] + replacement
            # "stopping" gives "stop", but "bill", "pass" and "buzz" keep both letters
            has_doubled_end = len(root) > _MIN_STEM_LETTERS and root[-1] == root[-2] and root[-1] not in "lsz"
            return root[:-1] if has_doubled_end else root
    return word


# The order is reversed so that a word in several groups belongs to the first of them.
_SYNONYM_STEMS = {word: _cut_ending(group[0]) for group in reversed(_TABLE["same"]) for word in group}
"""The stem that each synonym shares with its group."""
_KIN_GROUPS: dict[str, set[int]] = {}
"""Indexes of the groups of related words to which a stem belongs."""
for _number, _group in enumerate(_TABLE["kin"]):
    for _word in _group:
        _KIN_GROUPS.setdefault(stem(_word), set()).add(_number)
NO_KIN: frozenset[int] = frozenset()


def kin_of(word_stem: str) -> Set[int]:
    """The indexes of the groups of related words to which a stem belongs; empty for most stems."""
    return _KIN_GROUPS.get(word_stem, NO_KIN)


GENERIC = frozenset(_SYNONYM_STEMS.get(word) or _cut_ending(word) for word in _TABLE["generic"])
"""Stems of generic words, which occur in sentences about anything."""


def is_common(word: str) -> bool:
    """Whether businesses commonly use a word, so that it is not part of a person's name."""
    lower_word = word.lower()
    return lower_word in _FUNCTION_WORDS or lower_word in _SYNONYM_STEMS or stem(lower_word) in GENERIC


def words(text: str) -> Iterator[str]:
    """Iterate over the stems of the words of a text, without function words such as "the"."""
    for match in _WORD.finditer(text):
        yield from stems_of(match.group())


def stems_of(word: str) -> Iterator[str]:
    """Yield the stem of a word, the stems of the parts of a compound, or nothing for a function word such as "the"."""
    lower_word = word.lower().replace("\u2019", "'")
    if lower_word in _FUNCTION_WORDS:
        return
    if "-" in lower_word and lower_word not in _SYNONYM_STEMS:
        parts = lower_word.split("-")
        if all(len(part) < _MIN_STEM_LETTERS for part in parts):
            yield stem("".join(parts))  # Wi-Fi
        else:
            yield from (stem(part) for part in parts if part and part not in _FUNCTION_WORDS)
    # a single letter says nothing about the subject
    elif len(lower_word) > 1:
        yield stem(lower_word)
