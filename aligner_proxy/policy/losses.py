"""Losses through a change of the policies file: objectives enforced for a tenant that the new version does not enforce.

A tenant has a loss if one of its requests, for some model, had enforced objectives and now has none of them, or may
now bypass them all. The check resolves sample requests, which it derives from the patterns of both files, so it also
notices reordered and removed entries. It is sound but not complete: patterns with [brackets] that barely overlap may be
missed. A new file without any objective is a loss for everybody. `allow_less` names tenants whose loss is intended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from aligner_proxy.errors import ConfigError, ForbiddenError
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver, entry_name, route_matches, tenant_matches
from aligner_proxy.policy.schema import EVERY, PolicyFile, Route, Tenant, route_selector
from aligner_proxy.types import Mode, Policy, StreamMode

_ANY = "any"
"""A sample name, for requests to which no particular pattern applies."""
_MAX_SHOWN_LOSSES = 10
"""Most losses that one message names."""


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
    losses = [loss for loss in find_losses(before, after) if not {loss.tenant, EVERY} & set(after.allow_less)]
    if losses:
        rest_count = len(losses) - _MAX_SHOWN_LOSSES
        shown_losses = "; ".join(map(str, losses[:_MAX_SHOWN_LOSSES]))
        if rest_count > 0:
            shown_losses += f"; and {rest_count} more"
        names = EVERY if rest_count > 0 else ", ".join(loss.tenant for loss in losses)
        if EVERY in names:  # it stands for all tenants, so no other name is needed
            names = f'"{EVERY}"'  # YAML would read a bare star as an alias
        raise ConfigError(
            f"{after.source.name}: {shown_losses}; if this is intended, add allow_less: [{names}] to the file"
        )


def find_losses(before: PolicyFile, after: PolicyFile) -> list[Loss]:
    """Return the losses from file `before` to file `after`, at most one for each tenant, in the order of `before`."""
    losses: list[Loss] = []
    if _names_objectives(before) and not _names_objectives(after):
        losses.append(Loss(EVERY, "nobody would have any objective"))
    if _relevant_settings(before) == _relevant_settings(after):
        return losses
    resolvers = (PolicyResolver(before), PolicyResolver(after))
    route_samples = list(_route_samples(before, after))
    for index, tenant in enumerate(before.tenants):
        if not tenant.enforce:
            continue
        for request in _tenant_samples(tenant, before, after):
            reason = _loss_reason(tenant, resolvers, request, route_samples)
            if reason is not None:
                losses.append(Loss(entry_name(tenant, index), f"{', '.join(tenant.enforce)} ({reason})"))
                break
    return losses


def _names_objectives(file: PolicyFile) -> bool:
    """Whether the file has any objective in a route or a tenant, or any setting by which a plugin checks answers."""
    routes_have_objectives = any(route.objectives or route_selector(route) for route in file.routes)
    tenants_have_objectives = any(tenant.enforce for tenant in file.tenants)
    return routes_have_objectives or tenants_have_objectives or any(file.requirements())


def _relevant_settings(file: PolicyFile) -> object:
    """The settings that decide whether a tenant loses something; if those of both files are equal, nobody does."""

    def read_block(block: object) -> list[object]:
        """The relevant settings of one block; None for a setting that the block cannot have."""
        names = ("match", "name", "mode", "stream", "sample", "enforce", "allow_bypass")
        return [getattr(block, name, None) for name in names]

    routes = [(read_block(route), route.objectives) for route in file.routes]
    tenants = [read_block(tenant) for tenant in file.tenants]
    return read_block(file.defaults), routes, tenants, file.trust.aliases


def _loss_reason(
    tenant: Tenant,
    resolvers: tuple[PolicyResolver, PolicyResolver],
    request: RequestFacts,
    route_samples: Sequence[RequestFacts],
) -> str | None:
    """Return why a tenant loses its enforced objectives for `request`; None if the tenant does not lose them.

    `resolvers` are those of the old file and of the new one. Under both, the request is tried with the model and tags
    of each of `route_samples`.
    """
    old_resolver, new_resolver = resolvers
    for sample in route_samples:
        facts = replace(request, model=sample.model, tags=sample.tags)
        old_bypasses = _open_bypasses(old_resolver, facts)
        if "mode" in old_bypasses:
            continue  # answers of this model were not corrected before, either, so nothing is lost
        for name, setting in _open_bypasses(new_resolver, facts).items():
            if name not in old_bypasses:
                return setting
        names = {objective.name for objective in new_resolver.resolve(facts).objectives}
        if names.isdisjoint(tenant.enforce):
            return "no entry enforces it"
    return None


def _open_bypasses(resolver: PolicyResolver, facts: RequestFacts) -> dict[str, str]:
    """Return the settings by which the answer to a request can go out uncorrected: name -> `key: value` to show."""
    policy: Policy = resolver.resolve(facts)
    bypasses = {}
    if policy.mode is not Mode.ENFORCE:
        bypasses["mode"] = f"mode: {policy.mode}"
    if not policy.sample:
        bypasses["sample"] = "sample: 0"
    if policy.stream is StreamMode.PASSTHROUGH:
        bypasses["stream"] = "stream: passthrough"
    if _may_bypass(resolver, facts):
        bypasses["bypass"] = "allow_bypass: true"
    return bypasses


def _may_bypass(resolver: PolicyResolver, facts: RequestFacts) -> bool:
    """Whether this request, if it asked for a bypass, would not be corrected."""
    try:
        return resolver.resolve(replace(facts, bypass=True)).bypass
    except ForbiddenError:
        return False


def _tenant_samples(tenant: Tenant, before: PolicyFile, after: PolicyFile) -> Iterator[RequestFacts]:
    """Yield sample requests of this tenant of the old file, for each tenant entry that may match them afterwards."""
    for later_tenant in (tenant, *after.tenants):
        # "" stands for a request without a team or key, to which only entries without a pattern apply.
        team = _find_common_name((tenant.match.team, later_tenant.match.team))
        key = _find_common_name((tenant.match.key, later_tenant.match.key))
        if team is None or key is None:
            continue  # no request matches both entries
        requests = [RequestFacts(team_id=team or None, key_alias=key or None, alias_by_operator=True)]
        if before.trust.aliases:  # then aliases that LiteLLM's key owners choose count, too
            requests.append(RequestFacts(team_alias=team or None, key_alias=key or None))
        for request in requests:
            matches = (entry for entry in before.tenants if tenant_matches(entry, request, before.trust.aliases))
            if next(matches, None) is tenant:
                yield request


def _route_samples(before: PolicyFile, after: PolicyFile) -> Iterator[RequestFacts]:
    """Yield sample requests with a model and a tag, derived from the patterns of the routes of both files.

    Of requests to which both files apply routes with equal settings (`_deciding_settings`), only one is yielded.
    """
    seen_settings = set[str]()
    matches = [route.match for route in (*before.routes, *after.routes)]
    # The first pair stands for requests that no pattern was written for.
    for model, tag in [(None, None), *((match.model, match.tag) for match in matches)]:
        facts = RequestFacts(_make_example(model) if model else _ANY, (_make_example(tag),) if tag else ())
        settings = str([_deciding_settings(_first_route(file, facts)) for file in (before, after)])
        if settings not in seen_settings:
            seen_settings.add(settings)
            yield facts


def _first_route(file: PolicyFile, facts: RequestFacts) -> Route | None:
    """The route that applies to a request: the first in file order that matches; None if none does."""
    return next((route for route in file.routes if route_matches(route, facts.names, facts.tags)), None)


def _deciding_settings(route: Route | None) -> object:
    """The settings of a route that decide whether enforced objectives apply; None for no route."""
    return route and (route.mode, route.stream, route.sample, route.objectives)


def _find_common_name(patterns: tuple[str | None, str | None]) -> str | None:
    """Return a name that both patterns match; None if no such name is found.

    A pattern that is None matches everything; if both are None, "" is returned.
    """
    set_patterns = [pattern for pattern in patterns if pattern is not None]
    if not set_patterns:
        return ""
    for name in map(_make_example, set_patterns):
        if all(fnmatchcase(name, pattern) for pattern in set_patterns):
            return name
    return None


def _make_example(pattern: str) -> str:
    """Return a name that the glob `pattern` matches; it may not match if it has [brackets]."""
    return pattern.replace("*", _ANY).replace("?", "x")
