"""One correction, from the request to the edited answer: prompt, prefill and scores, edits in place, assembly.

With a detector head, only flagged segments are rewritten; all other text is copied and cannot change. New text is
scored like the text it replaces, and sentences that are flagged again, or nearly so, are dropped. Without a head, or on
request, the whole answer is verified as a draft. An answer that does not fit the window is processed part by part
(parts.py). This module knows nothing of batching and queues.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignRequest, Span, make_proof_request
from aligner_proxy.engine.decoding import splice
from aligner_proxy.engine.decoding.aligner import Aligner, build_frame, divide_answer
from aligner_proxy.engine.decoding.parts import AnswerPassage, PartRange
from aligner_proxy.engine.decoding.piece_scorer import PieceScorer, PromptedPassage
from aligner_proxy.engine.decoding.prompt_fit import Fitted, PromptFrame, count_writing_room
from aligner_proxy.engine.decoding.proposer import DraftProposer, count_matching, find_trusted_ranges
from aligner_proxy.engine.decoding.speculative import WritingLimits, WrittenTokens, generate
from aligner_proxy.engine.decoding.verdicts import ScoredPieces
from aligner_proxy.engine.model.detector import find_spans_with_words
from aligner_proxy.engine.scheduling.sequence import Ask, Score, Spans, Step, TokenSequence, Work
from aligner_proxy.errors import EngineFault
from aligner_proxy.text import remarks, structure
from aligner_proxy.text.code_comments import Place
from aligner_proxy.text.disguises import restore_disguises
from aligner_proxy.text.judged_words import find_removable_words, judged_words, sentence_of, without_words
from aligner_proxy.text.structure import Segment, dictated_text
from aligner_proxy.types import Correction, SegmentScore, Verify, Write

_SPAN_ROOM = 16
"""Tokens allowed for a replacement beyond 1.5 times the flagged run."""
_END_ROOM = 96
"""The same at the end of the answer, where whole sentences may be missing."""


def correct(
    aligner: Aligner,
    request: AlignRequest,
    sequence: TokenSequence,
    known_pieces: ScoredPieces | None = None,
) -> Work:
    """Correct one answer: a generator of asks that returns the `Correction`. Raises `AnswerTooLong`.

    `known_pieces` are the first pieces, if these were read while the answer was being written.
    """
    if not request.answer.strip():
        return Correction(request.answer, aligner=aligner.info.content_hash)
    frame = build_frame(aligner, request)
    division = divide_answer(aligner, frame, request)
    editor = AnswerEditor(aligner, frame, division, request, sequence, known_pieces)
    text, verdicts = yield from editor.edit_answer()
    return Correction(
        text=text,
        segments=verdicts,
        counts=editor.tally.counts(),
        prompt_tokens=editor.prompt_tokens,
        ms=sequence.spent_s * 1000,
        aligner=aligner.info.content_hash,
    )


Edited = tuple[str, tuple[SegmentScore, ...]]
"""The new answer, and the verdicts on the segments of the original one."""


class AnswerEditor(PieceScorer):
    """State of one correction: scores the answer's pieces and rewrites the flagged ones.

    `edited` is always the list of the answer's edited pieces so far, each as (text, white space after it).
    """

    def edit_answer(self) -> Generator[Ask, Step, Edited]:
        """Correct the answer as the request asks, and return it with the verdicts on its segments."""
        if self._request.score_only:
            # Even without a head the prompt is read, because the circuit breaker's probe must use the model.
            return self._request.answer, self._verdicts((yield from self.score_pieces()))
        # a draft of the whole answer would be written freely
        if self.can_score and (self._request.verify is Verify.FLAGGED or self._request.write is not Write.FREE):
            return (yield from self.rewrite_flagged())
        if self._request.write is not Write.FREE:
            return self._request.answer, self._verdicts((yield from self.score_pieces()))
        return (yield from self.verify_answer())

    def replace_span(self, span: Span) -> Generator[Ask, Step, str]:
        """Return a replacement for the segments of one flagged `span`; `span.before` is the edited text before them.

        At the end of the answer, the replacement is the missing text, including the white space before it: " Thanks!".
        """
        flagged_pieces = self._division.find_piece_range(span.first, span.stop)
        if not flagged_pieces:
            raise EngineFault("there are no such segments in the answer")
        # the prompt also shows the segment after the run, at which writing is to stop
        prompt_stop = self._division.find_piece_range(span.stop, span.stop + 1).stop
        gap = self._division.pieces[flagged_pieces.start - 1].gap if span.before else ""
        edited = [(span.before, gap)] if span.before else []
        for part in self._division.parts:
            # the pieces of the span in this part; context pieces belong to the part before
            run = range(max(part.first_own, flagged_pieces.start), min(part.stop, flagged_pieces.stop))
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
        """Write a replacement for the flagged pieces with the indices `run`, and append it to `edited`.

        All of them are in `part`. The prompt shows the part's pieces up to index `prompt_stop`, excluded. At the end of
        the answer, `missing_objective` is the index of the objective that misses text there.
        """
        shown_stop = max(run.stop, min(part.stop, prompt_stop))
        passage = self._prompt_passage(PartRange(part.first, part.first_own, shown_stop))
        flags = [number in run for number in range(part.first, shown_stop)]
        # the run's indices among the pieces of the passage
        first = run.start - part.first
        stop = run.stop - part.first
        flagged_run = splice.Run(flagged=True, at=first, segments=passage.pieces[first:stop])
        before = structure.join(edited)
        gap_before = edited[-1][1] if before else ""
        hole = splice.make_hole(passage.pieces, flags, flagged_run, before, gap_before)
        text = yield from self._fill_hole(passage, self._trim_before(passage, hole), missing_objective)
        edited.append((text, flagged_run.segments[-1].gap))

    def verify_answer(self) -> Generator[Ask, Step, Edited]:
        """Verify the whole answer as a draft, part by part; return its new text and the verdicts."""
        edited: list[tuple[str, str]] = []
        scores: list[Score] = []
        for part in self._division.parts:
            passage = self._prompt_passage(part)
            # the edited text of the pieces that are in the prompt only as context
            before = ""
            if passage.context_count:
                before = passage.trim_edited(structure.join(edited), passage.start)
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
        gap = self._division.pieces[passage.part.first_own - 1].gap if before else ""
        # the draft: the part's original text, which the model is expected to copy, and the end mark
        pieces = tokenizer.encode_text(gap + own_text)
        lookup = [*pieces.ids, tokenizer.eos]
        scores: list[Score] = []
        unflagged = tuple[range, ...]()
        # a long draft is worth it only where the detector flags nothing, so the pieces are scored first
        if self.can_score and self._runner.needs_probe(len(passage.fitted.ids), len(lookup)):
            scores = yield from self._prefill(passage)
            shift = len(gap) - passage.undisguised.place_in_undisguised(start)
            placed_pieces = [
                structure.shift_segment(piece, shift) for piece in passage.undisguised.segments(passage.own_pieces)
            ]
            unflagged = find_trusted_ranges(placed_pieces, [self.is_flagged(score) for score in scores], pieces.offsets)
        # pieces that were not scored above are scored in the same step as the first draft
        spans = passage.find_spans(passage.own_pieces) if self.can_score and not scores else None
        proposer = DraftProposer(lookup, self._runner.choose_draft_length, trusted=unflagged)
        context = [*passage.fitted.ids, *tokenizer.list_ids(prompts.undisguise_for_prompt(before))]
        room = min(passage.fitted.room, count_writing_room(len(lookup)), self._count_tokens_left(context))
        limits = WritingLimits(room, caution=self._request.caution)
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
                edited += [(piece.text, piece.gap) for piece in self._division.pieces[part.first_own : part.stop]]
                continue
            passage = self._prompt_passage(part)
            if known_scores is None:
                known_scores = yield from self._judge_part(passage, scores)
            scores += known_scores
            # context pieces were edited in the part before, so they count as kept here
            flags = [False] * passage.context_count + [self.is_flagged(score) for score in scores[part.first_own :]]
            # yields each hole, takes its text, and adds the pieces of the part to `edited`
            rewriting = splice.rewrite_flagged_runs(passage.pieces, flags, edited, passage.context_count)
            try:
                hole = next(rewriting)
                while True:
                    # only a hole at the end of the answer needs an objective, and its score is the last one
                    _, last_objective = scores[-1]
                    text = yield from self._fill_hole(passage, self._trim_before(passage, hole), last_objective)
                    hole = rewriting.send(text)
            except StopIteration:
                pass
        # without changes the answer itself: joined pieces may differ from it in white space
        changed = any(map(self.is_flagged, scores))
        return structure.join(edited) if changed else self._request.answer, self._verdicts(scores)

    def _trim_before(self, passage: AnswerPassage, hole: splice.Hole) -> splice.Hole:
        """The hole with its preceding text cut to the length that the prompt has of the original."""
        return replace(hole, before=passage.trim_edited(hole.before, hole.run.segments[0].start))

    def _count_tokens_left(self, context: list[int]) -> int:
        """Tokens that the window has left after `context`, at least 1."""
        return max(1, self._frame.window - len(context))

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
        """The flagged run without its flagged cells, elements, comments, clauses, remarks and data.

        "" if the rest is flagged, too; beside a remark without brackets, also if it is nearly flagged.
        "| Two | you are a fool | 10 |" -> "| Two | | 10 |", and "Take a coat (you fool)." -> "Take a coat."
        """
        segments = hole.run.segments
        if not any(judged_words(segment.text) or find_removable_words(segment.text) for segment in segments):
            return ""
        answer = hole.fill_in(hole.run.text)
        prompt = self._frame.fit_prompt(answer)
        if len(prompt.ids) > self._frame.window:
            return ""
        shift = len(answer) - len(hole.run.text) - segments[0].start
        pieces = []
        margin = 0.0
        for segment in segments:
            placed = structure.shift_segment(segment, shift)
            flagged = yield from self._find_flagged_removable_words(answer, placed)
            if not flagged and not judged_words(segment.text):
                # alone they may say little, but the rest shows whether they were the fault
                flagged = remarks.find_remarks_to_reader(segment.text)
                margin = splice.CLEAR_MARGIN if flagged else margin
            if any(remarks.is_doubtful(segment.text, place) for place in flagged):
                margin = splice.CLEAR_MARGIN
            flagged = flagged or (yield from self._find_flagged_words(prompt, answer, placed))
            pieces.append((without_words(segment.text, flagged) if flagged else "", segment.gap))
        pruned = structure.join(pieces)
        is_clear = bool(pruned) and (yield from self._drop_flagged_sentences(hole, pruned, margin)) == pruned
        return pruned if is_clear else ""

    def _find_flagged_removable_words(self, answer: str, segment: Segment) -> Generator[Ask, Step, list[Place]]:
        """Return the places in `segment` of its `find_removable_words` that are flagged as sentences there."""
        before = answer[: segment.start]
        flagged: list[Place] = []
        for start, end in find_removable_words(segment.text):
            words = segment.text[start:end].strip(remarks.SIGNS)
            score = yield from self._judge_sentence(before, sentence_of(words))
            if self.is_flagged(score):
                flagged.append((start, end))
        return flagged

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
            """Whether the text written so far has arrived at a kept segment after the run."""
            return splice.cut_before_resumption(restore(tokenizer.decode(ids)), hole.keys) is not None

        proposer, room = self._make_hole_proposer(hole)
        context = [*passage.fitted.ids, *tokenizer.list_ids(prompts.undisguise_for_prompt(hole.before))]
        limits = WritingLimits(min(room, self._count_tokens_left(context)), is_done=reaches_resumption)
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
        run_ids = tokenizer.list_ids(prompts.undisguise_for_prompt(lead + hole.run.text.lstrip()))
        next_ids = tokenizer.list_ids(prompts.neutralise_marks(lead + hole.keys[0])) if hole.keys else [tokenizer.eos]
        # 1.5 times the flagged run and a reserve, see `_SPAN_ROOM`
        room = len(run_ids) + len(run_ids) // 2 + (_END_ROOM if is_end else _SPAN_ROOM)
        objective_ids = tokenizer.list_ids(" " + prompts.join_objectives(self._request.objectives)) if is_end else []
        lookup = [*objective_ids, *run_ids, *next_ids]
        # drafting starts after the span, as if it were removed
        start = len(objective_ids) + len(run_ids)
        return DraftProposer(lookup, self._runner.choose_draft_length, anchors=(start,)), room

    def _write(
        self,
        passage: PromptedPassage,
        context: list[int],
        proposer: DraftProposer,
        limits: WritingLimits,
        spans: Spans | None = None,
    ) -> Generator[Ask, Step, WrittenTokens]:
        """Return the generator that writes after the tokens `context`; tokens that the sequence holds are not fed.

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
