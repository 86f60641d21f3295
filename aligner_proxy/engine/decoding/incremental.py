"""Incremental correction: an answer goes through the model while the upstream is still writing it.

When the answer ends, only its last words have to be read, and the verdicts on all finished segments are known already.
The last word is held back, because its tokens may change with what follows; a segment counts as finished when the next
one has begun. Where the answer is released segment by segment, flagged stretches are replaced meanwhile; the prompt
then ends where that stretch's answer does, and what was read beyond is read again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field

from aligner_proxy.engine.api import AlignRequest, Span
from aligner_proxy.engine.decoding.correct import Aligner, correct, fitted, judge, replace
from aligner_proxy.engine.decoding.prompt_fit import Fitted
from aligner_proxy.engine.decoding.proposer import matching
from aligner_proxy.engine.model.detector import spans
from aligner_proxy.engine.scheduling.sequence import Ask, Sequence, Spans, Step, Work
from aligner_proxy.text.cutter import Cutter
from aligner_proxy.text.structure import Segment, firm, split
from aligner_proxy.types import Correction, SegmentScore

ENOUGH_CHARS = 96
"""So much new text is worth a forward: some 20 tokens (chunks of 32 cost a fifth more than one long prefill)."""
ALONE_CHARS = 32
"""The same where the engine has no other request: so less is left at the end."""


@dataclass(slots=True, eq=False)
class PendingReplacement:
    """A flagged stretch that waits to be replaced."""

    span: Span
    done: Future[Correction] = field(default_factory=Future)


@dataclass(slots=True)
class PartialAnswer:
    """An answer that is still being written: fed in the event loop, read in the model's thread."""

    request: AlignRequest
    text: str = ""
    complete: bool = False
    """It has ended, and the whole of it is to be corrected."""
    ended: bool = False
    """It has ended, and all verdicts are wanted."""
    awaited: bool = False
    """A client waits for verdicts, so each finished segment is worth a forward."""
    read: int = 0
    verdicts: tuple[SegmentScore, ...] = field(default=())
    """On the segments that are finished."""
    judged: bool = False
    """All verdicts are there."""
    replacing: deque[PendingReplacement] = field(default_factory=deque)
    alone: Callable[[], bool] = lambda: False
    """Whether no other request needs the engine."""
    changed: Callable[[], None] = lambda: None
    """Called in the model's thread when there is something new."""
    finished: int = 0
    seen: int = 0
    """Finished segments, and how many of them the reader has looked at."""
    cutter: Cutter = field(default_factory=Cutter)

    def add(self, more: str) -> None:
        """More of the answer."""
        self.text += more
        self.finished += len(self.cutter.feed(more))

    def waits(self) -> bool:
        """Whether there is something to do: the answer has ended, or enough of it is new."""
        if self.complete or self.replacing or (self.ended and not self.judged):
            return True
        due = self.awaited and self.finished > self.seen
        enough = ALONE_CHARS if self.alone() else ENOUGH_CHARS
        return due or (not self.judged and len(self.text) - self.read >= enough)


def read(aligner: Aligner, answer: PartialAnswer, sequence: Sequence) -> Work:
    """Read an answer as it grows, and correct it when it has ended; `answer.request` has the whole of it by then."""
    while not answer.complete:
        # In this order: what counts as finished must stand in the text.
        answer.seen = answer.finished
        text = answer.text
        answer.read = len(text)
        if answer.replacing:
            yield from _replace(aligner, answer, sequence)
        elif answer.ended:
            answer.verdicts = yield from judge(aligner, _so_far(answer, len(answer.text)), sequence)
            answer.judged = True
            answer.changed()
        elif text.strip():
            yield from _read_on(aligner, answer, text, sequence)
        if not answer.waits():
            yield Ask([])
    return (yield from correct(aligner, answer.request, sequence))


def _so_far(answer: PartialAnswer, length: int) -> AlignRequest:
    return answer.request.model_copy(update={"answer": answer.text[:length]})


def _replace(aligner: Aligner, answer: PartialAnswer, sequence: Sequence) -> Generator[Ask, Step, None]:
    """Write in place of the stretch that has waited longest; what it raises ends the reading."""
    pending = answer.replacing.popleft()
    correction = yield from replace(aligner, _so_far(answer, pending.span.end), pending.span, sequence)
    pending.done.set_result(correction)
    answer.changed()


def _read_on(aligner: Aligner, answer: PartialAnswer, text: str, sequence: Sequence) -> Generator[Ask, Step, None]:
    """Feed what is new and will not change any more; note the verdicts on the segments that are finished."""
    request = answer.request.model_copy(update={"answer": text})
    prompt = fitted(aligner, request)
    ids = prompt.ids[: _tokens_until(prompt, prompt.prompt.place(firm(text)))]
    start = matching(sequence.ids, ids)
    if start == len(ids):
        return
    sequence.crop(start)
    finished = split(text)[:-1]
    where = _fed(prompt, finished, len(ids)) if aligner.info.has_head and prompt.prompt.objectives else None
    step = yield Ask(ids[start:], spans=where, prompt=True)
    caution = request.caution
    scored = zip(finished, step.scores, strict=False)
    answer.verdicts = tuple(SegmentScore(s.text, score, score > caution, by) for s, (score, by) in scored)
    answer.changed()


def _fed(prompt: Fitted, finished: list[Segment], tokens: int) -> Spans | None:
    """The finished segments whose last token is among the first `tokens`; one may end in white space that follows."""
    where = spans(prompt.prompt, finished, prompt.offsets)
    inside = tuple(segment for segment in where.segments if segment.stop <= tokens)
    return Spans(where.objectives, inside) if inside else None


def _tokens_until(prompt: Fitted, end: int) -> int:
    """How many of the prompt's tokens end at or before a character."""
    return bisect_right(prompt.offsets, end, key=lambda offset: offset[1])
