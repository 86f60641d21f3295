"""Store of taught heads: for each policies file a folder below `ALIGNER_PROXY_HOME`, with an index and the heads.

A head belongs to the scope that names its objective: the file, or one tenant of it. Earlier versions are kept, so that
they can be taken back. The index and every head are replaced as a whole, and changed by one process at a time; readers
need no lock. No text of an example is kept here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.policy.schema import PolicyFile, Tenant
from aligner_proxy.teaching.rows import write_atomically

WHOLE_FILE = "-"
"""The scope of objectives that everybody may have."""
_FOLDER = "taught"
_INDEX = "index.json"
_HASH = r"^[0-9a-f]{64}$"
_KEPT = 8
"""Versions of one objective; the oldest that is not in force goes first."""


class Count(BaseModel):
    """So many of so many."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hits: int = Field(ge=0)
    of: int = Field(ge=0)


class Version(BaseModel):
    """One taught head of an objective: what it was taught from, and how well it did."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    head: str = Field(pattern=_HASH)
    text: str
    """The objective's whole text."""
    called: str
    """The aligner as the policies name it."""
    aligner: str
    """Its content hash."""
    against: int
    fine: int
    digest: str
    """Hash of the examples."""
    at: float
    """Seconds since the epoch."""
    found: Count
    """Sentences that it flagged when they were held out."""
    false: Count
    """Neutral segments that it flagged when they were held out."""
    threshold: float
    """Nats that were taken off its scores."""

    @property
    def day(self) -> str:
        """The day on which it was taught, UTC."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.at))


class HeadHistory(BaseModel):
    """What was taught of one objective text for one aligner: its heads, oldest first, and which one is in force."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    versions: tuple[Version, ...] = Field(default=(), max_length=2 * _KEPT)
    current: str | None = None
    """A head of these; empty: forgotten; None: never taught, or another text is in force."""

    def check_place(self, place: HeadPlace) -> None:
        """Raises `ValueError` where it is not all for this place."""
        if any((version.called, version.text) != (place.aligner_name, place.text) for version in self.versions):
            raise ValueError("a head of another text or aligner")
        if self.current and self.current not in {version.head for version in self.versions}:
            raise ValueError("a head in force that is none of these")

    @property
    def digest(self) -> str:
        """Hash of all of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class TaughtObjective(BaseModel):
    """All heads of one objective, oldest first, and which of them is in force for each aligner."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    versions: tuple[Version, ...] = ()
    current: Mapping[str, str] = Field(default_factory=dict)
    """Name of the aligner -> the head in force; empty: the general head alone judges, as the operator said."""

    def active_version(self, aligner_name: str) -> Version | None:
        """The head in force for this aligner."""
        head = self.current.get(aligner_name)
        return next((version for version in reversed(self.versions) if version.head == head), None)

    def is_forgotten(self, aligner_name: str) -> bool:
        """Whether the operator took its head away."""
        return self.current.get(aligner_name) == ""

    def history(self, aligner_name: str, text: str) -> HeadHistory:
        """What of it is for one aligner and one text."""
        versions = tuple(version for version in self.versions if (version.called, version.text) == (aligner_name, text))
        current = self.current.get(aligner_name)
        is_current = current == "" or any(version.head == current for version in versions)
        return HeadHistory(versions=versions, current=current if is_current else None)

    def with_history(self, aligner_name: str, text: str, history: HeadHistory) -> TaughtObjective:
        """The objective with this in place of what was for that aligner and text."""
        others = [version for version in self.versions if (version.called, version.text) != (aligner_name, text)]
        current = {name: head for name, head in self.current.items() if name != aligner_name}
        if history.current is not None:
            current[aligner_name] = history.current
        return TaughtObjective(versions=(*others, *history.versions), current=current)


class Index(BaseModel):
    """Everything that was taught for one policies file: scope -> name -> objective."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = 1
    policies: str = ""
    scopes: Mapping[str, Mapping[str, TaughtObjective]] = Field(default_factory=dict)

    def objective(self, scope: str, name: str) -> TaughtObjective:
        """The objective; without versions where nothing was taught."""
        return self.scopes.get(scope, {}).get(name, TaughtObjective())

    def with_objective(self, scope: str, name: str, objective: TaughtObjective) -> Index:
        """The index with this objective changed."""
        changed = dict(self.scopes.get(scope, {})) | {name: objective}
        return self.model_copy(update={"scopes": dict(self.scopes) | {scope: changed}})

    def heads(self) -> dict[str, Version]:
        """Every version by its head's hash."""
        objectives = (objective for names in self.scopes.values() for objective in names.values())
        return {version.head: version for objective in objectives for version in objective.versions}


def scope_of(tenant: Tenant | None) -> str:
    """The scope of a tenant's own objectives: a digest of whom the entry is for, whatever its place in the file."""
    if tenant is None:
        return WHOLE_FILE
    match = [tenant.match.team, tenant.match.key]
    return hashlib.sha256(json.dumps(match).encode()).hexdigest()[:16]


def path_of(file: PolicyFile) -> Path:
    """The policies file itself. Links are not resolved: a mounted file may be changed by replacing its link."""
    return Path(os.path.abspath(file.source.folder / file.source.name))


@dataclass(frozen=True, slots=True)
class HeadPlace:
    """What a head is for: an objective's text, in the scope that names it so, judged by one aligner."""

    scope: str
    name: str
    text: str
    aligner_name: str

    @property
    def digest(self) -> str:
        """The same on every host."""
        return hashlib.sha256(json.dumps([self.scope, self.name, self.text, self.aligner_name]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class HeadStore:
    """The heads of one policies file."""

    policies: Path
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        name = hashlib.sha256(os.fsencode(self.policies)).hexdigest()[:16]
        object.__setattr__(self, "folder", config.home() / _FOLDER / name)

    @classmethod
    def for_file(cls, file: PolicyFile) -> HeadStore:
        """The store of a policies file."""
        return cls(path_of(file))

    @property
    def index_path(self) -> Path:
        """The file that changes whenever a head comes into force or goes."""
        return self.folder / _INDEX

    def index(self) -> Index:
        """What was taught; nothing where the index is missing. Raises `ConfigError` where it is damaged."""
        try:
            data = self.index_path.read_bytes()
        except FileNotFoundError:
            return Index(policies=str(self.policies))
        except OSError as error:
            raise ConfigError(f"cannot read {self.index_path}: {error.strerror}") from None
        try:
            return Index.model_validate_json(data)
        except ValidationError:
            fix = "remove it and teach again: aligner-proxy teach"
            raise ConfigError(f"{self.index_path}: the index of taught heads is damaged; {fix}") from None

    def head(self, content_hash: str) -> bytes | None:
        """The bytes of a head, None where it is missing or not whole."""
        try:
            data = self._head_path(content_hash).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == content_hash else None

    def activate(self, scope: str, name: str, version: Version, head: bytes) -> None:
        """Put a new head in force; earlier ones are kept."""
        with self._lock_index() as index:
            write_atomically(self._head_path(version.head), head)
            before = index.objective(scope, name)
            others = [earlier for earlier in before.versions if earlier.head != version.head]
            current = dict(before.current) | {version.called: version.head}
            remaining = _recent_versions([*others, version], set(current.values()))
            self._write(index.with_objective(scope, name, TaughtObjective(versions=remaining, current=current)))

    def forget(self, scope: str, name: str) -> int:
        """Delete every head of an objective; the number of them. It stays untaught until it is taught again."""
        with self._lock_index() as index:
            before = index.objective(scope, name)
            current = dict.fromkeys((version.called for version in before.versions), "")
            self._write(index.with_objective(scope, name, TaughtObjective(current=dict(before.current) | current)))
        return len(before.versions)

    def block_auto_teaching(self, scope: str, name: str, aligner_names: Sequence[str]) -> None:
        """Keep an objective from being taught by itself, for those of these aligners that have no head of it yet."""
        with self._lock_index() as index:
            before = index.objective(scope, name)
            current = dict.fromkeys(aligner_names, "") | dict(before.current)
            self._write(index.with_objective(scope, name, before.model_copy(update={"current": current})))

    def rollback(self, scope: str, name: str, text: str) -> list[Version]:
        """Put the head before the present one in force, for each aligner that has one with this text; those heads."""
        with self._lock_index() as index:
            before = index.objective(scope, name)
            back = [
                earlier
                for aligner_name in before.current
                if (earlier := _version_before(before, aligner_name, text)) is not None
            ]
            current = dict(before.current) | {version.called: version.head for version in back}
            self._write(index.with_objective(scope, name, before.model_copy(update={"current": current})))
        return back

    def replace_history(
        self, place: HeadPlace, before: HeadHistory, after: HeadHistory, heads: Mapping[str, bytes]
    ) -> bool:
        """Put what another host taught in place of what is here; False where that is not `before` any more.

        `heads` are the bytes of those heads that are not here yet, each proven by its hash.
        """
        with self._lock_index() as index:
            objective = index.objective(place.scope, place.name)
            if objective.history(place.aligner_name, place.text) != before:
                return False
            for content_hash, head in heads.items():
                write_atomically(self._head_path(content_hash), head)
            changed = objective.with_history(place.aligner_name, place.text, after)
            self._write(index.with_objective(place.scope, place.name, changed))
        return True

    @contextlib.contextmanager
    def _lock_index(self) -> Iterator[Index]:
        """The index, while no other process changes it."""
        try:
            (self.folder / "heads").mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self.folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield self.index()
        except OSError as error:
            raise ConfigError(f"cannot write into {self.folder}: {error.strerror}; set ALIGNER_PROXY_HOME") from None

    def _write(self, index: Index) -> None:
        """Replace the index, then delete the heads that it names no more."""
        index = index.model_copy(update={"policies": str(self.policies)})
        write_atomically(self.index_path, index.model_dump_json(indent=1).encode())
        versions = index.heads()
        for path in (self.folder / "heads").glob("*.head"):
            if path.stem not in versions:
                path.unlink(missing_ok=True)

    def _head_path(self, content_hash: str) -> Path:
        return self.folder / "heads" / f"{content_hash}.head"


def _recent_versions(versions: list[Version], in_force: set[str]) -> tuple[Version, ...]:
    """The newest versions, and those in force however old."""
    last = versions[-_KEPT:]
    return tuple(version for version in versions if version in last or version.head in in_force)


def _version_before(objective: TaughtObjective, aligner_name: str, text: str) -> Version | None:
    """The version before the one in force, of the same aligner and text."""
    own = [version for version in objective.versions if version.called == aligner_name and version.text == text]
    heads = [version.head for version in own]
    present = objective.current.get(aligner_name)
    at = heads.index(present) if present in heads else len(heads)
    return own[at - 1] if at > 0 else None


def rows_folder() -> Path:
    """Where rows of neutral answers are cached."""
    return config.home() / _FOLDER / "rows"
