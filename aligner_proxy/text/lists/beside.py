"""Text next to a sentence in the same segment: the title of its item, or the cells of its row before its own.

"1. **Water**: You fool." is one segment. If the sentence is removed and the item continues after it, the title stays.
So do the other cells of a row.
"""

from __future__ import annotations

import re

from aligner_proxy.text.lists import marks

_TITLE = re.compile(
    r"(?P<sign>\*\*|__)(?=\S)(?:(?!(?P=sign))[^\n]){1,80}(?P=sign)"
    r"[ \t]*(?:[:\uff1a]|[-\u2013\u2014](?=[ \t]))?(?=[ \t]+\S)"
)
"""Matches the emphasised title of an item and the sign after it, if more text follows."""
_CELLS = re.compile(r".*(?<!\\)\|(?=[ \t]*\S)")
"""Matches the cells before the last one of a segment."""
OPEN_ROW = re.compile(r"^[^`\n]*\S[ \t]+\|[ \t]+\S")
"""Matches what may be a row of a table without a bar at its beginning: two cells, and a bar between spaces."""
_LETTER = re.compile(r"[^\W\d_]")


def remaining_title(text: str, behind: str) -> str:
    """What stays of a segment whose sentence is removed: an item's title, or other cells; empty if nothing stays.

    `behind` is the text after the segment in its line.
    """
    if text.lstrip().startswith("|") or OPEN_ROW.search(text):
        return _remaining_cells(text, behind)
    if not behind.strip():
        return ""
    mark = marks.read(text)
    start = mark.stop if mark is not None else 0
    title = _TITLE.match(text, start)
    return text[: title.end()] if title else ""


def _remaining_cells(text: str, behind: str) -> str:
    """The cells before the last one. They stay if the last cell continues, or if another cell after it has words."""
    cells = _CELLS.match(text)
    if cells is None or not _LETTER.search(cells.group()):
        return ""
    goes_on = bool(behind.strip()) and not behind.lstrip().startswith("|")
    return cells.group() if goes_on or _LETTER.search(behind) else ""
