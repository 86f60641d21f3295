"""Overview of what is taught of a policies file: states, figures, earlier heads, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aligner_proxy.engine.api import AlignerInfo
from aligner_proxy.errors import ConfigError, UnknownAligner
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching import subjects
from aligner_proxy.teaching.store import HeadStore, Version
from aligner_proxy.teaching.subjects import State, Subject

HEAD = ("taught objective", "aligner", "state", "examples", "found", "false", "when", "head", "earlier")
_FIXES = {
    State.CHANGED: "its examples have changed since; run `aligner-proxy teach`, until then the head from before judges",
    State.STALE: "it was taught for another text or aligner; run `aligner-proxy teach`, until then the general head "
    "judges",
    State.UNTAUGHT: "it has examples and is not taught; run `aligner-proxy teach`, until then the general head judges",
}


@dataclass(frozen=True, slots=True)
class Taught:
    """One objective with examples, for one aligner."""

    subject: Subject
    called: str
    state: State
    version: Version | None
    earlier: tuple[Version, ...]
    """Versions that are kept beside the one in force, oldest first."""

    @property
    def warning(self) -> str | None:
        """What to do about it; None where nothing."""
        where = f"{self.subject.place}: {self.subject.title}"
        if self.state is State.UNREADABLE:
            return f"{where}: {self._fault()}"
        return f"{where}: {_FIXES[self.state]}" if self.state in _FIXES else None

    @property
    def row(self) -> tuple[str, ...]:
        """The cells under `HEAD`."""
        version = self.version
        if version is None:
            return (self.subject.title, self.called, self.state, *("-",) * 5, _heads(self.earlier))
        examples = f"{version.against} + {version.fine} fine" if version.fine else str(version.against)
        flagged = f"{version.found.hits}/{version.found.of}"
        false = f"{version.false.hits}/{version.false.of}"
        figures = (examples, flagged, false, version.day, version.head[:8])
        return (self.subject.title, self.called, self.state, *figures, _heads(self.earlier))

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        version = self.version.model_dump(exclude={"text"}) if self.version else None
        earlier = [other.model_dump(exclude={"text"}) for other in self.earlier]
        base = {"objective": self.subject.title, "aligner": self.called, "state": self.state.value}
        return base | {"in_force": version, "earlier": earlier}

    def _fault(self) -> str:
        try:
            self.subject.read()
        except ConfigError as error:
            return f"{error}; the head from before, if any, stays"
        return "its examples can be read again"


def taught(file: PolicyFile, served: AlignerInfo | None = None) -> list[Taught]:
    """Every objective with examples; `served` is what the engine serves, where it was asked.

    Raises `ConfigError` for a damaged index, and where two objectives share their examples.
    """
    named = subjects.subjects(file)
    if not named:
        return []
    index = HeadStore.of(file).index()
    result = []
    for subject in named:
        objective = index.objective(subject.scope, subject.name)
        for called in subjects.aligners(file):
            version = objective.in_force(called)
            earlier = tuple(other for other in objective.versions if other.called == called and other != version)
            state = subjects.state(subject, index, called, _content_hash(served, called))
            result.append(Taught(subject, called, state, version, earlier))
    return result


def _content_hash(served: AlignerInfo | None, called: str) -> str | None:
    """The hash of an aligner that an engine serves; None where that is not known."""
    try:
        return served.named(called).content_hash if served else None
    except UnknownAligner:
        return None


def _heads(versions: tuple[Version, ...]) -> str:
    return ", ".join(f"{version.head[:8]} of {version.day}" for version in versions) or "-"
