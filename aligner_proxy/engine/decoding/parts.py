"""An answer in parts that fit the window, one prompt each. Text only, no model.

A part begins with the last pieces of the one before it: they only say what stands there, and are judged and edited in
their own part. Where a part ends depends on what stands before that place alone, so an answer that is still growing is
divided like the whole. Pieces are the segments of the answer; one that is longer than a part is cut into several.
In prompts they stand folded (text/folding.py), each segment as a whole, and so they are measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aligner_proxy.engine.decoding.conversation import Ruler
from aligner_proxy.text import structure
from aligner_proxy.text.folding import Folded, fold, fold_segment, join_folded
from aligner_proxy.text.structure import Segment

_OVERLAP = 0.2
"""Share of a part's room that the end of the part before it takes."""
_CHARS_PER_TOKEN = 24
"""No tokenizer known to us averages more."""
_LONGEST_GAP = 64
"""Characters of white space between two pieces of one part; behind more of it another part begins."""


@dataclass(frozen=True, slots=True)
class PartRange:
    """Pieces `first` to `stop` of an answer (that one excluded); those before `own` belong to the part before it."""

    first: int
    own: int
    stop: int


@dataclass(frozen=True, slots=True)
class AnswerPassage:
    """A part of an answer; the places of its pieces are those in `text`, and in a prompt it stands folded."""

    part: PartRange
    pieces: tuple[Segment, ...]
    text: str
    folded: Folded

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

    def trim_edited(self, edited: str, end: int) -> str:
        """The end of the edited answer, as much of it as there is of the original in `text` before `end`."""
        if self.part.first == 0:
            return edited
        before = self.text[:end].rstrip()
        # Folded before it is cut: of letters that stand apart the last ones alone are no word.
        return recent(
            fold(edited[-2 * len(before) - 1 :]).text, self.folded.text[: self.folded.place_in_folded(len(before))]
        )


class Division:
    """The pieces of an answer in its parts, of at most `room` tokens each. An answer without pieces is one part."""

    def __init__(self, ruler: Ruler, room: int, segments: Iterable[Segment] = ()) -> None:
        self.pieces: list[Segment] = []
        self._folded: list[Folded] = []
        """Each piece."""
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
        for piece, folded, size in self._pieces(segment, before):
            full = self._used + size > self._room or len(before) > _LONGEST_GAP
            if full and self._starts[-1][1] < len(self.pieces):
                self._begin(self._room if len(before) > _LONGEST_GAP else size)
            before = piece.gap
            self.pieces.append(piece)
            self._folded.append(folded)
            self._sizes.append(size)
            self._used += size

    def add_end(self) -> None:
        """The place behind the last segment, as an empty one."""
        *_, end = structure.append_end(self.pieces[-1:])
        self._firsts.append(len(self.pieces))
        self._texts.append("")
        self.pieces.append(end)
        self._folded.append(Folded(""))
        self._sizes.append(0)

    @property
    def room_left(self) -> int:
        """Tokens that the last part has room for."""
        return self._room - self._used

    @property
    def parts(self) -> list[PartRange]:
        """All parts; the last one may still grow."""
        stops = [*(own for _, own in self._starts[1:]), len(self.pieces)]
        return [PartRange(first, own, stop) for (first, own), stop in zip(self._starts, stops, strict=True)]

    def __len__(self) -> int:
        """Segments that were added."""
        return len(self._texts)

    def range_of(self, first: int, stop: int) -> range:
        """The pieces of the segments `first` to `stop`, that one excluded."""
        return range(self._first(first), self._first(stop))

    def passage(self, part: PartRange) -> AnswerPassage:
        """A part with its text."""
        pieces = self.pieces[part.first : part.stop]
        start = pieces[0].start if pieces else 0
        text = text_of(pieces, ends=part.stop < len(self.pieces))
        return AnswerPassage(
            part, tuple(structure.shift_segment(piece, -start) for piece in pieces), text, self.fold_part(part, text)
        )

    def fold_part(self, part: PartRange, text: str) -> Folded:
        """The `text_of` a part, folded."""
        pieces = range(part.first, part.stop)
        whole = join_folded(f for at in pieces for f in (self._folded[at], Folded(self.pieces[at].gap)))
        return whole.cut(0, len(text))

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

    def _pieces(self, segment: Segment, before: str) -> Iterable[tuple[Segment, Folded, int]]:
        """The segment, in several pieces if need be, each with its tokens and those of the white space before it."""
        folded = fold_segment(segment.text)
        size = self._ruler.count(before[-_LONGEST_GAP:] + folded.text) if segment.text else 0
        if size <= self._room:
            return [(segment, folded, size)]
        return self._break_segment(segment, folded)

    def _break_segment(self, segment: Segment, folded: Folded) -> Iterable[tuple[Segment, Folded, int]]:
        """A segment that is longer than a part, cut between words where it has some."""
        most = max(1, self._room - self._overlap)
        start = at = 0
        while at < len(folded.text):
            rest = folded.text[at : at + most * _CHARS_PER_TOKEN]
            text = self._ruler.first(rest, most) or rest[:1]
            whole = at + len(text) == len(folded.text)
            if not whole and (words := text.rstrip().rsplit(None, 1))[1:]:
                text = text[: text.rindex(words[1])]
            at += len(text)
            end = len(segment.text) if whole else folded.place_in_original(at)
            if end == start:
                continue  # several letters that one character stands for
            cut = segment.text[start:end]
            body = cut.rstrip() or cut
            piece = Segment(segment.start + start, body, segment.gap if whole else cut[len(body) :])
            yield piece, folded.cut(start, start + len(body)), self._ruler.count(text)
            start = end


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
