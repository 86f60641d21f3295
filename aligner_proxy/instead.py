"""Replacement of one flagged stretch of an answer of which the beginning has gone out, and the gate's word on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aligner_proxy.gate import aside
from aligner_proxy.segments import Segment
from aligner_proxy.stages import stage
from aligner_proxy.types import Correction, Policy, SegmentScore


@dataclass(slots=True)
class EditTally:
    """What was written in place of the flagged stretches of one answer, summed up."""

    corrections: list[Correction] = field(default_factory=list)
    aligner: str = ""
    edits: int = 0
    refused: list[str] = field(default_factory=list)
    """The gate's rule for each stretch that it kept as it was."""

    def add(self, correction: Correction) -> None:
        """The engine wrote something."""
        self.corrections.append(correction)
        self.aligner = correction.aligner or self.aligner

    def judge(self, refusal: str | None) -> None:
        """The gate lets it go out, or has refused it by this rule."""
        self.edits += 1
        if refusal:
            self.refused.append(refusal)


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
    original: str, edited: str, correction: Correction, verdicts: tuple[SegmentScore, ...], policy: Policy
) -> str | None:
    """The rule that the answer so far breaks as it is edited; `verdicts` are those on what there is of it."""
    with stage("gate"):
        verdict = await aside.judge(original, replace(correction, text=edited, segments=verdicts), policy)
    return None if verdict.text == edited else str(verdict.reason).removeprefix("gate_").removeprefix("partly:")
