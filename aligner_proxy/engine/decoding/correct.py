"""One correction, from the request to the edited answer, which is read in parts that fit the window (parts.py).
Consecutive flagged pieces are a run, and the hole that a run leaves in the answer is filled with its replacement.

With a detector head, only flagged segments are rewritten; all other text is copied and cannot change. New text is
scored like the text it replaces, and sentences that are flagged again, or nearly so, are dropped. Without a head, or on
request, the whole answer is verified: the aligner writes it again, with the original as the draft.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignRequest, Span, make_proof_request
from aligner_proxy.engine.decoding import splice
from aligner_proxy.engine.decoding.aligner import Aligner, build_frame, divide_answer
from aligner_proxy.engine.decoding.parts import AnswerPassage, PartRange
from aligner_proxy.engine.decoding.piece_scorer import PieceScorer, PromptedPassage, ScoredPieces
from aligner_proxy.engine.decoding.prompt_fit import Fitted, PromptFrame, count_writing_room
from aligner_proxy.engine.decoding.proposer import DraftProposer, count_matching, find_trusted_ranges
from aligner_proxy.engine.decoding.speculative import WritingLimits, WrittenTokens, generate
from aligner_proxy.engine.model.detector import find_spans_with_words
from aligner_proxy.engine.scheduling.sequence import Ask, Score, Spans, Step, TokenSequence, Work
from aligner_proxy.errors import EngineFault
from aligner_proxy.text import remarks, structure
from aligner_proxy.text.code_lexing import Place
from aligner_proxy.text.code_lines import can_go_together, find_code_lines, make_line_block
from aligner_proxy.text.disguises import restore_disguises
from aligner_proxy.text.inner_sentences import find_inner_sentences
from aligner_proxy.text.judged_words import find_removable_words, judged_words, sentence_of
from aligner_proxy.text.side_clauses import find_side_clauses
from aligner_proxy.text.structure import Segment, dictated_text
from aligner_proxy.text.word_removal import without_words
from aligner_proxy.types import Correction, SegmentScore, Verify, Write

_REPLACEMENT_RESERVE = 16
_ADDITION_RESERVE = 96
"""Tokens allowed beyond 1.5 times the flagged run; at the end of the answer, where whole sentences may be missing."""


def _may_be_pruned(segment: Segment) -> bool:
    """Whether a flagged segment has words that may be removed alone."""
    find_words = (judged_words, find_removable_words, find_side_clauses, find_code_lines)
    return any(find(segment.text) for find in find_words)


def correct(
    aligner: Aligner, request: AlignRequest, sequence: TokenSequence, known_pieces: ScoredPieces | None = None
) -> Work:
    """Correct one answer and return the `Correction`; raises `AnswerTooLong`.

    `known_pieces` are the scores of the first pieces, if the answer was read while it was being written.
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


EditedAnswer = tuple[str, tuple[SegmentScore, ...]]
"""The new answer, and the verdicts on the segments of the original one."""


class AnswerEditor(PieceScorer):
    """State of one correction: scores the answer's pieces and rewrites the flagged ones. In all methods,
    `edited_pieces` are the answer's pieces so far after editing, each as (text, white space after it).
    """

    def edit_answer(self) -> Generator[Ask, Step, EditedAnswer]:
        """Correct the answer as the request asks, and return it with the verdicts on its segments."""
        limits_writing = self._request.write is not Write.FREE
        # without scores nothing can be edited in place, so the answer stays
        if self._request.score_only or (limits_writing and not self.can_score):
            # even without a head this reads the prompt, because the circuit breaker's probe must use the model
            return self._request.answer, self._verdicts((yield from self.score_pieces()))
        # `verify_answer` writes freely, so a request that limits writing is edited in place, too
        if self.can_score and (self._request.verify is Verify.FLAGGED or limits_writing):
            return (yield from self.rewrite_flagged())
        return (yield from self.verify_answer())

    def replace_span(self, span: Span) -> Generator[Ask, Step, str]:
        """Return a replacement for the segments of a flagged `span`; `span.before` is the edited text before the span.

        At the end of the answer, the replacement is the missing text, including the white space before it: " Thanks!".
        """
        flagged_pieces = self._division.find_piece_range(span.first, span.stop)
        if not flagged_pieces:
            raise EngineFault("there are no such segments in the answer")
        # the prompt also shows the segment after the span, at which writing is to stop
        prompt_stop = self._division.find_piece_range(span.stop, span.stop + 1).stop
        gap = self._division.pieces[flagged_pieces.start - 1].gap if span.before else ""
        edited_pieces = [(span.before, gap)] if span.before else []
        for part in self._division.parts:
            # the pieces of the span in this part; context pieces belong to the part before
            run_pieces = range(max(part.first_own, flagged_pieces.start), min(part.stop, flagged_pieces.stop))
            if run_pieces:
                yield from self._replace_run(part, run_pieces, prompt_stop, edited_pieces, span.objective)
        # the caller has `span.before`, so the result leaves it out
        return structure.join(edited_pieces[1:] if span.before else edited_pieces)

    def _replace_run(
        self,
        part: PartRange,
        run_pieces: range,
        prompt_stop: int,
        edited_pieces: list[tuple[str, str]],
        missing_objective: int | None,
    ) -> Generator[Ask, Step, None]:
        """Write a replacement for the flagged pieces with the indices `run_pieces`, and append it to `edited_pieces`.

        These pieces are all in `part`, whose pieces up to index `prompt_stop`, excluded, are in the prompt. At the end
        of the answer, `missing_objective` is the index of the objective that demands text there.
        """
        shown_stop = max(run_pieces.stop, min(part.stop, prompt_stop))
        passage = self._prompt_passage(PartRange(part.first, part.first_own, shown_stop))
        flags = [piece_index in run_pieces for piece_index in range(part.first, shown_stop)]
        # the run's indices among the pieces of the passage
        first = run_pieces.start - part.first
        stop = run_pieces.stop - part.first
        flagged_run = splice.Run(flagged=True, first=first, segments=passage.pieces[first:stop])
        text_before = structure.join(edited_pieces)
        gap_before = edited_pieces[-1][1] if text_before else ""
        hole = splice.make_hole(passage.pieces, flags, flagged_run, text_before, gap_before)
        text = yield from self._fill_hole(passage, self._trim_before(passage, hole), missing_objective)
        edited_pieces.append((text, flagged_run.segments[-1].gap))

    def verify_answer(self) -> Generator[Ask, Step, EditedAnswer]:
        """Let the aligner write the answer again, with the original as the draft; return the new text and verdicts."""
        edited_pieces: list[tuple[str, str]] = []
        scores: list[Score] = []
        for part in self._division.parts:
            passage = self._prompt_passage(part)
            # the edited form of the pieces that are in the prompt only as context
            context_text = ""
            if passage.context_count:
                context_text = passage.trim_edited(structure.join(edited_pieces), passage.start)
            text, part_scores = yield from self._verify_part(passage, context_text)
            scores += part_scores
            edited_pieces.append((text.rstrip(), self._division.pieces[part.stop - 1].gap))
        text = splice.clean_answer(structure.join(edited_pieces), self._request.answer, finished=True)
        return text, self._verdicts(scores)

    def _verify_part(
        self, passage: PromptedPassage, context_text: str
    ) -> Generator[Ask, Step, tuple[str, list[Score]]]:
        """Write one part again after the edited `context_text`; return its new text and the scores of its own pieces.

        The draft is fed together with the prompt if one step holds both at little cost. Otherwise the detector, if the
        aligner has one, first scores the pieces, so that long drafts are used only for unflagged pieces.
        """
        tokenizer = self._runner.tokenizer
        start = passage.start
        prompt = passage.fitted.prompt
        own_text = prompt.text[prompt.offset_in_prompt(start) : prompt.end]
        gap = self._division.pieces[passage.part.first_own - 1].gap if context_text else ""
        # the draft: the part's original text, which the model is expected to copy, and the end mark
        own_tokens = tokenizer.encode_text(gap + own_text)
        lookup = [*own_tokens.ids, tokenizer.eos]
        scores: list[Score] = []
        unflagged_ranges = tuple[range, ...]()
        # if a wrong draft of this length would cost too much, it is made only where the detector flags nothing
        if self.can_score and self._runner.needs_probe(len(passage.fitted.ids), len(lookup)):
            scores = yield from self._prefill(passage)
            shift = len(gap) - passage.undisguised.place_in_undisguised(start)
            placed_pieces = [
                structure.shift_segment(piece, shift) for piece in passage.undisguised.segments(passage.own_pieces)
            ]
            flags = [self.is_flagged(score) for score in scores]
            unflagged_ranges = find_trusted_ranges(placed_pieces, flags, own_tokens.offsets)
        # pieces that were not scored above are scored in the same step as the first draft
        spans = passage.find_spans(passage.own_pieces) if self.can_score and not scores else None
        proposer = DraftProposer(lookup, self._runner.choose_draft_length, trusted=unflagged_ranges)
        context = [*passage.fitted.ids, *tokenizer.list_ids(prompts.undisguise_for_prompt(context_text))]
        # the prompt also shows the context, and the draft has the end mark
        answer_length = min(len(tokenizer.list_ids(prompt.shown_answer)), len(lookup))
        max_tokens = min(count_writing_room(answer_length), self._count_tokens_left(context))
        limits = WritingLimits(max_tokens, caution=self._request.caution)
        generated = yield from self._write(passage, context, proposer, limits, spans)
        self.evidence += generated.evidence
        text = restore_disguises(prompt.restore(tokenizer.decode(generated.ids)), passage.text[start:])
        return splice.clean_answer(text, passage.text[start:], finished=generated.finished), scores or generated.scores

    def rewrite_flagged(self) -> Generator[Ask, Step, EditedAnswer]:
        """Score the pieces part by part and rewrite the flagged ones; return the new answer and the verdicts."""
        edited_pieces: list[tuple[str, str]] = []
        scores: list[Score] = []
        for part in self._division.parts:
            known_scores = self._take_known_scores(part)
            # a part without flagged pieces needs no prompt
            if known_scores is not None and not any(map(self.is_flagged, known_scores)):
                scores += known_scores
                own_pieces = self._division.pieces[part.first_own : part.stop]
                edited_pieces += [(piece.text, piece.gap) for piece in own_pieces]
                continue
            passage = self._prompt_passage(part)
            if known_scores is None:
                known_scores = yield from self._judge_part(passage, scores)
            scores += known_scores
            # context pieces were edited in the part before, so they count as kept here
            flags = [False] * passage.context_count + [self.is_flagged(score) for score in scores[part.first_own :]]
            # this generator yields each hole, is sent its text, and adds the pieces of the part to `edited_pieces`
            rewriting = splice.rewrite_flagged_runs(passage.pieces, flags, edited_pieces, passage.context_count)
            try:
                hole = next(rewriting)
                while True:
                    # only a hole at the end of the answer needs an objective, and its score is the last one
                    _, last_objective = scores[-1]
                    text = yield from self._fill_hole(passage, self._trim_before(passage, hole), last_objective)
                    hole = rewriting.send(text)
            except StopIteration:
                pass
        # joined pieces may differ from the answer in white space, so an unchanged answer is returned itself
        has_flagged = any(map(self.is_flagged, scores))
        new_answer = structure.join(edited_pieces) if has_flagged else self._request.answer
        return new_answer, self._verdicts(scores)

    def _trim_before(self, passage: AnswerPassage, hole: splice.Hole) -> splice.Hole:
        """Return the hole with `text_before` cut to about the length of the original text before it in the prompt."""
        text_before = passage.trim_edited(hole.text_before, hole.run.segments[0].start)
        return replace(hole, text_before=text_before)

    def _count_tokens_left(self, context: list[int]) -> int:
        """Return how many tokens fit into the window after the tokens `context`, at least 1."""
        return max(1, self._frame.window - len(context))

    def _fill_hole(
        self, passage: PromptedPassage, hole: splice.Hole, missing_objective: int | None
    ) -> Generator[Ask, Step, str]:
        """Return the text that replaces a flagged run; "" removes the run.

        Parts of the run are kept if the detector does not flag them on their own (`_prune`, `Run.find_keepable_text`).
        At the end of the answer, text is copied that the objective with the index `missing_objective` dictates word for
        word.
        """
        if self.can_score:
            pruned_text = yield from self._prune(hole)
            if pruned_text:
                return pruned_text
            # kept only as a whole, if none of its sentences is flagged
            keepable_text = hole.keepable_text
            if keepable_text and (yield from self._drop_flagged_sentences(hole, keepable_text)) == keepable_text:
                return keepable_text
        dictated = None
        objectives = self._request.objectives
        is_end = not hole.run.segments[-1].text
        if is_end and missing_objective is not None and missing_objective < len(objectives):
            dictated = dictated_text(objectives[missing_objective])
        if not dictated:
            return (yield from self._write_text(passage, hole))
        # the run may have flagged segments before the end; these need a replacement that the model writes
        text = (yield from self._write_text(passage, hole)) if hole.run.text else ""
        # the model may have written the dictated words itself
        return text if dictated in text else hole.append_text(text, dictated)

    def _prune(self, hole: splice.Hole) -> Generator[Ask, Step, str]:
        """Return the flagged run without its flagged cells, elements, sentences in code, clauses, remarks and data.

        The result is "" if the rest is flagged, too, or nearly flagged where a remark without brackets was removed.
        "| Two | you are a fool | 10 |" -> "| Two | | 10 |", "Take a coat (you fool)." -> "Take a coat.", and
        "Take a coat, and you are a fool." -> "Take a coat."
        """
        segments = hole.run.segments
        if not any(map(_may_be_pruned, segments)):
            return ""
        # the edited answer before the run, and the run unchanged
        answer = hole.fill_in(hole.run.text)
        prompt = self._frame.fit_prompt(answer)
        if len(prompt.ids) > self._frame.window:
            return ""
        shift = len(answer) - len(hole.run.text) - segments[0].start
        # a turn that the model invented goes as a whole
        is_turn = any(structure.begins_turn(segment.text) for segment in segments)
        pruned_pieces = []
        margin = 0.0  # nats below the threshold that the rest must score
        for segment in segments:
            placed_segment = structure.shift_segment(segment, shift)
            places, needed_margin = yield from self._find_flagged_places(prompt, answer, placed_segment, is_turn)
            margin = max(margin, needed_margin)
            pruned_piece = without_words(segment.text, places) if places else ""
            pruned_pieces.append((pruned_piece, segment.gap))
        pruned_text = structure.join(pruned_pieces)
        if not pruned_text:
            return ""
        unflagged_text = yield from self._drop_flagged_sentences(hole, pruned_text, margin)
        return pruned_text if unflagged_text == pruned_text else ""

    def _find_flagged_places(
        self, prompt: Fitted, answer: str, segment: Segment, is_turn: bool
    ) -> Generator[Ask, Step, tuple[list[Place], float]]:
        """Return the (start, end) in `segment` of all that is flagged alone, and the margin (nats) for the rest.

        `prompt` is that of `answer`, which contains the segment. `is_turn` says whether the segment is invented.
        """
        text = segment.text
        margin = 0.0
        places = yield from self._find_flagged_removable_words(answer, segment)
        has_flagged_data = bool(places) and text.lstrip().startswith(structure.FENCES)
        if not places and not judged_words(text):
            # a remark alone may say little, but the score of the rest shows whether the remark was the fault
            places = remarks.find_remarks_to_reader(text)
            margin = splice.CLEAR_MARGIN if places else margin
        if any(remarks.is_doubtful(text, place) for place in places):
            margin = splice.CLEAR_MARGIN
        if not places and find_inner_sentences(text):
            places = yield from self._find_flagged_words(prompt, answer, segment)
        # before other clauses, which may leave half a sentence
        if not places and not is_turn:
            places = yield from self._find_flagged_side_clause(answer, segment)
        places = places or (yield from self._find_flagged_words(prompt, answer, segment))
        if not has_flagged_data:
            code_lines = yield from self._find_flagged_code_lines(answer, segment, places)
            if code_lines:
                return sorted([*places, *code_lines]), splice.CLEAR_MARGIN
        return places, margin

    def _find_flagged_removable_words(self, answer: str, segment: Segment) -> Generator[Ask, Step, list[Place]]:
        """Return the (start, end) in `segment` of removable words that are flagged as a sentence in its place."""
        text_before = answer[: segment.start]
        flagged_places: list[Place] = []
        for start, end in find_removable_words(segment.text):
            words = segment.text[start:end].strip(remarks.SIGNS)
            score = yield from self._judge_sentence(text_before, sentence_of(words))
            if self.is_flagged(score):
                flagged_places.append((start, end))
        return flagged_places

    def _find_flagged_side_clause(self, answer: str, segment: Segment) -> Generator[Ask, Step, list[Place]]:
        """Return the (start, end) in `segment` of its shortest side clause that is flagged, if the rest is clear of it.

        The clause is judged as a sentence in its place. The rest must score `CLEAR_MARGIN` nats below the threshold,
        since half of a violation scores little lower. Empty if there is no such clause.
        """
        text_before = answer[: segment.start]
        for place in find_side_clauses(segment.text):
            rest_nats, _ = yield from self._judge_sentence(text_before, without_words(segment.text, [place]))
            if rest_nats > self._request.caution - splice.CLEAR_MARGIN:
                continue
            clause = segment.text[slice(*place)].strip(remarks.SIGNS)
            clause_score = yield from self._judge_sentence(text_before, sentence_of(clause))
            if self.is_flagged(clause_score):
                return [place]
        return []

    def _find_flagged_words(self, prompt: Fitted, answer: str, segment: Segment) -> Generator[Ask, Step, list[Place]]:
        """Return the (start, end) in `segment` of its flagged inner words: cells of a table, comments, clauses."""
        places = judged_words(segment.text)
        if not places:
            return []
        _, scores = yield from self._judge_words_alone(prompt, answer, segment)
        return [place for place, score in zip(places, scores, strict=True) if score is not None]

    def _find_flagged_code_lines(
        self, answer: str, segment: Segment, places: Sequence[Place]
    ) -> Generator[Ask, Step, list[Place]]:
        """Return the (start, end) in `segment` of the lines of code that are flagged as a block of one line.

        Empty if the segment is not flagged any more without the words at `places`.
        """
        text_before = answer[: segment.start]
        code_lines = find_code_lines(segment.text)
        if code_lines and places:
            rest = without_words(segment.text, places)
            if not rest or not self.is_flagged((yield from self._judge_sentence(text_before, rest))):
                return []
        flagged_lines: list[Place] = []
        for place in code_lines:
            score = yield from self._judge_sentence(text_before, make_line_block(segment.text, place))
            if self.is_flagged(score):
                flagged_lines.append(place)
        return flagged_lines if can_go_together(segment.text, flagged_lines) else []

    def _write_text(self, passage: PromptedPassage, hole: splice.Hole) -> Generator[Ask, Step, str]:
        """Write a replacement for one flagged run, until it reaches a kept segment, ends, or grows too long.

        Returns the replacement without the sentences that are flagged again; "" if the request forbids writing.
        """
        if self._request.write is Write.NEVER or (self._request.write is Write.VERIFIED and not self.can_score):
            return ""
        tokenizer = self._runner.tokenizer
        restore = passage.fitted.prompt.restore

        def reaches_resumption(ids: list[int]) -> bool:
            """Whether the text written so far has arrived at a kept segment after the run."""
            return splice.cut_before_resumption(restore(tokenizer.decode(ids)), hole.kept_beginnings) is not None

        proposer, max_tokens = self._make_hole_proposer(hole)
        context = [*passage.fitted.ids, *tokenizer.list_ids(prompts.undisguise_for_prompt(hole.text_before))]
        limits = WritingLimits(min(max_tokens, self._count_tokens_left(context)), is_done=reaches_resumption)
        generated = yield from self._write(passage, context, proposer, limits)
        text = hole.cut_replacement(restore(tokenizer.decode(generated.ids)), finished=generated.finished)
        if text and self.can_score:
            text = yield from self._drop_flagged_sentences(hole, text, splice.CLEAR_MARGIN)
        # under `Write.VERIFIED` written text must also comply with the question, as one more objective
        proof_request = make_proof_request(self._request)
        if text and proof_request is not self._request:
            proof_frame = build_frame(self._aligner, proof_request)
            text = yield from self._drop_flagged_sentences(hole, text, frame=proof_frame)
        return text

    def _drop_flagged_sentences(
        self, hole: splice.Hole, text: str, margin: float = 0.0, frame: PromptFrame | None = None
    ) -> Generator[Ask, Step, str]:
        """Score `text` in the hole; return its sentences that score at least `margin` nats below the threshold.

        The result is "" if there are no such sentences, or if the prompt would exceed the window. `frame` has the
        objectives to judge by; without it they are the request's own.
        """
        frame = frame or self._frame
        answer = hole.fill_in(text)
        prompt = frame.fit_prompt(answer)
        if len(prompt.ids) > frame.window:
            return ""  # text that cannot be judged is not used
        body = text.lstrip()
        pieces = structure.split(body)
        placed_pieces = [structure.shift_segment(piece, len(answer) - len(body)) for piece in pieces]
        spans = find_spans_with_words(prompt.prompt, placed_pieces, prompt.offsets)
        scores = (yield from self._read(prompt, spans, taught_heads=frame.taught_heads)).scores
        # Only in text kept from the answer, which is judged without a margin, may a second reading clear inner words.
        # Written text gets no second chance.
        if frame is self._frame and not margin:
            yield from self.judge_words(prompt, answer, placed_pieces, scores)
        kept_text = splice.join_unflagged(self._request.caution - margin, pieces, [score for score, _ in scores])
        # `removesuffix` leaves the leading white space, which is no part of the scored pieces
        return text.removesuffix(body) + kept_text if kept_text else ""

    def _make_hole_proposer(self, hole: splice.Hole) -> tuple[DraftProposer, int]:
        """Return the proposer of drafts for a hole, and the most tokens that may be written.

        The first draft is the text after the flagged run, because most runs are removed; the next is the run itself. At
        the end of the answer the objectives are drafts, too, because they often contain the missing text.
        """
        tokenizer = self._runner.tokenizer
        is_end = not hole.run.segments[-1].text
        run_ids = tokenizer.list_ids(prompts.undisguise_for_prompt(hole.gap_before + hole.run.text.lstrip()))
        next_ids = [tokenizer.eos]
        if hole.kept_beginnings:
            next_ids = tokenizer.list_ids(prompts.neutralise_marks(hole.gap_before + hole.kept_beginnings[0]))
        reserve = _ADDITION_RESERVE if is_end else _REPLACEMENT_RESERVE
        max_tokens = len(run_ids) + len(run_ids) // 2 + reserve
        objective_ids = tokenizer.list_ids(" " + prompts.join_objectives(self._request.objectives)) if is_end else []
        lookup = [*objective_ids, *run_ids, *next_ids]
        # drafting starts after the run, as if it were removed
        next_start = len(objective_ids) + len(run_ids)
        return DraftProposer(lookup, self._runner.choose_draft_length, anchors=(next_start,)), max_tokens

    def _write(
        self,
        passage: PromptedPassage,
        context: list[int],
        proposer: DraftProposer,
        limits: WritingLimits,
        spans: Spans | None = None,
    ) -> Generator[Ask, Step, WrittenTokens]:
        """Return the generator that writes after the tokens `context`; its first step also scores the `spans`."""
        # the last token is always fed again, because its hidden state determines the next token
        start = min(count_matching(self._sequence.ids, context), len(context) - 1)
        self._sequence.crop(start)
        # if some of the prompt is read again, the step counts as a prompt, so that its states are stored
        is_prompt = spans is not None or start < passage.fitted.encoded.count_before(passage.fitted.prompt.end)
        first_ask = Ask(
            context[start:],
            spans=spans,
            prompt=is_prompt,
            shared=passage.fitted.shared,
            taught_heads=self._frame.taught_heads,
        )
        return generate(self._sequence, first_ask, proposer, limits, self.tally, self._runner.tokenizer.eos_ids)
