"""Word diff of two texts: unchanged, removed and added passages, in order."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from enum import StrEnum

_WORD_OR_SIGN = re.compile(r"\s+|\w+|[^\w\s]")


class WordChange(StrEnum):
    """Kind of a passage in a word diff."""

    KEPT = "kept"
    REMOVED = "removed"
    ADDED = "added"


def word_diff(before: str, after: str) -> Iterator[tuple[WordChange, str]]:
    """Yield (kind, passage) for all passages of both texts, in order; a removed passage precedes its replacement.

    The time grows with the product of both lengths, so callers must limit them.
    """
    old_words = _WORD_OR_SIGN.findall(before)
    new_words = _WORD_OR_SIGN.findall(after)
    opcodes = difflib.SequenceMatcher(None, old_words, new_words, autojunk=False).get_opcodes()
    for tag, old_start, old_end, new_start, new_end in opcodes:
        if tag == "equal":
            yield WordChange.KEPT, "".join(old_words[old_start:old_end])
            continue
        if old_start < old_end:
            yield WordChange.REMOVED, "".join(old_words[old_start:old_end])
        if new_start < new_end:
            yield WordChange.ADDED, "".join(new_words[new_start:new_end])
