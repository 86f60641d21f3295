"""Contents: the entry of a section in the table of contents above it, which goes with the section."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from aligner_proxy.text.lists.lines import OutlineLine

_LINK = re.compile(r"\[(?P<title>[^\[\]\n]{1,120})\]\(#[^()\s]{0,120}\)")
"""Matches a link to a heading."""
_WORD = re.compile(r"[^\W_]+")


def find_entries(items: Sequence[OutlineLine], lines: Sequence[OutlineLine]) -> Iterator[tuple[range, range]]:
    """Yield (segments of an entry, segments of its heading) for `items`, lines that only repeat a later heading."""
    headings: dict[str, list[OutlineLine]] = {}
    for line in lines:
        if line.level and (title := _read_title(line)):
            headings.setdefault(title, []).append(line)
    entries: list[tuple[OutlineLine, OutlineLine]] = []
    for item in items if headings else ():
        same = headings.get(_read_title(item), [])
        # of two sections with one title nobody knows which is meant
        if not item.level and len(same) == 1 and same[0].segments.start >= item.segments.stop:
            entries.append((item, same[0]))
    # a single item without a link may have the words of a heading by chance
    if len(entries) > 1 or any(_LINK.search(item.text) for item, _ in entries):
        yield from ((item.segments, heading.segments) for item, heading in entries)


def _read_title(line: OutlineLine) -> str:
    """The words of a heading or entry, in lower case, without its number and the link."""
    text = line.text[line.content_start :]
    return " ".join(_WORD.findall(_LINK.sub(lambda match: match["title"], text).casefold()))
