"""Subject words: the stems by which two sentences are recognised as being about the same matter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from functools import lru_cache
from pathlib import Path

import yaml

_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_FUNCTION = frozenset((*_TABLE["function"], *_TABLE["filler"]))
"""Words that say nothing about a subject: "the", "of", "please"."""
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|\d+[^\W\d_]+|[^\W\d_]+\d+")
# Each ending with what takes its place: "studies" -> "study". The first one that fits is cut, so "ements" stands before
# "ments", and "ments" before "s".
_ENDINGS = (
    ("ational", "ate"), ("ements", ""), ("ement", ""), ("ments", ""), ("ment", ""), ("ations", ""), ("ation", ""),
    ("ings", ""), ("ing", ""), ("ions", ""), ("ion", ""), ("ies", "y"), ("ied", "y"), ("ed", ""),
     ("es", ""), ("s", ""), ("ly", ""), ("e", ""),
)  # fmt: skip
_SHORTEST_STEM = 3
"""In letters; an ending is not cut if less would remain."""


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """The stem of a word, in lower case; synonyms share a stem."""
    word = word.lower().replace("\u2019", "'").removesuffix("'s").removesuffix("s'")
    return _SAME.get(word) or _cut_ending(word)


def _cut_ending(word: str) -> str:
    """The word without its ending: "payments" -> "pay", "studies" -> "study"."""
    # "less" and "class" have no ending
    if word.endswith("ss"):
        return word
    for ending, replacement in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            root = word[: -len(ending)] + replacement
            # "stopping" gives "stop", but "bill", "pass" and "buzz" keep both letters
            is_doubled = len(root) > _SHORTEST_STEM and root[-1] == root[-2] and root[-1] not in "lsz"
            return root[:-1] if is_doubled else root
    return word


# reversed, so that a word in several groups belongs to the first of them
_SAME = {word: _cut_ending(group[0]) for group in reversed(_TABLE["same"]) for word in group}
"""Synonym -> the stem that its group shares."""
_KIN: dict[str, set[int]] = {}
"""Stem -> numbers of its groups of related words."""
for _number, _group in enumerate(_TABLE["kin"]):
    for _word in _group:
        _KIN.setdefault(stem(_word), set()).add(_number)
NO_KIN: frozenset[int] = frozenset()


def kin_of(word: str) -> Set[int]:
    """The numbers of the groups of related words to which a stem belongs; empty for most stems."""
    return _KIN.get(word, NO_KIN)


GENERIC = frozenset(_SAME.get(word) or _cut_ending(word) for word in _TABLE["generic"])
"""Stems of generic words, which occur in sentences about anything."""


def is_common(word: str) -> bool:
    """Whether businesses commonly use a word, so that it is not part of a person's name."""
    low = word.lower()
    return low in _FUNCTION or low in _SAME or stem(low) in GENERIC


def words(text: str) -> Iterator[str]:
    """The stems of the words of a text, without function words."""
    for match in _WORD.finditer(text):
        yield from stems_of(match.group())


def stems_of(word: str) -> Iterator[str]:
    """The stem of a word; for a compound the stems of its parts, and nothing for a function word such as "the"."""
    low = word.lower().replace("\u2019", "'")
    if low in _FUNCTION:
        return
    if "-" in low and low not in _SAME:
        parts = low.split("-")
        if all(len(part) < _SHORTEST_STEM for part in parts):
            yield stem("".join(parts))  # Wi-Fi
        else:
            yield from (stem(part) for part in parts if part and part not in _FUNCTION)
    # single letters are no subject
    elif len(low) > 1:
        yield stem(low)
