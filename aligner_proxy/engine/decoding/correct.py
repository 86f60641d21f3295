"""One correction, from the request to the edited answer: prompt, prefill and scores, edits in place, assembly.

With a detector head, only flagged segments are rewritten; all other text is copied and cannot change. New text is
scored like the text it replaces, and sentences that are flagged again, or nearly so, are dropped. Without a head, or on
request, the whole answer is verified as a draft. An answer that does not fit the window is processed part by part
(parts.py). This module knows nothing of batching and queues.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignerInfo, AlignRequest, Span, make_proof_request
from aligner_proxy.engine.decoding import splice
from aligner_proxy.engine.decoding.parts import AnswerPassage, Division, PartRange
from aligner_proxy.engine.decoding.prompt_fit import Fitted, PromptFrame, make_frame, writing_room
from aligner_proxy.engine.decoding.proposer import DraftProposer, count_matching, find_trusted_ranges
from aligner_proxy.engine.decoding.speculative import DraftLimits, Generated, Tally, generate
from aligner_proxy.engine.model.detector import find_spans, find_spans_with_words
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.model.taught import TaughtColumns
from aligner_proxy.engine.scheduling import sequence as sequences
from aligner_proxy.engine.scheduling.sequence import Ask, SegmentRow, Spans, Step, Work
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import EngineFault, HeadRefused, UnknownJudge
from aligner_proxy.text import structure
from aligner_proxy.text.code_comments import Place
from aligner_proxy.text.disguises import restore_disguises
from aligner_proxy.text.judged_words import (
    judged_words,
    marked_words,
    sentence_of,
    without_last_marks,
    without_words,
)
from aligner_proxy.text.structure import Segment, dictated_text
from aligner_proxy.types import Correction, SegmentScore, Verify, Write

if TYPE_CHECKING:
    from aligner_proxy.engine.model.token_classifier import TokenClassifier

_SPAN_ROOM = 16
_END_ROOM = 96
"""Tokens allowed for a replacement beyond 1.5 times the flagged run. At the end of the answer (`_END_ROOM`) more are
allowed, because whole sentences may be missing there."""
_INNER_ALLOWANCE = 0.5
"""Nats below the threshold from which the inner words of a segment are judged again, as a plain sentence. Inner words
stand in a table cell, an element, a comment or a clause, and are judged by themselves, too (`judged_words`)."""
_CLAUSE_MARGIN = 1.0
"""Nats above the threshold from which a clause is flagged as a plain sentence, because harmless clauses that are cut
out of their sentence score a little higher. Words between marks stand there as a sentence would."""


@dataclass(frozen=True, slots=True)
class Aligner:
    """A loaded aligner: the model, its description, and the number of its adapter in the runner."""

    runner: ModelRunner
    info: AlignerInfo
    adapter: int = 0
    others: Mapping[str, Aligner] = field(default_factory=dict)
    """Further aligners on the same runner, by the names that requests use."""
    judges: Mapping[str, TokenClassifier] = field(default_factory=dict)
    """Token classifiers beside the aligner, by the names that policies use."""

    def find_judge(self, name: str) -> TokenClassifier:
        """The token classifier of this name; raises `UnknownJudge`."""
        if name not in self.judges:
            raise UnknownJudge(f"this engine has no judge {name!r}; it has: {', '.join(self.judges) or 'none'}")
        return self.judges[name]

    def find_aligner(self, name: str) -> Aligner:
        """The aligner of this name in requests; raises `UnknownAligner`."""
        self.info.find_aligner(name)
        return self.others.get(name, self)

    def find_taught_heads(self, request: AlignRequest) -> TaughtColumns | None:
        """The taught heads of a request's objectives, None if there are none; raises `UnknownHead`, `HeadRefused`."""
        return self.runner.find_taught_heads(self.info.content_hash, request.objectives, request.heads, self.adapter)

    def keep(self, head: TaughtHead) -> str:
        """Store a taught head for requests to its aligner, and return its hash; raises `HeadRefused`."""
        served_aligners = {other.info.content_hash: other for other in (*self.others.values(), self)}
        owner = served_aligners.get(head.aligner)
        if owner is None:
            names = ", ".join(name[:12] for name in served_aligners)
            raise HeadRefused(
                f"the taught head is for aligner {head.aligner[:12] or 'unnamed'}, but this engine serves {names}; "
                "teach the objective again"
            )
        width = self.runner.row_width(owner.adapter)
        if head.width != width:
            raise HeadRefused(
                f"the taught head has {head.width} numbers, but rows of aligner {head.aligner[:12]} have {width}; "
                "teach the objective again"
            )
        return self.runner.loaded_heads.put(head)


Score = tuple[float, int]
"""What a piece says in nats, and the index of the objective that this is about.

Of the piece itself: the log-odds that it must change. Of the answer as a whole: its evidence (`AnswerEvidence`), as it
was when the piece was first read, in its place; later readings do not count. A piece is a segment, or a part of a very
long one (parts.py)."""


@dataclass(frozen=True, slots=True)
class ScoredPieces:
    """The scores of an answer's first pieces, and what these pieces say of the answer as a whole."""

    scores: list[Score] = field(default_factory=list)
    evidence: list[Score] = field(default_factory=list)


def correct(
    aligner: Aligner,
    request: AlignRequest,
    sequence: sequences.Sequence,
    known_pieces: ScoredPieces | None = None,
) -> Work:
    """Correct one answer: a generator of asks that returns the `Correction`. Raises `AnswerTooLong`.

    `known_pieces` are the first pieces, if these were read while the answer was being written.
    """
    if not request.answer.strip():
        return Correction(request.answer, aligner=aligner.info.content_hash)
    frame = build_frame(aligner, request)
    division = divide_answer(aligner, frame, request)
    work = AnswerEditor(aligner, frame, division, request, sequence, known_pieces)
    text, verdicts = yield from work.edit_answer()
    return Correction(
        text=text,
        segments=verdicts,
        counts=work.tally.counts(),
        prompt_tokens=work.prompt_tokens,
        ms=sequence.spent_s * 1000,
        aligner=aligner.info.content_hash,
    )


def build_frame(aligner: Aligner, request: AlignRequest) -> PromptFrame:
    """Return the frame of a request's prompts (everything but the answer), with the taught heads of its objectives.

    Raises `AnswerTooLong`, `UnknownHead` and `HeadRefused`.
    """
    taught_heads = aligner.find_taught_heads(request)
    frame = make_frame(
        request, prompts.find_template(aligner.info.template), aligner.runner.tokenizer, aligner.info.window
    )
    return replace(frame, taught_heads=taught_heads) if taught_heads else frame


def scores_segments(aligner: Aligner, frame: PromptFrame) -> bool:
    """Whether segments can be scored: this needs a detector head and objectives that the prompt names."""
    return aligner.info.has_head and frame.template.names_objectives and bool(frame.objectives)


def judges_end(aligner: Aligner, frame: PromptFrame, request: AlignRequest) -> bool:
    """Whether the end of the answer is judged, too, because text may be missing there."""
    return aligner.info.ends and request.open_ended and scores_segments(aligner, frame)


def divide_answer(aligner: Aligner, frame: PromptFrame, request: AlignRequest) -> Division:
    """Divide a complete answer into parts, with its end as a last segment if that is judged."""
    division = frame.division(structure.split(request.answer))
    if judges_end(aligner, frame, request):
        division.add_end()
    return division


Edited = tuple[str, tuple[SegmentScore, ...]]
"""The new answer, and the verdicts on the segments of the original one."""


@dataclass(frozen=True, slots=True)
class PromptedPassage(AnswerPassage):
    """A part of an answer with its prompt."""

    fitted: Fitted

    def find_spans(self, pieces: Sequence[Segment]) -> Spans:
        """The prompt's tokens that belong to the given pieces and to the objectives."""
        return find_spans(self.fitted.prompt, pieces, self.fitted.offsets)


class AnswerEditor:
    """State of one correction: its token sequence (a prompt and the text written after it) and its counts.

    Its generators yield asks to the model, are sent their results, and return what their docstring says. `edited` is
    always the list of the answer's edited pieces so far, each as (text, white space after it).
    """

    def __init__(
        self,
        aligner: Aligner,
        frame: PromptFrame,
        division: Division,
        request: AlignRequest,
        sequence: sequences.Sequence,
        known_pieces: ScoredPieces | None = None,
    ) -> None:
        self._aligner = aligner
        self._runner = aligner.runner
        self._request = request
        self._frame = frame
        self._division = division
        self._sequence = sequence
        self._known_pieces = known_pieces or ScoredPieces()
        self.evidence: list[Score] = []
        """What the pieces read so far say of the answer as a whole; empty without a taught head that says it."""
        self.can_score = scores_segments(aligner, frame)
        """Whether a detector head scores the segments."""
        self.tally = Tally()
        """Counts of tokens and forward passes, of all generators together."""
        self.prompt_tokens = 0
        """Tokens of all prompts that were read."""

    def edit_answer(self) -> Generator[Ask, Step, Edited]:
        """Correct the answer as the request asks, and return it with the verdicts on its segments."""
        if self._request.score_only:
            # Without a head there are no scores. The prompt is read all the same, because a probe must use the model.
            return self._request.answer, self._verdicts((yield from self._score_pieces()))
        # a draft of the whole answer would be written freely
        if self.can_score and (self._request.verify is Verify.FLAGGED or self._request.write is not Write.FREE):
            return (yield from self.rewrite_flagged())
        if self._request.write is not Write.FREE:
            return self._request.answer, self._verdicts((yield from self._score_pieces()))
        return (yield from self.verify_answer())

    def judge_pieces(self) -> Generator[Ask, Step, list[Score]]:
        """Score all pieces and write nothing; an empty list if they cannot be scored."""
        return (yield from self._score_pieces()) if self.can_score else []

    def read_rows(self) -> Generator[Ask, Step, list[SegmentRow]]:
        """Return the general head's rows and scores of all pieces, in order; writes nothing."""
        rows: list[SegmentRow] = []
        for part in self._division.parts:
            passage = self._prompt_passage(part)
            rows += (yield from self._read(passage.fitted, passage.find_spans(passage.own), rows=True)).rows
        return rows

    def replace_span(self, span: Span) -> Generator[Ask, Step, str]:
        """Return a replacement for the segments of one flagged `span`; `span.before` is the edited text before them.

        At the end of the answer, the replacement is the missing text, including the white space before it.
        """
        flagged_pieces = self._division.range_of(span.first, span.stop)
        if not flagged_pieces:
            raise EngineFault("there are no such segments in the answer")
        # the prompt also shows the segment after the run, at which writing is to stop
        prompt_stop = self._division.range_of(span.stop, span.stop + 1).stop
        gap = self._division.pieces[flagged_pieces.start - 1].gap if span.before else ""
        edited = [(span.before, gap)] if span.before else []
        for part in self._division.parts:
            # the pieces of the span in this part; context pieces belong to the part before
            run = range(max(part.own, flagged_pieces.start), min(part.stop, flagged_pieces.stop))
            if run:
                yield from self._replace_run(part, run, prompt_stop, edited, span.objective)
        # without `span.before`, which the caller has
        return structure.join(edited[bool(span.before) :])

    def _replace_run(
        self,
        part: PartRange,
        run: range,
        prompt_stop: int,
        edited: list[tuple[str, str]],
        missing_objective: int | None,
    ) -> Generator[Ask, Step, None]:
        """Write a replacement for the pieces in `run`, all in one part, and append it to `edited`, as (text, gap).

        The prompt shows the pieces before `prompt_stop`. At the end of the answer `missing_objective` misses text.
        """
        passage = self._prompt_passage(PartRange(part.first, part.own, max(run.stop, min(part.stop, prompt_stop))))
        flags = [number in run for number in range(part.first, passage.part.stop)]
        first = run.start - part.first
        flagged_run = splice.Run(True, first, passage.pieces[first : run.stop - part.first])
        before = structure.join(edited)
        hole = splice.make_hole(passage.pieces, flags, flagged_run, before, edited[-1][1] if before else "")
        text = yield from self._fill_hole(passage, self._trim_before(passage, hole), missing_objective)
        edited.append((text, flagged_run.segments[-1].gap))

    def verify_answer(self) -> Generator[Ask, Step, Edited]:
        """Verify the whole answer as a draft, part by part; return its new text and the verdicts."""
        edited: list[tuple[str, str]] = []
        scores: list[Score] = []
        for part in self._division.parts:
            passage = self._prompt_passage(part)
            before = passage.trim_edited(structure.join(edited), passage.start) if passage.context else ""
            text, part_scores = yield from self._verify_part(passage, before)
            scores += part_scores
            edited.append((text.rstrip(), self._division.pieces[part.stop - 1].gap))
        text = splice.clean_answer(structure.join(edited), self._request.answer, finished=True)
        return text, self._verdicts(scores)

    def _verify_part(self, passage: PromptedPassage, before: str) -> Generator[Ask, Step, tuple[str, list[Score]]]:
        """Verify one part as a draft after the text `before`; return its new text and the scores of its pieces.

        The draft is fed together with the prompt if both fit one step and that is cheap. Otherwise the detector, if the
        aligner has one, first scores the pieces, so that long drafts are used only for unflagged ones.
        """
        tokenizer = self._runner.tokenizer
        start = passage.start
        prompt = passage.fitted.prompt
        own_text = prompt.text[prompt.offset_in_prompt(start) : prompt.end]
        gap = self._division.pieces[passage.part.own - 1].gap if before else ""
        # the draft: the part's original text, which the model is expected to copy, and the end mark
        pieces = tokenizer.pieces(gap + own_text)
        lookup = [*pieces.ids, tokenizer.eos]
        scores: list[Score] = []
        unflagged = tuple[range, ...]()
        # a long draft is worth it only where the detector flags nothing, so the pieces are scored first
        if self.can_score and self._runner.needs_probe(len(passage.fitted.ids), len(lookup)):
            scores = yield from self._prefill(passage)
            shift = len(gap) - passage.undisguised.place_in_undisguised(start)
            placed_pieces = [
                structure.shift_segment(piece, shift) for piece in passage.undisguised.segments(passage.own)
            ]
            unflagged = find_trusted_ranges(placed_pieces, [self.is_flagged(score) for score in scores], pieces.offsets)
        # pieces that were not scored above are scored in the same step as the first draft
        spans = passage.find_spans(passage.own) if self.can_score and not scores else None
        proposer = DraftProposer(lookup, self._runner.choose_draft_length, trusted=unflagged)
        context = [*passage.fitted.ids, *tokenizer.continuation(prompts.undisguise_for_prompt(before))]
        room = min(passage.fitted.room, writing_room(len(lookup)), self._count_tokens_left(context))
        limits = DraftLimits(room, caution=self._request.caution)
        generated = yield from self._write(passage, context, proposer, limits, spans)
        self.evidence += generated.evidence
        text = restore_disguises(prompt.restore(tokenizer.decode(generated.ids)), passage.text[start:])
        return splice.clean_answer(text, passage.text[start:], finished=generated.finished), scores or generated.scores

    def rewrite_flagged(self) -> Generator[Ask, Step, Edited]:
        """Score the segments part by part and rewrite the flagged ones; return the new answer and the verdicts."""
        edited: list[tuple[str, str]] = []
        scores: list[Score] = []
        for part in self._division.parts:
            known_scores = self._take_known_scores(part)
            # nothing to rewrite here, so not even a prompt is needed
            if known_scores is not None and not any(map(self.is_flagged, known_scores)):
                scores += known_scores
                edited += [(piece.text, piece.gap) for piece in self._division.pieces[part.own : part.stop]]
                continue
            passage = self._prompt_passage(part)
            scores += known_scores or (yield from self._judge_part(passage, scores))
            # context pieces were edited in the part before, so they count as kept here
            flags = [False] * passage.context + [self.is_flagged(score) for score in scores[part.own :]]
            rewriting = splice.rewrite_flagged_runs(passage.pieces, flags, edited, passage.context)
            try:
                hole = next(rewriting)
                while True:
                    # the objective matters only at the end of the answer, whose score is the last one
                    text = yield from self._fill_hole(passage, self._trim_before(passage, hole), scores[-1][1])
                    hole = rewriting.send(text)
            except StopIteration:
                pass
        # without changes the answer itself: joined pieces may differ from it in white space
        changed = any(map(self.is_flagged, scores))
        return structure.join(edited) if changed else self._request.answer, self._verdicts(scores)

    def _trim_before(self, passage: AnswerPassage, hole: splice.Hole) -> splice.Hole:
        """The hole with its preceding text cut to the length that the prompt has of the original."""
        return replace(hole, before=passage.trim_edited(hole.before, hole.run.segments[0].start))

    def _prompt_passage(self, part: PartRange) -> PromptedPassage:
        """A part of the answer with its prompt; adds the prompt's tokens to `prompt_tokens`."""
        passage = self._division.passage(part)
        fitted = self._frame.fit_prompt(passage.undisguised)
        self.prompt_tokens += len(fitted.ids)
        return PromptedPassage(part, passage.pieces, passage.text, passage.undisguised, fitted)

    def _score_pieces(self) -> Generator[Ask, Step, list[Score]]:
        """Read all parts and return the scores of all pieces; empty without a head."""
        scores: list[Score] = []
        for part in self._division.parts:
            scores += self._take_known_scores(part) or (yield from self._judge_part(self._prompt_passage(part), scores))
        return scores

    def _judge_part(self, passage: PromptedPassage, before: Sequence[Score]) -> Generator[Ask, Step, list[Score]]:
        """Return the scores of a part's own pieces, doubtful ones judged again; `before` are those of earlier pieces.

        Empty without a head; the prompt is read all the same.
        """
        if not self.can_score:
            return (yield from self._prefill(passage))
        step = yield from self._read_pieces_with_words(passage.fitted, passage.text, passage.own)
        self.evidence += step.evidence
        scores = [*before, *step.scores]
        own = passage.part.own
        yield from self.judge_followers(
            passage.part, scores, own, is_behind=own > 0 and self.is_flagged(scores[own - 1])
        )
        return scores[own:]

    def _read_pieces_with_words(
        self, prompt: Fitted, text: str, pieces: Sequence[Segment]
    ) -> Generator[Ask, Step, Step]:
        """Read some pieces of the answer `text`; return the step with their scores, raised by their inner words."""
        step = yield from self._read(prompt, find_spans_with_words(prompt.prompt, pieces, prompt.offsets))
        yield from self.judge_words(prompt, text, pieces, step.scores)
        return step

    def judge_words(
        self, prompt: Fitted, text: str, pieces: Sequence[Segment], scores: list[Score]
    ) -> Generator[Ask, Step, None]:
        """Judge again the `pieces` that their inner words may flag, and update their `scores` in place.

        `text` is the answer in the prompt. A detector takes some harmless words in a table, element or comment for
        worse than they are, and others for better. Therefore inner words flag their piece only if they are also flagged
        when they follow the text before the piece as a plain sentence. The last piece comes first, so that little is
        read twice.
        """
        for number, (score, _) in reversed([*enumerate(scores)]):
            piece = pieces[number]
            if score > self._request.caution - _INNER_ALLOWANCE and judged_words(piece.text):
                own_score, word_scores = yield from self._judge_words_alone(prompt, text, piece)
                scores[number] = max([own_score, *(word_score for word_score in word_scores if word_score is not None)])

    def _judge_words_alone(
        self, prompt: Fitted, text: str, piece: Segment
    ) -> Generator[Ask, Step, tuple[Score, list[Score | None]]]:
        """Return the score of a piece, not raised by its inner words, and those of its inner words.

        An inner word's score is that of a plain sentence; None if it is not flagged as one.
        """
        piece_spans = find_spans_with_words(prompt.prompt, [piece], prompt.offsets)
        spans = replace(piece_spans, segments=(*piece_spans.inner[0], *piece_spans.segments), inner=())
        *scores_in_place, own_score = (yield from self._read(prompt, spans)).scores
        before = without_last_marks(text[: piece.start])
        threshold = self._request.caution + (0.0 if marked_words(piece.text) else _CLAUSE_MARGIN)
        flagged_scores: list[Score | None] = []
        for (start, end), (score, _) in zip(judged_words(piece.text), scores_in_place, strict=True):
            is_doubtful = score > self._request.caution - _INNER_ALLOWANCE
            sentence = sentence_of(piece.text[start:end])
            score_alone = (yield from self._judge_sentence(before, sentence)) if is_doubtful else None
            flagged_scores.append(score_alone if score_alone and score_alone[0] > threshold else None)
        return own_score, flagged_scores

    def _judge_sentence(self, before: str, sentence: str) -> Generator[Ask, Step, Score]:
        """Return the score of a sentence that follows the text `before` in the answer."""
        prompt = self._frame.fit_prompt(before + sentence)
        spans = find_spans(prompt.prompt, [Segment(len(before), sentence, "")], prompt.offsets)
        return (yield from self._read(prompt, spans)).scores[0]

    def judge_followers(
        self, part: PartRange, scores: list[Score], first: int, *, is_behind: bool
    ) -> Generator[Ask, Step, bool]:
        """Judge again the pieces from `first` on that are flagged and follow a flagged piece; update their `scores`.

        A detector takes a sentence after an insult for worse than it is. Therefore such a sentence is scored once more
        after the pieces that stay. A sentence in a turn that the model invented goes with the turn, however fine it is
        by itself. `is_behind`: whether the piece before `first` was flagged. Returns whether the last piece was, before
        it was judged again.
        """
        for number in range(first, len(scores)):
            is_flagged = self.is_flagged(scores[number])
            is_follower = is_flagged and is_behind and number > part.first and self._division.pieces[number].text
            if is_follower and not self._is_in_flagged_turn(part, scores, number):
                new_score = yield from self._judge_behind_kept(part, scores, number)
                scores[number] = scores[number] if self.is_flagged(new_score) else new_score
            is_behind = is_flagged
        return is_behind

    def _is_in_flagged_turn(self, part: PartRange, scores: Sequence[Score], number: int) -> bool:
        """Whether a flagged piece of this part up to piece `number` begins with a role, such as "Human:"."""
        pieces = self._division.pieces[part.first : number + 1]
        flagged = zip(pieces, scores[part.first : number + 1], strict=True)
        return any(self.is_flagged(score) and structure.begins_turn(piece.text) for piece, score in flagged)

    def _judge_behind_kept(self, part: PartRange, scores: Sequence[Score], number: int) -> Generator[Ask, Step, Score]:
        """Return the score of piece `number` when it follows only the unflagged pieces of its part."""
        *earlier, piece = self._division.pieces[part.first : number + 1]
        scored = zip(earlier, scores[part.first : number], strict=True)
        before = [("" if self.is_flagged(score) else other.text, other.gap) for other, score in scored]
        text = structure.join([*before, (piece.text, "")])
        prompt = self._frame.fit_prompt(text)
        placed = Segment(len(text) - len(piece.text), piece.text, "")
        return (yield from self._read_pieces_with_words(prompt, text, [placed])).scores[0]

    def _take_known_scores(self, part: PartRange) -> list[Score] | None:
        """Return the scores of a part that was already read, and add its evidence to that of this correction.

        None for other parts; the last part is always read again, as it may grow.
        """
        # `part.stop` below the number of pieces: this is not the last part
        if len(self._known_pieces.scores) >= part.stop < len(self._division.pieces):
            self.evidence += self._known_pieces.evidence[part.own : part.stop]
            return self._known_pieces.scores[part.own : part.stop]
        return None

    def _prefill(self, passage: PromptedPassage) -> Generator[Ask, Step, list[Score]]:
        """Read a part up to the end of its last piece; return the scores of its own pieces, empty without a head."""
        spans = passage.find_spans(passage.own) if self.can_score else None
        step = yield from self._read(passage.fitted, spans)
        self.evidence += step.evidence
        return step.scores

    def _read(
        self,
        prompt: Fitted,
        spans: Spans | None,
        *,
        rows: bool = False,
        taught_heads: TaughtColumns | None = None,
    ) -> Generator[Ask, Step, Step]:
        """Read a prompt and return the step with the scores of its `spans`; tokens that are already held are not fed.

        `taught_heads` are those of the objectives in the prompt, if not the request's.
        """
        ids = prompt.ids[: spans.segments[-1].stop] if spans and spans.segments else prompt.ids
        # What has been read while the answer was still being written is not read again.
        start = min(count_matching(self._sequence.ids, ids), len(ids) - 1)
        self._sequence.crop(start)
        taught_heads = taught_heads or self._frame.taught_heads
        step = yield Ask(
            ids[start:], spans=spans, prompt=True, shared=prompt.shared, taught_heads=taught_heads, rows=rows
        )
        self.tally.forwards += step.forwards
        return step

    def _count_tokens_left(self, context: list[int]) -> int:
        """Tokens that the window has left after `context`, at least 1."""
        return max(1, self._frame.window - len(context))

    def is_flagged(self, score: Score) -> bool:
        """Whether a score is above the threshold."""
        return score[0] > self._request.caution

    def _verdicts(self, scores: Sequence[Score]) -> tuple[SegmentScore, ...]:
        return verdicts(self._division, ScoredPieces(list(scores), self.evidence), self._request.caution)

    def _fill_hole(
        self, passage: PromptedPassage, hole: splice.Hole, missing_objective: int | None
    ) -> Generator[Ask, Step, str]:
        """Return the text that replaces a flagged run; "" removes the run.

        What is left without flagged cells, elements or comments is kept, and so are code without its comments, the
        title of an item and the cells of a row, if the detector does not flag them on their own. At the end of the
        answer, text is copied that the objective `missing_objective` dictates word for word.
        """
        pruned = (yield from self._prune(hole)) if self.can_score else ""
        if pruned:
            return pruned
        keepable = hole.keepable
        # kept only as a whole, if none of its sentences is flagged
        if keepable and self.can_score and (yield from self._drop_flagged_sentences(hole, keepable)) == keepable:
            return keepable
        dictated = None
        objectives = self._request.objectives
        if not hole.run.segments[-1].text and missing_objective is not None and missing_objective < len(objectives):
            dictated = dictated_text(objectives[missing_objective])
        if not dictated:
            return (yield from self._write_text(passage, hole))
        text = (yield from self._write_text(passage, hole)) if hole.run.text else ""
        # the model may have written the dictated words itself
        return text if dictated in text else hole.append_text(text, dictated)

    def _prune(self, hole: splice.Hole) -> Generator[Ask, Step, str]:
        """The flagged run without its flagged cells, elements, comments and clauses; "" if the rest is flagged, too."""
        segments = hole.run.segments
        if not any(judged_words(segment.text) for segment in segments):
            return ""
        answer = hole.fill_in(hole.run.text)
        prompt = self._frame.fit_prompt(answer)
        if len(prompt.ids) > self._frame.window:
            return ""
        shift = len(answer) - len(hole.run.text) - segments[0].start
        pieces = []
        for segment in segments:
            flagged = yield from self._find_flagged_words(prompt, answer, structure.shift_segment(segment, shift))
            pieces.append((without_words(segment.text, flagged) if flagged else "", segment.gap))
        pruned = structure.join(pieces)
        is_clear = bool(pruned) and (yield from self._drop_flagged_sentences(hole, pruned)) == pruned
        return pruned if is_clear else ""

    def _find_flagged_words(self, prompt: Fitted, answer: str, segment: Segment) -> Generator[Ask, Step, list[Place]]:
        """Return the places in `segment` of its flagged inner words; `prompt` shows the `answer` that holds it."""
        places = judged_words(segment.text)
        if not places:
            return []
        _, scores = yield from self._judge_words_alone(prompt, answer, segment)
        return [place for place, score in zip(places, scores, strict=True) if score is not None]

    def _write_text(self, passage: PromptedPassage, hole: splice.Hole) -> Generator[Ask, Step, str]:
        """Write a replacement for one flagged run, until it reaches a kept segment, ends, or grows too long.

        Returns it without the sentences that are flagged again; "" if the request forbids writing.
        """
        if self._request.write is Write.NEVER or (self._request.write is Write.VERIFIED and not self.can_score):
            return ""
        tokenizer = self._runner.tokenizer
        restore = passage.fitted.prompt.restore

        def reaches_resumption(ids: list[int]) -> bool:
            return splice.cut_before_resumption(restore(tokenizer.decode(ids)), hole.keys) is not None

        proposer, room = self._make_hole_proposer(hole)
        context = [*passage.fitted.ids, *tokenizer.continuation(prompts.undisguise_for_prompt(hole.before))]
        limits = DraftLimits(min(room, self._count_tokens_left(context)), is_done=reaches_resumption)
        generated = yield from self._write(passage, context, proposer, limits)
        text = hole.cut_replacement(restore(tokenizer.decode(generated.ids)), finished=generated.finished)
        if text and self.can_score:
            text = yield from self._drop_flagged_sentences(hole, text, splice.CLEAR_MARGIN)
        proof_request = make_proof_request(self._request)
        if text and proof_request is not self._request:
            proof_frame = build_frame(self._aligner, proof_request)
            text = yield from self._drop_flagged_sentences(hole, text, frame=proof_frame)
        return text

    def _drop_flagged_sentences(
        self, hole: splice.Hole, text: str, margin: float = 0.0, frame: PromptFrame | None = None
    ) -> Generator[Ask, Step, str]:
        """Score `text` in the hole; return its sentences that score at least `margin` nats below the threshold.

        "" if there are none, or if the prompt would exceed the window. `frame`: the frame with the objectives to judge
        by, if not the request's own.
        """
        frame = frame or self._frame
        answer = hole.fill_in(text)
        prompt = frame.fit_prompt(answer)
        if len(prompt.ids) > frame.window:
            return ""  # the prompt has outgrown the window, so the text cannot be judged
        body = text.lstrip()
        pieces = structure.split(body)
        placed_pieces = [structure.shift_segment(piece, len(answer) - len(body)) for piece in pieces]
        spans = find_spans_with_words(prompt.prompt, placed_pieces, prompt.offsets)
        scores = (yield from self._read(prompt, spans, taught_heads=frame.taught_heads)).scores
        # Inner words are judged again, and perhaps cleared, only in text kept from the answer. Written text gets no
        # second chance.
        if frame is self._frame and not margin:
            yield from self.judge_words(prompt, answer, placed_pieces, scores)
        kept_text = splice.join_unflagged(self._request.caution - margin, pieces, [score for score, _ in scores])
        # `removesuffix` leaves the leading white space, which is no part of the scored pieces
        return text.removesuffix(body) + kept_text if kept_text else ""

    def _make_hole_proposer(self, hole: splice.Hole) -> tuple[DraftProposer, int]:
        """The proposer of drafts for a hole, and the most tokens that may be written.

        The first draft is the text after the flagged run, because most runs are removed; the next is the run itself. At
        the end of the answer the objectives are drafted from, too: they often contain the missing text.
        """
        tokenizer = self._runner.tokenizer
        lead = hole.lead
        is_end = not hole.run.segments[-1].text
        run_ids = tokenizer.continuation(prompts.undisguise_for_prompt(lead + hole.run.text.lstrip()))
        next_ids = (
            tokenizer.continuation(prompts.neutralise_marks(lead + hole.keys[0])) if hole.keys else [tokenizer.eos]
        )
        # 1.5 times the flagged run and a reserve, see `_SPAN_ROOM`
        room = len(run_ids) + len(run_ids) // 2 + (_END_ROOM if is_end else _SPAN_ROOM)
        objective_ids = (
            tokenizer.continuation(" " + prompts.join_objectives(self._request.objectives)) if is_end else []
        )
        lookup = [*objective_ids, *run_ids, *next_ids]
        # drafting starts after the span, as if it were removed
        start = len(objective_ids) + len(run_ids)
        return DraftProposer(lookup, self._runner.choose_draft_length, anchors=(start,)), room

    def _write(
        self,
        passage: PromptedPassage,
        context: list[int],
        proposer: DraftProposer,
        limits: DraftLimits,
        spans: Spans | None = None,
    ) -> Generator[Ask, Step, Generated]:
        """Return a generator of the text after `context`, which feeds only tokens that the sequence does not hold yet.

        The first step also scores the `spans`, if there are any.
        """
        # The last token is always fed again, because its hidden state determines the next token.
        start = min(count_matching(self._sequence.ids, context), len(context) - 1)
        self._sequence.crop(start)
        eos = self._runner.tokenizer.eos_ids
        # For a prompt that is read again, the detector's states are stored as on the first reading.
        is_prompt = spans is not None or start < passage.fitted.answer_end
        shared = passage.fitted.shared
        first = Ask(
            context[start:], spans=spans, prompt=is_prompt, shared=shared, taught_heads=self._frame.taught_heads
        )
        return generate(self._sequence, first, proposer, limits, self.tally, eos)


def verdicts(
    division: Division, scored_pieces: ScoredPieces, caution: float, first: int = 0
) -> tuple[SegmentScore, ...]:
    """The verdicts on segments from `first` on, up to the first segment with an unscored piece.

    A segment of several pieces gets the verdict of its worst one, and the mean of their evidence. If there are no
    scores, the verdicts have none either.
    """
    scores = scored_pieces.scores
    scored: list[SegmentScore] = []
    for number in range(first, len(division)):
        text, pieces = division.segment(number)
        if not scores:
            scored.append(SegmentScore(text, None, flagged=False))
        elif pieces.stop <= len(scores):
            score, by = max(scores[pieces.start : pieces.stop], key=lambda score: score[0])
            evidence = _find_mean(scored_pieces.evidence[pieces.start : pieces.stop], len(pieces))
            scored.append(SegmentScore(text, score, score > caution, by, evidence))
        else:
            break
    return tuple(scored)


def _find_mean(evidence: Sequence[Score], count: int) -> Score | None:
    """The mean of the evidence of `count` pieces; None if one has none."""
    return (fmean(nats for nats, _ in evidence), evidence[0][1]) if len(evidence) == count else None
