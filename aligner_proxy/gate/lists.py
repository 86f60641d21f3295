"""Which items do the lists of a text have, and with which marks? Code blocks have none.

A bullet is a bullet, whichever sign is used; a number is kept as it is written, because readers refer to it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from aligner_proxy.segments import Segment, split

_MARK = re.compile(r"[ \t]*(?:([-*+\u2022])|(\d{1,3}|[a-zA-Z])[.)])(?=[ \t]+\S)")
BULLET = "-"


def marks(text: str) -> list[str]:
    """The marks of all items, in order."""
    return [mark for _, mark in _items(split(text))]


def standing(pieces: Sequence[Segment], gone: Collection[int]) -> list[str]:
    """The marks of the items of which something is left when the segments in `gone` are taken away."""
    items = list(_items(pieces))
    ends = [first for first, _ in items[1:]] + [len(pieces)]
    found = []
    for (first, mark), end in zip(items, ends, strict=True):
        line = range(first, _line_end(pieces, first, end))
        if any(i not in gone for i in line):
            found.append(mark)
    return found


def _line_end(pieces: Sequence[Segment], first: int, end: int) -> int:
    """Index behind the last segment on the line of `first`."""
    at = first
    while at + 1 < end and "\n" not in pieces[at].gap:
        at += 1
    return at + 1


def _items(pieces: Sequence[Segment]) -> Iterator[tuple[int, str]]:
    """(index of the segment that begins an item, its mark)."""
    for i, piece in enumerate(pieces):
        match = _MARK.match(piece.text)
        if match and (i == 0 or _ends_its_line(pieces[i - 1])):
            yield i, BULLET if match.group(1) else match.group(2)


def _ends_its_line(piece: Segment) -> bool:
    """Of white space alone there is a segment only where a text begins with empty lines."""
    return "\n" in piece.gap or not piece.text.strip()


def kept_in_order(wanted: Iterable[str], found: Iterable[str]) -> bool:
    """Whether all of `wanted` occur in `found`, in this order."""
    rest = iter(found)
    return all(mark in rest for mark in wanted)
