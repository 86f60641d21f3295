"""Subjects: the objectives of a policies file that have examples, and their teaching state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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
    """To whom its heads belong, as the store names it: to the whole file, or to one tenant."""
    tenant: Tenant | None
    """The tenant that owns the objective; None for an objective of the whole file."""
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
    """Return every objective with examples, first those of the whole file, then those of the tenants.

    Raises `ConfigError` if two objectives of different texts share a file of examples.
    """
    subjects: list[Subject] = []
    for title, name, entry, tenant, path in iter_objectives(file):
        if entry.examples is not None:
            examples = file.source.resolve(entry.examples)
            place = file.source.place_of(*path, "examples")
            subjects.append(Subject(name, title, entry.text, scope_of(tenant), tenant, examples, place))
    first_by_examples: dict[Path, Subject] = {}
    for subject in subjects:
        first = first_by_examples.setdefault(subject.examples, subject)
        if first.text != subject.text:
            raise ConfigError(
                f"{subject.place}: {subject.title} has the examples of {first.title} ({first.place}), which is another "
                "objective; give each its own file"
            )
    return subjects


def iter_objectives(file: PolicyFile) -> Iterator[tuple[str, str, ObjectiveEntry, Tenant | None, KeyPath]]:
    """Yield (title, name, entry, tenant or None, keys in the file) of every objective, first the whole file's."""
    for name, entry in file.objectives.items():
        yield name, name, entry, None, ("objectives", name)
    for index, tenant in enumerate(file.tenants):
        for name, entry in tenant.objectives.items():
            yield f"{entry_name(tenant, index)}/{name}", name, entry, tenant, ("tenants", index, "objectives", name)


def select_subjects(file: PolicyFile, names: Sequence[str]) -> list[Subject]:
    """Return the subjects with these titles or names, all if `names` is empty; raises `ConfigError` if unknown."""
    all_subjects = list_subjects(file)
    if not names:
        return all_subjects
    selected_subjects: list[Subject] = []
    for name in names:
        # a title is unique; a name alone may stand for the objectives of several tenants
        matching_subjects = [subject for subject in all_subjects if subject.title == name]
        if not matching_subjects:
            matching_subjects = [subject for subject in all_subjects if subject.name == name]
        if not matching_subjects:
            raise ConfigError(_explain_unknown(file, name, all_subjects))
        selected_subjects += [subject for subject in matching_subjects if subject not in selected_subjects]
    return selected_subjects


def _explain_unknown(file: PolicyFile, name: str, all_subjects: Sequence[Subject]) -> str:
    """Return the error for a name without a subject; if an objective only lacks examples, it says how to add them."""
    if name in file.objectives or any(name in tenant.objectives for tenant in file.tenants):
        return f"{file.source.name}: objective {quote_name(name)} has no examples; write {{text: ..., examples: FILE}}"
    if not all_subjects:
        return f"{file.source.name}: no objective has examples; write {{text: ..., examples: FILE}} under objectives"
    hint = suggest_name(name, [subject.title for subject in all_subjects])
    return f"{file.source.name}: unknown objective {quote_name(name)}; {hint}"


def used_aligners(file: PolicyFile) -> list[str]:
    """Return the names of the aligners that the file's policies use; each of them is taught separately."""
    names = [DEFAULT_ALIGNER]
    for _, block in file.blocks():
        names += shares.aligner_names(block.aligner or ())
        if block.shadow_aligner:
            names.append(block.shadow_aligner)
    return list(dict.fromkeys(names))


def teaching_state(subject: Subject, index: Index, aligner_name: str, content_hash: str | None = None) -> TeachingState:
    """Return the teaching state of a subject for one aligner.

    `content_hash` is that of the aligner as the engine serves it; None if it is not known.
    """
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
