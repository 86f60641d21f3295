"""One correction, from the request to the edited answer: prompt, prefill and scores, edits in place, assembly.

With a detector head, only flagged segments are rewritten; all other text is copied and cannot change. New text is
scored like the text it replaces, and sentences that are flagged again, or nearly so, are dropped. Without a head, or on
request, the whole answer is verified as a draft. An answer that does not fit the window is processed part by part
(parts.py). This module knows nothing of batching and queues.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignerInfo, AlignRequest, Span, make_proof_request
from aligner_proxy.engine.decoding import splice
from aligner_proxy.engine.decoding.parts import AnswerPassage, Division, PartRange
from aligner_proxy.engine.decoding.prompt_fit import Fitted, PromptFrame, frame, writing_room
from aligner_proxy.engine.decoding.proposer import EditProposer, count_matching, trusted_ranges
from aligner_proxy.engine.decoding.speculative import DraftLimits, Generated, Tally, generate
from aligner_proxy.engine.model.detector import find_spans, find_spans_with_words
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.model.taught import TaughtColumns
from aligner_proxy.engine.scheduling import sequence as sequences
from aligner_proxy.engine.scheduling.sequence import Ask, SegmentRow, Spans, Step, Work
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import EngineFault, HeadRefused
from aligner_proxy.text import structure
from aligner_proxy.text.folding import unfold
from aligner_proxy.text.judged_words import (
    Place,
    judged_words,
    marked_words,
    sentence_of,
    without_last_marks,
    without_words,
)
from aligner_proxy.text.structure import Segment, dictated_text
from aligner_proxy.types import Correction, SegmentScore, Verify, Write

_SPAN_ROOM = 16
_END_ROOM = 96
"""Tokens allowed for a replacement beyond 1.5 times the flagged run. At the end of the answer (`_END_ROOM`) more are
allowed, because whole sentences may be missing there."""
_INNER_ALLOWANCE = 0.5
"""Nats below the threshold from which words within marks are judged again, as a plain sentence."""
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
        own = served_aligners.get(head.aligner)
        if own is None:
            names = ", ".join(name[:12] for name in served_aligners)
            raise HeadRefused(
                f"the taught head is for aligner {head.aligner[:12] or 'unnamed'}, but this engine serves {names}; "
                "teach the objective again"
            )
        width = self.runner.row_width(own.adapter)
        if head.width != width:
            raise HeadRefused(
                f"the taught head has {head.width} numbers, but rows of aligner {head.aligner[:12]} have {width}; "
                "teach the objective again"
            )
        return self.runner.shelf.put(head)


Score = tuple[float, int]
"""Log-odds that a piece must change, and the index of the objective that it violates most."""


def correct(
    aligner: Aligner, request: AlignRequest, sequence: sequences.Sequence, known_scores: Sequence[Score] = ()
) -> Work:
    """Correct one answer as a generator of asks. Raises `AnswerTooLong`.

    `known_scores` are the scores of the first pieces, if these were read while the answer was being written.
    """
    if not request.answer.strip():
        return Correction(request.answer, aligner=aligner.info.content_hash)
    framed = build_frame(aligner, request)
    division = divide_answer(aligner, framed, request)
    work = AnswerEditor(aligner, framed, division, request, sequence, known_scores)
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
    """Build the frame of a request's prompts (everything but the answer), with the taught heads of its objectives.

    Raises `AnswerTooLong`, `UnknownHead` and `HeadRefused`.
    """
    taught_heads = aligner.find_taught_heads(request)
    framed = frame(request, prompts.find_template(aligner.info.template), aligner.runner.tokenizer, aligner.info.window)
    return replace(framed, taught_heads=taught_heads) if taught_heads else framed


def scores_segments(aligner: Aligner, framed: PromptFrame) -> bool:
    """Whether segments can be scored: this needs a detector head and objectives that the prompt names."""
    return aligner.info.has_head and framed.family.names_objectives and bool(framed.objectives)


def judges_end(aligner: Aligner, framed: PromptFrame, request: AlignRequest) -> bool:
    """Whether the end of the answer is judged, too, for missing text."""
    return aligner.info.ends and request.open_ended and scores_segments(aligner, framed)


def divide_answer(aligner: Aligner, framed: PromptFrame, request: AlignRequest) -> Division:
    """Divide a complete answer into parts, with its end as a last segment if that is judged."""
    division = framed.division(structure.split(request.answer))
    if judges_end(aligner, framed, request):
        division.add_end()
    return division


Edited = tuple[str, tuple[SegmentScore, ...]]


@dataclass(frozen=True, slots=True)
class PromptedPassage(AnswerPassage):
    """A part of an answer with its prompt."""

    fitted: Fitted

    def spans(self, pieces: Sequence[Segment]) -> Spans:
        """The prompt's tokens that belong to the given pieces and to the objectives."""
        return find_spans(self.fitted.prompt, pieces, self.fitted.offsets)


class AnswerEditor:
    """State of one correction: its token sequence (a prompt and the text written after it) and its counts."""

    def __init__(
        self,
        aligner: Aligner,
        framed: PromptFrame,
        division: Division,
        request: AlignRequest,
        sequence: sequences.Sequence,
        known_scores: Sequence[Score] = (),
    ) -> None:
        self._aligner = aligner
        self._runner = aligner.runner
        self._request = request
        self._frame = framed
        self._division = division
        self._sequence = sequence
        self._known_scores = list(known_scores)
        self.scores = scores_segments(aligner, framed)
        self.tally = Tally()
        self.prompt_tokens = 0
        """Tokens of all prompts that were read."""

    def edit_answer(self) -> Generator[Ask, Step, Edited]:
        """Correct the answer as the request asks, and return it with the verdicts on its segments."""
        if self._request.score_only:
            # Without a head there are no scores. The prompt is read all the same, because a probe must use the model.
            return self._request.answer, self._verdicts((yield from self._score_pieces()))
        # a draft of the whole answer would be written freely
        if self.scores and (self._request.verify is Verify.FLAGGED or self._request.write is not Write.FREE):
            return (yield from self.rewrite_flagged())
        if self._request.write is not Write.FREE:
            return self._request.answer, self._verdicts((yield from self._score_pieces()))
        return (yield from self.whole())

    def judge_pieces(self) -> Generator[Ask, Step, list[Score]]:
        """Score all pieces and write nothing; an empty list if they cannot be scored."""
        return (yield from self._score_pieces()) if self.scores else []

    def rows(self) -> Generator[Ask, Step, list[SegmentRow]]:
        """The rows and scores of all pieces by the general head."""
        rows: list[SegmentRow] = []
        for part in self._division.parts:
            passage = self._passage(part)
            rows += (yield from self._read(passage.fitted, passage.spans(passage.own), rows=True)).rows
        return rows

    def span(self, span: Span) -> Generator[Ask, Step, str]:
        """Write a replacement for one flagged run; `span.before` is the edited text before it.

        For the end of the answer, the replacement is the missing text, including the white space before it.
        """
        members = self._division.range_of(span.first, span.stop)
        if not members:
            raise EngineFault("there are no such segments in the answer")
        # the prompt also shows the segment after the run, at which writing is to stop
        behind = self._division.range_of(span.stop, span.stop + 1).stop
        gap = self._division.pieces[members.start - 1].gap if span.before else ""
        edited = [(span.before, gap)] if span.before else []
        for part in self._division.parts:
            # the pieces of the span in this part; context pieces belong to the part before
            run = range(max(part.own, members.start), min(part.stop, members.stop))
            if run:
                yield from self._replace_run(part, run, behind, edited, span.objective)
        # without `span.before`, which the caller has
        return structure.join(edited[bool(span.before) :])

    def _replace_run(
        self, part: PartRange, run: range, behind: int, edited: list[tuple[str, str]], misses: int | None
    ) -> Generator[Ask, Step, None]:
        """Write a replacement for the pieces in `run`, all in one part, and append it to `edited`.

        The prompt ends before piece `behind`.
        """
        passage = self._passage(PartRange(part.first, part.own, max(run.stop, min(part.stop, behind))))
        flags = [at in run for at in range(part.first, passage.part.stop)]
        first = run.start - part.first
        members = splice.Run(True, first, passage.pieces[first : run.stop - part.first])
        before = structure.join(edited)
        hole = splice.hole(passage.pieces, flags, members, before, edited[-1][1] if before else "")
        text = yield from self._fill_hole(passage, self._trim_before(passage, hole), misses)
        edited.append((text, members.segments[-1].gap))

    def whole(self) -> Generator[Ask, Step, Edited]:
        """Verify the whole answer as a draft, part by part."""
        edited: list[tuple[str, str]] = []
        scores: list[Score] = []
        for part in self._division.parts:
            passage = self._passage(part)
            before = passage.trim_edited(structure.join(edited), passage.start) if passage.context else ""
            text, read = yield from self._verify_part(passage, before)
            scores += read
            edited.append((text.rstrip(), self._division.pieces[part.stop - 1].gap))
        text = splice.whole(structure.join(edited), self._request.answer, finished=True)
        return text, self._verdicts(scores)

    def _verify_part(self, passage: PromptedPassage, before: str) -> Generator[Ask, Step, tuple[str, list[Score]]]:
        """Verify one part as a draft after the text `before`; return its new text and the scores of its pieces.

        The draft is fed together with the prompt if both fit one step and that is cheap. Otherwise the detector, if the
        aligner has one, first scores the pieces, so that long drafts are used only for unflagged ones.
        """
        tokenizer = self._runner.tokenizer
        start = passage.start
        prompt = passage.fitted.prompt
        own = prompt.text[prompt.place(start) : prompt.end]
        lead = self._division.pieces[passage.part.own - 1].gap if before else ""
        pieces = tokenizer.pieces(lead + own)
        lookup = [*pieces.ids, tokenizer.eos]
        scores: list[Score] = []
        clean = tuple[range, ...]()
        # a long draft is worth it only where the detector flags nothing, so it is asked first
        if self.scores and self._runner.needs_probe(len(passage.fitted.ids), len(lookup)):
            scores = yield from self._prefill(passage)
            moved = len(lead) - passage.folded.place_in_folded(start)
            placed = [structure.shift_segment(piece, moved) for piece in passage.folded.segments(passage.own)]
            clean = trusted_ranges(placed, [self.is_flagged(score) for score in scores], pieces.offsets)
        # pieces that were not scored above are scored in the same step as the first draft
        where = passage.spans(passage.own) if self.scores and not scores else None
        proposer = EditProposer(lookup, self._runner.choose_draft_length, trusted=clean)
        context = [*passage.fitted.ids, *tokenizer.continuation(prompts.fold_for_prompt(before))]
        room = min(passage.fitted.room, writing_room(len(lookup)), self._count_tokens_left(context))
        limits = DraftLimits(room, caution=self._request.caution)
        generated = yield from self._write(passage, context, proposer, limits, where)
        text = unfold(prompt.restore(tokenizer.decode(generated.ids)), passage.text[start:])
        return splice.whole(text, passage.text[start:], finished=generated.finished), scores or generated.scores

    def rewrite_flagged(self) -> Generator[Ask, Step, Edited]:
        """Score the segments part by part, and rewrite only the flagged ones."""
        edited: list[tuple[str, str]] = []
        scores: list[Score] = []
        for part in self._division.parts:
            known_scores = self._find_known_scores(part)
            # nothing to rewrite here, so not even a prompt is needed
            if known_scores is not None and not any(map(self.is_flagged, known_scores)):
                scores += known_scores
                edited += [(piece.text, piece.gap) for piece in self._division.pieces[part.own : part.stop]]
                continue
            passage = self._passage(part)
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

    def _trim_before(self, passage: AnswerPassage, hole: splice.EditSpan) -> splice.EditSpan:
        """The hole with its preceding text cut to the length that the prompt has of the original."""
        return replace(hole, before=passage.trim_edited(hole.before, hole.run.segments[0].start))

    def _passage(self, part: PartRange) -> PromptedPassage:
        passage = self._division.passage(part)
        fitted = self._frame.fit_prompt(passage.folded)
        self.prompt_tokens += len(fitted.ids)
        return PromptedPassage(part, passage.pieces, passage.text, passage.folded, fitted)

    def _score_pieces(self) -> Generator[Ask, Step, list[Score]]:
        """Read all parts and return the scores of all pieces; empty without a head."""
        scores: list[Score] = []
        for part in self._division.parts:
            scores += self._find_known_scores(part) or (yield from self._judge_part(self._passage(part), scores))
        return scores

    def _judge_part(self, passage: PromptedPassage, before: Sequence[Score]) -> Generator[Ask, Step, list[Score]]:
        """Score a part's own pieces; `before` are the scores of all pieces before them."""
        if not self.scores:
            return (yield from self._prefill(passage))
        own_scores = yield from self._score_with_words(passage.fitted, passage.text, passage.own)
        scores = [*before, *own_scores]
        own = passage.part.own
        yield from self.judge_followers(
            passage.part, scores, own, is_behind=own > 0 and self.is_flagged(scores[own - 1])
        )
        return scores[own:]

    def _score_with_words(
        self, prompt: Fitted, text: str, pieces: Sequence[Segment]
    ) -> Generator[Ask, Step, list[Score]]:
        """The scores of pieces of a prompt with the answer `text`, by their inner words, too."""
        scores = (yield from self._read(prompt, find_spans_with_words(prompt.prompt, pieces, prompt.offsets))).scores
        yield from self.judge_words(prompt, text, pieces, scores)
        return scores

    def judge_words(
        self, prompt: Fitted, text: str, pieces: Sequence[Segment], scores: list[Score]
    ) -> Generator[Ask, Step, None]:
        """Judge again, in `scores`, the `pieces` of a prompt with the answer `text` that their inner words may flag.

        A detector takes some harmless words in a table, element or comment for worse than they are, and others for
        better. So they flag their piece if they are flagged as a plain sentence behind the text before it. The last
        piece comes first, so that little is read twice.
        """
        for at in reversed(range(len(scores))):
            if scores[at][0] > self._request.caution - _INNER_ALLOWANCE and judged_words(pieces[at].text):
                own, words = yield from self._judge_words_alone(prompt, text, pieces[at])
                scores[at] = max([own, *(score for score in words if score is not None)])

    def _judge_words_alone(
        self, prompt: Fitted, text: str, piece: Segment
    ) -> Generator[Ask, Step, tuple[Score, list[Score | None]]]:
        """The score of a piece apart from its inner words, and of each of its `judged_words` that is flagged."""
        marked = find_spans_with_words(prompt.prompt, [piece], prompt.offsets)
        where = replace(marked, segments=(*marked.inner[0], *marked.segments), inner=())
        *in_place, own = (yield from self._read(prompt, where)).scores
        before = without_last_marks(text[: piece.start])
        least = self._request.caution + (0.0 if marked_words(piece.text) else _CLAUSE_MARGIN)
        flagged: list[Score | None] = []
        for (start, end), (score, _) in zip(judged_words(piece.text), in_place, strict=True):
            is_doubtful = score > self._request.caution - _INNER_ALLOWANCE
            sentence = sentence_of(piece.text[start:end])
            alone = (yield from self._judge_sentence(before, sentence)) if is_doubtful else None
            flagged.append(alone if alone and alone[0] > least else None)
        return own, flagged

    def _judge_sentence(self, before: str, sentence: str) -> Generator[Ask, Step, Score]:
        """The score of a sentence behind the answer `before`."""
        prompt = self._frame.fit_prompt(before + sentence)
        where = find_spans(prompt.prompt, [Segment(len(before), sentence, "")], prompt.offsets)
        return (yield from self._read(prompt, where)).scores[0]

    def judge_followers(
        self, part: PartRange, scores: list[Score], first: int, *, is_behind: bool
    ) -> Generator[Ask, Step, bool]:
        """Judge again, in `scores` from piece `first` on, what is flagged directly behind a flagged piece.

        A detector takes a sentence behind an insult for worse than it is. So it is read once more behind what stays.
        `is_behind` says whether the piece before `first` was flagged; returns the same of the last one.
        """
        for at in range(first, len(scores)):
            is_flagged = self.is_flagged(scores[at])
            if is_flagged and is_behind and at > part.first and self._division.pieces[at].text:
                again = yield from self._judge_behind_kept(part, scores, at)
                scores[at] = scores[at] if self.is_flagged(again) else again
            is_behind = is_flagged
        return is_behind

    def _judge_behind_kept(self, part: PartRange, scores: Sequence[Score], at: int) -> Generator[Ask, Step, Score]:
        """The score of piece `at` behind the pieces of its part that are not flagged."""
        piece = self._division.pieces[at]
        before = [
            (
                "" if self.is_flagged(scores[number]) else self._division.pieces[number].text,
                self._division.pieces[number].gap,
            )
            for number in range(part.first, at)
        ]
        text = structure.join([*before, (piece.text, "")])
        prompt = self._frame.fit_prompt(text)
        placed = Segment(len(text) - len(piece.text), piece.text, "")
        return (yield from self._score_with_words(prompt, text, [placed]))[0]

    def _find_known_scores(self, part: PartRange) -> list[Score] | None:
        """The scores of a part that was already read, else None; the last part is always read again, as it may grow."""
        # `part.stop` below the number of pieces: this is not the last part
        if len(self._known_scores) >= part.stop < len(self._division.pieces):
            return self._known_scores[part.own : part.stop]
        return None

    def _prefill(self, passage: PromptedPassage) -> Generator[Ask, Step, list[Score]]:
        """Read a part up to the end of its last piece, and return the scores of its own pieces."""
        return (yield from self._read(passage.fitted, passage.spans(passage.own) if self.scores else None)).scores

    def _read(
        self,
        prompt: Fitted,
        where: Spans | None,
        *,
        rows: bool = False,
        taught_heads: TaughtColumns | None = None,
    ) -> Generator[Ask, Step, Step]:
        """Read a prompt and score the pieces in `where`; tokens that the sequence already holds are not fed again.

        `taught_heads` are those of the objectives in the prompt; None: those of the request.
        """
        ids = prompt.ids[: where.segments[-1].stop] if where and where.segments else prompt.ids
        # What has been read while the answer was still being written is not read again.
        start = min(count_matching(self._sequence.ids, ids), len(ids) - 1)
        self._sequence.crop(start)
        taught_heads = taught_heads or self._frame.taught_heads
        step = yield Ask(
            ids[start:], spans=where, prompt=True, shared=prompt.shared, taught_heads=taught_heads, rows=rows
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
        """The verdicts on all segments, from the scores of their pieces."""
        return verdicts(self._division, scores, self._request.caution)

    def _fill_hole(
        self, passage: PromptedPassage, hole: splice.EditSpan, misses: int | None
    ) -> Generator[Ask, Step, str]:
        """Produce the text that replaces a flagged run.

        What is left without flagged cells, elements or comments is kept, and so are code without its comments, the
        title of an item and the cells of a row, if the detector does not flag them on their own. At the end of the
        answer, text that the objective dictates word for word is copied.
        """
        pruned = (yield from self._prune(hole)) if self.scores else ""
        if pruned:
            return pruned
        bare = hole.bare
        # kept only as a whole, if none of its sentences is flagged
        if bare and self.scores and (yield from self._drop_flagged_sentences(hole, bare)) == bare:
            return bare
        dictated = None
        if not hole.run.segments[-1].text and misses is not None and misses < len(self._request.objectives):
            dictated = dictated_text(self._request.objectives[misses])
        if not dictated:
            return (yield from self._write_text(passage, hole))
        text = (yield from self._write_text(passage, hole)) if hole.run.text else ""
        # the model may have written the dictated words itself
        return text if dictated in text else hole.append_text(text, dictated)

    def _prune(self, hole: splice.EditSpan) -> Generator[Ask, Step, str]:
        """A flagged run without its flagged cells, elements, comments and clauses; empty if nothing clear stays."""
        members = hole.run.segments
        if not any(judged_words(segment.text) for segment in members):
            return ""
        answer = hole.with_text(hole.run.text)
        prompt = self._frame.fit_prompt(answer)
        if len(prompt.ids) > self._frame.window:
            return ""
        moved = len(answer) - len(hole.run.text) - members[0].start
        pieces = []
        for segment in members:
            flagged = yield from self._find_flagged_words(prompt, answer, structure.shift_segment(segment, moved))
            pieces.append((without_words(segment.text, flagged) if flagged else "", segment.gap))
        pruned = structure.join(pieces)
        is_clear = bool(pruned) and (yield from self._drop_flagged_sentences(hole, pruned)) == pruned
        return pruned if is_clear else ""

    def _find_flagged_words(self, prompt: Fitted, answer: str, segment: Segment) -> Generator[Ask, Step, list[Place]]:
        """The flagged `judged_words` of a segment of the answer in a prompt."""
        places = judged_words(segment.text)
        if not places:
            return []
        _, scores = yield from self._judge_words_alone(prompt, answer, segment)
        return [place for place, score in zip(places, scores, strict=True) if score is not None]

    def _write_text(self, passage: PromptedPassage, hole: splice.EditSpan) -> Generator[Ask, Step, str]:
        """Write a replacement for one flagged run until it reaches a kept segment, ends, or grows too long.

        Sentences of it that are flagged again are dropped. Empty if the request forbids to write.
        """
        if self._request.write is Write.NEVER or (self._request.write is Write.VERIFIED and not self.scores):
            return ""
        tokenizer = self._runner.tokenizer
        restore = passage.fitted.prompt.restore

        def reaches_resumption(ids: list[int]) -> bool:
            return splice.before_resumption(restore(tokenizer.decode(ids)), hole.keys) is not None

        proposer, room = self._hole_proposer(hole)
        context = [*passage.fitted.ids, *tokenizer.continuation(prompts.fold_for_prompt(hole.before))]
        limits = DraftLimits(min(room, self._count_tokens_left(context)), done=reaches_resumption)
        generated = yield from self._write(passage, context, proposer, limits)
        text = hole.cut_replacement(restore(tokenizer.decode(generated.ids)), finished=generated.finished)
        if text and self.scores:
            text = yield from self._drop_flagged_sentences(hole, text, splice.CLEAR)
        proof_request = make_proof_request(self._request)
        if text and proof_request is not self._request:
            proof_frame = build_frame(self._aligner, proof_request)
            text = yield from self._drop_flagged_sentences(hole, text, framed=proof_frame)
        return text

    def _drop_flagged_sentences(
        self, hole: splice.EditSpan, text: str, clear: float = 0.0, framed: PromptFrame | None = None
    ) -> Generator[Ask, Step, str]:
        """Score `text` in the hole and return it without the sentences less than `clear` nats below the threshold.

        `framed` replaces the frame of the request's own objectives.
        """
        framed = framed or self._frame
        answer = hole.with_text(text)
        prompt = framed.fit_prompt(answer)
        if len(prompt.ids) > framed.window:
            return ""  # the prompt has outgrown the window, so the text cannot be judged
        body = text.lstrip()
        pieces = structure.split(body)
        placed = [structure.shift_segment(piece, len(answer) - len(body)) for piece in pieces]
        where = find_spans_with_words(prompt.prompt, placed, prompt.offsets)
        scores = (yield from self._read(prompt, where, taught_heads=framed.taught_heads)).scores
        # what the model wrote must be clear even by its inner words
        if framed is self._frame and not clear:
            yield from self.judge_words(prompt, answer, placed, scores)
        clear_text = splice.at_most(self._request.caution - clear, pieces, [score for score, _ in scores])
        # `removesuffix` leaves the leading white space, which is no part of the scored pieces
        return text.removesuffix(body) + clear_text if clear_text else ""

    def _hole_proposer(self, hole: splice.EditSpan) -> tuple[EditProposer, int]:
        """The proposer of drafts for a hole, and the most tokens that may be written.

        The first draft is the text after the span, because most flagged segments are removed; the second is the span
        itself. At the end of the answer the objectives are drafted from, too: they often contain the missing text.
        """
        tokenizer = self._runner.tokenizer
        lead = hole.lead
        ends = not hole.run.segments[-1].text
        span = tokenizer.continuation(prompts.fold_for_prompt(lead + hole.run.text.lstrip()))
        then = tokenizer.continuation(prompts.neutralise_marks(lead + hole.keys[0])) if hole.keys else [tokenizer.eos]
        # 1.5 times the flagged run and a reserve, see `_SPAN_ROOM`
        room = len(span) + len(span) // 2 + (_END_ROOM if ends else _SPAN_ROOM)
        aspects = tokenizer.continuation(" " + prompts.join_objectives(self._request.objectives)) if ends else []
        lookup = [*aspects, *span, *then]
        # drafting starts after the span, as if it were removed
        first = len(aspects) + len(span)
        return EditProposer(lookup, self._runner.choose_draft_length, anchors=(first,)), room

    def _write(
        self,
        passage: PromptedPassage,
        context: list[int],
        proposer: EditProposer,
        limits: DraftLimits,
        where: Spans | None = None,
    ) -> Generator[Ask, Step, Generated]:
        """Write after `context`, feeding only tokens that the sequence does not hold yet; with `where`, score, too."""
        # The last token is always fed again, because its hidden state determines the next token.
        start = min(count_matching(self._sequence.ids, context), len(context) - 1)
        self._sequence.crop(start)
        eos = self._runner.tokenizer.eos_ids
        # For a prompt that is read again, the detector's states are stored as on the first reading.
        prompt = where is not None or start < passage.fitted.read
        shared = passage.fitted.shared
        first = Ask(context[start:], spans=where, prompt=prompt, shared=shared, taught_heads=self._frame.taught_heads)
        return generate(self._sequence, first, proposer, limits, self.tally, eos)


def verdicts(division: Division, scores: Sequence[Score], caution: float, first: int = 0) -> tuple[SegmentScore, ...]:
    """The verdicts on segments from `first` on, up to the first segment with an unscored piece.

    A segment of several pieces gets the verdict of its worst one. If `scores` is empty, every verdict is empty.
    """
    scored: list[SegmentScore] = []
    for number in range(first, len(division)):
        text, pieces = division.segment(number)
        if not scores:
            scored.append(SegmentScore(text, None, flagged=False))
        elif pieces.stop <= len(scores):
            score, by = max(scores[pieces.start : pieces.stop], key=lambda score: score[0])
            scored.append(SegmentScore(text, score, score > caution, by))
        else:
            break
    return tuple(scored)
