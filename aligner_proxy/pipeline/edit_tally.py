"""Tally of what was written in place of the flagged stretches of an answer that is released while it is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from aligner_proxy.plugins.stage import Outgoing
from aligner_proxy.types import Correction, Finding


@dataclass(slots=True)
class EditTally:
    """What was written in place of the flagged stretches of one answer, summed up."""

    corrections: list[Correction] = field(default_factory=list)
    aligner: str = ""
    """Who judges it; who wrote last, once something was written."""
    edits: int = 0
    refused_rules: list[str] = field(default_factory=list)
    """The gate's rule for each stretch that it kept as it was."""
    findings: tuple[Finding, ...] = ()

    def add(self, correction: Correction) -> None:
        """The engine wrote something."""
        self.corrections.append(correction)
        self.aligner = correction.aligner or self.aligner

    def charge(self, correction: Correction) -> None:
        """The engine read something once more."""
        self.corrections.append(correction)

    def release(self, outgoing: Outgoing) -> None:
        """Stages have had their say about a stretch that goes out."""
        self.findings += outgoing.findings
        if outgoing.editor:
            self.corrections.append(Correction("", editor=outgoing.editor))

    def judge(self, refusal: str | None) -> None:
        """The gate lets it go out, or has refused it by this rule."""
        self.edits += 1
        if refusal:
            self.refused_rules.append(refusal)
