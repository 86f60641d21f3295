"""Answers from which the segments that name fools were removed."""

from __future__ import annotations

from aligner_proxy.text.lists.numbering import renumber_text
from aligner_proxy.text.structure import join, split


def without_fools(text: str) -> str:
    """The text without the segments that name fools, renumbered."""
    pieces = split(text)
    removed = {number for number, piece in enumerate(pieces) if "fool" in piece.text}
    rest = join([("" if number in removed else piece.text, piece.gap) for number, piece in enumerate(pieces)])
    return renumber_text(pieces, removed, rest)[0]
