"""How is an answer read while the upstream is still writing it? What has come goes through the model as it comes.

When the answer ends, only its last words have to be read, and the verdicts on all finished segments are known already.
The last word is held back, because its tokens may change with what follows; a segment counts as finished when the next
one has begun. Whoever releases the answer segment by segment also has flagged stretches replaced meanwhile; the prompt
then ends where that stretch's answer does, and what was read beyond is read again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field

from aligner_proxy.engine.correct import Aligner, correct, fitted, judge, replace
from aligner_proxy.engine.detector import Spans, spans
from aligner_proxy.engine.fit import Fitted
from aligner_proxy.engine.proposer import matching
from aligner_proxy.engine.protocol import AlignRequest, Span
from aligner_proxy.engine.sequence import Ask, Sequence, Step, Work
from aligner_proxy.segments import Cutter, Segment, firm, split
from aligner_proxy.types import Correction, SegmentScore

ENOUGH_CHARS, ALONE_CHARS = 96, 32
"""So much new text wakes the reader: some 20 tokens, so that a forward is not spent on a word (chunks of 32 tokens cost
a fifth more than one long prefill). Where nobody else wants the engine, a third of it: so less is left at the end."""


@dataclass(slots=True, eq=False)
class Replacing:
    """A stretch that somebody wants replaced."""

    span: Span
    done: Future[Correction] = field(default_factory=Future)


@dataclass(slots=True)
class Growing:
    """An answer that is being written. Written by whoever receives it, read in the model's thread."""

    request: AlignRequest
    text: str = ""
    complete: bool = False
    """It has ended, and the whole of it is to be corrected."""
    ended: bool = False
    """It has ended, and all verdicts are wanted."""
    awaited: bool = False
    """Somebody waits for verdicts, so each finished segment is worth a forward."""
    read: int = 0
    verdicts: tuple[SegmentScore, ...] = field(default=())
    """On the segments that are finished."""
    judged: bool = False
    """All verdicts are there."""
    replacing: deque[Replacing] = field(default_factory=deque)
    alone: Callable[[], bool] = lambda: False
    """Whether nobody else wants the engine."""
    told: Callable[[], None] = lambda: None
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


def read(aligner: Aligner, growing: Growing, sequence: Sequence) -> Work:
    """Read an answer as it grows, and correct it when it has ended; `growing.request` has the whole of it by then."""
    while not growing.complete:
        # In this order: what is said to be finished must stand in the text.
        growing.seen = growing.finished
        text = growing.text
        growing.read = len(text)
        if growing.replacing:
            yield from _replace(aligner, growing, sequence)
        elif growing.ended:
            growing.verdicts = yield from judge(aligner, _so_far(growing, len(growing.text)), sequence)
            growing.judged = True
            growing.told()
        elif text.strip():
            yield from _read_on(aligner, growing, text, sequence)
        if not growing.waits():
            yield Ask([])
    return (yield from correct(aligner, growing.request, sequence))


def _so_far(growing: Growing, length: int) -> AlignRequest:
    return growing.request.model_copy(update={"answer": growing.text[:length]})


def _replace(aligner: Aligner, growing: Growing, sequence: Sequence) -> Generator[Ask, Step, None]:
    """Write in place of the stretch that has waited longest; what it raises ends the reading."""
    wanted = growing.replacing.popleft()
    made = yield from replace(aligner, _so_far(growing, wanted.span.end), wanted.span, sequence)
    wanted.done.set_result(made)
    growing.told()


def _read_on(aligner: Aligner, growing: Growing, text: str, sequence: Sequence) -> Generator[Ask, Step, None]:
    """Feed what is new and will not change any more; note the verdicts on the segments that are finished."""
    request = growing.request.model_copy(update={"answer": text})
    prompt = fitted(aligner, request)
    ids = prompt.ids[: _tokens_until(prompt, prompt.prompt.start + firm(text))]
    start = matching(sequence.ids, ids)
    if start == len(ids):
        return
    sequence.crop(start)
    finished = split(text)[:-1]
    where = _fed(prompt, finished, len(ids)) if aligner.info.has_head and prompt.prompt.objectives else None
    step = yield Ask(ids[start:], spans=where, prompt=True)
    caution = request.caution
    words = zip(finished, step.scores, strict=False)
    growing.verdicts = tuple(SegmentScore(s.text, score, score > caution, by) for s, (score, by) in words)
    growing.told()


def _fed(prompt: Fitted, finished: list[Segment], tokens: int) -> Spans | None:
    """The finished segments whose last token is among the first `tokens`; one may end in white space that follows."""
    where = spans(prompt.prompt, finished, prompt.offsets)
    inside = tuple(segment for segment in where.segments if segment.stop <= tokens)
    return Spans(where.objectives, inside) if inside else None


def _tokens_until(prompt: Fitted, end: int) -> int:
    """How many of the prompt's tokens end at or before a character."""
    return bisect_right(prompt.offsets, end, key=lambda offset: offset[1])
