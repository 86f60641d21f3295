"""Incremental correction: the aligner reads an answer while the upstream is still writing it.

When the answer ends, only its last words are left to read, and all finished segments already have verdicts. The last
word is held back, because its tokens may change with the following text: "harb" may become "harbour". A segment counts
as finished when the next one has begun. If the answer is released segment by segment, flagged ranges are replaced
meanwhile. For a replacement the prompt ends at `Span.end`; text beyond it that was already read has to be read again.
An answer that outgrows a part (parts.py) continues in the next one. In every part only new text is tokenised, read and
scored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import takewhile

from aligner_proxy.engine.api import AlignRequest, Span
from aligner_proxy.engine.decoding.aligner import Aligner, build_frame, judges_end, scores_segments
from aligner_proxy.engine.decoding.correct import AnswerEditor, correct
from aligner_proxy.engine.decoding.parts import PartRange, join_pieces
from aligner_proxy.engine.decoding.piece_scorer import ScoredPieces, make_verdicts
from aligner_proxy.engine.decoding.prompt_fit import Fitted
from aligner_proxy.engine.decoding.proposer import count_matching
from aligner_proxy.engine.model.detector import find_spans_with_words
from aligner_proxy.engine.scheduling.sequence import Ask, Spans, Step, TokenSequence, Work
from aligner_proxy.text import structure
from aligner_proxy.text.disguises import join_undisguised, undisguise
from aligner_proxy.text.splitter import Splitter
from aligner_proxy.text.structure import Segment, firm_length
from aligner_proxy.types import Correction, SegmentScore, Verify

ENOUGH_CHARS = 96
"""New characters that justify a forward pass: some 20 tokens (chunks of 32 cost a fifth more than one long prefill)."""
ENOUGH_CHARS_ALONE = 32
"""New characters that justify a pass if the engine has no other request; reading so often leaves less for the end."""

_ESTIMATED_CHARS_PER_TOKEN = 4
"""Estimated characters per token, by which the end of a text is left out that would not fit the part."""


@dataclass(slots=True, eq=False)
class PendingReplacement:
    """A flagged range that waits to be replaced; the future `done` gets the replacement as a `Correction`."""

    span: Span
    done: Future[Correction] = field(default_factory=Future)


@dataclass
class AnswerBody:
    """A text that the event loop appends to and cuts into segments, and that the model's thread (the reader) reads.

    After "It rains. Take a c" the segment "It rains." is finished, "Take a c" is not.
    """

    text: str = ""
    chars_read: int = 0
    """Number of characters that the reader has taken in."""
    segments: list[Segment] = field(default_factory=list)
    """The finished segments."""
    finished: int = 0
    """Number of finished segments; set last, so that the reader never counts one that it cannot see."""
    segments_read: int = 0
    """Number of finished segments that the reader has taken in."""
    _splitter: Splitter = field(default_factory=Splitter)

    def add(self, more: str) -> None:
        """Append text and update the finished segments."""
        self.text += more
        self.segments += self._splitter.feed(more)
        self.finished = len(self.segments)

    def take_text(self) -> str:
        """Return the text so far, and note that the reader has taken in this text and its finished segments."""
        # the count comes first, because another thread appends: every counted segment must be part of the text
        self.segments_read = self.finished
        text = self.text
        self.chars_read = len(text)
        return text

    def end(self) -> list[Segment]:
        """Return the last segments of a text that has ended: those after the finished ones."""
        return self._splitter.end()


@dataclass(slots=True)
class PartialAnswer:
    """An answer that is still being written: fed in the event loop, read in the model's thread."""

    request: AlignRequest
    body: AnswerBody = field(default_factory=AnswerBody)
    complete: bool = False
    """True when the answer has ended and is to be corrected as a whole."""
    text_ended: bool = False
    """True when the answer has ended and all verdicts are wanted."""
    awaited: bool = False
    """True when a client waits for verdicts, so that each finished segment justifies a forward pass."""
    verdicts: tuple[SegmentScore, ...] = field(default=())
    """Verdicts on the finished segments."""
    all_judged: bool = False
    """True when all verdicts are there."""
    replacing: deque[PendingReplacement] = field(default_factory=deque)
    is_alone: Callable[[], bool] = lambda: False
    """Returns whether no other request needs the engine."""
    notify_change: Callable[[], None] = lambda: None
    """Called in the model's thread when there are new verdicts or replacements."""

    def is_read_ahead(self) -> bool:
        """Whether the answer is only read ahead, because no client waits for a result yet."""
        return not (self.complete or self.awaited or self.text_ended or self.replacing)

    def waits(self) -> bool:
        """Whether the model has something to do: the answer has ended, needs a replacement, or has enough new text."""
        if self.complete or self.replacing or (self.text_ended and not self.all_judged):
            return True
        has_awaited_segment = self.awaited and self.body.finished > self.body.segments_read
        enough_chars = ENOUGH_CHARS_ALONE if self.is_alone() else ENOUGH_CHARS
        has_enough_text = len(self.body.text) - self.body.chars_read >= enough_chars
        # once all is judged, nothing more is read ahead
        return has_awaited_segment or (has_enough_text and not self.all_judged)


def read_growing_answer(aligner: Aligner, answer: PartialAnswer, sequence: TokenSequence) -> Work:
    """Read an answer as it grows; once it is complete, correct it and return the `Correction`."""
    reader = AnswerReader(aligner, answer, sequence)
    while not answer.complete:
        text = answer.body.take_text()
        if answer.replacing:
            yield from reader.write_replacement(answer.replacing.popleft())
        elif answer.text_ended:
            yield from reader.judge_all()
        elif text.strip():
            has_unread_part = yield from reader.read_new_text(text)
            if has_unread_part:
                continue
        # an `Ask` without ids waits for more text
        if not answer.waits():
            yield Ask([])
    return (yield from correct(aligner, answer.request, sequence, reader.find_known_pieces(answer.request)))


class AnswerReader:
    """Reads an answer that is still being written, part by part, without reading text of a part twice."""

    def __init__(self, aligner: Aligner, answer: PartialAnswer, sequence: TokenSequence) -> None:
        self._aligner = aligner
        self._answer = answer
        self._sequence = sequence
        self._first_request = answer.request
        """The request at the beginning; `answer.request` is replaced when the answer is complete."""
        self._frame = build_frame(aligner, answer.request.model_copy(update={"answer": ""}))
        self._division = self._frame.divide()
        self._scored_pieces = ScoredPieces()
        """The scores of the pieces that were read."""
        self._part_index = 0
        """Index of the part that is being read."""
        self._prompt: Fitted | None = None
        """The last prompt of this part; None before the part is read for the first time."""
        self._part_text = ""
        """The text of this part in `_prompt`."""
        self._last_was_flagged = False
        """Whether the last scored piece was flagged by its first score, which a second reading may have replaced."""
        self._division_complete = False
        """True once the division covers the whole answer."""

    @property
    def _scores_growing(self) -> bool:
        """Whether pieces are scored while the answer grows."""
        return scores_segments(self._aligner, self._frame) and self._first_request.verify is Verify.FLAGGED

    def find_known_pieces(self, request: AlignRequest) -> ScoredPieces | None:
        """Return the scores so far for the correction of `request`; None if other text was read than it has."""
        read_text = self._answer.body.text
        # once the division is complete, the last pieces were judged as the end, so a longer answer has other scores
        answer_fits = request.answer == read_text if self._division_complete else request.answer.startswith(read_text)
        question_fits = _scored_fields(request) == _scored_fields(self._first_request)
        return self._scored_pieces if answer_fits and question_fits else None

    def read_new_text(self, text: str) -> Generator[Ask, Step, bool]:
        """Feed the new text of one part, up to the last word, which may still change; `text` is the answer so far.

        Returns whether another part is left to read.
        """
        self._divide_segments(self._answer.body.segments_read)
        parts = self._division.parts
        part = parts[self._part_index]
        # only the last part can get more text; an earlier part is read to its end and left
        may_grow = self._part_index == len(parts) - 1
        # without scores to compute, only the first part is read ahead, because the correction begins with its prompt
        if self._scores_growing or self._part_index == 0:
            tail = self._find_unfinished_tail(text) if may_grow else ""
            yield from self._read_part(part, tail)
        if not may_grow:
            self._part_index += 1
            self._prompt = None
        return not may_grow

    def write_replacement(self, pending: PendingReplacement) -> Generator[Ask, Step, None]:
        """Write the replacement for a flagged range and resolve `pending.done`; an error ends the reading."""
        self._divide_segments(self._answer.body.finished)
        if self._answer.text_ended:
            self._divide_rest()
        spent_before_s = self._sequence.spent_s
        editor = self._make_editor()
        text = yield from editor.replace_span(pending.span)
        spent_ms = (self._sequence.spent_s - spent_before_s) * 1000
        aligner = self._aligner.info.content_hash
        pending.done.set_result(Correction(text, counts=editor.tally.counts(), ms=spent_ms, aligner=aligner))
        self._answer.notify_change()

    def judge_all(self) -> Generator[Ask, Step, None]:
        """Judge all of an answer that has ended, with its end where text may be missing, and set its verdicts."""
        answer = self._answer
        if answer.body.text.strip():
            self._divide_rest()
            editor = self._make_editor()
            scores = (yield from editor.score_pieces()) if editor.can_score else []
            self._scored_pieces = ScoredPieces(scores, editor.evidence)
            answer.verdicts = make_verdicts(self._division, self._scored_pieces, answer.request.caution)
        answer.all_judged = True
        answer.notify_change()

    def _make_editor(self) -> AnswerEditor:
        """Return an editor of the answer as far as it is divided, with the scores so far."""
        request = self._answer.request
        return AnswerEditor(self._aligner, self._frame, self._division, request, self._sequence, self._scored_pieces)

    def _divide_segments(self, stop: int) -> None:
        """Add the finished segments before the index `stop` to the division, as far as they are not in it."""
        for segment in self._answer.body.segments[len(self._division) : stop]:
            self._division.add(segment)

    def _divide_rest(self) -> None:
        """Add all remaining segments of an answer that has ended to the division."""
        if self._division_complete:
            return
        self._divide_segments(len(self._answer.body.segments))
        for segment in self._answer.body.end():
            self._division.add(segment)
        if judges_end(self._aligner, self._frame, self._first_request):
            self._division.add_end()
        self._division_complete = True

    def _find_unfinished_tail(self, text: str) -> str:
        """Return the text after the last finished piece, or "" if this text probably does not fit the last part."""
        pieces = self._division.pieces
        tail = text[pieces[-1].end + len(pieces[-1].gap) :] if pieces else text
        return tail if len(tail) <= self._division.room_left * _ESTIMATED_CHARS_PER_TOKEN else ""

    def _read_part(self, part: PartRange, tail: str) -> Generator[Ask, Step, None]:
        """Feed the new text of a part and score its new pieces; `tail` is the unfinished text after the last piece."""
        pieces = self._division.pieces[part.first : part.stop]
        prompt = self._build_prompt(part, pieces, tail)
        # the tail was admitted by an estimate of its tokens; without it the prompt fits
        if tail and len(prompt.ids) > self._frame.window:
            tail = ""
            prompt = self._build_prompt(part, pieces, tail)
        spans = self._find_unjudged_spans(part, pieces, prompt)
        token_count = spans.segments[-1].stop if spans else 0
        if tail:
            token_count = self._count_firm_tokens(prompt)
            spans = _limit_spans(spans, token_count)
        # at least one token is fed, because a step without tokens would only wait
        start = min(count_matching(self._sequence.ids, prompt.ids[:token_count]), token_count - 1)
        # a step is not worth it if there is nothing to score and at most one new token
        if spans is None and token_count <= max(0, start + 1):
            return
        self._sequence.crop(start)
        ids = prompt.ids[start:token_count]
        step = yield Ask(ids, spans=spans, prompt=True, shared=prompt.shared, taught_heads=self._frame.taught_heads)
        if spans is not None:
            yield from self._add_scores(part, pieces, prompt, step)

    def _count_firm_tokens(self, prompt: Fitted) -> int:
        """Return how many of the prompt's tokens further text cannot change: all before those of the last word."""
        return prompt.encoded.count_before(prompt.prompt.offset_in_prompt(firm_length(self._part_text)))

    def _add_scores(
        self, part: PartRange, pieces: list[Segment], prompt: Fitted, step: Step
    ) -> Generator[Ask, Step, None]:
        """Add the scores of a part's new pieces, after pieces that need it were judged again, and the verdicts."""
        scores = self._scored_pieces.scores
        first_new = len(scores)
        editor = self._make_editor()
        placed_pieces = _place_pieces(pieces, first_new - part.first)
        yield from editor.judge_words(prompt, self._part_text, placed_pieces, step.scores)
        scores += step.scores
        self._scored_pieces.evidence.extend(step.evidence)
        # the piece before the first own piece was scored in the previous part, so its last score counts
        if first_new == part.first_own:
            self._last_was_flagged = first_new > 0 and editor.is_flagged(scores[first_new - 1])
        self._last_was_flagged = yield from editor.judge_followers(
            part, scores, first_new, follows_flagged=self._last_was_flagged
        )
        answer = self._answer
        caution = answer.request.caution
        answer.verdicts += make_verdicts(self._division, self._scored_pieces, caution, len(answer.verdicts))
        answer.notify_change()

    def _build_prompt(self, part: PartRange, pieces: list[Segment], tail: str) -> Fitted:
        """Build the prompt of a part's pieces and the `tail` after them, from the previous one, and store it."""
        pieces_text = join_pieces(pieces, ends=not tail)
        undisguised = join_undisguised((self._division.undisguise_part(part, pieces_text), undisguise(tail)))
        text = pieces_text + tail
        common_length = min(len(text), len(self._part_text))
        self._prompt = self._frame.fit_prompt(undisguised, self._prompt, common_length)
        self._part_text = text
        return self._prompt

    def _find_unjudged_spans(self, part: PartRange, pieces: list[Segment], prompt: Fitted) -> Spans | None:
        """Return the token ranges of a part's pieces that have no score yet; None if all have one."""
        if not self._scores_growing or not pieces:
            return None
        # context pieces were scored in the part before
        first = max(part.first_own, len(self._scored_pieces.scores)) - part.first
        placed_pieces = _place_pieces(pieces, first)
        return find_spans_with_words(prompt.prompt, placed_pieces, prompt.offsets) if placed_pieces else None


def _place_pieces(pieces: list[Segment], first: int) -> list[Segment]:
    """Return the pieces of a part from the index `first` on, with positions in the text of the part."""
    return [structure.shift_segment(piece, -pieces[0].start) for piece in pieces[first:]]


def _scored_fields(request: AlignRequest) -> tuple[object, ...]:
    """Return the fields of a request, other than the answer, on which scores depend, for comparison with a request."""
    return (request.turns, request.objectives, request.heads, request.aligner, request.verify, request.open_ended)


def _limit_spans(spans: Spans | None, token_count: int) -> Spans | None:
    """Return the spans with only the first segments, within the first `token_count` tokens; None if there are none.

    The last finished segment may lie outside, because its last token may reach into the white space after it.
    """
    if spans is None:
        return None
    segments = tuple(takewhile(lambda segment: segment.stop <= token_count, spans.segments))
    return replace(spans, segments=segments, inner_words=spans.inner_words[: len(segments)]) if segments else None
