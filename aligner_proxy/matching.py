"""Whom does a route or a tenant of the policies file speak of, and what is it called?"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from aligner_proxy.policy_file import Route, Tenant

if TYPE_CHECKING:
    from aligner_proxy.policy import RequestFacts


def route_matches(route: Route, model: str, tags: Sequence[str]) -> bool:
    """Whether a request for `model` with `tags` is one of this route's."""
    wanted = route.match
    fits = wanted.model is None or fnmatchcase(model, wanted.model)
    return fits and (wanted.tag is None or any(fnmatchcase(tag, wanted.tag) for tag in tags))


def route_name(route: Route, index: int) -> str:
    """The route's name in headers and tables."""
    return route.name or f"route-{index + 1}"


def tenant_name(tenant: Tenant, index: int) -> str:
    """The tenant's name in headers and tables."""
    return tenant.name or f"tenant-{index + 1}"


def tenant_matches(tenant: Tenant, facts: RequestFacts) -> bool:
    """Whether a request is this tenant's, by its team or by its key."""
    wanted = tenant.match
    return _one_fits(wanted.team, facts.team_id, facts.team_alias) and _one_fits(
        wanted.key, facts.key_hash, facts.key_alias
    )


def _one_fits(pattern: str | None, *values: str | None) -> bool:
    return pattern is None or any(fnmatchcase(value, pattern) for value in values if value)
