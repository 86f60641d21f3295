"""State of one part of a growing answer: the text received, its verdicts and its replacements."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from aligner_proxy.errors import EngineFault
from aligner_proxy.pipeline.edit_tally import EditTally
from aligner_proxy.pipeline.replacements import ReplacementMap
from aligner_proxy.plugins.stage import AnswerSoFar, StageModels, Stop
from aligner_proxy.text.program_text import CallReader
from aligner_proxy.text.splitter import Splitter
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Exchange, OnSkip, Policy, SegmentScore


class AnswerFacts:
    """Everything known about an answer besides its text: call it for the present facts, `latest` for those kept.

    Asking costs more the longer the conversation is, so the latest facts are kept.
    """

    def __init__(self, ask: Callable[[], Exchange]) -> None:
        self._ask = ask
        self._latest: Exchange | None = None

    def __call__(self) -> Exchange:
        self._latest = self._ask()
        return self._latest

    def latest(self) -> Exchange:
        """The facts from the latest call, which may be out of date."""
        return self._latest or self()


class GrowingSegments:
    """A text that grows and is cut into segments, the first of which are decided."""

    def __init__(self) -> None:
        self.text = ""
        self.segments: list[Segment] = []
        """The complete segments; the one in progress is added when the next one begins."""
        self.has_ended = False
        self.ended_at = 0.0
        """When the text ended (`time.perf_counter()`)."""
        self.decided = 0
        """Number of decided segments."""
        self._splitter = Splitter()
        self._calls = CallReader()

    @property
    def length(self) -> int:
        """Number of characters received so far."""
        return len(self.text)

    def cut(self, piece: str) -> None:
        """Cut the piece that was added to the text last."""
        self.segments += self._splitter.feed(piece)

    def end(self) -> None:
        """End the text and note the time."""
        self.has_ended = True
        self.ended_at = time.perf_counter()
        self.segments += self._splitter.end()

    def begins_call(self) -> bool:
        """Whether a call for a program begins in the text so far."""
        return self._calls.read(self.text, self.segments)


class SegmentVerdicts:
    """The engine's verdicts on the first segments of a text, overridden by flags from second readings."""

    def __init__(self) -> None:
        self.all: tuple[SegmentScore, ...] = ()
        """The verdicts in force, one for each of the first segments."""
        self.end_verdict: SegmentScore | None = None
        """The verdict on the position after the last segment; if flagged, something is missing there."""
        self._engine_verdicts: tuple[SegmentScore, ...] = ()
        """The latest verdicts from the engine."""
        self._second_verdicts: dict[int, SegmentScore] = {}
        """The verdicts of second readings by segment number."""

    def accept(
        self, verdicts: tuple[SegmentScore, ...], segments: Sequence[Segment], undecided: int, *, is_end: bool
    ) -> None:
        """Store further verdicts; raises `EngineFault` if those from `undecided` on are not on these segments.

        At the end of an answer the engine adds a verdict without text. If flagged, something is missing there.
        """
        known_count = len(self.all)
        count = len(segments)
        # Verdicts on segments that went out, or that are unchanged, were compared before. Comparing them every time
        # would take quadratic time in a part with many short segments.
        undecided_verdicts = slice(undecided, known_count)
        is_unchanged = verdicts[undecided_verdicts] == self._engine_verdicts[undecided_verdicts]
        first_compared = known_count if is_unchanged else min(known_count, undecided)
        compared = range(first_compared, min(len(verdicts), count))
        has_other_texts = any(verdicts[number].text != segments[number].text for number in compared)
        if len(verdicts) <= known_count or has_other_texts:
            raise EngineFault("the engine judged other segments than these")
        self._engine_verdicts = verdicts
        self.all = self._apply_further(verdicts[:count])
        self.end_verdict = next((verdict for verdict in verdicts[count:] if is_end and not verdict.text), None)

    def flag(self, further: Mapping[int, SegmentScore]) -> None:
        """Override the verdicts on these segments with those of a second reading."""
        self._second_verdicts |= further
        self.all = self._apply_further(self.all)

    def _apply_further(self, verdicts: tuple[SegmentScore, ...]) -> tuple[SegmentScore, ...]:
        """These verdicts, with those of second readings in place of the engine's."""
        if not self._second_verdicts:
            return verdicts
        return tuple(self._second_verdicts.get(number, verdict) for number, verdict in enumerate(verdicts))

    @property
    def is_end_missing(self) -> bool:
        """Whether something is missing after the last segment.

        If the last segment is flagged, its replacement includes that.
        """
        return self.end_verdict is not None and self.end_verdict.flagged


class PartState:
    """One part of a growing answer. `facts` returns everything known about the answer besides its text.

    `notify` is called whenever more of the part is decided. Positions are character offsets into the original.
    """

    def __init__(
        self,
        policy: Policy,
        facts: Callable[[], Exchange],
        notify: Callable[[], None],
        *,
        is_part: bool,
        models: StageModels,
    ) -> None:
        self.policy = policy
        self._models = models
        self.facts = AnswerFacts(facts)
        self._notify = notify
        self.is_part = is_part
        """Whether it begins in the middle of an answer, or more of the answer follows."""
        self.received = GrowingSegments()
        self.verdicts = SegmentVerdicts()
        self.delivery = ReplacementMap()
        """The output for the decided text."""
        self.tally = EditTally()
        """Edits, refusals and costs so far."""
        self.stop: Stop | None = None
        """Why the part was given up; None if it was not."""
        self.over = asyncio.Event()
        """Set once everything is decided: what came, and whatever may still come."""
        self.ms = 0.0
        """Milliseconds from the end of the answer until everything was decided."""

    @property
    def is_over(self) -> bool:
        """Whether everything is decided: what came, and whatever may still come."""
        return self.over.is_set()

    @property
    def has_unjudged_segments(self) -> bool:
        """Whether a segment has come that has no verdict yet."""
        return len(self.received.segments) > len(self.verdicts.all)

    @property
    def is_judged(self) -> bool:
        """Whether the text has ended and every segment has a verdict."""
        return self.received.has_ended and len(self.verdicts.all) == len(self.received.segments)

    def exchange(self) -> Exchange:
        """The answer as received so far."""
        facts = self.facts()
        return replace(
            facts,
            answer=self.received.text or None,
            inner=facts.inner or self.is_part,
            tool_calls=facts.tool_calls or self._has_call(),
        )

    def _has_call(self) -> bool:
        """Whether a call for a program begins in the text so far; not read if the policy judges such answers."""
        is_judged = self.policy.on_skip.tool_calls is OnSkip.JUDGE
        return not is_judged and self.received.begins_call()

    def answer(self, *, is_final: bool = False) -> AnswerSoFar:
        """The answer for stages; between the first output and the final call with the exchange that was read last."""
        if is_final or not self.delivery.end:
            exchange = self.exchange()
        else:
            # reading the exchange anew takes time with a long conversation
            exchange = self.facts.latest()
            if self._has_call():
                exchange = replace(exchange, tool_calls=True)
        return AnswerSoFar(
            exchange,
            self.received.text,
            self.policy,
            deadline=time.monotonic() + self.policy.deadline_s,
            is_whole=False,
            has_ended=self.received.has_ended,
            is_part=self.is_part,
            is_stopped=self.stop is not None,
            sent_chars=self.delivery.end,
            segments=self.received.segments,
            verdicts=self.verdicts.all,
            models=self._models,
        )

    def verdicts_up_to(self, end: int) -> tuple[SegmentScore, ...]:
        """The verdicts on the segments in the first `end` characters; at the end of the text, also the one behind."""
        verdicts = self.verdicts.all[: bisect_right(self.received.segments, end, key=lambda segment: segment.end)]
        # what is missing at the end is missing only if the text is looked at up to its end
        if self.verdicts.end_verdict is not None and end == self.received.length:
            verdicts = (*verdicts, self.verdicts.end_verdict)
        return verdicts

    def send(self, end: int, text: str, *, is_changed: bool) -> None:
        """Decide that `text` goes out for the undecided characters up to `end`, and notify."""
        self.delivery.add(end, text, is_changed=is_changed)
        self._notify()

    def close(self, stop: Stop) -> None:
        """Give up, unless the part is over: all undecided text goes out unchanged."""
        if not self.is_over:
            self.stop = stop
            self.seal()

    def seal(self) -> None:
        """Mark the part as over, measure the time, and notify."""
        if self.received.has_ended:
            self.ms = (time.perf_counter() - self.received.ended_at) * 1000
        self.over.set()
        self._notify()
