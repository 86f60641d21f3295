"""Guidelines for a reviewer: what the objectives of an answer say, with some of their examples."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching import example_file
from aligner_proxy.teaching.examples import Example, Examples
from aligner_proxy_review.console.access import TEAM, Viewer
from aligner_proxy_review.console.changing.known_objectives import KnownObjective, list_objectives

MAX_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Guideline:
    """An objective with the first examples of its file."""

    objective: KnownObjective
    against: tuple[Example, ...]
    """Sentences that violate it."""
    fine: tuple[Example, ...]
    """Sentences that sound alike and do not violate it."""


def list_guidelines(file: PolicyFile, entry: Entry, viewer: Viewer) -> list[Guideline]:
    """List the guidelines for an answer, with examples only of objectives that the viewer may change."""
    guidelines = []
    for objective in list_objectives(file):
        # an entry may name an objective by its name or by its text
        was_active = objective.name in entry.objectives or objective.text in entry.objectives
        if was_active and objective.may_see(viewer) and _applies_to(objective, entry.tenant):
            examples = Examples(())
            if objective.subject is not None and objective.may_change(viewer):
                # if the examples cannot be read, the page of the objective says why
                with contextlib.suppress(ConfigError):
                    examples = example_file.present_examples(objective.subject)
            guidelines.append(Guideline(objective, examples.against[:MAX_EXAMPLES], examples.fine[:MAX_EXAMPLES]))
    return guidelines


def _applies_to(objective: KnownObjective, tenant: str) -> bool:
    """Whether an objective may apply to a tenant's answers; that of a tenant's entry only to the team it matches."""
    team = objective.tenant.match.team if objective.tenant else None
    return team is None or fnmatchcase(tenant, TEAM + team)
