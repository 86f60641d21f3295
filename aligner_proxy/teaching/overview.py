"""Overview of the taught objectives of a policies file: states, figures, earlier heads, and what to do. A subject is an
objective with examples; a version is the stored record of a taught head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aligner_proxy.engine.api import AlignerInfo
from aligner_proxy.errors import ConfigError, UnknownAligner
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching import subjects
from aligner_proxy.teaching.store import HeadStore, Version
from aligner_proxy.teaching.subjects import Subject, TeachingState

HEAD = ("taught objective", "aligner", "state", "examples", "found", "false", "when", "head", "earlier")
"""The columns of the table."""
_WARNINGS = {
    TeachingState.CHANGED: "its examples have changed since it was taught; run `aligner-proxy teach`, until then the "
    "earlier head judges",
    TeachingState.STALE: "it was taught for another text or aligner; run `aligner-proxy teach`, until then the general "
    "head judges",
    TeachingState.UNTAUGHT: "it has examples and is not taught; run `aligner-proxy teach`, until then the general head "
    "judges",
}
"""What is wrong and what to do, by the state; other states need nothing."""


@dataclass(frozen=True, slots=True)
class HeadStatus:
    """The state of one objective with examples, for one aligner."""

    subject: Subject
    aligner_name: str
    state: TeachingState
    version: Version | None
    """The active head; None if there is none."""
    earlier: tuple[Version, ...]
    """Stored versions other than the active one, oldest first."""

    @property
    def warning(self) -> str | None:
        """What is wrong with the objective's head, and what to do; None if nothing needs to be done."""
        prefix = f"{self.subject.place}: {self.subject.title}: "
        if self.state is TeachingState.UNREADABLE:
            fault = self._describe_fault()
            # the message about a missing file already begins with the place of the objective
            return fault if fault.startswith(f"{self.subject.place}: ") else prefix + fault
        return prefix + _WARNINGS[self.state] if self.state in _WARNINGS else None

    @property
    def row(self) -> tuple[str, ...]:
        """The table cells for the columns of `HEAD`."""
        version = self.version
        version_cells = ("-",) * 5
        if version is not None:
            examples = f"{version.against} + {version.fine} fine" if version.fine else str(version.against)
            found_count = f"{version.found.hits}/{version.found.of}"
            false_count = f"{version.false.hits}/{version.false.of}"
            version_cells = (examples, found_count, false_count, version.day, version.head[:8])
        earlier = ", ".join(f"{version.head[:8]} of {version.day}" for version in self.earlier) or "-"
        return (self.subject.title, self.aligner_name, self.state, *version_cells, earlier)

    def as_json(self) -> dict[str, Any]:
        """The fields for JSON output, without texts."""
        version = self.version.model_dump(exclude={"text"}) if self.version else None
        earlier_versions = [earlier.model_dump(exclude={"text"}) for earlier in self.earlier]
        return {
            "objective": self.subject.title,
            "aligner": self.aligner_name,
            "state": self.state.value,
            "in_force": version,
            "earlier": earlier_versions,
        }

    def _describe_fault(self) -> str:
        """Read the examples once more, and return why they cannot be read."""
        try:
            self.subject.read_examples()
        except ConfigError as error:
            return f"{error}; the head from before, if any, stays"
        return "its examples can be read again"


def head_statuses(file: PolicyFile, served_aligners: AlignerInfo | None = None) -> list[HeadStatus]:
    """Return the status of every objective with examples, for each aligner that policies use.

    `served_aligners` describes what the engine serves; None if the engine was not asked. Raises `ConfigError` for a
    damaged index, or if two objectives share a file of examples.
    """
    all_subjects = subjects.list_subjects(file)
    if not all_subjects:
        return []
    index = HeadStore.for_file(file).index()
    statuses = []
    for subject in all_subjects:
        objective = index.objective(subject.scope, subject.name)
        for aligner_name in subjects.used_aligners(file):
            version = objective.active_version(aligner_name)
            aligner_versions = [other for other in objective.versions if other.called == aligner_name]
            earlier = tuple(other for other in aligner_versions if other != version)
            content_hash = _find_content_hash(served_aligners, aligner_name)
            state = subjects.teaching_state(subject, index, aligner_name, content_hash)
            statuses.append(HeadStatus(subject, aligner_name, state, version, earlier))
    return statuses


def _find_content_hash(served_aligners: AlignerInfo | None, aligner_name: str) -> str | None:
    """Return the content hash of an aligner that the engine serves; None if it is not known."""
    try:
        return served_aligners.find_aligner(aligner_name).content_hash if served_aligners else None
    except UnknownAligner:
        return None
