"""Store of taught heads: for each policies file a folder below `ALIGNER_PROXY_HOME`, with an index and the heads. A
version is the record of one taught head in the index. A head belongs to the scope of its objective: the whole policies
file, or one tenant of the file.

Earlier versions are kept for rollback. The index and the heads are replaced atomically, and only one process at a time
changes them, so readers need no lock. The store contains no text of any example.
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
from aligner_proxy.intervals import wilson_interval
from aligner_proxy.policy import config
from aligner_proxy.policy.schema import PolicyFile, Tenant
from aligner_proxy.teaching.rows import write_atomically

WHOLE_FILE = "-"
"""The scope of the file's own objectives, which all tenants can use."""
_FOLDER_NAME = "taught"
_INDEX_NAME = "index.json"
_HASH_PATTERN = r"^[0-9a-f]{64}$"
_MAX_VERSIONS = 8
"""Most stored versions of one objective; the oldest inactive version is deleted first."""


class Count(StrictModel):
    """A count: `hits` of `of` tries."""

    hits: int = Field(ge=0)
    of: int = Field(ge=0)

    @property
    def interval(self) -> tuple[float, float, float]:
        """(share, lower end of its 95 % interval, upper end), from 0 to 1."""
        return wilson_interval(self.hits, self.of)


class Version(StrictModel):
    """One taught head of an objective: from which examples it was taught, and how well it performed."""

    head: str = Field(pattern=_HASH_PATTERN)
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
    """The heads taught for one objective's text and one aligner, oldest first, and which of them is active."""

    versions: tuple[Version, ...] = Field(default=(), max_length=2 * _MAX_VERSIONS)
    current: str | None = None
    """Hash of the active head. "" means that the operator removed the head; None, that none was taught, or that a head
    for another text is active."""

    def check_place(self, place: HeadPlace) -> None:
        """Raise `ValueError` if a version is not for `place`, or if the active head is none of the versions."""
        if any((version.called, version.text) != (place.aligner_name, place.text) for version in self.versions):
            raise ValueError("a head of another text or aligner")
        # "" stands for a removed head, which needs no version
        if self.current and self.current not in {version.head for version in self.versions}:
            raise ValueError("a head in force that is none of these")

    @property
    def digest(self) -> str:
        """Hash of the whole history."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class TaughtObjective(StrictModel):
    """All versions of one objective, oldest first, and the active head for each aligner."""

    versions: tuple[Version, ...] = ()
    current: Mapping[str, str] = Field(default_factory=dict)
    """Hash of the active head, by the aligner's name; "" if the operator chose that only the general head judges."""

    def active_version(self, aligner_name: str) -> Version | None:
        """Return the version whose head is active for this aligner; None if there is none."""
        head = self.current.get(aligner_name)
        return next((version for version in reversed(self.versions) if version.head == head), None)

    def is_forgotten(self, aligner_name: str) -> bool:
        """Whether the operator removed the head for this aligner."""
        return self.current.get(aligner_name) == ""

    def history(self, aligner_name: str, text: str) -> HeadHistory:
        """Return the versions that are for one aligner and one text of the objective, and which of them is active."""
        versions = tuple(version for version in self.versions if (version.called, version.text) == (aligner_name, text))
        current = self.current.get(aligner_name)
        belongs_here = current == "" or any(version.head == current for version in versions)
        return HeadHistory(versions=versions, current=current if belongs_here else None)

    def with_history(self, aligner_name: str, text: str, history: HeadHistory) -> TaughtObjective:
        """Return a copy in which `history` replaces the versions for this aligner and text."""
        other_versions = [
            version for version in self.versions if (version.called, version.text) != (aligner_name, text)
        ]
        current = {name: head for name, head in self.current.items() if name != aligner_name}
        if history.current is not None:
            current[aligner_name] = history.current
        return TaughtObjective(versions=(*other_versions, *history.versions), current=current)


class Index(StrictModel):
    """All taught heads of one policies file."""

    version: int = 1
    """Version of the format."""
    policies: str = ""
    """Path of the policies file, for people who look into the index."""
    scopes: Mapping[str, Mapping[str, TaughtObjective]] = Field(default_factory=dict)
    """The taught objectives by scope (`scope_of`), then by the objective's name."""

    def objective(self, scope: str, name: str) -> TaughtObjective:
        """Return the taught objective; an objective without versions if nothing was taught."""
        return self.scopes.get(scope, {}).get(name, TaughtObjective())

    def with_objective(self, scope: str, name: str, objective: TaughtObjective) -> Index:
        """Return a copy of the index with this objective replaced."""
        scope_objectives = dict(self.scopes.get(scope, {})) | {name: objective}
        return self.model_copy(update={"scopes": dict(self.scopes) | {scope: scope_objectives}})

    def heads(self) -> dict[str, Version]:
        """Return every version by its head's hash."""
        versions: dict[str, Version] = {}
        for scope_objectives in self.scopes.values():
            for objective in scope_objectives.values():
                versions.update({version.head: version for version in objective.versions})
        return versions


def scope_of(tenant: Tenant | None) -> str:
    """Return the scope of a tenant's own objectives; None stands for the whole file.

    The scope is a digest of what the tenant's entry matches, so it does not depend on the order of tenants in the file.
    """
    if tenant is None:
        return WHOLE_FILE
    match = [tenant.match.team, tenant.match.key]
    return hashlib.sha256(json.dumps(match).encode()).hexdigest()[:16]


def path_of(file: PolicyFile) -> Path:
    """Return the absolute path of the policies file, through links, because a new link may update a mounted file."""
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
    """Where index and heads are stored, named by a hash of the path."""

    def __post_init__(self) -> None:
        name = hashlib.sha256(os.fsencode(self.policies)).hexdigest()[:16]
        object.__setattr__(self, "folder", config.home_folder() / _FOLDER_NAME / name)

    @classmethod
    def for_file(cls, file: PolicyFile) -> HeadStore:
        return cls(path_of(file))

    @property
    def index_path(self) -> Path:
        """The index file, which changes whenever a head is activated or removed."""
        return self.folder / _INDEX_NAME

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
        """Read the bytes of the head with this hash; None if the file is missing or does not match its hash."""
        try:
            data = self._head_path(content_hash).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == content_hash else None

    def activate(self, scope: str, name: str, version: Version, head: bytes) -> None:
        """Store a new head of the objective `name`, and make it active for its aligner.

        Of the earlier versions the newest are kept, `_MAX_VERSIONS` in all. `head` are the bytes of the head that
        `version` describes. Raises `ConfigError` if the store cannot be written.
        """
        with self._lock_index() as index:
            write_atomically(self._head_path(version.head), head)
            objective = index.objective(scope, name)
            # a head that was taught before becomes the newest version
            other_versions = [earlier for earlier in objective.versions if earlier.head != version.head]
            current = dict(objective.current) | {version.called: version.head}
            all_versions = [*other_versions, version]
            newest = all_versions[-_MAX_VERSIONS:]
            # an older version is kept if its head is active for another aligner
            versions = tuple(one for one in all_versions if one in newest or one.head in current.values())
            self._write(index.with_objective(scope, name, TaughtObjective(versions=versions, current=current)))

    def forget(self, scope: str, name: str) -> int:
        """Delete all heads of an objective and return their number; only an explicit `teach` teaches it again."""
        with self._lock_index() as index:
            objective = index.objective(scope, name)
            # "" in place of a head excludes the objective from automatic teaching
            no_heads = dict.fromkeys((version.called for version in objective.versions), "")
            emptied_objective = TaughtObjective(current=dict(objective.current) | no_heads)
            self._write(index.with_objective(scope, name, emptied_objective))
        return len(objective.versions)

    def block_auto_teaching(self, scope: str, name: str, aligner_names: Sequence[str]) -> None:
        """Exclude an objective from automatic teaching, for those of these aligners that have no head for it yet."""
        with self._lock_index() as index:
            objective = index.objective(scope, name)
            # "" in place of a head excludes the objective; an aligner that has a head keeps it
            current = dict.fromkeys(aligner_names, "") | dict(objective.current)
            self._write(index.with_objective(scope, name, objective.model_copy(update={"current": current})))

    def rollback(self, scope: str, name: str, text: str) -> list[Version]:
        """For each aligner, activate the previous head for `text`, if any; returns the versions activated."""
        with self._lock_index() as index:
            objective = index.objective(scope, name)
            candidates = [_find_previous(objective, aligner_name, text) for aligner_name in objective.current]
            previous_versions = [version for version in candidates if version is not None]
            current = dict(objective.current) | {version.called: version.head for version in previous_versions}
            self._write(index.with_objective(scope, name, objective.model_copy(update={"current": current})))
        return previous_versions

    def replace_history(
        self, place: HeadPlace, before: HeadHistory, after: HeadHistory, heads: Mapping[str, bytes]
    ) -> bool:
        """Replace the local history `before` by `after`, that of another host; return whether it was replaced.

        It is not replaced if the local history is no longer `before`. `heads` are the bytes of the heads that are
        missing here, by their hashes, which the caller has verified.
        """
        with self._lock_index() as index:
            objective = index.objective(place.scope, place.name)
            if objective.history(place.aligner_name, place.text) != before:
                return False
            for content_hash, head in heads.items():
                write_atomically(self._head_path(content_hash), head)
            new_objective = objective.with_history(place.aligner_name, place.text, after)
            self._write(index.with_objective(place.scope, place.name, new_objective))
        return True

    @contextlib.contextmanager
    def _lock_index(self) -> Iterator[Index]:
        """Lock the index, so that no other process changes it, and yield its content.

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


def _find_previous(objective: TaughtObjective, aligner_name: str, text: str) -> Version | None:
    """Return the version before the active one, of the same aligner and text; None if there is none."""
    versions = [version for version in objective.versions if version.called == aligner_name and version.text == text]
    heads = [version.head for version in versions]
    active_head = objective.current.get(aligner_name)
    # if the active head was removed or is for another text, the newest version is the previous one
    active_index = heads.index(active_head) if active_head in heads else len(heads)
    return versions[active_index - 1] if active_index > 0 else None


def rows_folder() -> Path:
    """Return the folder in which rows of neutral answers are cached."""
    return config.home_folder() / _FOLDER_NAME / "rows"
