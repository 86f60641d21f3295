"""Overview of the taught objectives of a policies file: states, figures, earlier heads, and what to do."""

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
_FIXES = {
    TeachingState.CHANGED: "its examples have changed since it was taught; run `aligner-proxy teach`, until then the "
    "earlier head judges",
    TeachingState.STALE: "it was taught for another text or aligner; run `aligner-proxy teach`, until then the general "
    "head judges",
    TeachingState.UNTAUGHT: "it has examples and is not taught; run `aligner-proxy teach`, until then the general head "
    "judges",
}


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
        """A message with what to do; None if nothing needs to be done."""
        subject = f"{self.subject.place}: {self.subject.title}"
        if self.state is TeachingState.UNREADABLE:
            fault = self._describe_fault()
            # a missing file is told with the place of the objective
            return fault if fault.startswith(f"{self.subject.place}: ") else f"{subject}: {fault}"
        return f"{subject}: {_FIXES[self.state]}" if self.state in _FIXES else None

    @property
    def row(self) -> tuple[str, ...]:
        """The table cells for the columns of `HEAD`."""
        version = self.version
        if version is None:
            # The five columns with figures of a version stay empty.
            return (self.subject.title, self.aligner_name, self.state, *("-",) * 5, _describe_versions(self.earlier))
        examples = f"{version.against} + {version.fine} fine" if version.fine else str(version.against)
        flagged = f"{version.found.hits}/{version.found.of}"
        false = f"{version.false.hits}/{version.false.of}"
        figures = (examples, flagged, false, version.day, version.head[:8])
        return (self.subject.title, self.aligner_name, self.state, *figures, _describe_versions(self.earlier))

    def as_json(self) -> dict[str, Any]:
        """The fields for JSON output, without texts."""
        version = self.version.model_dump(exclude={"text"}) if self.version else None
        earlier = [other.model_dump(exclude={"text"}) for other in self.earlier]
        base = {"objective": self.subject.title, "aligner": self.aligner_name, "state": self.state.value}
        return base | {"in_force": version, "earlier": earlier}

    def _describe_fault(self) -> str:
        """Why the examples cannot be read, by reading them once more."""
        try:
            self.subject.read_examples()
        except ConfigError as error:
            return f"{error}; the head from before, if any, stays"
        return "its examples can be read again"


def head_statuses(file: PolicyFile, served_aligners: AlignerInfo | None = None) -> list[HeadStatus]:
    """The status of every objective with examples, for each aligner.

    `served_aligners` is what the engine serves, None if it was not asked. Raises `ConfigError` for a damaged index, or
    if two objectives share a file of examples.
    """
    all_subjects = subjects.list_subjects(file)
    if not all_subjects:
        return []
    index = HeadStore.for_file(file).index()
    result = []
    for subject in all_subjects:
        objective = index.objective(subject.scope, subject.name)
        for aligner_name in subjects.used_aligners(file):
            version = objective.active_version(aligner_name)
            earlier = tuple(other for other in objective.versions if other.called == aligner_name and other != version)
            state = subjects.teaching_state(subject, index, aligner_name, _content_hash(served_aligners, aligner_name))
            result.append(HeadStatus(subject, aligner_name, state, version, earlier))
    return result


def _content_hash(served_aligners: AlignerInfo | None, aligner_name: str) -> str | None:
    """The content hash of an aligner that the engine serves; None if it is not known."""
    try:
        return served_aligners.find_aligner(aligner_name).content_hash if served_aligners else None
    except UnknownAligner:
        return None


def _describe_versions(versions: tuple[Version, ...]) -> str:
    """Beginning of the hash and day of each version; "-" without any."""
    return ", ".join(f"{version.head[:8]} of {version.day}" for version in versions) or "-"
