"""Store of taught heads: for each policies file a folder below `ALIGNER_PROXY_HOME`, with an index and the heads.

A head belongs to the scope of its objective: the file, or one tenant of it. Earlier versions are kept for rollback. The
index and the heads are replaced atomically, and only one process at a time changes them, so readers need no lock. The
store contains no text of any example.
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

from pydantic import Field, ValidationError

from aligner_proxy.engine.api import StrictModel
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.policy.schema import PolicyFile, Tenant
from aligner_proxy.teaching.rows import write_atomically

WHOLE_FILE = "-"
"""The scope of the file's own objectives, which all tenants can use."""
_FOLDER = "taught"
_INDEX = "index.json"
_HASH = r"^[0-9a-f]{64}$"
_MAX_VERSIONS = 8
"""Maximum stored versions of one objective; the oldest inactive version is deleted first."""


class Count(StrictModel):
    """A count: `hits` out of `of`."""

    hits: int = Field(ge=0)
    of: int = Field(ge=0)


class Version(StrictModel):
    """One taught head of an objective: the examples it was taught from, and how well it performed."""

    head: str = Field(pattern=_HASH)
    """SHA-256 of the head's bytes."""
    text: str
    """The objective's whole text."""
    called: str
    """The name of the aligner in the policies."""
    aligner: str
    """The content hash of the aligner."""
    against: int
    """Number of examples against the objective."""
    fine: int
    """Number of fine examples and good answers."""
    digest: str
    """Hash of the examples."""
    at: float
    """Time of teaching, in seconds since the epoch."""
    found: Count
    """Held-out examples that were flagged."""
    false: Count
    """Held-out neutral segments that were flagged."""
    threshold: float
    """Nats subtracted from the scores, so that 0 is the threshold."""

    @property
    def day(self) -> str:
        """The day of teaching, in UTC."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.at))


class HeadHistory(StrictModel):
    """The heads taught for one objective text and one aligner, oldest first, and the active one of them."""

    versions: tuple[Version, ...] = Field(default=(), max_length=2 * _MAX_VERSIONS)
    current: str | None = None
    """Hash of the active head; empty: forgotten; None: never taught, or a head for another text is active."""

    def check_place(self, place: HeadPlace) -> None:
        """Raise `ValueError` if a version belongs to another text or aligner, or the active head is not a version."""
        if any((version.called, version.text) != (place.aligner_name, place.text) for version in self.versions):
            raise ValueError("a head of another text or aligner")
        # An empty one (forgotten) needs no version.
        if self.current and self.current not in {version.head for version in self.versions}:
            raise ValueError("a head in force that is none of these")

    @property
    def digest(self) -> str:
        """Hash of the whole history."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class TaughtObjective(StrictModel):
    """All heads of one objective, oldest first, and the active head for each aligner."""

    versions: tuple[Version, ...] = ()
    current: Mapping[str, str] = Field(default_factory=dict)
    """Name of the aligner -> hash of the active head; empty: the operator chose that only the general head judges."""

    def active_version(self, aligner_name: str) -> Version | None:
        """The version whose head is active for this aligner; None if there is none."""
        head = self.current.get(aligner_name)
        return next((version for version in reversed(self.versions) if version.head == head), None)

    def is_forgotten(self, aligner_name: str) -> bool:
        """Whether the operator removed the head for this aligner."""
        return self.current.get(aligner_name) == ""

    def history(self, aligner_name: str, text: str) -> HeadHistory:
        """The part of these heads that is for one aligner and one text."""
        versions = tuple(version for version in self.versions if (version.called, version.text) == (aligner_name, text))
        current = self.current.get(aligner_name)
        is_current = current == "" or any(version.head == current for version in versions)
        return HeadHistory(versions=versions, current=current if is_current else None)

    def with_history(self, aligner_name: str, text: str, history: HeadHistory) -> TaughtObjective:
        """A copy in which `history` replaces the heads for this aligner and text."""
        others = [version for version in self.versions if (version.called, version.text) != (aligner_name, text)]
        current = {name: head for name, head in self.current.items() if name != aligner_name}
        if history.current is not None:
            current[aligner_name] = history.current
        return TaughtObjective(versions=(*others, *history.versions), current=current)


class Index(StrictModel):
    """All taught heads of one policies file: scope -> name -> objective."""

    version: int = 1
    """Version of the format."""
    policies: str = ""
    """Path of the policies file, for people who look into the index."""
    scopes: Mapping[str, Mapping[str, TaughtObjective]] = Field(default_factory=dict)

    def objective(self, scope: str, name: str) -> TaughtObjective:
        """The taught objective; one without versions if nothing was taught."""
        return self.scopes.get(scope, {}).get(name, TaughtObjective())

    def with_objective(self, scope: str, name: str, objective: TaughtObjective) -> Index:
        """A copy of the index with this objective replaced."""
        changed = dict(self.scopes.get(scope, {})) | {name: objective}
        return self.model_copy(update={"scopes": dict(self.scopes) | {scope: changed}})

    def heads(self) -> dict[str, Version]:
        """Every version by its head's hash."""
        objectives = (objective for names in self.scopes.values() for objective in names.values())
        return {version.head: version for objective in objectives for version in objective.versions}


def scope_of(tenant: Tenant | None) -> str:
    """The scope of a tenant's own objectives: a digest of the entry's `match`, independent of the order in the file."""
    if tenant is None:
        return WHOLE_FILE
    match = [tenant.match.team, tenant.match.key]
    return hashlib.sha256(json.dumps(match).encode()).hexdigest()[:16]


def path_of(file: PolicyFile) -> Path:
    """Absolute path of the policies file. Links are not resolved: a mounted file may be updated by a new link."""
    return Path(os.path.abspath(file.source.folder / file.source.name))


@dataclass(frozen=True, slots=True)
class HeadPlace:
    """What a head is for: an objective (scope, name and text) and the aligner that judges by this objective."""

    scope: str
    name: str
    text: str
    aligner_name: str

    @property
    def digest(self) -> str:
        """Hash of the fields; the same on every host."""
        return hashlib.sha256(json.dumps([self.scope, self.name, self.text, self.aligner_name]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class HeadStore:
    """The heads of one policies file."""

    policies: Path
    """Absolute path of the policies file."""
    folder: Path = field(init=False)
    """Where index and heads are stored, named by a hash of that path."""

    def __post_init__(self) -> None:
        name = hashlib.sha256(os.fsencode(self.policies)).hexdigest()[:16]
        object.__setattr__(self, "folder", config.home_folder() / _FOLDER / name)

    @classmethod
    def for_file(cls, file: PolicyFile) -> HeadStore:
        return cls(path_of(file))

    @property
    def index_path(self) -> Path:
        """The index file, which changes whenever a head is activated or removed."""
        return self.folder / _INDEX

    def index(self) -> Index:
        """Read the index; a missing file gives an empty index. Raises `ConfigError` if it is damaged."""
        try:
            data = self.index_path.read_bytes()
        except FileNotFoundError:
            return Index(policies=str(self.policies))
        except OSError as error:
            fix = "set ALIGNER_PROXY_HOME to a folder of your own"
            raise ConfigError(f"cannot read {self.index_path}: {error.strerror}; {fix}") from None
        try:
            return Index.model_validate_json(data)
        except ValidationError:
            fix = "remove it and teach again: aligner-proxy teach"
            raise ConfigError(f"{self.index_path}: the index of taught heads is damaged; {fix}") from None

    def head(self, content_hash: str) -> bytes | None:
        """Read the bytes of a head; None if it is missing or does not match its hash."""
        try:
            data = self._head_path(content_hash).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == content_hash else None

    def activate(self, scope: str, name: str, version: Version, head: bytes) -> None:
        """Store a new head and make it active for its aligner; earlier heads are kept, `_MAX_VERSIONS` in all.

        `head` are the bytes of the head that `version` describes. Raises `ConfigError` if the store cannot be written.
        """
        with self._lock_index() as index:
            write_atomically(self._head_path(version.head), head)
            before = index.objective(scope, name)
            # A head that was taught before becomes the newest version.
            others = [earlier for earlier in before.versions if earlier.head != version.head]
            current = dict(before.current) | {version.called: version.head}
            remaining = _recent_versions([*others, version], set(current.values()))
            self._write(index.with_objective(scope, name, TaughtObjective(versions=remaining, current=current)))

    def forget(self, scope: str, name: str) -> int:
        """Delete all heads of an objective and return their number; only an explicit `teach` teaches it again."""
        with self._lock_index() as index:
            before = index.objective(scope, name)
            # An empty text marks a head as forgotten, so that it is not taught again by itself.
            current = dict.fromkeys((version.called for version in before.versions), "")
            self._write(index.with_objective(scope, name, TaughtObjective(current=dict(before.current) | current)))
        return len(before.versions)

    def block_auto_teaching(self, scope: str, name: str, aligner_names: Sequence[str]) -> None:
        """Exclude an objective from automatic teaching, for those of these aligners that have no head for it yet."""
        with self._lock_index() as index:
            before = index.objective(scope, name)
            # Empty marks as forgotten; what `before` says wins, so an aligner keeps the head that it has.
            current = dict.fromkeys(aligner_names, "") | dict(before.current)
            self._write(index.with_objective(scope, name, before.model_copy(update={"current": current})))

    def rollback(self, scope: str, name: str, text: str) -> list[Version]:
        """For each aligner, activate the previous head for `text`, if there is one; returns the heads activated."""
        with self._lock_index() as index:
            before = index.objective(scope, name)
            previous_versions = [
                earlier
                for aligner_name in before.current
                if (earlier := _version_before(before, aligner_name, text)) is not None
            ]
            current = dict(before.current) | {version.called: version.head for version in previous_versions}
            self._write(index.with_objective(scope, name, before.model_copy(update={"current": current})))
        return previous_versions

    def replace_history(
        self, place: HeadPlace, before: HeadHistory, after: HeadHistory, heads: Mapping[str, bytes]
    ) -> bool:
        """Replace the local history by that of another host; returns False if the local one is no longer `before`.

        `heads` are the bytes of the heads that are missing here, by their hashes, which the caller has verified.
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
        """Lock the index, so that no other process changes it, and yield what it contains.

        Raises `ConfigError` if the folder cannot be written.
        """
        try:
            (self.folder / "heads").mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self.folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield self.index()
        except OSError as error:
            raise ConfigError(f"cannot write into {self.folder}: {error.strerror}; set ALIGNER_PROXY_HOME") from None

    def _write(self, index: Index) -> None:
        """Replace the index, then delete the files of heads that it no longer names."""
        index = index.model_copy(update={"policies": str(self.policies)})
        write_atomically(self.index_path, index.model_dump_json(indent=1).encode())
        versions = index.heads()
        for path in (self.folder / "heads").glob("*.head"):
            if path.stem not in versions:
                path.unlink(missing_ok=True)

    def _head_path(self, content_hash: str) -> Path:
        return self.folder / "heads" / f"{content_hash}.head"


def _recent_versions(versions: list[Version], in_force: set[str]) -> tuple[Version, ...]:
    """The newest `_MAX_VERSIONS` versions, and of older ones those whose heads are active (`in_force`)."""
    last = versions[-_MAX_VERSIONS:]
    return tuple(version for version in versions if version in last or version.head in in_force)


def _version_before(objective: TaughtObjective, aligner_name: str, text: str) -> Version | None:
    """The version before the active one, of the same aligner and text; None if there is none."""
    versions = [version for version in objective.versions if version.called == aligner_name and version.text == text]
    heads = [version.head for version in versions]
    present = objective.current.get(aligner_name)
    # If the active head is none of these (forgotten, or for another text), the newest one is the one before it.
    index = heads.index(present) if present in heads else len(heads)
    return versions[index - 1] if index > 0 else None


def rows_folder() -> Path:
    """The folder in which rows of neutral answers are cached."""
    return config.home_folder() / _FOLDER / "rows"
