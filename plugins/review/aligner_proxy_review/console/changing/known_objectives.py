"""The objectives of a policies file as a page shows them, and who may see and change each.

A reviewer may change the objectives of a tenant entry that is for one of the reviewer's teams only. Objectives of the
whole file are visible to reviewers, but without their examples, which may come from other tenants' answers.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from aligner_proxy.policy.schema import PolicyFile, Tenant
from aligner_proxy.policy.yaml_file import KeyPath
from aligner_proxy.teaching.overview import HeadStatus, head_statuses
from aligner_proxy.teaching.store import scope_of
from aligner_proxy.teaching.subjects import Subject, iter_objectives
from aligner_proxy_review.console.access import TEAM, Viewer

_PATTERN_CHARACTERS = "*?["
"""Characters that make the name of a team a pattern, which may match other teams as well."""


@dataclass(frozen=True, slots=True)
class KnownObjective:
    """An objective of the policies file."""

    name: str
    title: str
    """Its name; TENANT/NAME if it belongs to a tenant's entry."""
    text: str
    tenant: Tenant | None
    """The tenant's entry to which it belongs; None if it belongs to the whole file."""
    path: KeyPath
    """The keys that lead to it in the file."""
    place: str
    """Its place as "file:line"."""
    statuses: tuple[HeadStatus, ...]
    """The state of its taught head for each aligner; empty if it has no examples."""

    @property
    def handle(self) -> str:
        """Its id in URLs."""
        return hashlib.sha256(json.dumps([scope_of(self.tenant), self.name]).encode()).hexdigest()[:16]

    @property
    def subject(self) -> Subject | None:
        """Its text, scope and examples, from which heads are taught; None if it has no examples."""
        return self.statuses[0].subject if self.statuses else None

    def may_see(self, viewer: Viewer) -> bool:
        """Whether a viewer may see that it exists."""
        return self.tenant is None or self.may_change(viewer)

    def may_change(self, viewer: Viewer) -> bool:
        """Whether a viewer may see and change the objective's examples, and teach it: the operator, or its team."""
        if viewer.tenants is None:
            return True
        # an entry for one key is not for the whole team
        if self.tenant is None or self.tenant.match.key is not None:
            return False
        team = self.tenant.match.team
        return team is not None and set(team).isdisjoint(_PATTERN_CHARACTERS) and TEAM + team in viewer.tenants


def list_objectives(file: PolicyFile) -> list[KnownObjective]:
    """List the objectives of the file and of its tenants; raises `ConfigError` for a damaged index of heads."""
    statuses_by_title: dict[str, list[HeadStatus]] = {}
    for status in head_statuses(file):
        statuses_by_title.setdefault(status.subject.title, []).append(status)
    objectives = []
    for title, name, entry, tenant, path in iter_objectives(file):
        statuses = tuple(statuses_by_title.get(title, ()))
        objectives.append(KnownObjective(name, title, entry.text, tenant, path, file.source.place_of(*path), statuses))
    return objectives
