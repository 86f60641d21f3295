"""Scores of an answer's pieces (parts.py) by the detector head, and the verdicts on its segments: every prompt is read,
and nothing is written.

A first score may be wrong in two cases, so such pieces are read once more before they count as flagged: pieces with
words that are judged by themselves (`judge_words`), and pieces after a flagged one (`judge_followers`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding.aligner import Aligner, scores_segments
from aligner_proxy.engine.decoding.parts import AnswerPassage, Division, PartRange
from aligner_proxy.engine.decoding.prompt_fit import Fitted, PromptFrame
from aligner_proxy.engine.decoding.proposer import count_matching
from aligner_proxy.engine.decoding.speculative import Tally
from aligner_proxy.engine.model.detector import find_spans, find_spans_with_words
from aligner_proxy.engine.model.taught import TaughtColumns
from aligner_proxy.engine.scheduling.sequence import Ask, Score, SegmentRow, Spans, Step, TokenSequence
from aligner_proxy.text import structure
from aligner_proxy.text.judged_words import judged_words, marked_words, sentence_of, without_last_marks
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import SegmentEvidence, SegmentScore

_INNER_ALLOWANCE = 0.5
"""Inner words that score no more than so many nats below the threshold are judged again, as a plain sentence. Inner
words are the cells of "| Two | you are a fool |", or what stands in an element, comment or clause (`judged_words`)."""
_CODE_ALLOWANCE = 3.0
"""The same for inner words in a block of code, where a sentence scores lower for the code around it."""
_CLAUSE_MARGIN = 1.0
"""Nats above the threshold from which a clause is flagged as a plain sentence, because harmless clauses that are cut
out of their sentence score a little higher. Words between marks (cells, comments) need no margin."""


@dataclass(frozen=True, slots=True)
class ScoredPieces:
    """The scores of an answer's first pieces, and what their first readings say of the answer as a whole."""

    scores: list[Score] = field(default_factory=list)
    evidence: list[SegmentEvidence] = field(default_factory=list)


def make_verdicts(
    division: Division, scored_pieces: ScoredPieces, caution: float, first: int = 0
) -> tuple[SegmentScore, ...]:
    """Return the verdicts on the segments from index `first` on, up to the first segment with an unscored piece.

    A segment of several pieces gets the verdict of its worst piece, and the mean of their evidence. Scores above
    `caution` are flagged. If there are no scores at all, every segment gets a verdict without a score.
    """
    scores = scored_pieces.scores
    verdicts: list[SegmentScore] = []
    for number in range(first, len(division)):
        text, pieces = division.find_segment(number)
        if not scores:
            verdicts.append(SegmentScore(text, None, flagged=False))
        elif pieces.stop <= len(scores):
            nats, objective = max(scores[pieces.start : pieces.stop], key=lambda score: score[0])
            evidence = _find_mean(scored_pieces.evidence[pieces.start : pieces.stop], len(pieces))
            verdicts.append(SegmentScore(text, nats, nats > caution, objective, evidence))
        else:
            break
    return tuple(verdicts)


def _find_mean(evidence: Sequence[SegmentEvidence], piece_count: int) -> SegmentEvidence | None:
    """Return the mean of the evidence of `piece_count` pieces; None if a piece has none."""
    if len(evidence) != piece_count:
        return None
    return evidence[0]._replace(nats=fmean(piece.nats for piece in evidence))


def _find_allowance(text: str) -> float:
    """Return how many nats below the threshold inner words of a piece may score and are still judged again."""
    return _CODE_ALLOWANCE if text.lstrip().startswith(structure.FENCES) else _INNER_ALLOWANCE


@dataclass(frozen=True, slots=True)
class PromptedPassage(AnswerPassage):
    """A part of an answer with its prompt."""

    fitted: Fitted

    def find_spans(self, pieces: Sequence[Segment]) -> Spans:
        """Return the prompt's tokens that belong to the given pieces and to the objectives."""
        return find_spans(self.fitted.prompt, pieces, self.fitted.offsets)


class PieceScorer:
    """Scores the pieces of one answer. Holds its token sequence (the prompt that was read last) and its counts. Its
    generators yield requests to the model (`Ask`), are sent the results (`Step`), and return what their docstring says.
    `division` is the answer in parts. `known_pieces` are the scores of its first pieces, if they were read before.
    """

    def __init__(
        self,
        aligner: Aligner,
        frame: PromptFrame,
        division: Division,
        request: AlignRequest,
        sequence: TokenSequence,
        known_pieces: ScoredPieces | None = None,
    ) -> None:
        self._aligner = aligner
        self._runner = aligner.runner
        self._request = request
        self._frame = frame
        self._division = division
        self._sequence = sequence
        self._known_pieces = known_pieces or ScoredPieces()
        self.evidence: list[SegmentEvidence] = []
        """What the pieces read so far say of the answer as a whole; empty unless a taught head computes this."""
        self.can_score = scores_segments(aligner, frame)
        """Whether a detector head scores the segments."""
        self.tally = Tally()
        """Counts of tokens and forward passes, of all generators together."""
        self.prompt_tokens = 0
        """Tokens of all prompts that were read."""

    def read_rows(self) -> Generator[Ask, Step, list[SegmentRow]]:
        """Return the rows that the aligner's own head reads of all pieces, with its scores, in order."""
        rows: list[SegmentRow] = []
        for part in self._division.parts:
            passage = self._prompt_passage(part)
            rows += (yield from self._read(passage.fitted, passage.find_spans(passage.own_pieces), rows=True)).rows
        return rows

    def _prompt_passage(self, part: PartRange) -> PromptedPassage:
        """Return a part of the answer with its prompt, and count the prompt's tokens in `prompt_tokens`."""
        passage = self._division.make_passage(part)
        fitted = self._frame.fit_prompt(passage.undisguised)
        self.prompt_tokens += len(fitted.ids)
        return PromptedPassage(part, passage.pieces, passage.text, passage.undisguised, fitted)

    def score_pieces(self) -> Generator[Ask, Step, list[Score]]:
        """Read all parts and return the scores of all pieces; without a head, no scores."""
        scores: list[Score] = []
        for part in self._division.parts:
            part_scores = self._take_known_scores(part)
            if not part_scores:
                part_scores = yield from self._judge_part(self._prompt_passage(part), scores)
            scores += part_scores
        return scores

    def _judge_part(
        self, passage: PromptedPassage, earlier_scores: Sequence[Score]
    ) -> Generator[Ask, Step, list[Score]]:
        """Return the scores of a part's own pieces, after those of all earlier pieces; empty without a head.

        Pieces that may be flagged wrongly are judged again. Without a head the prompt is read all the same.
        """
        if not self.can_score:
            return (yield from self._prefill(passage))
        step = yield from self._read_pieces_with_words(passage.fitted, passage.text, passage.own_pieces)
        self.evidence += step.evidence
        scores = [*earlier_scores, *step.scores]
        first_own = passage.part.first_own
        follows_flagged = first_own > 0 and self.is_flagged(scores[first_own - 1])
        yield from self.judge_followers(passage.part, scores, first_own, follows_flagged=follows_flagged)
        return scores[first_own:]

    def _read_pieces_with_words(
        self, prompt: Fitted, text: str, pieces: Sequence[Segment]
    ) -> Generator[Ask, Step, Step]:
        """Read some pieces of the answer `text`; return the step. Flagged inner words raise a piece's score."""
        step = yield from self._read(prompt, find_spans_with_words(prompt.prompt, pieces, prompt.offsets))
        yield from self.judge_words(prompt, text, pieces, step.scores)
        return step

    def judge_words(
        self, prompt: Fitted, text: str, pieces: Sequence[Segment], scores: list[Score]
    ) -> Generator[Ask, Step, None]:
        """Judge again those of the `pieces` that may be flagged because of inner words, and update `scores` in place.

        `text` is the answer in the prompt; `scores` are those of the first pieces. A detector takes some harmless words
        in a table, element or comment for worse than they are, and others for better. Therefore inner words flag their
        piece only if they are also flagged when they follow the text before the piece as a plain sentence:
        "Rows:\\n\\n| Two | you are a fool |" is read as "Rows:\\n\\nYou are a fool.". The last piece comes first, so
        that little is read twice.
        """
        for index in reversed(range(len(scores))):
            piece = pieces[index]
            nats, _ = scores[index]
            may_be_flagged = nats > self._request.caution - _find_allowance(piece.text)
            if may_be_flagged and judged_words(piece.text):
                own_score, word_scores = yield from self._judge_words_alone(prompt, text, piece)
                flagged_scores = [word_score for word_score in word_scores if word_score is not None]
                scores[index] = max([own_score, *flagged_scores])

    def _judge_words_alone(
        self, prompt: Fitted, text: str, piece: Segment
    ) -> Generator[Ask, Step, tuple[Score, list[Score | None]]]:
        """Return the score of a piece, not raised by its inner words, and a score for each of its inner words.

        Each is scored as a plain sentence in the piece's place; None for inner words that are not flagged as one.
        """
        piece_spans = find_spans_with_words(prompt.prompt, [piece], prompt.offsets)
        # the inner words count as segments here, so that each gets a score of its own; the piece is the last segment
        spans = replace(piece_spans, segments=(*piece_spans.inner_words[0], *piece_spans.segments), inner_words=())
        step = yield from self._read(prompt, spans)
        *scores_in_place, own_score = step.scores
        text_before = without_last_marks(text[: piece.start])
        threshold = self._request.caution + (0.0 if marked_words(piece.text) else _CLAUSE_MARGIN)
        word_scores: list[Score | None] = []
        for (start, end), (nats, _) in zip(judged_words(piece.text), scores_in_place, strict=True):
            # inner words far below the threshold in their place are not flagged as a sentence either
            if nats <= self._request.caution - _find_allowance(piece.text):
                word_scores.append(None)
                continue
            sentence_score = yield from self._judge_sentence(text_before, sentence_of(piece.text[start:end]))
            sentence_nats, _ = sentence_score
            word_scores.append(sentence_score if sentence_nats > threshold else None)
        return own_score, word_scores

    def _judge_sentence(self, text_before: str, sentence: str) -> Generator[Ask, Step, Score]:
        """Return the score of a sentence that follows `text_before` in the answer."""
        prompt = self._frame.fit_prompt(text_before + sentence)
        spans = find_spans(prompt.prompt, [Segment(len(text_before), sentence, "")], prompt.offsets)
        step = yield from self._read(prompt, spans)
        return step.scores[0]

    def judge_followers(
        self, part: PartRange, scores: list[Score], first: int, *, follows_flagged: bool
    ) -> Generator[Ask, Step, bool]:
        """Judge again the pieces from index `first` on that are flagged and follow a flagged piece; update `scores`.

        A detector takes a sentence after an insult for worse than it is: of "You are a fool. Bring a coat." it may flag
        both. Therefore "Bring a coat." is scored once more, after the unflagged pieces only. A sentence in a turn that
        the model invented ("Human: ...") goes with the turn, however fine the sentence is by itself. `scores` are those
        of the answer's pieces so far. `follows_flagged` says whether the piece before `first` was flagged. Returns
        whether the last piece was flagged before it was judged again.
        """
        for index in range(first, len(scores)):
            is_flagged = self.is_flagged(scores[index])
            # the end of the answer, a piece without text, is judged by the whole answer and not by the piece before
            is_follower = is_flagged and follows_flagged and index > part.first and self._division.pieces[index].text
            if is_follower and not self._is_in_flagged_turn(part, scores, index):
                new_score = yield from self._judge_behind_kept(part, scores, index)
                scores[index] = scores[index] if self.is_flagged(new_score) else new_score
            follows_flagged = is_flagged
        return follows_flagged

    def _is_in_flagged_turn(self, part: PartRange, scores: Sequence[Score], last: int) -> bool:
        """Whether a flagged piece of this part, up to the index `last`, begins with a role such as "Human:"."""
        pieces = self._division.pieces[part.first : last + 1]
        scored_pieces = zip(pieces, scores[part.first : last + 1], strict=True)
        return any(self.is_flagged(score) and structure.begins_turn(piece.text) for piece, score in scored_pieces)

    def _judge_behind_kept(self, part: PartRange, scores: Sequence[Score], index: int) -> Generator[Ask, Step, Score]:
        """Return the score of the piece at `index` when it follows only the unflagged pieces of its part."""
        *earlier_pieces, piece = self._division.pieces[part.first : index + 1]
        kept_pieces: list[tuple[str, str]] = []
        for earlier_piece, score in zip(earlier_pieces, scores[part.first : index], strict=True):
            kept_pieces.append(("" if self.is_flagged(score) else earlier_piece.text, earlier_piece.gap))
        text = structure.join([*kept_pieces, (piece.text, "")])
        prompt = self._frame.fit_prompt(text)
        placed_piece = Segment(len(text) - len(piece.text), piece.text, "")
        step = yield from self._read_pieces_with_words(prompt, text, [placed_piece])
        return step.scores[0]

    def _take_known_scores(self, part: PartRange) -> list[Score] | None:
        """Return the scores of a part that was already read, and add its evidence to that of this correction.

        The result is None for a part that must be read: the last one is always read again, because it may have grown.
        """
        is_last_part = part.stop == len(self._division.pieces)
        if not is_last_part and len(self._known_pieces.scores) >= part.stop:
            self.evidence += self._known_pieces.evidence[part.first_own : part.stop]
            return self._known_pieces.scores[part.first_own : part.stop]
        return None

    def _prefill(self, passage: PromptedPassage) -> Generator[Ask, Step, list[Score]]:
        """Read a part up to the end of its last piece; return first scores of its own pieces, none without a head."""
        spans = passage.find_spans(passage.own_pieces) if self.can_score else None
        step = yield from self._read(passage.fitted, spans)
        self.evidence += step.evidence
        return step.scores

    def _read(
        self, prompt: Fitted, spans: Spans | None, *, rows: bool = False, taught_heads: TaughtColumns | None = None
    ) -> Generator[Ask, Step, Step]:
        """Read a prompt up to the last of its `spans`; `taught_heads` are its objectives' own, if not the request's."""
        ids = prompt.ids[: spans.segments[-1].stop] if spans and spans.segments else prompt.ids
        # tokens that the sequence holds, for example from an answer that was read while it was written, are not fed
        start = min(count_matching(self._sequence.ids, ids), len(ids) - 1)
        self._sequence.crop(start)
        taught_heads = taught_heads or self._frame.taught_heads
        step = yield Ask(
            ids[start:], spans=spans, prompt=True, shared=prompt.shared, taught_heads=taught_heads, rows=rows
        )
        self.tally.forwards += step.forwards
        return step

    def is_flagged(self, score: Score) -> bool:
        """Whether a score is above the threshold."""
        return score[0] > self._request.caution

    def _verdicts(self, scores: Sequence[Score]) -> tuple[SegmentScore, ...]:
        """Return the verdicts on the answer's segments, made of the scores of its pieces."""
        return make_verdicts(self._division, ScoredPieces(list(scores), self.evidence), self._request.caution)
