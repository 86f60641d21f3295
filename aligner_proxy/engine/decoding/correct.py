"""One correction, from the request to the edited answer: prompt, prefill and scores, edits in place, assembly.

With a detector head only flagged segments are written anew; everything else is copied, by construction. What is written
is judged like what it replaces, and what is flagged again is left out. Without a head, or when asked to, the whole
answer is verified as a draft. Batching and queues are not known here.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignerInfo, AlignRequest, Span
from aligner_proxy.engine.decoding import splice
from aligner_proxy.engine.decoding.prompt_fit import Fitted, fit
from aligner_proxy.engine.decoding.proposer import EditProposer, matching, trusted_ranges
from aligner_proxy.engine.decoding.speculative import Generated, Limits, Tally, generate
from aligner_proxy.engine.model.detector import spans
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.sequence import Ask, Sequence, Spans, Step, Work
from aligner_proxy.errors import AnswerTooLong, EngineFault
from aligner_proxy.text import structure
from aligner_proxy.text.folding import unfold
from aligner_proxy.text.structure import words
from aligner_proxy.types import Correction, SegmentScore, Verify

_SPAN_ROOM = 16
_END_ROOM = 96
"""Tokens beyond half as much again as a flagged run has; behind the last segment whole sentences may be missing."""


@dataclass(frozen=True, slots=True)
class Aligner:
    """A loaded aligner: the model, what the aligner is, and the number of its adapter in the runner."""

    runner: ModelRunner
    info: AlignerInfo
    adapter: int = 0
    others: Mapping[str, Aligner] = field(default_factory=dict)
    """Those over the same runner that requests may choose by name."""

    def named(self, name: str) -> Aligner:
        """The aligner that requests call so; raises `UnknownAligner`."""
        self.info.named(name)
        return self.others.get(name, self)


def correct(aligner: Aligner, request: AlignRequest, sequence: Sequence) -> Work:
    """Correct one answer, ask by ask. Raises `AnswerTooLong`."""
    if not request.answer.strip():
        return Correction(request.answer, aligner=aligner.info.content_hash)
    work = _begun(aligner, request, sequence)
    text, scored = yield from work.edited()
    return Correction(
        text=text,
        segments=scored,
        counts=work.tally.counts(),
        prompt_tokens=work.prompt_tokens,
        ms=sequence.spent_s * 1000,
        aligner=aligner.info.content_hash,
    )


def judge(
    aligner: Aligner, request: AlignRequest, sequence: Sequence
) -> Generator[Ask, Step, tuple[SegmentScore, ...]]:
    """The verdicts on a whole answer, and nothing written. Raises `AnswerTooLong`."""
    if not request.answer.strip():
        return ()
    return (yield from _begun(aligner, request, sequence).judged())


def replace(aligner: Aligner, request: AlignRequest, span: Span, sequence: Sequence) -> Work:
    """Write in place of one stretch of an answer of which `request.answer` is the beginning."""
    before = sequence.spent_s
    work = _begun(aligner, request, sequence)
    text = yield from work.span(span)
    spent_ms = (sequence.spent_s - before) * 1000
    content_hash = aligner.info.content_hash
    return Correction(text, counts=work.tally.counts(), ms=spent_ms, aligner=content_hash)


def _begun(aligner: Aligner, request: AlignRequest, sequence: Sequence) -> _Work:
    return _Work(aligner, request, fitted(aligner, request), sequence)


def fitted(aligner: Aligner, request: AlignRequest) -> Fitted:
    """The request as a prompt that fits this aligner. Raises `AnswerTooLong`."""
    return fit(request, prompts.template(aligner.info.template), aligner.runner.tokenizer, aligner.info.window)


Edited = tuple[str, tuple[SegmentScore, ...]]


class _Work:
    """State of one correction: its sequence (prompt and what is written behind it) and its counts."""

    def __init__(self, aligner: Aligner, request: AlignRequest, fitted: Fitted, sequence: Sequence) -> None:
        self._aligner = aligner
        self._runner = aligner.runner
        self._request = request
        self._fitted = fitted
        self._has_head = aligner.info.has_head
        self._sequence = sequence
        self._segments = structure.split(request.answer)
        if self.scores and aligner.info.ends and request.open_ended:
            self._segments = structure.with_end(self._segments)
        self.tally = Tally()

    @property
    def scores(self) -> bool:
        """Whether segments can be scored: there is a head, and the prompt names objectives to compare them with."""
        return self._has_head and bool(self._fitted.prompt.objectives)

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self._fitted.ids)

    def edited(self) -> Generator[Ask, Step, Edited]:
        """The answer as the request wants it corrected, and the verdicts on its segments."""
        if self._request.score_only:
            # Without a head there are no scores, but the prompt is read: a probe has to make the model work.
            scores = yield from self._prefill()
            return self._request.answer, self._verdicts(scores)
        if self.scores and self._request.verify is Verify.FLAGGED:
            return (yield from self.flagged())
        return (yield from self.whole())

    def judged(self) -> Generator[Ask, Step, tuple[SegmentScore, ...]]:
        """Score the segments and write nothing."""
        return self._verdicts((yield from self._prefill()) if self.scores else [])

    def span(self, span: Span) -> Generator[Ask, Step, str]:
        """Write in place of one flagged run; what else was flagged before it stands in `span.before` already.

        In place of what stands behind the last segment comes what is missing there, white space before it included.
        """
        members = tuple(self._segments[span.first : span.stop])
        if not members:
            raise EngineFault("there are no such segments in the answer")
        flags = [span.first <= number < span.stop for number in range(len(self._segments))]
        lead = self._segments[span.first - 1].gap if span.before else ""
        run = splice.Run(True, span.first, members)
        return (yield from self._filled(splice.hole(self._segments, flags, run, span.before, lead), span.objective))

    def whole(self) -> Generator[Ask, Step, Edited]:
        """Verify the whole answer as a draft. It is fed with the prompt where both fit a step and that is cheap.

        Otherwise the detector, if the aligner has one, first scores what of it is likely to stand.
        """
        lookup = [*self._fitted.answer, self._runner.tokenizer.eos]
        scores = list[tuple[float, int]]()
        clean = tuple[range, ...]()
        if self.scores and self._runner.probes(self.prompt_tokens, len(lookup)):
            scores = yield from self._prefill()
            clean = self._clean(scores)
        where = self._spans() if self.scores and not scores else None
        proposer = EditProposer(lookup, self._runner.draft_length, trusted=clean)
        limits = Limits(self._fitted.room, caution=self._request.caution)
        written = yield from self._write(self._fitted.ids, proposer, limits, where)
        answer = self._request.answer
        text = splice.whole(unfold(self._restored(written.ids), answer), answer, finished=written.finished)
        return text, self._verdicts(scores or written.scores)

    def _clean(self, scores: list[tuple[float, int]]) -> tuple[range, ...]:
        """Tokens of the answer in segments that the detector did not flag."""
        flags = [verdict.flagged for verdict in self._verdicts(scores)]
        prompt = self._fitted.prompt
        shown = prompt.folded.segments(self._segments)
        return trusted_ranges(shown, flags, self._runner.tokenizer.pieces(prompt.shown).offsets)

    def flagged(self) -> Generator[Ask, Step, Edited]:
        """Score the segments and write anew only those that are flagged."""
        verdicts = self._verdicts((yield from self._prefill()))
        flags = [verdict.flagged for verdict in verdicts]
        if not any(flags):
            return self._request.answer, verdicts
        rewriting = splice.rewriting(self._segments, flags)
        hole = next(rewriting)
        while True:
            filled = yield from self._filled(hole, verdicts[-1].objective)
            try:
                hole = rewriting.send(filled)
            except StopIteration as done:
                return str(done.value), verdicts

    def _spans(self) -> Spans:
        return spans(self._fitted.prompt, self._segments, self._fitted.offsets)

    def _prefill(self) -> Generator[Ask, Step, list[tuple[float, int]]]:
        """Read the prompt to the end of its last segment; log-odds of all of them, and the objective they come from."""
        return (yield from self._read(self._fitted.ids, self._spans() if self.scores else None))

    def _read(self, prompt: list[int], where: Spans | None) -> Generator[Ask, Step, list[tuple[float, int]]]:
        """The same for some segments of any prompt, of which only what the sequence does not hold yet is fed."""
        ids = prompt[: where.segments[-1].stop] if where and where.segments else prompt
        # What has been read while the answer was still being written is not read again.
        start = min(matching(self._sequence.ids, ids), len(ids) - 1)
        self._sequence.crop(start)
        step = yield Ask(ids[start:], spans=where, prompt=True)
        self.tally.forwards += step.forwards
        return step.scores

    def _verdicts(self, scores: list[tuple[float, int]]) -> tuple[SegmentScore, ...]:
        if not scores:
            return tuple(SegmentScore(s.text, None, flagged=False) for s in self._segments)
        scored = zip(self._segments, scores, strict=True)
        return tuple(SegmentScore(s.text, score, score > self._request.caution, by) for s, (score, by) in scored)

    def _filled(self, hole: splice.Hole, misses: int | None) -> Generator[Ask, Step, str]:
        """What takes the place of a flagged run; behind the last segment, what an objective dictates is copied."""
        dictated = None
        if not hole.run.segments[-1].text and misses is not None and misses < len(self._request.objectives):
            dictated = words(self._request.objectives[misses])
        if not dictated:
            return (yield from self._fill(hole))
        text = (yield from self._fill(hole)) if hole.run.text else ""
        return text if dictated in text else hole.followed(text, dictated)

    def _fill(self, hole: splice.Hole) -> Generator[Ask, Step, str]:
        """Write in place of one flagged run, until the text reaches a kept segment, ends, or has grown too long."""
        proposer, room = self._hole_proposer(hole)
        limits = Limits(room, done=lambda ids: splice.before_resumption(self._restored(ids), hole.keys) is not None)
        context = [*self._fitted.ids, *self._runner.tokenizer.continuation(prompts.as_read(hole.before))]
        written = yield from self._write(context, proposer, limits)
        text = hole.filled(self._restored(written.ids), finished=written.finished)
        return (yield from self._passed(hole, text)) if text and self.scores else text

    def _passed(self, hole: splice.Hole, text: str) -> Generator[Ask, Step, str]:
        """What was written in a place, without the sentences of it that are flagged there, in their turn.

        An aligner that is not sure what to write often writes the offence once more, in other words.
        """
        now = self._request.model_copy(update={"answer": hole.with_text(text)})
        try:
            prompt = fitted(self._aligner, now)
        except AnswerTooLong:
            return ""  # it has outgrown the window, so it cannot be judged
        body = text.lstrip()
        pieces = structure.split(body)
        placed = [structure.moved(piece, len(now.answer) - len(body)) for piece in pieces]
        scores = yield from self._read(prompt.ids, spans(prompt.prompt, placed, prompt.offsets))
        scored = zip(pieces, scores, strict=True)
        kept = structure.join([("" if score > self._request.caution else s.text, s.gap) for s, (score, _) in scored])
        return text.removesuffix(body) + kept if kept else ""

    def _hole_proposer(self, hole: splice.Hole) -> tuple[EditProposer, int]:
        """Draft what follows the span first: most flagged segments are removed. The span itself is the second guess.

        What is missing behind the last segment often stands in an objective.
        """
        tokenizer = self._runner.tokenizer
        lead = hole.lead
        ends = not hole.run.segments[-1].text
        span = tokenizer.continuation(prompts.as_read(lead + hole.run.text.lstrip()))
        then = tokenizer.continuation(prompts.neutralise(lead + hole.keys[0])) if hole.keys else [tokenizer.eos]
        room = len(span) + len(span) // 2 + (_END_ROOM if ends else _SPAN_ROOM)
        aspects = tokenizer.continuation(" " + prompts.aspects(self._request.objectives)) if ends else []
        lookup = [*aspects, *span, *then]
        first = len(aspects) + len(span)
        return EditProposer(lookup, self._runner.draft_length, anchors=(first,)), room

    def _write(
        self, context: list[int], proposer: EditProposer, limits: Limits, where: Spans | None = None
    ) -> Generator[Ask, Step, Generated]:
        """Continue after `context`, feeding only what the sequence does not hold yet; with `where`, score it, too."""
        # The last token is always fed again: what follows it is chosen from its hidden state.
        start = min(matching(self._sequence.ids, context), len(context) - 1)
        self._sequence.crop(start)
        eos = self._runner.tokenizer.eos_ids
        first = Ask(context[start:], spans=where, prompt=where is not None or not self._sequence.ids)
        return generate(self._sequence, first, proposer, limits, self.tally, eos)

    def _restored(self, ids: list[int]) -> str:
        return self._fitted.prompt.restore(self._runner.tokenizer.decode(ids))
