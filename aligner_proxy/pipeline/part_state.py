"""State of one part of a growing answer: what came, how it was judged, and what goes out in its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from aligner_proxy.errors import EngineFault
from aligner_proxy.pipeline.edit_tally import EditTally
from aligner_proxy.pipeline.replacements import ReplacementMap
from aligner_proxy.plugins.stage import AnswerSoFar, Stop
from aligner_proxy.text.cutter import Cutter
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Exchange, Policy, SegmentScore


class AnswerFacts:
    """What is known of an answer beside its text; asking for it anew costs more the longer the conversation is."""

    def __init__(self, ask: Callable[[], Exchange]) -> None:
        self._ask = ask
        self._latest: Exchange | None = None

    def __call__(self) -> Exchange:
        """As it is now."""
        self._latest = self._ask()
        return self._latest

    def latest(self) -> Exchange:
        """As it was when it was asked for last."""
        return self._latest or self()


class GrowingSegments:
    """A text as it comes, cut into segments."""

    def __init__(self) -> None:
        self.text = ""
        self.segments: list[Segment] = []
        self.has_ended = False
        self.ended_at = 0.0
        self._cutter = Cutter()

    @property
    def length(self) -> int:
        """How much has come."""
        return len(self.text)

    def cut(self, piece: str) -> None:
        """Cut the piece that was added to the text last."""
        self.segments += self._cutter.feed(piece)

    def end(self) -> None:
        """It has ended."""
        self.has_ended = True
        self.ended_at = time.perf_counter()
        self.segments += self._cutter.end()


class SegmentVerdicts:
    """The verdicts on the first segments of a text: the engine's, with what another reading flags besides."""

    def __init__(self) -> None:
        self.all: tuple[SegmentScore, ...] = ()
        self.behind: SegmentScore | None = None
        """The verdict on the place behind the last segment; flagged, something is missing there."""
        self._engine_verdicts: tuple[SegmentScore, ...] = ()
        """The engine's, as they came last."""
        self._further: dict[int, SegmentScore] = {}
        """Those of other readings, by the numbers of their segments."""

    def accept(
        self, verdicts: tuple[SegmentScore, ...], segments: Sequence[Segment], undecided: int, *, is_end: bool
    ) -> None:
        """Keep more verdicts of the engine; those from `undecided` on have to be on these segments.

        At the end of an answer the engine adds a verdict without text: flagged, something is missing there.
        """
        known_count = len(self.all)
        count = len(segments)
        # What went out, or stands as it was, was compared before: a part of many short segments would be compared as
        # often as it has some.
        standing = slice(undecided, known_count)
        is_known = verdicts[standing] == self._engine_verdicts[standing]
        compared = range(known_count if is_known else min(known_count, undecided), min(len(verdicts), count))
        if len(verdicts) <= known_count or any(verdicts[n].text != segments[n].text for n in compared):
            raise EngineFault("the engine judged other segments than these")
        self._engine_verdicts = verdicts
        self.all = self._with_further(verdicts[:count])
        self.behind = next((verdict for verdict in verdicts[count:] if is_end and not verdict.text), None)

    def flag(self, further: Mapping[int, SegmentScore]) -> None:
        """Another reading flags these segments."""
        self._further |= further
        self.all = self._with_further(self.all)

    def _with_further(self, verdicts: tuple[SegmentScore, ...]) -> tuple[SegmentScore, ...]:
        if not self._further:
            return verdicts
        return tuple(self._further.get(number, verdict) for number, verdict in enumerate(verdicts))

    @property
    def is_end_missing(self) -> bool:
        """Whether something is missing behind the last segment; in place of a flagged one comes that, too."""
        return self.behind is not None and self.behind.flagged


class PartState:
    """One part of a growing answer. `facts` is what is known of the answer beside its text.

    `notify` is called whenever more of it is decided. Places are characters of the original.
    """

    def __init__(
        self, policy: Policy, facts: Callable[[], Exchange], notify: Callable[[], None], *, is_part: bool
    ) -> None:
        self.policy = policy
        self.facts = AnswerFacts(facts)
        self._notify = notify
        self.is_part = is_part
        """It begins in mid-answer, or more of the answer follows."""
        self.cut = GrowingSegments()
        self.verdicts = SegmentVerdicts()
        self.delivery = ReplacementMap()
        """What goes out in place of what is decided."""
        self.decided = 0
        """So many segments are decided."""
        self.tally = EditTally()
        self.stop: Stop | None = None
        """Why it was given up."""
        self.over = asyncio.Event()
        """All that came or may still come is decided."""
        self.ms = 0.0
        """How long that took from the end of the answer on."""

    @property
    def is_over(self) -> bool:
        """Whether all that came or may still come is decided."""
        return self.over.is_set()

    @property
    def is_judged(self) -> bool:
        """Whether it has ended and has all its verdicts."""
        return self.cut.has_ended and len(self.verdicts.all) == len(self.cut.segments)

    def exchange(self) -> Exchange:
        """The answer as far as it has come."""
        facts = self.facts()
        return replace(facts, answer=self.cut.text or None, inner=facts.inner or self.is_part)

    def answer(self, *, is_final: bool = False) -> AnswerSoFar:
        """The same for stages; before its end with the facts of when something went out of it first."""
        return AnswerSoFar(
            self.exchange() if is_final or not self.delivery.end else self.facts.latest(),
            self.cut.text,
            self.policy,
            deadline=time.monotonic() + self.policy.deadline_s,
            is_whole=False,
            has_ended=self.cut.has_ended,
            is_part=self.is_part,
            is_stopped=self.stop is not None,
            sent_chars=self.delivery.end,
            segments=self.cut.segments,
            verdicts=self.verdicts.all,
        )

    def verdicts_up_to(self, end: int) -> tuple[SegmentScore, ...]:
        """The verdicts on what there is up to `end`."""
        pairs = zip(self.verdicts.all, self.cut.segments, strict=False)
        verdicts = [verdict for verdict, segment in pairs if segment.end <= end]
        if self.verdicts.behind is not None and end == self.cut.length:
            verdicts.append(self.verdicts.behind)
        return tuple(verdicts)

    def send(self, end: int, text: str, *, is_changed: bool) -> None:
        """`text` goes out in place of what is undecided up to `end`."""
        self.delivery.add(end, text, is_changed=is_changed)
        self._notify()

    def close(self, stop: Stop) -> None:
        """Give up: all that is undecided goes out as it is."""
        if not self.is_over:
            self.stop = stop
            self.seal()

    def seal(self) -> None:
        """Nothing is to be decided any more."""
        if self.cut.has_ended:
            self.ms = (time.perf_counter() - self.cut.ended_at) * 1000
        self.over.set()
        self._notify()
