"""Notes with a star: the `*` that refers to a removed note goes with it ("80 €*" above "* Without breakfast.").

Emphasis has stars, too. So a star counts only if it is the only one of its line or cell, and if one line alone is the
note.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from aligner_proxy.text.lists.lines import STROKE, read_lines
from aligner_proxy.text.structure import FENCES, Segment

_NOTE = re.compile(r"[ \t]{0,3}(?:\\\*[ \t]?|\*(?![\s*]))[^*\n]*$")
"""Matches a line that begins with a star and has no other. A star with a space behind it is the mark of an item."""
_REFERENCE = re.compile(r"(?<=[^\s*\\])\\?\*(?=[ \t]*(?:$|[.,;:)]|[ \t]\S))")
_BEFORE_WORDS = re.compile(r"\s*[*+-][ \t]+")


def drop_star_references(pieces: Sequence[Segment], removed: Collection[int], text: str) -> str:
    """The edited answer `text` without the star that refers to a note, if the note is removed.

    `pieces` are the segments of the original answer, and `removed` the indexes of those that are gone.
    """
    if not any("*" in pieces[index].text for index in removed):
        return text
    notes = [line.segments for line in read_lines(pieces) if _NOTE.match(line.text)]
    has_code = any(piece.text.lstrip().startswith(FENCES) for piece in pieces)
    if len(notes) != 1 or has_code or any(index not in removed for index in notes[0]):
        return text
    return "\n".join(map(_drop_reference, text.split("\n")))


def _drop_reference(line: str) -> str:
    """A line without the star of a reference; each cell of a table counts as a line."""
    mark = _BEFORE_WORDS.match(line)
    start = mark.end() if mark else 0
    return line[:start] + "|".join(
        _REFERENCE.sub("", cell) if cell.count("*") - 2 * cell.count("**") == 1 else cell
        for cell in STROKE.split(line[start:])
    )
