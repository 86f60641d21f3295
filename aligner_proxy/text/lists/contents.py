"""Tables of contents: the entry of a section is removed together with the section."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from aligner_proxy.text.lists.lines import OutlineLine

_LINK = re.compile(r"\[(?P<title>[^\[\]\n]{1,120})\]\(#[^()\s]{0,120}\)")
"""Matches a link to a heading."""
_WORD = re.compile(r"[^\W_]+")


def find_entries(items: Sequence[OutlineLine], lines: Sequence[OutlineLine]) -> Iterator[tuple[range, range]]:
    """Yield (segments of an entry, segments of its heading) for each entry of a table of contents.

    An entry is one of `items`, the lines of list items, that only repeats a later heading of the answer's `lines`.
    """
    headings_by_title: dict[str, list[OutlineLine]] = {}
    for line in lines:
        title = _read_title(line) if line.level else ""
        if title:
            headings_by_title.setdefault(title, []).append(line)
    if not headings_by_title:
        return
    entries: list[tuple[OutlineLine, OutlineLine]] = []
    for item in items:
        headings = headings_by_title.get(_read_title(item), [])
        # if two sections have the title, it is unclear which one the item means
        if not item.level and len(headings) == 1 and headings[0].segments.start >= item.segments.stop:
            entries.append((item, headings[0]))
    # a single item without a link may have the words of a heading by chance
    if len(entries) > 1 or any(_LINK.search(item.text) for item, _ in entries):
        yield from ((item.segments, heading.segments) for item, heading in entries)


def _read_title(line: OutlineLine) -> str:
    """The words of a heading or entry in lower case, without its number and the target of a link."""
    text = line.text[line.content_start :]
    return " ".join(_WORD.findall(_LINK.sub(lambda match: match["title"], text).casefold()))
