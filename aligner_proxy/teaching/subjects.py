"""Subjects: the objectives of a policies file that have examples, and their teaching state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import shares
from aligner_proxy.policy.objective_schema import ObjectiveEntry
from aligner_proxy.policy.resolver import entry_name
from aligner_proxy.policy.schema import PolicyFile, Tenant
from aligner_proxy.policy.yaml_file import KeyPath, quote_name, suggest_name
from aligner_proxy.teaching.examples import Examples, read_examples
from aligner_proxy.teaching.store import Index, scope_of
from aligner_proxy.types import DEFAULT_ALIGNER


@dataclass(frozen=True, slots=True)
class Subject:
    """An objective with examples; `title` is its name, or TENANT/NAME for a tenant's own objective."""

    name: str
    title: str
    text: str
    """The objective's whole text."""
    scope: str
    """To whom its heads belong, as in the store: the whole file, or one tenant."""
    tenant: Tenant | None
    """Its owner; None: the file."""
    examples: Path
    """The file of examples, which may be missing."""
    place: str
    """ "file:line" of the examples in the policies file."""

    def read_examples(self) -> Examples:
        """Read the examples; raises `ConfigError`."""
        if not os.path.isfile(self.examples):
            is_folder = os.path.isdir(self.examples)
            fault = f"{self.examples} is a folder; name a file" if is_folder else f"there is no file {self.examples}"
            raise ConfigError(f"{self.place}: examples of {self.title}: {fault}")
        return read_examples(self.examples, self.name, self.text)


class TeachingState(StrEnum):
    """The teaching state of an objective with examples."""

    TAUGHT = "taught"
    CHANGED = "taught from other examples"
    """The examples have changed since teaching; the head is still active."""
    STALE = "taught for another text or aligner"
    """There is a head, but it is not used."""
    UNREADABLE = "examples cannot be read"
    FORGOTTEN = "forgotten"
    UNTAUGHT = "not taught yet"


def list_subjects(file: PolicyFile) -> list[Subject]:
    """Every objective with examples, the file's first; raises `ConfigError` if two texts share a file of examples."""
    result = [*_subjects_of_block(file, file.objectives, None, ("objectives",))]
    for number, tenant in enumerate(file.tenants):
        result += _subjects_of_block(file, tenant.objectives, (tenant, number), ("tenants", number, "objectives"))
    first: dict[Path, Subject] = {}
    for subject in result:
        other = first.setdefault(subject.examples, subject)
        if other.text != subject.text:
            raise ConfigError(
                f"{subject.place}: {subject.title} has the examples of {other.title} ({other.place}), which is another "
                "objective; give each its own file"
            )
    return result


def _subjects_of_block(
    file: PolicyFile, entries: Mapping[str, ObjectiveEntry], owner: tuple[Tenant, int] | None, path: KeyPath
) -> Iterator[Subject]:
    """The subjects of one `objectives` block; `owner` is its tenant with its index, None for the file."""
    tenant = owner[0] if owner else None
    prefix = f"{entry_name(*owner)}/" if owner else ""
    for name, entry in entries.items():
        if entry.examples is not None:
            examples = file.source.resolve(entry.examples)
            place = file.source.place_of(*path, name, "examples")
            yield Subject(name, prefix + name, entry.text, scope_of(tenant), tenant, examples, place)


def select_subjects(file: PolicyFile, names: Sequence[str]) -> list[Subject]:
    """The subjects with these titles or names; all if none are given. Raises `ConfigError` for an unknown one."""
    all_subjects = list_subjects(file)
    if not names:
        return all_subjects
    result: list[Subject] = []
    for name in names:
        # A title is unique; a name alone may stand for the objectives of several tenants.
        matching = [subject for subject in all_subjects if subject.title == name]
        matching = matching or [subject for subject in all_subjects if subject.name == name]
        if not matching:
            raise ConfigError(_unknown_message(file, name, all_subjects))
        result += [subject for subject in matching if subject not in result]
    return result


def _unknown_message(file: PolicyFile, name: str, all_subjects: Sequence[Subject]) -> str:
    """The message for a name without a subject; it says how to add examples if the objective only lacks these."""
    if name in file.objectives or any(name in tenant.objectives for tenant in file.tenants):
        return f"{file.source.name}: objective {quote_name(name)} has no examples; write {{text: ..., examples: FILE}}"
    if not all_subjects:
        return f"{file.source.name}: no objective has examples; write {{text: ..., examples: FILE}} under objectives"
    hint = suggest_name(name, [subject.title for subject in all_subjects])
    return f"{file.source.name}: unknown objective {quote_name(name)}; {hint}"


def used_aligners(file: PolicyFile) -> list[str]:
    """The names of the aligners that policies use; each of them is taught separately."""
    result = [DEFAULT_ALIGNER]
    for _, block in file.blocks():
        result += shares.aligner_names(block.aligner or ())
        result += [block.shadow_aligner] if block.shadow_aligner else []
    return list(dict.fromkeys(result))


def teaching_state(subject: Subject, index: Index, aligner_name: str, content_hash: str | None = None) -> TeachingState:
    """The teaching state of a subject for one aligner; `content_hash` is of the served aligner, None if not known."""
    objective = index.objective(subject.scope, subject.name)
    if objective.is_forgotten(aligner_name):
        return TeachingState.FORGOTTEN
    version = objective.active_version(aligner_name)
    try:
        digest = subject.read_examples().digest
    except ConfigError:
        return TeachingState.UNREADABLE
    if version is None:
        return TeachingState.UNTAUGHT
    if version.text != subject.text or content_hash not in (None, version.aligner):
        return TeachingState.STALE
    return TeachingState.TAUGHT if version.digest == digest else TeachingState.CHANGED
