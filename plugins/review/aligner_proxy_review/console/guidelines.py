"""Guidelines for a reviewer: what the objectives of an answer say, with some of their examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching import example_file
from aligner_proxy.teaching.examples import Example
from aligner_proxy_review.console.access import TEAM, Viewer
from aligner_proxy_review.console.changing.known_objectives import KnownObjective, list_objectives

MAX_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Guideline:
    """An objective with the first examples of its file."""

    objective: KnownObjective
    against: tuple[str, ...] = ()
    """Sentences that violate it."""
    fine: tuple[str, ...] = ()
    """Sentences that sound alike and do not violate it."""


def list_guidelines(file: PolicyFile, entry: Entry, viewer: Viewer) -> list[Guideline]:
    """List the guidelines for an answer, with examples only of objectives that the viewer may change."""
    guidelines = []
    for objective in list_objectives(file):
        # an entry may name an objective by its name or by its text
        was_active = objective.name in entry.objectives or objective.text in entry.objectives
        if was_active and objective.may_see(viewer) and _applies_to(objective, entry.tenant):
            guidelines.append(_make_guideline(objective, viewer))
    return guidelines


def _applies_to(objective: KnownObjective, tenant: str) -> bool:
    """Whether an objective may apply to a tenant's answers; that of a tenant's entry only to the team it matches."""
    team = objective.tenant.match.team if objective.tenant else None
    return team is None or fnmatchcase(tenant, TEAM + team)


def _make_guideline(objective: KnownObjective, viewer: Viewer) -> Guideline:
    """Make the guideline of an objective, without examples if this viewer may not see them or they cannot be read."""
    if objective.subject is None or not objective.may_change(viewer):
        return Guideline(objective)
    try:
        examples = example_file.present_examples(objective.subject)
    except ConfigError:
        # the page of the objective says why
        return Guideline(objective)
    return Guideline(objective, _first_texts(examples.against), _first_texts(examples.fine))


def _first_texts(examples: Sequence[Example]) -> tuple[str, ...]:
    return tuple(example.text for example in examples[:MAX_EXAMPLES])
