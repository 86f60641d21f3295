"""An answer in parts that fit the window, one prompt each. Text only, no model.

A part begins with the last pieces of the one before it: they only say what stands there, and are judged and edited in
their own part. Where a part ends depends on what stands before that place alone, so an answer that is still growing is
divided like the whole. Pieces are the segments of the answer; one that is longer than a part is cut into several.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aligner_proxy.engine.decoding.conversation import Ruler
from aligner_proxy.text import structure
from aligner_proxy.text.structure import Segment

_OVERLAP = 0.2
"""Share of a part's room that the end of the part before it takes."""
_CHARS_PER_TOKEN = 24
"""No tokenizer known to us averages more."""
_LONGEST_GAP = 64
"""Characters of white space between two pieces of one part; behind more of it another part begins."""


@dataclass(frozen=True, slots=True)
class Part:
    """Pieces `first` to `stop` of an answer (that one excluded); those before `own` belong to the part before it."""

    first: int
    own: int
    stop: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of an answer as it stands in a prompt; the places of its pieces are those in `text`."""

    part: Part
    pieces: tuple[Segment, ...]
    text: str

    @property
    def context(self) -> int:
        """How many of its pieces belong to the part before it."""
        return self.part.own - self.part.first

    @property
    def own(self) -> tuple[Segment, ...]:
        """The pieces that are judged and edited here."""
        return self.pieces[self.context :]

    @property
    def start(self) -> int:
        """Where the text of its own pieces begins."""
        return self.own[0].start if self.context else 0

    def nearby(self, edited: str, end: int) -> str:
        """The end of the edited answer, as much of it as there is of the original in `text` before `end`."""
        return edited if self.part.first == 0 else recent(edited, self.text[:end].rstrip())


class Division:
    """The pieces of an answer in its parts, of at most `room` tokens each. An answer without pieces is one part."""

    def __init__(self, ruler: Ruler, room: int, segments: Iterable[Segment] = ()) -> None:
        self.pieces: list[Segment] = []
        self._texts: list[str] = []
        self._ruler = ruler
        self._room = room
        self._overlap = int(room * _OVERLAP)
        self._firsts: list[int] = []
        """Of each segment the number of its first piece."""
        self._sizes: list[int] = []
        self._starts = [(0, 0)]
        """Of each part its first piece, and the first one of its own."""
        self._used = 0
        for segment in segments:
            self.add(segment)

    def add(self, segment: Segment) -> None:
        """The next segment of the answer."""
        self._firsts.append(len(self.pieces))
        self._texts.append(segment.text)
        before = self.pieces[-1].gap if self.pieces else ""
        for piece, size in self._pieces(segment, before):
            full = self._used + size > self._room or len(before) > _LONGEST_GAP
            if full and self._starts[-1][1] < len(self.pieces):
                self._begin(self._room if len(before) > _LONGEST_GAP else size)
            before = piece.gap
            self.pieces.append(piece)
            self._sizes.append(size)
            self._used += size

    def add_end(self) -> None:
        """The place behind the last segment, as an empty one."""
        *_, end = structure.with_end(self.pieces[-1:])
        self._firsts.append(len(self.pieces))
        self._texts.append("")
        self.pieces.append(end)
        self._sizes.append(0)

    @property
    def left(self) -> int:
        """Tokens that the last part has room for."""
        return self._room - self._used

    @property
    def parts(self) -> list[Part]:
        """All parts; the last one may still grow."""
        stops = [*(own for _, own in self._starts[1:]), len(self.pieces)]
        return [Part(first, own, stop) for (first, own), stop in zip(self._starts, stops, strict=True)]

    def __len__(self) -> int:
        """Segments that were added."""
        return len(self._texts)

    def range_of(self, first: int, stop: int) -> range:
        """The pieces of the segments `first` to `stop`, that one excluded."""
        return range(self._first(first), self._first(stop))

    def passage(self, part: Part) -> Passage:
        """A part with its text."""
        pieces = self.pieces[part.first : part.stop]
        start = pieces[0].start if pieces else 0
        text = text_of(pieces, ends=part.stop < len(self.pieces))
        return Passage(part, tuple(structure.moved(piece, -start) for piece in pieces), text)

    def segment(self, number: int) -> tuple[str, range]:
        """Text and pieces of a segment."""
        return self._texts[number], self.range_of(number, number + 1)

    def _first(self, segment: int) -> int:
        return self._firsts[segment] if segment < len(self._firsts) else len(self.pieces)

    def _begin(self, size: int) -> None:
        """Another part, for a piece of this size."""
        first = own = len(self.pieces)
        room = min(self._overlap, self._room - size)
        while first > 0 and self._sizes[first - 1] <= room:
            first -= 1
            room -= self._sizes[first]
        self._starts.append((first, own))
        self._used = sum(self._sizes[first:own])

    def _pieces(self, segment: Segment, before: str) -> Iterable[tuple[Segment, int]]:
        """The segment, in several pieces if need be, each with its tokens and those of the white space before it."""
        size = self._ruler.count(before[-_LONGEST_GAP:] + segment.text) if segment.text else 0
        if size <= self._room:
            return [(segment, size)]
        return self._broken(segment)

    def _broken(self, segment: Segment) -> Iterable[tuple[Segment, int]]:
        """A segment that is longer than a part, cut between words where it has some."""
        most = max(1, self._room - self._overlap)
        at = 0
        while at < len(segment.text):
            rest = segment.text[at : at + most * _CHARS_PER_TOKEN]
            text = self._ruler.first(rest, most) or rest[:1]
            whole = at + len(text) == len(segment.text)
            if not whole and (words := text.rstrip().rsplit(None, 1))[1:]:
                text = text[: text.rindex(words[1])]
            body = text.rstrip() or text
            gap = segment.gap if whole else text[len(body) :]
            piece = Segment(segment.start + at, body, gap)
            yield piece, self._ruler.count(text)
            at += len(text)


def text_of(pieces: Sequence[Segment], *, ends: bool) -> str:
    """The text of consecutive pieces as it stands in a prompt, with not too much white space behind the last.

    Where it `ends` there and the answer goes on, spaces are left out; line breaks may be part of the last word's token.
    """
    text = "".join(piece.text + piece.gap for piece in pieces if piece.text)
    gap = pieces[-1].gap if pieces else ""
    surplus = len(gap) if ends and "\n" not in gap else max(0, len(gap) - _LONGEST_GAP)
    return text[: len(text) - surplus]


def recent(edited: str, original: str) -> str:
    """The end of an edited text, about as long as `original`, of which it is the edited form; from a word on."""
    if len(edited) <= len(original):
        return edited
    start = len(edited) - len(original)
    tail = edited[start:]
    words = tail.split(None, 1)
    whole = edited[start - 1].isspace() or tail[:1].isspace()
    return tail.lstrip() if whole or len(words) < 2 else words[1]
