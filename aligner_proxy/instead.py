"""What goes out in place of one stretch of an answer of which the beginning has gone out, and may it?

The engine says what it would write; white space around it, and the gate's word on the answer so far, come from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aligner_proxy.gate import aside
from aligner_proxy.segments import Segment
from aligner_proxy.stages import stage
from aligner_proxy.types import Correction, DecodeCounts, Policy, SegmentScore, SkipReason, Status


@dataclass(slots=True)
class Made:
    """What was written in place of the stretches of one answer."""

    counts: DecodeCounts = field(default_factory=DecodeCounts)
    aligner: str = ""
    edits: int = 0
    refused: list[str] = field(default_factory=list)
    """The gate's rule for each stretch that it kept as it was."""

    def wrote(self, correction: Correction) -> Correction:
        """The engine wrote something."""
        self.counts += correction.counts
        self.aligner = correction.aligner or self.aligner
        return correction

    def judged(self, refusal: str | None) -> None:
        """The gate has said whether it goes out."""
        self.edits += 1
        self.refused += [refusal] if refusal else []


def status(
    closed: tuple[Status, str] | None, skip: SkipReason | None, edited: bool, refused: Sequence[str]
) -> tuple[Status, str | None]:
    """What became of an answer that was released piece by piece: it was `closed` early, or all of it was decided."""
    found, reason = closed or (Status.UNCHANGED, f"gate_{refused[0]}" if refused else None)
    if found is Status.FAILED:
        return found, reason
    if skip is not None:
        found, reason = Status.SKIPPED, skip.value
    if edited:
        partly = found is Status.UNCHANGED and reason is not None
        return Status.CORRECTED, f"gate_partly:{refused[0]}" if partly else reason
    return found, reason


def placed(run: Sequence[Segment], lead: str, text: str, *, begins: bool, last: bool) -> tuple[int, str]:
    """Up to where a replacement of `run` reaches, and what goes out there, the white space `lead` before it included.

    A stretch that vanishes leaves one of the two breaks around it, the larger one (as `segments.join` does), and none
    where the answer `begins` with it.
    """
    if text:
        return run[-1].end, lead + text
    gap = run[-1].gap
    kept = gap if last or gap.count("\n") > lead.count("\n") else lead
    return run[-1].end + len(gap), "" if begins else kept


async def objection(
    original: str, edited: str, made: Correction, verdicts: tuple[SegmentScore, ...], policy: Policy
) -> str | None:
    """The rule that the answer so far breaks as it is edited; `verdicts` are those on what there is of it."""
    with stage("gate"):
        verdict = await aside.judge(original, replace(made, text=edited, segments=verdicts), policy)
    return None if verdict.text == edited else str(verdict.reason).removeprefix("gate_").removeprefix("partly:")
