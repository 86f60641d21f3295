"""One correction, from the request to the edited answer: prompt, prefill and scores, edits in place, assembly.

With a detector head only flagged segments are written anew; everything else is copied, by construction. Without one,
or when asked to, the whole answer is verified as a draft. Batching and queues are not known here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from dataclasses import dataclass

from aligner_proxy import prompts, segments
from aligner_proxy.engine import splice
from aligner_proxy.engine.decode import Generated, Limits, Tally, generate
from aligner_proxy.engine.detector import spans
from aligner_proxy.engine.fit import Fitted, fit
from aligner_proxy.engine.proposer import EditProposer, matching
from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest
from aligner_proxy.engine.runner import ModelRunner
from aligner_proxy.engine.sequence import Ask, Sequence, Step, Work
from aligner_proxy.types import Correction, SegmentScore, Verify

_SPAN_ROOM = 16
_FURTHER_TURN = re.compile(r"\n\s*(?:Human|Assistant|USER|ASSISTANT|User)\s*:")


@dataclass(frozen=True, slots=True)
class Aligner:
    """A loaded aligner: the model, and what it is."""

    runner: ModelRunner
    info: AlignerInfo


def correct(aligner: Aligner, request: AlignRequest, sequence: Sequence) -> Work:
    """Correct one answer, ask by ask. Raises `AnswerTooLong`."""
    started = time.perf_counter()
    if not request.answer.strip():
        return Correction(request.answer, aligner=aligner.info.content_hash)
    fitted = fit(request, prompts.template(aligner.info.template), aligner.runner.tokenizer, aligner.info.window)
    work = _Work(aligner.runner, request, fitted, sequence)
    text, scored = yield from (work.flagged() if work.scores and request.verify is Verify.FLAGGED else work.whole())
    return Correction(
        text=text,
        segments=scored,
        counts=work.tally.counts(),
        prompt_tokens=len(fitted.ids),
        ms=(time.perf_counter() - started) * 1000,
        aligner=aligner.info.content_hash,
    )


Edited = tuple[str, tuple[SegmentScore, ...]]


class _Work:
    """State of one correction: its sequence (prompt and what is written behind it) and its counts."""

    def __init__(self, runner: ModelRunner, request: AlignRequest, fitted: Fitted, sequence: Sequence) -> None:
        self._runner, self._request, self._fitted = runner, request, fitted
        self._sequence = sequence
        self._segments = segments.split(request.answer)
        self.tally = Tally()

    @property
    def scores(self) -> bool:
        """Whether segments can be scored: there is a head, and the prompt names objectives to compare them with."""
        return self._runner.has_head and bool(self._fitted.prompt.objectives)

    def whole(self) -> Generator[Ask, Step, Edited]:
        """Verify the whole answer as a draft; without a head the first draft goes along with the prompt."""
        scores = (yield from self._prefill()) if self.scores else []
        proposer = EditProposer([*self._fitted.answer, self._runner.tokenizer.eos], self._runner.draft_limits)
        limits = Limits(self._fitted.room, caution=self._request.caution)
        written = yield from self._write(self._fitted.ids, proposer, limits)
        return self._finish(written), self._verdicts(scores)

    def flagged(self) -> Generator[Ask, Step, Edited]:
        """Score the segments and write anew only those that are flagged."""
        verdicts = self._verdicts((yield from self._prefill()))
        flags = [verdict.flagged for verdict in verdicts]
        if not any(flags):
            return self._request.answer, verdicts
        pieces: list[tuple[str, str]] = []
        for run in splice.runs(self._segments, flags):
            if run.flagged:
                text = yield from self._rewrite(run, pieces, flags)
                pieces.append((text, run.segments[-1].gap))
            else:
                pieces.extend((segment.text, segment.gap) for segment in run.segments)
        return segments.join(pieces), verdicts

    def _prefill(self) -> Generator[Ask, Step, list[tuple[float, int]]]:
        """Read the prompt; log-odds of every segment, and the objective that they come from."""
        where = spans(self._fitted.prompt, self._segments, self._fitted.offsets)
        # What has been read while the answer was still being written is not read again.
        start = min(matching(self._sequence.ids, self._fitted.ids), len(self._fitted.ids) - 1)
        self._sequence.crop(start)
        step = yield Ask(self._fitted.ids[start:], spans=where, prompt=True)
        self.tally.forwards += step.forwards
        return step.scores

    def _verdicts(self, scores: list[tuple[float, int]]) -> tuple[SegmentScore, ...]:
        if not scores:
            return tuple(SegmentScore(s.text, None, flagged=False) for s in self._segments)
        words = zip(self._segments, scores, strict=True)
        return tuple(SegmentScore(s.text, score, score > self._request.caution, by) for s, (score, by) in words)

    def _rewrite(self, run: splice.Run, pieces: list[tuple[str, str]], flags: list[bool]) -> Generator[Ask, Step, str]:
        """Write in place of one flagged run, until the text reaches a kept segment, ends, or has grown too long."""
        start = run.at + len(run.segments)
        following = [s for s, flag in zip(self._segments[start:], flags[start:], strict=True) if not flag]
        keys = splice.resumption_keys(following)
        before = segments.join(pieces)
        proposer, room = self._span_proposer(run, pieces, before, keys)
        limits = Limits(room, done=lambda ids: splice.before_resumption(self._restored(ids), keys) is not None)
        context = [*self._fitted.ids, *self._runner.tokenizer.continuation(prompts.neutralise(before))]
        written = yield from self._write(context, proposer, limits)
        return splice.replacement(
            self._restored(written.ids), keys, self._banned(run, flags), finished=written.finished
        )

    def _span_proposer(
        self, run: splice.Run, pieces: list[tuple[str, str]], before: str, keys: tuple[str, ...]
    ) -> tuple[EditProposer, int]:
        """Draft what follows the span first: most flagged segments are removed. The span itself is the second guess."""
        tokenizer = self._runner.tokenizer
        lead = pieces[-1][1] if before else ""
        span = tokenizer.continuation(prompts.neutralise(lead + run.text.lstrip()))
        then = tokenizer.continuation(prompts.neutralise(lead + keys[0])) if keys else [tokenizer.eos]
        room = len(span) + len(span) // 2 + _SPAN_ROOM
        return EditProposer([*span, *then], self._runner.draft_limits, anchors=(len(span),)), room

    def _banned(self, run: splice.Run, flags: list[bool]) -> list[str]:
        """Texts that must not come back in a replacement: the span's own segments, and long kept ones."""
        kept = [s.text for s, flag in zip(self._segments, flags, strict=True) if not flag]
        return [s.text.strip() for s in run.segments] + [t.strip() for t in kept if len(t) >= splice.KEY_CHARS]

    def _write(self, context: list[int], proposer: EditProposer, limits: Limits) -> Generator[Ask, Step, Generated]:
        """Continue after `context`, feeding only what the sequence does not hold yet."""
        # The last token is always fed again: what follows it is chosen from its hidden state.
        start = min(matching(self._sequence.ids, context), len(context) - 1)
        self._sequence.crop(start)
        eos = self._runner.tokenizer.eos_ids
        return generate(
            self._sequence, context[start:], proposer, limits, self.tally, eos, prompt=not self._sequence.ids
        )

    def _restored(self, ids: list[int]) -> str:
        return self._fitted.prompt.restore(self._runner.tokenizer.decode(ids))

    def _finish(self, written: Generated) -> str:
        """The verified whole answer as text: the answer itself when only outer white space differs."""
        text, answer = self._restored(written.ids), self._request.answer
        if not written.finished:
            text = splice.complete(text)
        turn = _FURTHER_TURN.search(text)
        if turn and not _FURTHER_TURN.search(answer):
            text = text[: turn.start()]
        return answer if text.strip() == answer.strip() else text.strip()
