"""Where does one segment of an answer end and the next begin?

A segment is what the detector head judges and what an edit replaces: a sentence, a list item, a heading, or a whole
code block. Segments and the white space between them add up to the text exactly. A boundary depends only on what
stands before it and on the first character after it, so a growing text keeps the boundaries it already had.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)", re.MULTILINE)
_LINE = re.compile(r"[^\n]*\n?")
# Sentence end: closing punctuation, optional closing quotes or brackets, then white space; a full-width mark also ends
# a sentence that goes on without a space, unless more closing marks follow it.
_CLOSING = r".!?\u2026\u3002\uff01\uff1f\"'\u201d\u2019)\]*_"
# A run of marks is looked at from its first mark only: tried from each of them, twenty thousand took minutes.
_MARKS, _WIDE = r"[.!?\u2026\u3002\uff01\uff1f]", r"[\u3002\uff01\uff1f]"
_SENTENCE_END = re.compile(
    rf"(?<!{_MARKS}){_MARKS}+[\"'\u201d\u2019)\]*_]*(?=\s)|(?<!{_WIDE}){_WIDE}+(?=[^\s{_CLOSING}])"
)
_WIDE_END = re.compile(r"[\u3002\uff01\uff1f]+[\"'\u201d\u2019)\]*_]*(?=[^" + _CLOSING + "])")
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
    found: list[tuple[int, int]] = []
    start = 0
    for end in (*_boundaries(text), len(text)):
        body = len(text[start:end].rstrip())
        if body or (end > start and not found):
            found.append((start, start + body if body else end))
        start = end
    starts = [*(start for start, _ in found), len(text)]
    return [Segment(at, text[at:end], text[end:after]) for (at, end), after in zip(found, starts[1:], strict=True)]


class Cutter:
    """Cuts a text that is still growing. A segment is finished as soon as the next one has begun."""

    def __init__(self) -> None:
        self._block, self._at, self._given = "", 0, 0

    def feed(self, more: str) -> list[Segment]:
        """The segments that are finished now and were not before."""
        self._block += more
        found = split(self._block)
        told = self._placed(found[self._given : -1])
        self._given = max(self._given, len(found) - 1)
        last = found[-1].start if found else 0
        if last and self._block[last - 1] == "\n":  # what comes is cut as if the text began here
            self._block, self._at, self._given = self._block[last:], self._at + last, 0
        return told

    def end(self) -> list[Segment]:
        """What is left when the text has ended."""
        return self._placed(split(self._block)[self._given :])

    def _placed(self, found: Sequence[Segment]) -> list[Segment]:
        return [Segment(self._at + segment.start, segment.text, segment.gap) for segment in found]


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


def with_end(pieces: Sequence[Segment]) -> list[Segment]:
    """The segments and the place behind them, as one more that has no text: what is to be added goes there."""
    return [*pieces, Segment(pieces[-1].end if pieces else 0, "", pieces[-1].gap if pieces else "")]


def moved(piece: Segment, by: int) -> Segment:
    """The same segment in a text that begins so many characters earlier."""
    return Segment(piece.start + by, piece.text, piece.gap)


def judged(pieces: Sequence[Segment], texts: Sequence[str]) -> list[Segment]:
    """The segments as verdicts have them, of which `texts` are the texts: with the place behind them, or without."""
    return with_end(pieces) if texts and not texts[-1] else list(pieces)


def so_far(pieces: Iterable[tuple[str, str]]) -> str:
    """What (text, gap) pieces are in front of the next one, which begins where the last gap ends."""
    return "".join(text + gap for text, gap in pieces if text)


def firm(text: str) -> int:
    """Characters before the last word: however the text grows, these are cut into the same tokens.

    A full-width sentence mark ends a word. What stands in a finished segment is firm.
    """
    body = text.rstrip()
    words = body.rsplit(None, 1)
    if not words:
        return 0
    start = len(body) - len(words[-1])
    marks = [start + mark.end() for mark in _WIDE_END.finditer(words[-1])]
    return marks[-1] if marks else len(text[:start].rstrip())


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
