"""The correction of an answer, and its outcome: what is delivered, and why.

Texts that are delivered can be encoded. JSON can hold half a pair of surrogates, which UTF-8 cannot encode.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from aligner_proxy.types.costs import DecodeCounts, EditorUse, JudgeUse
from aligner_proxy.types.policy import Policy
from aligner_proxy.types.requirement import MAX_FINDINGS, Finding
from aligner_proxy.types.scores import SegmentScore
from aligner_proxy.types.settings import Status

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""A lone surrogate: half of a pair."""
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
"""Both halves one after the other, as they occur where two pieces of a stream were put together."""


def replace_surrogates(text: str) -> str:
    """Replace each lone surrogate with U+FFFD; return the same object if there is none. The length stays the same."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub("\ufffd", text)
    return text


def join_surrogates(text: str) -> str:
    """Join both halves of each surrogate pair to its letter, and replace each lone half with U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub("\ufffd", _SURROGATE_PAIR.sub(_join_pair, text))
    return text


def is_first_half(letter: str) -> bool:
    """Whether a character is the first half of a pair of surrogates."""
    return "\ud800" <= letter <= "\udbff"


def _join_pair(pair: re.Match[str]) -> str:
    """The one letter that both halves of a surrogate pair encode."""
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


@dataclass(frozen=True, slots=True)
class Correction:
    """Result of the engine: the edited answer, the scored segments of the original, and the cost."""

    text: str
    """The edited answer."""
    segments: tuple[SegmentScore, ...] = ()
    counts: DecodeCounts = field(default_factory=DecodeCounts)
    prompt_tokens: int = 0
    ms: float = 0.0
    """Milliseconds of engine time."""
    aligner: str = ""
    """Content hash of the aligner."""
    untaught: int = 0
    """Number of objectives that only the general head judged because their taught head was missing."""
    editor: EditorUse | None = None
    """Use of an editor outside the engine; None if there was none, including when the cache had the result."""
    judge: JudgeUse | None = None
    """Use of a judge; None if it was asked about nothing, including when the cache had the result."""

    @property
    def deliverable(self) -> Correction:
        """This correction with lone surrogates replaced, so that it can be encoded; usually the same object."""
        text = replace_surrogates(self.text)
        return self if text is self.text else replace(self, text=text)

    @property
    def without_editor(self) -> Correction:
        """This correction without the use of editor and judge, for recipients for whom neither was called."""
        return replace(self, editor=None, judge=None) if self.editor or self.judge else self

    def with_editor(self, use: EditorUse | None) -> Correction:
        """This correction with `use` added to its use of an editor; the same object if `use` is None."""
        return replace(self, editor=sum_uses((self.editor, use), EditorUse())) if use else self

    def with_judge(self, use: JudgeUse | None) -> Correction:
        """This correction with `use` added to its use of a judge; the same object if `use` is None."""
        return replace(self, judge=sum_uses((self.judge, use), JudgeUse())) if use else self

    def with_cost_of(self, corrections: Iterable[Correction]) -> Correction:
        """This correction with the summed cost of these corrections in place of its own."""
        corrections = tuple(corrections)
        return replace(
            self,
            counts=sum((correction.counts for correction in corrections), DecodeCounts()),
            prompt_tokens=sum(correction.prompt_tokens for correction in corrections),
            ms=sum(correction.ms for correction in corrections),
            # not a sum, because all corrections have the same objectives
            untaught=max(self.untaught, *(correction.untaught for correction in corrections), 0),
            editor=sum_uses((correction.editor for correction in corrections), EditorUse()),
            judge=sum_uses((correction.judge for correction in corrections), JudgeUse()),
        )


_Use = TypeVar("_Use", EditorUse, JudgeUse)


def sum_uses(uses: Iterable[_Use | None], zero: _Use) -> _Use | None:
    """The sum of the uses that are not None; None if all are. `zero` is a use of nothing, to begin the sum."""
    known_uses = [use for use in uses if use]
    return sum(known_uses, zero) if known_uses else None


def all_cached(hits: Iterable[bool | None]) -> bool | None:
    """Whether every look-up in the cache was a hit. In `hits`, None stands for no look-up; None if there was none."""
    results = set(hits) - {None}
    return all(results) if results else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one choice: what is delivered, and why."""

    status: Status
    reason: str | None
    text: str | None
    """The text to deliver; None if there is none."""
    policy: Policy
    index: int = 0
    """Number of the choice, or of the text part, in its response."""
    cache_hit: bool | None = None
    """None if the cache was not used."""
    correction: Correction | None = None
    """The engine's result, also in shadow mode; None if nothing was judged."""
    ms: float = 0.0
    """Milliseconds that the correction added to the response."""
    edited: str | None = None
    """Text that passed the gate, not delivered in shadow mode; None if nothing was judged."""
    edits: int = 0
    """Number of proposed edits."""
    dropped: tuple[str, ...] = ()
    """For each dropped edit, the gate rule that it broke."""
    renumbered: int = 0
    """Number of list markers, and references to them, renumbered after items were removed; these are not edits."""
    findings: tuple[Finding, ...] = ()
    """Problems that stages found in addition to the engine's verdicts, and their replacements."""
    attempts: int = 0
    caution: float | None = None
    """Caution of the attempt that gave this outcome; None if it is the policy's."""
    reports: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=(), hash=False)
    """(extension, its report on the answer); reports are JSON-able and contain no text of the conversation."""

    @property
    def violated_objectives(self) -> list[str]:
        """Sorted names of what the answer violates: objectives of flagged segments, and `against` of open findings."""
        names = {self.objective_of(segment) for segment in self.segments}
        names |= {finding.against for finding in self.findings if not finding.is_replaced}
        return sorted(name for name in names if name)

    @property
    def threshold(self) -> float:
        """Score, in nats, above which a segment was flagged."""
        return self.policy.caution if self.caution is None else self.caution

    @property
    def margin(self) -> float | None:
        """Distance of the nearest segment score from the threshold, in nats; None if no segment has a score."""
        scores = (segment.score for segment in self.segments)
        finite_scores = [score for score in scores if score is not None and math.isfinite(score)]
        return min((abs(score - self.threshold) for score in finite_scores), default=None)

    @property
    def findings_record(self) -> dict[str, Any]:
        """A summary of the findings for records, by the name of what they violate; it never has text."""
        findings_by_name: dict[str, list[Finding]] = {}
        for finding in self.findings:
            findings_by_name.setdefault(finding.against, []).append(finding)
        return {name: _summarize_findings(findings) for name, findings in findings_by_name.items()}

    @property
    def segments(self) -> tuple[SegmentScore, ...]:
        """The judged segments; empty without a correction."""
        return self.correction.segments if self.correction else ()

    @property
    def flagged_count(self) -> int:
        """Number of flagged segments."""
        return len([segment for segment in self.segments if segment.flagged])

    def objective_of(self, segment: SegmentScore) -> str | None:
        """Name of the objective that a flagged segment violates; None if it is not flagged, or none is known."""
        index = segment.objective if segment.flagged else None
        if index is None or not 0 <= index < len(self.policy.objectives):
            return None
        return self.policy.objectives[index].name


def _summarize_findings(findings: Sequence[Finding]) -> dict[str, Any]:
    """Summarize the findings against one name: `edits` counts those whose passage was replaced.

    `replaced` and `unsettled` list kind and source of the first `MAX_FINDINGS` that were replaced, and that were not.
    """
    replaced = [{"kind": finding.kind, "source": finding.source} for finding in findings if finding.is_replaced]
    others = [{"kind": finding.kind, "source": finding.source} for finding in findings if not finding.is_replaced]
    return {"edits": len(replaced), "replaced": replaced[:MAX_FINDINGS], "unsettled": others[:MAX_FINDINGS]}
