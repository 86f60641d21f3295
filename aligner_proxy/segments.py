"""Where does one segment of an answer end and the next begin?

A segment is what the detector head judges and what an edit replaces: a sentence, a list item, a heading, or a whole
code block. Segments and the white space between them add up to the text exactly. A boundary depends only on what
stands before it and on the first character after it, so a growing text keeps the boundaries it already had.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)", re.MULTILINE)
_LINE = re.compile(r"[^\n]*\n?")
# Sentence end: closing punctuation, optional closing quotes or brackets, then white space; a full-width mark also ends
# a sentence that goes on without a space, unless more closing marks follow it.
_CLOSING = r".!?\u2026\u3002\uff01\uff1f\"'\u201d\u2019)\]*_"
_SENTENCE_END = re.compile(
    r"[.!?\u2026\u3002\uff01\uff1f]+[\"'\u201d\u2019)\]*_]*(?=\s)|[\u3002\uff01\uff1f]+(?=[^\s" + _CLOSING + "])"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|Mr|Mrs|Ms|Dr|Prof|St|No|Fig|Eq|Inc|Ltd|Jr|Sr)|\b[A-Z])\.$"
)
_LONGEST_ABBREVIATION = 10
_LIST_NUMBER = re.compile(r"\s*(?:[-*+]\s+)?\d+\.$")


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: `text` is judged and may be replaced, `gap` is the white space that follows it."""

    start: int
    text: str
    gap: str

    @property
    def end(self) -> int:
        """Offset of the first character after `text` in the answer."""
        return self.start + len(self.text)


def split(text: str) -> list[Segment]:
    """Cut `text` into segments; leading white space belongs to the first one, so nothing is lost.

    `"".join(s.text + s.gap for s in split(text)) == text` for every text. A text of white space alone has no segment
    unless it is not empty, in which case it is one segment without a gap.
    """
    segments: list[Segment] = []
    start = 0
    for end in _boundaries(text):
        _append(segments, text, start, end)
        start = end
    _append(segments, text, start, len(text))
    return segments


def join(pieces: Sequence[tuple[str, str]]) -> str:
    """Put (text, gap) pieces together again, leaving out pieces whose text is empty.

    A piece that vanished hands a larger break behind it on to the one before: without that, removing the last sentence
    of a paragraph would glue the next paragraph to what is left. The last piece that stays loses its gap.
    """
    kept: list[tuple[str, str]] = []
    for text, gap in pieces:
        if text:
            kept.append((text, gap))
        elif kept and gap.count("\n") > kept[-1][1].count("\n"):
            kept[-1] = (kept[-1][0], gap)
    return "".join(text + gap for text, gap in kept[:-1]) + "".join(text for text, _ in kept[-1:])


def _append(segments: list[Segment], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    if not piece:
        return
    body = piece.rstrip()
    if body:
        segments.append(Segment(start, body, piece[len(body) :]))
    elif segments:
        last = segments[-1]
        segments[-1] = Segment(last.start, last.text, last.gap + piece)
    else:
        segments.append(Segment(start, piece, ""))


def _boundaries(text: str) -> Iterator[int]:
    """Offsets where a new segment starts, in order; each lies after the white space of the segment before it."""
    fence = ""
    for line in _LINE.finditer(text):
        if not line.group():
            return
        mark = _FENCE.match(line.group())
        if mark and not fence:
            fence = mark.group(1)
            yield line.start()
        elif fence:
            if mark and mark.group(1).startswith(fence) and line.group().strip() == mark.group(1):
                fence = ""
                yield line.end()
        else:
            yield from _sentence_ends(line.group(), line.start())
            yield line.end()


def _sentence_ends(line: str, offset: int) -> Iterator[int]:
    """Offsets after each sentence of a line, but for the last; looks back over a bounded window only."""
    for match in _SENTENCE_END.finditer(line):
        end = match.end()
        if _ABBREVIATION.search(line, max(0, end - _LONGEST_ABBREVIATION), end) or _LIST_NUMBER.match(line, 0, end):
            continue
        following = end
        while following < len(line) and line[following].isspace():
            following += 1
        if following < len(line) and not line[following].islower():
            yield offset + following
