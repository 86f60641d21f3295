"""Division of an answer into parts that fit the window, one prompt each. A part shows pieces of the answer: its
segments, where a segment longer than a part is cut into several pieces. This module runs no model.

A part begins with the last pieces of the previous part, as context only: these are judged and edited in the previous
part. Where a part ends depends only on the text before that point, so a growing answer is divided like the complete
one. Prompts contain the pieces in undisguised form (text/disguises.py), where each segment is undisguised as a whole,
and sizes are those of undisguised text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aligner_proxy.engine.decoding.conversation import Ruler
from aligner_proxy.text import structure
from aligner_proxy.text.disguises import UndisguisedText, join_undisguised, undisguise, undisguise_segment
from aligner_proxy.text.structure import Segment

_CONTEXT_SHARE = 0.2
"""Largest share of a part's token limit for context, which repeats the end of the previous part."""
CHARS_PER_TOKEN = 24
"""Upper bound on the average characters per token of known tokenizers; used to refuse long text without tokenising."""
_LONGEST_GAP = 64
"""Most characters of white space between two pieces of a part; after a longer gap a new part begins."""


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
    """A part of an answer with its text. Positions of `pieces` refer to `text`; prompts show its form `undisguised`."""

    part: PartRange
    pieces: tuple[Segment, ...]
    text: str
    undisguised: UndisguisedText

    @property
    def context_count(self) -> int:
        """Number of the pieces that are context from the previous part."""
        return self.part.first_own - self.part.first

    @property
    def own_pieces(self) -> tuple[Segment, ...]:
        """The pieces that are judged and edited in this part."""
        return self.pieces[self.context_count :]

    @property
    def start(self) -> int:
        """Index in `text` where the own pieces begin."""
        return self.own_pieces[0].start if self.context_count else 0

    def trim_edited(self, edited: str, end: int) -> str:
        """Return the end of `edited`, the edited answer so far, for a prompt that shows only this part of the answer.

        The result is about as long as the original text of this part before the index `end` in `text`.
        """
        if self.part.first == 0:
            return edited
        text_before = self.text[:end].rstrip()
        undisguised_before = self.undisguised.text[: self.undisguised.place_in_undisguised(len(text_before))]
        # twice the length suffices to undisguise the text that remains after the cut
        end_of_edited = edited[-2 * len(text_before) - 1 :]
        # undisguised before it is cut, because the last of several spaced-out letters would not be read as a word
        return keep_end(undisguise(end_of_edited).text, undisguised_before)


class Division:
    """Divides an answer's pieces into parts of at most `room` tokens. An answer without pieces is one part. With room
    for 100 tokens, a fifth of these for context, pieces of 40, 40, 15 and 50 tokens make two parts: the first three
    pieces, and the last piece with the piece of 15 tokens before it as context.
    """

    def __init__(self, ruler: Ruler, room: int, segments: Iterable[Segment] = ()) -> None:
        self.pieces: list[Segment] = []
        self._undisguised: list[UndisguisedText] = []
        """The undisguised form of each piece."""
        self._texts: list[str] = []
        """The text of each segment."""
        self._ruler = ruler
        self._room = room
        self._max_context = int(room * _CONTEXT_SHARE)
        """Most tokens of context in a part."""
        self._first_pieces: list[int] = []
        """Index of the first piece of each segment."""
        self._piece_tokens: list[int] = []
        """Number of tokens of each piece."""
        self._part_starts = [(0, 0)]
        """For each part, the index of its first piece and of its first own piece."""
        self._used_tokens = 0
        """Number of tokens in the last part, with its context."""
        for segment in segments:
            self.add(segment)

    def add(self, segment: Segment) -> None:
        """Append the next segment of the answer, and begin a new part if it does not fit the last one."""
        self._first_pieces.append(len(self.pieces))
        self._texts.append(segment.text)
        gap_before = self.pieces[-1].gap if self.pieces else ""
        for piece, undisguised, token_count in self._measure_pieces(segment, gap_before):
            follows_long_gap = len(gap_before) > _LONGEST_GAP
            needs_new_part = follows_long_gap or self._used_tokens + token_count > self._room
            _, first_own = self._part_starts[-1]
            # a part has at least one piece of its own, even one that is too large
            if needs_new_part and first_own < len(self.pieces):
                # a part after a long gap gets no context, so the whole room is reserved
                self._begin_part(self._room if follows_long_gap else token_count)
            gap_before = piece.gap
            self.pieces.append(piece)
            self._undisguised.append(undisguised)
            self._piece_tokens.append(token_count)
            self._used_tokens += token_count

    def add_end(self) -> None:
        """Append an empty segment that stands for the end of the answer."""
        *_, end = structure.append_end(self.pieces[-1:])
        self._first_pieces.append(len(self.pieces))
        self._texts.append("")
        self.pieces.append(end)
        self._undisguised.append(UndisguisedText(""))
        self._piece_tokens.append(0)

    @property
    def room_left(self) -> int:
        """Tokens that still fit into the last part."""
        return self._room - self._used_tokens

    @property
    def parts(self) -> list[PartRange]:
        """All parts; the last one may still grow."""
        # a part stops where the own pieces of the next part begin
        stops = [*(first_own for _, first_own in self._part_starts[1:]), len(self.pieces)]
        starts_and_stops = zip(self._part_starts, stops, strict=True)
        return [PartRange(first, first_own, stop) for (first, first_own), stop in starts_and_stops]

    def __len__(self) -> int:
        return len(self._texts)

    def find_piece_range(self, first: int, stop: int) -> range:
        """Return the indices of the pieces of segments `first` to `stop`, `stop` excluded."""
        return range(self._find_first_piece(first), self._find_first_piece(stop))

    def make_passage(self, part: PartRange) -> AnswerPassage:
        """Return a part with its text; the positions of its pieces count from the beginning of the part."""
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
        """Return the undisguised form of a part, up to the end of `text`, which `join_pieces` made of its pieces."""
        undisguised_forms: list[UndisguisedText] = []
        for index in range(part.first, part.stop):
            undisguised_forms += [self._undisguised[index], UndisguisedText(self.pieces[index].gap)]
        return join_undisguised(undisguised_forms).cut(0, len(text))

    def find_segment(self, number: int) -> tuple[str, range]:
        """Return the text of the segment with the index `number`, and the indices of its pieces."""
        return self._texts[number], self.find_piece_range(number, number + 1)

    def _find_first_piece(self, number: int) -> int:
        """Return the index of a segment's first piece; for a segment that is yet to come, the number of pieces."""
        return self._first_pieces[number] if number < len(self._first_pieces) else len(self.pieces)

    def _begin_part(self, reserved_tokens: int) -> None:
        """Begin a new part, with as many earlier pieces as context as leave `reserved_tokens` for the next piece."""
        first_own = len(self.pieces)
        first = first_own
        context_room = min(self._max_context, self._room - reserved_tokens)
        while first > 0 and self._piece_tokens[first - 1] <= context_room:
            first -= 1
            context_room -= self._piece_tokens[first]
        self._part_starts.append((first, first_own))
        self._used_tokens = sum(self._piece_tokens[first:first_own])

    def _measure_pieces(self, segment: Segment, gap_before: str) -> Iterable[tuple[Segment, UndisguisedText, int]]:
        """Return the segment as (piece, undisguised form, number of tokens), in several pieces if it exceeds a part.

        The tokens of a segment that stays whole include those of `gap_before`, the white space before it.
        """
        undisguised = undisguise_segment(segment.text)
        token_count = 0
        if segment.text:
            # prompts show no longer gap, because a new part begins after it
            token_count = self._ruler.count(gap_before[-_LONGEST_GAP:] + undisguised.text)
        if token_count <= self._room:
            return [(segment, undisguised, token_count)]
        return self._break_segment(segment, undisguised)

    def _break_segment(
        self, segment: Segment, undisguised: UndisguisedText
    ) -> Iterable[tuple[Segment, UndisguisedText, int]]:
        """Yield the result of `_measure_pieces` for a segment that exceeds a part, cut between words if it has any."""
        # less than a whole part, so that context fits beside a piece
        max_tokens = max(1, self._room - self._max_context)
        start = 0  # where the next piece begins in `segment.text`
        position = 0  # the same place in `undisguised.text`
        while position < len(undisguised.text):
            rest = undisguised.text[position : position + max_tokens * CHARS_PER_TOKEN]
            # at least one character, so that the loop ends
            shown_text = self._ruler.first(rest, max_tokens) or rest[:1]
            is_last = position + len(shown_text) == len(undisguised.text)
            # the last word may be cut, so it goes to the next piece unless it is the only word
            beginning_and_last_word = shown_text.rstrip().rsplit(None, 1)
            if len(beginning_and_last_word) > 1 and not is_last:
                shown_text = shown_text[: shown_text.rindex(beginning_and_last_word[1])]
            position += len(shown_text)
            end = len(segment.text) if is_last else undisguised.place_in_original(position)
            # one original character may become several letters; a cut among these ends no original character
            if end == start:
                continue
            original_text = segment.text[start:end]
            piece_text = original_text.rstrip() or original_text
            gap = segment.gap if is_last else original_text[len(piece_text) :]
            piece = Segment(segment.start + start, piece_text, gap)
            yield piece, undisguised.cut(start, start + len(piece_text)), self._ruler.count(shown_text)
            start = end


def join_pieces(pieces: Sequence[Segment], *, ends: bool) -> str:
    """Return the text of consecutive pieces as a prompt shows it, with limited white space after the last piece.

    `ends` says whether the prompt's text ends here, although the answer goes on. Then spaces after the last piece are
    dropped ("It rains. " -> "It rains."). Line breaks are kept, because they may be part of the last word's token.
    """
    text = "".join(piece.text + piece.gap for piece in pieces if piece.text)
    last_gap = pieces[-1].gap if pieces else ""
    surplus_chars = max(0, len(last_gap) - _LONGEST_GAP)
    if ends and "\n" not in last_gap:
        surplus_chars = len(last_gap)
    return text[: len(text) - surplus_chars]


def keep_end(edited: str, original: str) -> str:
    """Return the end of an edited text, from the beginning of a word on, at most as long as the original text.

    `("It rains a lot. Take a coat.", "It rains. Take it.")` -> "lot. Take a coat."
    """
    if len(edited) <= len(original):
        return edited
    start = len(edited) - len(original)
    tail = edited[start:]
    begins_at_word = edited[start - 1].isspace() or tail[:1].isspace()
    first_and_rest = tail.split(None, 1)
    return tail.lstrip() if begins_at_word or len(first_and_rest) < 2 else first_and_rest[1]
