"""How is an answer read while the upstream is still writing it? What has come goes through the model as it comes.

When the answer ends, only its last words have to be read, and the verdicts on all finished segments are known already.
The last word is held back, because its tokens may change with what follows; a segment counts as finished when the next
one has begun.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator
from dataclasses import dataclass, field

from aligner_proxy import prompts, segments
from aligner_proxy.engine.correct import Aligner, correct
from aligner_proxy.engine.detector import spans
from aligner_proxy.engine.fit import Fitted, fit
from aligner_proxy.engine.proposer import matching
from aligner_proxy.engine.protocol import AlignRequest
from aligner_proxy.engine.sequence import Ask, Sequence, Step, Work
from aligner_proxy.types import SegmentScore

ENOUGH_CHARS = 96
"""So much new text wakes the reader: some 20 tokens, so that a forward is not spent on a word (chunks of 32 tokens cost
a fifth more than one long prefill)."""


@dataclass(slots=True)
class Growing:
    """An answer that is being written. Written by whoever receives it, read in the model's thread."""

    request: AlignRequest
    text: str = ""
    complete: bool = False
    read: int = 0
    verdicts: tuple[SegmentScore, ...] = field(default=())
    """On the segments that are finished."""

    def waits(self) -> bool:
        """Whether there is something to do: the answer has ended, or enough of it is new."""
        return self.complete or len(self.text) - self.read >= ENOUGH_CHARS


def read(aligner: Aligner, growing: Growing, sequence: Sequence) -> Work:
    """Read an answer as it grows, and correct it when it has ended; `growing.request` has the whole of it by then."""
    while not growing.complete:
        text = growing.text
        growing.read = len(text)
        if text.strip():
            yield from _read_on(aligner, growing, text, sequence)
        if not growing.waits():
            yield Ask([])
    return (yield from correct(aligner, growing.request, sequence))


def _read_on(aligner: Aligner, growing: Growing, text: str, sequence: Sequence) -> Generator[Ask, Step, None]:
    """Feed what is new and will not change any more; note the verdicts on the segments that are finished."""
    request = growing.request.model_copy(update={"answer": text})
    fitted = fit(request, prompts.template(aligner.info.template), aligner.runner.tokenizer, aligner.info.window)
    firm = fitted.prompt.start + _firm(text)
    ids = fitted.ids[: _tokens_until(fitted, firm)]
    start = matching(sequence.ids, ids)
    if start == len(ids):
        return
    sequence.crop(start)
    finished = [s for s in segments.split(text)[:-1] if fitted.prompt.start + s.end <= firm]
    scored = aligner.runner.has_head and finished and fitted.prompt.objectives
    where = spans(fitted.prompt, finished, fitted.offsets) if scored else None
    step = yield Ask(ids[start:], spans=where, prompt=True)
    caution = request.caution
    words = zip(finished, step.scores, strict=False)
    growing.verdicts = tuple(SegmentScore(s.text, score, score > caution, by) for s, (score, by) in words)


def _firm(text: str) -> int:
    """Characters before the last word, the white space before it excluded: their tokens stay what they are."""
    return len(text[: len(text.rstrip()) - len(text.split()[-1])].rstrip()) if text.split() else 0


def _tokens_until(fitted: Fitted, end: int) -> int:
    """How many of the prompt's tokens end at or before a character."""
    return bisect_right(fitted.offsets, end, key=lambda offset: offset[1])
