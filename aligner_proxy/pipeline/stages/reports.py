"""Reports stage: adds what plugins report about an answer to its outcome."""

from __future__ import annotations

from dataclasses import replace

from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.plugins.stage import AnswerSoFar, Stage
from aligner_proxy.types import Outcome


class ExtensionReports(Stage):
    """Adds the plugins' reports on an answer. JSON answers are skipped, because the reports count things in prose."""

    order = 40

    def __init__(self, extensions: Extensions) -> None:
        self._extensions = extensions

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome with the plugins' reports; the same outcome if the answer was not judged, or is JSON."""
        if outcome.edited is None or answer.is_structured:
            return outcome
        reports = self._extensions.report(answer.policy, answer.text, outcome.edited or answer.text)
        return outcome if reports == outcome.reports else replace(outcome, reports=reports)
