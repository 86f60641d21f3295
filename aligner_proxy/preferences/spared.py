"""Which stretches of an answer are no style? Code, addresses and quotations: nothing is checked there, nor changed."""

from __future__ import annotations

import re

from aligner_proxy.facts import MAIL, WEB
from aligner_proxy.segments import split

_SPAN = re.compile(r"(?<!`)`[^`\n]{1,400}`(?!`)")
_QUOTED = re.compile(
    r"(?<![\w\"])\"(?=\S)[^\"\n]{1,400}\"|\u201c[^\u201c\u201d\n]{1,400}\u201d|"
    r"\u201e[^\u201c-\u201e\n]{1,400}[\u201c\u201d]"
    r"|\u00ab[^\u00ab\u00bb\n]{1,400}\u00bb"
)


def spared(text: str) -> list[tuple[int, int]]:
    """(start, end) of each stretch, in order; none overlaps another."""
    found: list[tuple[int, int]] = []
    if "```" in text or "~~~" in text:
        found = [(piece.start, piece.end) for piece in split(text) if piece.text.lstrip().startswith(("```", "~~~"))]
    for pattern in (_SPAN, WEB, MAIL, _QUOTED):
        found += [match.span() for match in pattern.finditer(text)]
    kept: list[tuple[int, int]] = []
    for start, end in sorted(found, key=lambda span: (span[0], -span[1])):
        if kept and start < kept[-1][1]:
            kept[-1] = (kept[-1][0], max(end, kept[-1][1]))
        else:
            kept.append((start, end))
    return kept
