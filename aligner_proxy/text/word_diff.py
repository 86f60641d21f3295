"""Word diff of two texts: unchanged, removed and added passages, in order."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from enum import StrEnum

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


class WordChange(StrEnum):
    """Kind of a passage in a word diff."""

    KEPT = "kept"
    REMOVED = "removed"
    ADDED = "added"


def word_diff(before: str, after: str) -> Iterator[tuple[WordChange, str]]:
    """Yield the passages of both texts; removed text comes before the text that replaced it.

    The time grows with the product of both lengths, so callers must limit them.
    """
    old = _WORDS.findall(before)
    new = _WORDS.findall(after)
    opcodes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    for tag, old_start, old_end, new_start, new_end in opcodes:
        if tag == "equal":
            yield WordChange.KEPT, "".join(old[old_start:old_end])
            continue
        if old_start < old_end:
            yield WordChange.REMOVED, "".join(old[old_start:old_end])
        if new_start < new_end:
            yield WordChange.ADDED, "".join(new[new_start:new_end])
