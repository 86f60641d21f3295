"""Text before a sentence in the same segment: the title of its item, a speaker, or earlier cells of its row.

"1. **Water**: You fool." is one segment, and so is "Ada: You fool." If the sentence is removed and more text follows in
the line, title and speaker stay. So do the other cells of a row.
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
_OPTIONAL_TIME = r"(?:\[?\d{1,2}:\d\d(?::\d\d)?\]?[ \t]+(?:-[ \t]+)?)?"
"""Matches the time of a line in the log of a chat, if there is one."""
_SPEAKER = re.compile(
    speaker_pattern(":\uff1a", before_name=_OPTIONAL_TIME)
    + r"(?::[*_]{0,4}(?=[ \t]+\S)|\uff1a[*_]{0,4})(?:[ \t]*\([^()\n]{1,40}\)(?=[ \t]+\S))?"  # perhaps a remark
)
"""Matches the name of a speaker with its colon, if more text follows."""
_MAX_NAME_WORDS = 4
"""Most words in the name of a speaker."""
_EARLIER_CELLS = re.compile(r".*(?<!\\)\|(?=[ \t]*\S)")
"""Matches the cells before the last one of a segment."""
OPEN_ROW = re.compile(r"^[^`\n]*\S[ \t]+\|[ \t]+\S")
"""Matches what may be a row of a table without a bar at its beginning: two cells, and a bar between spaces."""
_LETTER = re.compile(r"[^\W\d_]")


def remaining_title(text: str, behind: str) -> str:
    """What stays of the segment `text` if its sentence is removed: a title, a speaker, or other cells.

    Empty if nothing stays. `behind` is the text after the segment in its line.
    """
    # a single bar, as in "a | b", makes no row
    is_open_row = OPEN_ROW.search(text) is not None and (text + behind).count("|") > 1
    if text.lstrip().startswith("|") or is_open_row:
        return _remaining_cells(text, behind)
    if not behind.strip():
        return ""
    mark = marks.read(text)
    start = mark.stop if mark is not None else 0
    title_or_speaker = _TITLE.match(text, start) or _match_speaker(text, start)
    return text[: title_or_speaker.end()] if title_or_speaker else ""


def _match_speaker(text: str, start: int) -> re.Match[str] | None:
    """The match of a speaker's name at offset `start`; None if no speaker stands there."""
    speaker = _SPEAKER.match(text, start)
    # the "Second:" of "Second: You fool." is an ordinal, no name
    if speaker is None or names_ordinal(text[start:]):
        return None
    words = speaker["name"].split()
    # several words with a small letter among them are a sentence before a colon
    is_name = len(words) == 1 or not any(word[0].islower() for word in words)
    return speaker if is_name and len(words) <= _MAX_NAME_WORDS else None


def _remaining_cells(text: str, behind: str) -> str:
    """The cells of a segment before its last cell, which is removed; empty if they do not stay.

    They stay if they have words, and the text behind continues the last cell or has further cells with words.
    """
    earlier_cells = _EARLIER_CELLS.match(text)
    if earlier_cells is None or not _LETTER.search(earlier_cells.group()):
        return ""
    continues_cell = bool(behind.strip()) and not behind.lstrip().startswith("|")
    return earlier_cells.group() if continues_cell or _LETTER.search(behind) else ""
