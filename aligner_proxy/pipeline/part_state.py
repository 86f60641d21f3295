"""State of one part of a growing answer: the text received, its verdicts, its replacements and their cost."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from aligner_proxy.errors import EngineFault
from aligner_proxy.pipeline.replacements import ReplacementMap
from aligner_proxy.plugins.stage import AnswerSoFar, Outgoing, StageModels, Stop
from aligner_proxy.text.program_text import CallReader
from aligner_proxy.text.splitter import Splitter
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Correction, Exchange, Finding, OnSkip, Policy, SegmentScore


class AnswerFacts:
    """Everything known about an answer besides its text, as an exchange whose text does not count.

    A call gets the present facts. This costs more the longer the conversation is, so `latest` returns those of the
    last call.
    """

    def __init__(self, get_facts: Callable[[], Exchange]) -> None:
        self._get_facts = get_facts
        self._latest: Exchange | None = None

    def __call__(self) -> Exchange:
        self._latest = self._get_facts()
        return self._latest

    def latest(self) -> Exchange:
        """The facts of the last call, which may be out of date; the present facts if there was no call."""
        return self._latest or self()


class GrowingSegments:
    """The text received so far and its segments. What goes out for the first segments is decided already."""

    def __init__(self) -> None:
        self.text = ""
        self.segments: list[Segment] = []
        """The complete segments. A segment is added when the next one begins, or at the end of the text."""
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
        """Cut a piece into segments; the caller has added it to `text` just before."""
        self.segments += self._splitter.feed(piece)

    def end(self) -> None:
        """End the text and note the time."""
        self.has_ended = True
        self.ended_at = time.perf_counter()
        self.segments += self._splitter.end()

    def begins_call(self) -> bool:
        """Whether a tool call begins in the text so far."""
        return self._calls.read(self.text, self.segments)


class SegmentVerdicts:
    """The engine's verdicts on the first segments of a text; verdicts of second readings take their place."""

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
        self, verdicts: tuple[SegmentScore, ...], segments: Sequence[Segment], decided_count: int, *, is_end: bool
    ) -> None:
        """Store the engine's verdicts on the first segments, which must be more than before.

        The first `decided_count` segments are decided, so their verdicts no longer count. `is_end` says whether the
        answer ends after these segments: then the engine adds a verdict without text, on the position after them.
        Raises `EngineFault` if the verdicts are on other segments than these, or no more than before.
        """
        known_count = len(self.all)
        count = len(segments)
        # Verdicts that were there before were compared before. Comparing all of them every time would take quadratic
        # time in a part with many short segments, so they are compared again only if one has changed.
        undecided_verdicts = slice(decided_count, known_count)
        is_unchanged = verdicts[undecided_verdicts] == self._engine_verdicts[undecided_verdicts]
        first_compared = known_count if is_unchanged else min(known_count, decided_count)
        compared_numbers = range(first_compared, min(len(verdicts), count))
        has_other_texts = any(verdicts[number].text != segments[number].text for number in compared_numbers)
        if len(verdicts) <= known_count or has_other_texts:
            raise EngineFault("the engine judged other segments than these")
        self._engine_verdicts = verdicts
        self.all = self._apply_second_verdicts(verdicts[:count])
        end_verdicts = [verdict for verdict in verdicts[count:] if not verdict.text] if is_end else []
        self.end_verdict = end_verdicts[0] if end_verdicts else None

    def flag(self, second_verdicts: Mapping[int, SegmentScore]) -> None:
        """Replace the verdicts on segments by those of a second reading; the keys are the segments' numbers, from 0."""
        self._second_verdicts |= second_verdicts
        self.all = self._apply_second_verdicts(self.all)

    def _apply_second_verdicts(self, verdicts: tuple[SegmentScore, ...]) -> tuple[SegmentScore, ...]:
        """These verdicts of the engine, with those of second readings in place of them."""
        if not self._second_verdicts:
            return verdicts
        return tuple(self._second_verdicts.get(number, verdict) for number, verdict in enumerate(verdicts))

    @property
    def is_end_missing(self) -> bool:
        """Whether something that the objectives demand is missing after the last segment."""
        return self.end_verdict is not None and self.end_verdict.flagged


@dataclass(slots=True)
class EditTally:
    """Sums up the edits of one answer: corrections, refused edits and findings."""

    corrections: list[Correction] = field(default_factory=list)
    """What the engine returned for each edit and second reading; only their costs are summed up."""
    aligner: str = ""
    """The aligner that judges the answer; after the first edit, the one that wrote the latest."""
    edits: int = 0
    """Number of edits that the gate judged, refused ones included."""
    refused_rules: list[str] = field(default_factory=list)
    """The gate rule for each passage that the gate left unchanged."""
    findings: tuple[Finding, ...] = ()

    def add(self, correction: Correction) -> None:
        """Add the correction of a passage, for its cost and its aligner."""
        self.corrections.append(correction)
        self.aligner = correction.aligner or self.aligner

    def add_outgoing(self, outgoing: Outgoing) -> None:
        """Add the findings of a passage that the stages released, and their use of editor and judge."""
        self.findings += outgoing.findings
        if outgoing.editor or outgoing.judge:
            # a correction without text, for its cost alone
            self.corrections.append(Correction("", editor=outgoing.editor, judge=outgoing.judge))

    def count_edit(self, refusal: str | None) -> None:
        """Count an edit that the gate judged; `refusal` is the rule by which it refused the edit, None if it passed."""
        self.edits += 1
        if refusal:
            self.refused_rules.append(refusal)


class PartState:
    """One part of a growing answer. Text is decided once it is known what goes out for it.

    Positions are character offsets into the part's original text. `get_facts` returns the exchange as known so far,
    whose text does not count. `notify` is called whenever more of the part is decided. `is_part` says whether other
    parts of the answer come before. Stages ask an editor and a judge through `models`.
    """

    def __init__(
        self,
        policy: Policy,
        get_facts: Callable[[], Exchange],
        notify: Callable[[], None],
        *,
        is_part: bool,
        models: StageModels,
    ) -> None:
        self.policy = policy
        self._models = models
        self.facts = AnswerFacts(get_facts)
        self._notify = notify
        self.is_part = is_part
        """Whether other parts of the answer come before or after this part."""
        self.received = GrowingSegments()
        self.verdicts = SegmentVerdicts()
        self.delivery = ReplacementMap()
        """What goes out for the decided text."""
        self.tally = EditTally()
        """Edits, refusals and costs so far."""
        self.stop: Stop | None = None
        """Why the part was given up; None if it was not."""
        self.over = asyncio.Event()
        """Set once everything is decided: all text that came, and any text that may still come."""
        self.ms = 0.0
        """Milliseconds from the end of the answer until everything was decided."""

    @property
    def is_over(self) -> bool:
        """Whether everything is decided: all text that came, and any text that may still come."""
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
        """The exchange with the answer as received so far."""
        facts = self.facts()
        return replace(
            facts,
            answer=self.received.text or None,
            inner=facts.inner or self.is_part,
            tool_calls=facts.tool_calls or self._has_call(),
        )

    def _has_call(self) -> bool:
        """Whether a tool call begins in the text so far; False if the policy corrects answers in spite of calls."""
        is_judged = self.policy.on_skip.tool_calls is OnSkip.JUDGE
        return not is_judged and self.received.begins_call()

    def answer(self, *, is_final: bool = False) -> AnswerSoFar:
        """The answer so far, as stages get it.

        Its exchange is up to date before the first text goes out, and if `is_final`. Otherwise it may be older, because
        it takes time to build with a long conversation.
        """
        if is_final or not self.delivery.end:
            exchange = self.exchange()
        else:
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
        """The verdicts on the segments in the first `end` characters; if these are all, also the end's verdict."""
        segment_count = bisect_right(self.received.segments, end, key=lambda segment: segment.end)
        verdicts = self.verdicts.all[:segment_count]
        if self.verdicts.end_verdict is not None and end == self.received.length:
            verdicts = (*verdicts, self.verdicts.end_verdict)
        return verdicts

    def send(self, end: int, text: str, *, is_changed: bool) -> None:
        """Decide that `text` goes out for the undecided characters up to `end`; `is_changed` if it is another text."""
        self.delivery.add(end, text, is_changed=is_changed)
        self._notify()

    def close(self, stop: Stop) -> None:
        """Give up the part for this reason, unless it is over: all undecided text goes out unchanged."""
        if not self.is_over:
            self.stop = stop
            self.seal()

    def seal(self) -> None:
        """Mark the part as over, measure the time, and notify."""
        if self.received.has_ended:
            self.ms = (time.perf_counter() - self.received.ended_at) * 1000
        self.over.set()
        self._notify()
