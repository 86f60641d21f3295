"""Text next to a sentence in the same segment: the title of its item, a speaker, or earlier cells of its row.

"1. **Water**: You fool." is one segment, and so is "Ada: You fool." If the sentence is removed and the line goes on
after it, title and speaker stay. So do the other cells of a row.
"""

from __future__ import annotations

import re

from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.ordinals import names_ordinal
from aligner_proxy.text.sentence_ends import JOINERS, PICTURES
from aligner_proxy.text.structure import speaker_pattern

_TITLE = re.compile(
    rf"[ \t>{PICTURES}{JOINERS}]{{0,12}}"
    r"(?P<sign>\*\*|__)(?=\S)(?:(?!(?P=sign))[^\n]){1,80}(?P=sign)"
    r"[ \t]*(?:[:\uff1a]|[-\u2013\u2014](?=[ \t]))?(?=[ \t]+\S)"
)
"""Matches the emphasised title of an item and the sign after it, if more text follows."""
_TIME = r"(?:\[?\d{1,2}:\d\d(?::\d\d)?\]?[ \t]+(?:-[ \t]+)?)?"
"""Matches the time of a line in the log of a chat, if there is one."""
_SPEAKER = re.compile(
    speaker_pattern(":\uff1a", before_name=_TIME)
    + r"(?::[*_]{0,4}(?=[ \t]+\S)|\uff1a[*_]{0,4})(?:[ \t]*\([^()\n]{1,40}\)(?=[ \t]+\S))?"  # perhaps a remark
)
"""Matches the name of a speaker with its colon, if more text follows."""
_MOST_NAMES = 4
"""Most words in the name of a speaker; of several words none begins with a small letter, as in a sentence."""
_CELLS = re.compile(r".*(?<!\\)\|(?=[ \t]*\S)")
"""Matches the cells before the last one of a segment."""
OPEN_ROW = re.compile(r"^[^`\n]*\S[ \t]+\|[ \t]+\S")
"""Matches what may be a row of a table without a bar at its beginning: two cells, and a bar between spaces."""
_LETTER = re.compile(r"[^\W\d_]")


def remaining_title(text: str, behind: str) -> str:
    """What stays of a segment whose sentence is removed: a title, a speaker, or other cells; empty if nothing stays.

    `behind` is the text after the segment in its line.
    """
    # a sentence may have one bar between two words, as "a | b"
    is_open_row = OPEN_ROW.search(text) is not None and (text + behind).count("|") > 1
    if text.lstrip().startswith("|") or is_open_row:
        return _remaining_cells(text, behind)
    if not behind.strip():
        return ""
    mark = marks.read(text)
    start = mark.stop if mark is not None else 0
    title = _TITLE.match(text, start) or _match_speaker(text, start)
    return text[: title.end()] if title else ""


def _match_speaker(text: str, start: int) -> re.Match[str] | None:
    """The speaker with whom a text begins at `start`; None if it begins with other words before a colon."""
    speaker = _SPEAKER.match(text, start)
    names = speaker["name"].split() if speaker else []
    # "Second: You fool." goes as a whole
    if names_ordinal(text[start:]):
        return None
    is_name = len(names) == 1 or not any(name[0].islower() for name in names)
    return speaker if is_name and len(names) <= _MOST_NAMES else None


def _remaining_cells(text: str, behind: str) -> str:
    """The cells before the last one. They stay if the last cell continues, or if another cell after it has words."""
    cells = _CELLS.match(text)
    if cells is None or not _LETTER.search(cells.group()):
        return ""
    goes_on = bool(behind.strip()) and not behind.lstrip().startswith("|")
    return cells.group() if goes_on or _LETTER.search(behind) else ""
