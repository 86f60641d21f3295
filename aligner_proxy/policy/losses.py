"""Losses through a change of the policies file: objectives enforced for a tenant that the new version does not enforce.

A tenant has a loss if one of its requests, for some model, had enforced objectives and now has none of them, or may
now bypass them all. The check resolves sample requests, which it derives from the patterns of both files, so it also
notices reordered and removed entries. It is sound but not complete: patterns with [brackets] that barely overlap may be
missed. A new file without any objective is a loss for everybody. `allow_less` names tenants whose loss is intended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from aligner_proxy.errors import ConfigError, ForbiddenError
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver, entry_name, route_matches, tenant_matches
from aligner_proxy.policy.schema import EVERY, PolicyFile, Route, Tenant, route_selector
from aligner_proxy.types import Mode, Policy, StreamMode

_ANY = "any"
"""A sample name, for requests to which no particular pattern applies."""
_SHOWN = 10
"""Losses that one message names."""
_NOBODY = "nobody would have any objective"


@dataclass(frozen=True, slots=True)
class Loss:
    """The objectives that one tenant would lose; the tenant "*" means everybody."""

    tenant: str
    what: str
    """The objectives with the reason, as a message shows them: "harmless (mode: off)"."""

    def __str__(self) -> str:
        return self.what if self.tenant == EVERY else f"tenant {self.tenant} would lose {self.what}"


def refuse_losses(before: PolicyFile, after: PolicyFile) -> None:
    """Raise `ConfigError` if a tenant would lose enforced objectives and `allow_less` does not name it."""
    unnamed = [loss for loss in find_losses(before, after) if not {loss.tenant, EVERY} & set(after.allow_less)]
    if unnamed:
        more = f"; and {len(unnamed) - _SHOWN} more" if len(unnamed) > _SHOWN else ""
        names = ", ".join(loss.tenant for loss in unnamed) if len(unnamed) <= _SHOWN else EVERY
        # In quotes, because YAML would read a bare star as an alias.
        names = f'"{EVERY}"' if EVERY in names else names
        raise ConfigError(
            f"{after.source.name}: {'; '.join(map(str, unnamed[:_SHOWN]))}{more}; if this is intended, add "
            f"allow_less: [{names}] to the file"
        )


def find_losses(before: PolicyFile, after: PolicyFile) -> list[Loss]:
    """The losses from file `before` to file `after`, at most one for each tenant, in the order of the old file."""
    losses = [Loss(EVERY, _NOBODY)] if _names_objectives(before) and not _names_objectives(after) else []
    if _relevant_settings(before) == _relevant_settings(after):
        return losses
    resolvers = (PolicyResolver(before), PolicyResolver(after))
    route_samples = list(_route_samples(before, after))
    for index, tenant in enumerate(before.tenants):
        if tenant.enforce:
            samples = _tenant_samples(tenant, before, after)
            reasons = (_loss_reason(tenant, resolvers, sample, route_samples) for sample in samples)
            reason = next(filter(None, reasons), None)
            if reason:
                losses.append(Loss(entry_name(tenant, index), f"{', '.join(tenant.enforce)} ({reason})"))
    return losses


def _names_objectives(file: PolicyFile) -> bool:
    """Whether the file has any objective or requirement, in a route or in a tenant."""
    by_routes = any(route.objectives or route_selector(route) for route in file.routes)
    return by_routes or any(tenant.enforce for tenant in file.tenants) or any(file.requirements())


def _relevant_settings(file: PolicyFile) -> object:
    """The settings that decide whether a tenant can lose something; if they are equal in two files, nobody does."""

    def settings(block: object) -> list[object]:
        """The relevant settings of one block; None for a setting that the block cannot have."""
        names = ("match", "name", "mode", "stream", "sample", "enforce", "allow_bypass")
        return [getattr(block, name, None) for name in names]

    routes = [(settings(route), route.objectives) for route in file.routes]
    return settings(file.defaults), routes, list(map(settings, file.tenants)), file.trust.aliases


def _loss_reason(
    tenant: Tenant,
    resolvers: tuple[PolicyResolver, PolicyResolver],
    request: RequestFacts,
    route_samples: Sequence[RequestFacts],
) -> str | None:
    """Why a tenant loses its enforced objectives for `request`; None if it does not.

    The request is tried with the model and tags of each of `route_samples`, under both files.
    """
    for sample in route_samples:
        facts = replace(request, model=sample.model, tags=sample.tags)
        old_bypasses, new_bypasses = (_open_bypasses(resolver, facts) for resolver in resolvers)
        # Answers of this model were not corrected before, either, so nothing is lost.
        if "mode" in old_bypasses:
            continue
        new_bypass = next((text for name, text in new_bypasses.items() if name not in old_bypasses), None)
        if new_bypass is not None:
            return new_bypass
        names = {objective.name for objective in resolvers[1].resolve(facts).objectives}
        if names.isdisjoint(tenant.enforce):
            return "no entry enforces it"
    return None


def _open_bypasses(resolver: PolicyResolver, facts: RequestFacts) -> dict[str, str]:
    """The settings by which the answer to a request can go out uncorrected: name -> `key: value` as in the file."""
    policy: Policy = resolver.resolve(facts)
    bypasses = {
        "mode": f"mode: {policy.mode}" if policy.mode is not Mode.ENFORCE else "",
        "sample": "sample: 0" if not policy.sample else "",
        "stream": "stream: passthrough" if policy.stream is StreamMode.PASSTHROUGH else "",
        "bypass": "allow_bypass: true" if _may_bypass(resolver, facts) else "",
    }
    return {name: text for name, text in bypasses.items() if text}


def _may_bypass(resolver: PolicyResolver, facts: RequestFacts) -> bool:
    """Whether this request would not be corrected if it asked for that."""
    try:
        return resolver.resolve(replace(facts, bypass=True)).bypass
    except ForbiddenError:
        return False


def _tenant_samples(tenant: Tenant, before: PolicyFile, after: PolicyFile) -> Iterator[RequestFacts]:
    """Sample requests of this tenant, one for each tenant entry that may match them after the change."""
    for later_tenant in (tenant, *after.tenants):
        team = _common_name((tenant.match.team, later_tenant.match.team))
        key = _common_name((tenant.match.key, later_tenant.match.key))
        if team is None or key is None:
            continue
        by_id = RequestFacts(team_id=team or None, key_alias=key or None, alias_by_operator=True)
        # Aliases of LiteLLM only count if the file trusts them.
        aliased = RequestFacts(team_alias=team or None, key_alias=key or None) if before.trust.aliases else None
        for facts in (by_id, aliased):
            if facts is not None and _first_tenant(before.tenants, facts, before.trust.aliases) is tenant:
                yield facts


def _first_tenant(tenants: Iterable[Tenant], facts: RequestFacts, any_alias: bool) -> Tenant | None:
    """The tenant entry that applies to a request: the first in file order that matches; None if none does."""
    return next((tenant for tenant in tenants if tenant_matches(tenant, facts, any_alias)), None)


def _route_samples(before: PolicyFile, after: PolicyFile) -> Iterator[RequestFacts]:
    """Sample requests, by model and tag, derived from the patterns of the routes.

    Yields one for each distinct pair (first matching route of the old file, of the new file) by `_deciding_settings`.
    """
    seen_decisions = set[str]()
    matches = [route.match for route in (*before.routes, *after.routes)]
    # The first pair stands for requests that no pattern was written for.
    for model, tag in [(None, None), *((match.model, match.tag) for match in matches)]:
        facts = RequestFacts(_example(model) if model else _ANY, (_example(tag),) if tag else ())
        first_routes = [
            next((route for route in file.routes if route_matches(route, facts.names, facts.tags)), None)
            for file in (before, after)
        ]
        decision = str([_deciding_settings(route) for route in first_routes])
        if decision not in seen_decisions:
            seen_decisions.add(decision)
            yield facts


def _deciding_settings(route: Route | None) -> object:
    """The settings of a route that decide whether enforced objectives apply; None for no route."""
    return route and (route.mode, route.stream, route.sample, route.objectives)


def _common_name(patterns: tuple[str | None, str | None]) -> str | None:
    """A name that both patterns match; "" if both patterns are None, None if no such name is found."""
    set_patterns = [pattern for pattern in patterns if pattern is not None]
    examples = map(_example, set_patterns)
    return next(
        (name for name in examples if all(fnmatchcase(name, pattern) for pattern in set_patterns)),
        None if set_patterns else "",
    )


def _example(pattern: str) -> str:
    """A sample name that the pattern matches, if it has no [brackets]."""
    return pattern.replace("*", _ANY).replace("?", "x")
