"""Division of an answer into parts that fit the window, one prompt each. Text only, no model.

A part begins with the last pieces of the previous part, as context only: they are judged and edited in their own part.
Where a part ends depends only on the text before that point, so a growing answer is divided like the complete one.
Pieces are the segments of the answer; a segment longer than a part is cut into several pieces. Prompts contain the
pieces in undisguised form (text/disguises.py), where each segment is undisguised as a whole, and sizes are those of
undisguised text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aligner_proxy.engine.decoding.conversation import Ruler
from aligner_proxy.text import structure
from aligner_proxy.text.disguises import UndisguisedText, join_undisguised, undisguise, undisguise_segment
from aligner_proxy.text.structure import Segment

_OVERLAP = 0.2
"""Share of a part's token limit that may repeat the end of the previous part."""
CHARS_PER_TOKEN = 24
"""Upper bound on the average characters per token of known tokenizers; used to refuse long text without tokenising."""
_LONGEST_GAP = 64
"""Most characters of white space between two pieces of one part; after a longer gap a new part begins."""


@dataclass(frozen=True, slots=True)
class PartRange:
    """Pieces `first` to `stop` (excluded) of an answer; those before `first_own` are context from the previous part.

    Example: `PartRange(3, 5, 9)` shows pieces 3 to 8, of which 3 and 4 were judged in the previous part.
    """

    first: int
    first_own: int
    stop: int


@dataclass(frozen=True, slots=True)
class AnswerPassage:
    """A part of an answer with its text. Positions of `pieces` refer to `text`; `undisguised` is for prompts."""

    part: PartRange
    pieces: tuple[Segment, ...]
    text: str
    undisguised: UndisguisedText

    @property
    def context_count(self) -> int:
        """How many of its pieces are context from the previous part."""
        return self.part.first_own - self.part.first

    @property
    def own_pieces(self) -> tuple[Segment, ...]:
        """The pieces that are judged and edited in this part."""
        return self.pieces[self.context_count :]

    @property
    def start(self) -> int:
        """Index in `text` where its own pieces begin."""
        return self.own_pieces[0].start if self.context_count else 0

    def trim_edited(self, edited: str, end: int) -> str:
        """The end of the edited answer, about as long as the original text of this part before `end`."""
        if self.part.first == 0:
            return edited
        before = self.text[:end].rstrip()
        undisguised_before = self.undisguised.text[: self.undisguised.place_in_undisguised(len(before))]
        # a text as long as `before` is kept; twice as much suffices to undisguise it
        end_of_edited = edited[-2 * len(before) - 1 :]
        # Undisguise before cutting, because the last of several spaced-out letters alone would not be read as a word.
        return keep_end(undisguise(end_of_edited).text, undisguised_before)


class Division:
    """Divides an answer's pieces into parts of at most `room` tokens. An answer without pieces is one part.

    With room for 100 tokens, a fifth of it for context, pieces of 40, 40, 15 and 50 tokens make two parts: the first
    three, and the last one with the 15 before it as context.
    """

    def __init__(self, ruler: Ruler, room: int, segments: Iterable[Segment] = ()) -> None:
        self.pieces: list[Segment] = []
        self._undisguised: list[UndisguisedText] = []
        """The undisguised form of each piece."""
        self._texts: list[str] = []
        """The text of each segment."""
        self._ruler = ruler
        self._room = room
        self._overlap = int(room * _OVERLAP)
        """Most tokens of context in a part."""
        self._firsts: list[int] = []
        """Index of the first piece of each segment."""
        self._sizes: list[int] = []
        """Tokens of each piece."""
        self._starts = [(0, 0)]
        """For each part, the index of its first piece and of its first own piece."""
        self._used = 0
        """Tokens in the last part."""
        for segment in segments:
            self.add(segment)

    def add(self, segment: Segment) -> None:
        """Append the next segment of the answer, and begin a new part if it does not fit the last one."""
        self._firsts.append(len(self.pieces))
        self._texts.append(segment.text)
        before = self.pieces[-1].gap if self.pieces else ""
        for piece, undisguised, size in self._measure_pieces(segment, before):
            is_full = self._used + size > self._room or len(before) > _LONGEST_GAP
            # a part has at least one piece of its own, even one that is too large
            if is_full and self._starts[-1][1] < len(self.pieces):
                # after a long gap there is no context: the whole room is taken to be needed
                self._begin_part(self._room if len(before) > _LONGEST_GAP else size)
            before = piece.gap
            self.pieces.append(piece)
            self._undisguised.append(undisguised)
            self._sizes.append(size)
            self._used += size

    def add_end(self) -> None:
        """Append an empty segment that stands for the end of the answer."""
        *_, end = structure.append_end(self.pieces[-1:])
        self._firsts.append(len(self.pieces))
        self._texts.append("")
        self.pieces.append(end)
        self._undisguised.append(UndisguisedText(""))
        self._sizes.append(0)

    @property
    def room_left(self) -> int:
        """Tokens that still fit into the last part."""
        return self._room - self._used

    @property
    def parts(self) -> list[PartRange]:
        """All parts; the last one may still grow."""
        stops = [*(own for _, own in self._starts[1:]), len(self.pieces)]
        return [PartRange(first, own, stop) for (first, own), stop in zip(self._starts, stops, strict=True)]

    def __len__(self) -> int:
        return len(self._texts)

    def find_piece_range(self, first: int, stop: int) -> range:
        """Indices of the pieces of segments `first` to `stop`, `stop` excluded."""
        return range(self._first_piece(first), self._first_piece(stop))

    def make_passage(self, part: PartRange) -> AnswerPassage:
        """A part with its text; the positions of its pieces count from the beginning of the part."""
        pieces = self.pieces[part.first : part.stop]
        start = pieces[0].start if pieces else 0
        text = join_pieces(pieces, ends=part.stop < len(self.pieces))
        return AnswerPassage(
            part,
            tuple(structure.shift_segment(piece, -start) for piece in pieces),
            text,
            self.undisguise_part(part, text),
        )

    def undisguise_part(self, part: PartRange, text: str) -> UndisguisedText:
        """The undisguised form of a part; `text` is the part's `join_pieces`, to whose length the result is cut."""
        pieces = range(part.first, part.stop)
        whole = join_undisguised(
            form for number in pieces for form in (self._undisguised[number], UndisguisedText(self.pieces[number].gap))
        )
        return whole.cut(0, len(text))

    def find_segment(self, number: int) -> tuple[str, range]:
        """The text of a segment and the indices of its pieces."""
        return self._texts[number], self.find_piece_range(number, number + 1)

    def _first_piece(self, segment: int) -> int:
        """Index of the first piece of segment number `segment`; after the last segment, the number of pieces."""
        return self._firsts[segment] if segment < len(self._firsts) else len(self.pieces)

    def _begin_part(self, size: int) -> None:
        """Begin a new part with as many earlier pieces as context as leave `size` tokens for the next piece."""
        first_own = len(self.pieces)
        first = first_own
        room = min(self._overlap, self._room - size)
        while first > 0 and self._sizes[first - 1] <= room:
            first -= 1
            room -= self._sizes[first]
        self._starts.append((first, first_own))
        self._used = sum(self._sizes[first:first_own])

    def _measure_pieces(self, segment: Segment, before: str) -> Iterable[tuple[Segment, UndisguisedText, int]]:
        """The segment as (piece, undisguised form, tokens), in several pieces if it is longer than a part.

        The tokens of an unbroken segment include the white space before it, of which `before` is the text.
        """
        undisguised = undisguise_segment(segment.text)
        # a longer gap begins a new part, and no prompt shows more of one
        size = self._ruler.count(before[-_LONGEST_GAP:] + undisguised.text) if segment.text else 0
        if size <= self._room:
            return [(segment, undisguised, size)]
        return self._break_segment(segment, undisguised)

    def _break_segment(
        self, segment: Segment, undisguised: UndisguisedText
    ) -> Iterable[tuple[Segment, UndisguisedText, int]]:
        """Yield the pieces, as `_measure_pieces`, of a segment that is longer than a part, cut between words if any."""
        # less than a whole part, so that context fits beside a piece
        limit = max(1, self._room - self._overlap)
        start = 0
        position = 0
        while position < len(undisguised.text):
            rest = undisguised.text[position : position + limit * CHARS_PER_TOKEN]
            # at least one character, so that the loop ends
            text = self._ruler.first(rest, limit) or rest[:1]
            is_last = position + len(text) == len(undisguised.text)
            # the last word may be cut, so it goes to the next piece unless it is the only one
            words = text.rstrip().rsplit(None, 1)
            if len(words) > 1 and not is_last:
                text = text[: text.rindex(words[1])]
            position += len(text)
            end = len(segment.text) if is_last else undisguised.place_in_original(position)
            # one original character may become several letters; a cut among these ends no original character
            if end == start:
                continue
            cut = segment.text[start:end]
            body = cut.rstrip() or cut
            piece = Segment(segment.start + start, body, segment.gap if is_last else cut[len(body) :])
            yield piece, undisguised.cut(start, start + len(body)), self._ruler.count(text)
            start = end


def join_pieces(pieces: Sequence[Segment], *, ends: bool) -> str:
    """The text of consecutive pieces as it appears in a prompt, with limited white space after the last one.

    With `ends` (the part ends here but the answer goes on: "It rains. " -> "It rains.") spaces after the last piece are
    dropped. Line breaks are kept, because they may be part of the last word's token.
    """
    text = "".join(piece.text + piece.gap for piece in pieces if piece.text)
    gap = pieces[-1].gap if pieces else ""
    surplus = len(gap) if ends and "\n" not in gap else max(0, len(gap) - _LONGEST_GAP)
    return text[: len(text) - surplus]


def keep_end(edited: str, original: str) -> str:
    """The end of an edited text, at most as long as the text it was edited from, beginning at a whole word.

    `("It rains a lot. Take a coat.", "It rains. Take it.")` -> "lot. Take a coat."
    """
    if len(edited) <= len(original):
        return edited
    start = len(edited) - len(original)
    tail = edited[start:]
    begins_at_word = edited[start - 1].isspace() or tail[:1].isspace()
    first_and_rest = tail.split(None, 1)
    return tail.lstrip() if begins_at_word or len(first_and_rest) < 2 else first_and_rest[1]
