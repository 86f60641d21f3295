"""Tally of the edits in an answer that is released while it is being written."""

from __future__ import annotations

from dataclasses import dataclass, field

from aligner_proxy.plugins.stage import Outgoing
from aligner_proxy.types import Correction, Finding


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

    def charge(self, correction: Correction) -> None:
        """Add the correction of a second reading, for its cost only."""
        self.corrections.append(correction)

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
