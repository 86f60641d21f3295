"""Resolver of the policy of a request: the policy is resolved once, before any work, and never changes afterwards.

Settings, lowest to highest precedence: built-in default, `defaults`, the route (first match in file order), the tenant
in the file (first match), team metadata, key metadata. Each class of `on_error` and each reason of `on_skip` is merged
separately. The last `allow`, `allow_bypass` and `quota` win; `enforce` and `deny` add up. Metadata that the file does
not trust (`trust`) can only make a policy stricter: settings that would loosen it are ignored and logged.

A model has the name that the client sends and the names of the model groups behind it. The first route that matches any
of these names applies. If a group alone would get a stricter policy, the stricter settings apply (strictness.py).

Objectives come in this order, and of duplicates the first is kept: enforced (tenant in the file, team metadata, key
metadata), then the route's, then the permitted objectives of the request, last its preferences. A request can only add
objectives, and gets a 403 when it asks for one that it may not have. An operator's mistake in metadata is ignored and
logged once. A request that several models may answer is refused if their policies differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from itertools import product
from operator import attrgetter
from typing import Any, TypeVar

from aligner_proxy.errors import ConfigError, SeveralPolicies
from aligner_proxy.policy import shares
from aligner_proxy.policy.config import default_write, objectives
from aligner_proxy.policy.gate_schema import read_switches
from aligner_proxy.policy.metadata_layers import Layer, MetadataReader, warn_not_trusted
from aligner_proxy.policy.objective_choice import choose_objectives, deny_origins, may_bypass, may_use_own_words
from aligner_proxy.policy.own_objectives import match_known_names, own_objectives
from aligner_proxy.policy.plugin_keys import PolicyKey
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.schema import (
    EVERY,
    OnErrorByClass,
    OnSkipByReason,
    PolicyFile,
    PolicySettings,
    Route,
    Tenant,
    route_objectives,
)
from aligner_proxy.policy.strictness import may_tighten, read_setting, stricter_policy
from aligner_proxy.policy.yaml_file import BUILT_IN, quote_name, suggest_name
from aligner_proxy.types import (
    GOVERNED_SKIPS,
    LOCAL_EDITOR,
    SAFETY_OBJECTIVES,
    AlignerShare,
    FailureClass,
    FailurePolicy,
    GateRule,
    HandOff,
    IfNothingRemains,
    Mode,
    Objective,
    OnSkip,
    Policy,
    Quota,
    Requirement,
    SideKind,
    SideTreatment,
    SkipPolicy,
    Traffic,
    Write,
)

_ON_ERROR = "on_error."
_ON_SKIP = "on_skip."
PRECEDENCE = (
    "settings, quota, later wins: built-in default < defaults < route < tenant in the file < team < key metadata",
    "objectives, in order: enforced (tenant in the file, team, key metadata), the route's, what the request may add",
    "routes and tenants: the first match in file order",
    "metadata of teams and keys loosens nothing, unless `trust` says that its word counts",
)
NO_ROUTE = "no route"
"""Stands for a route where none matches."""
_Entry = TypeVar("_Entry", Route, Tenant)
# Limits of the policy cache, because clients choose model names freely and could fill the memory.
_MAX_CACHED_POLICIES = 1024
_MAX_CACHED_MODEL_CHARS = 200
"""Characters of the longest model name whose policy is kept."""
_CACHE_KEY = ("model", "groups", "team_id", "team_alias", "key_hash", "key_alias", "user_id", "alias_by_operator")
"""The facts that decide the policy of a cacheable request."""
_read_cache_key = attrgetter(*_CACHE_KEY)
_BUILT_IN_POLICY = Policy(name="-")
_AS_ENFORCED = f"{BUILT_IN}, as objectives are enforced"
_AGAINST_HARM = f"{BUILT_IN} where {', '.join(sorted(SAFETY_OBJECTIVES))} is violated"
HeadLookup = Callable[[Tenant | None, Objective, str], str]
"""A function (tenant or None for the file, objective, aligner) that returns the content hash of the head taught for
this objective and this aligner; empty if there is none."""


def find_no_head(tenant: Tenant | None, objective: Objective, aligner: str) -> str:
    """The lookup to use when nothing was taught: always empty."""
    return ""


def _is_cacheable(facts: RequestFacts) -> bool:
    """Whether the policy depends only on file, model, team and key, so that it can be cached."""
    # `traffic_percentile` does not matter: the aligner is picked after the cache.
    is_plain = facts.team_settings is None and facts.key_settings is None
    return (
        is_plain
        and not (facts.tags or facts.asked or facts.own or facts.bypass)
        and len(facts.model) <= _MAX_CACHED_MODEL_CHARS
    )


def route_matches(route: Route, names: Sequence[str], tags: Sequence[str]) -> bool:
    """Whether this route matches a request with `tags` for a model with any of these `names`."""
    match = route.match
    fits = match.model is None or any(fnmatchcase(name, match.model) for name in names)
    return fits and (match.tag is None or any(fnmatchcase(tag, match.tag) for tag in tags))


def entry_name(entry: Route | Tenant, index: int) -> str:
    """Name of a route or tenant in headers and tables: its own name, else route-1, tenant-1, ..."""
    return entry.name or f"{'route' if isinstance(entry, Route) else 'tenant'}-{index + 1}"


def tenant_matches(tenant: Tenant, facts: RequestFacts, any_alias: bool) -> bool:
    """Whether this tenant entry matches a request, by its team and its key.

    An alias from the keys file always counts. Key owners choose LiteLLM's aliases, so these count only with
    `any_alias`.
    """
    match = tenant.match
    aliases_count = any_alias or facts.alias_by_operator
    team_fits = _any_matches(match.team, (facts.team_id, facts.team_alias if aliases_count else None))
    return team_fits and _any_matches(match.key, (facts.key_hash, facts.key_alias if aliases_count else None))


def _any_matches(pattern: str | None, values: Sequence[str | None]) -> bool:
    """Whether one of the values that are set matches the glob; no pattern matches everything."""
    return pattern is None or any(fnmatchcase(value, pattern) for value in values if value)


ON_ERROR = tuple(f"{_ON_ERROR}{kind.value}" for kind in FailureClass)
ON_SKIP = tuple(f"{_ON_SKIP}{reason.value}" for reason in GOVERNED_SKIPS)
_BY_KIND = {"on_error": ON_ERROR, "on_skip": ON_SKIP}
SETTINGS = tuple(setting for name in PolicySettings.model_fields for setting in _BY_KIND.get(name, (name,)))
"""Names of the gateway's own settings, as shown to operators; `on_error` has one per class, `on_skip` one per
reason."""


class PolicyResolver:
    """Resolver of policies from one policies file, with a cache for requests without settings of their own."""

    def __init__(self, policy_file: PolicyFile, head_of: HeadLookup = find_no_head) -> None:
        self._file = policy_file
        self._metadata = MetadataReader(policy_file)
        self._file_objectives = objectives(policy_file)
        """Objectives by name, for requests without a tenant entry."""
        self._tenant_objectives = [objectives(policy_file, tenant) for tenant in policy_file.tenants]
        """The same for each tenant entry, in file order."""
        self._head_of = head_of
        self._keys = {key.name: key for key in policy_file.declarations.keys if not key.grant}
        """The keys of plugins that are settings, not grants, by name."""
        requirements = [requirement for _, _, requirement in policy_file.requirements()]
        self.header_names = tuple(
            dict.fromkeys(name for requirement in requirements for name in requirement.header_names)
        )
        """The request headers that plugins' keys name; metadata cannot add headers."""
        self.reads_tool_results = any(requirement.reads_tool_results for requirement in requirements)
        """Whether a plugin's key needs the tool results; if the file does not need them, metadata cannot ask for
        them."""
        self.splits_traffic = any(isinstance(block.aligner, tuple) for _, block in policy_file.blocks())
        """Whether this file divides traffic among aligners, so that a request needs its `traffic_percentile`."""
        self._only_route: Route | None = None
        """The route that applies to every request; None: the first that matches."""
        self._resolve_from_cache = lru_cache(_MAX_CACHED_POLICIES)(self._resolve_cacheable)
        """Returns the policy for values of `_CACHE_KEY`, kept from an earlier request if possible."""

    def restrict_to_route(self, name: str) -> PolicyResolver:
        """A resolver that applies the route with this name to every request; raises `ConfigError` if there is none."""
        routes = {entry_name(route, n): route for n, route in enumerate(self._file.routes)}
        if name not in routes:
            source = self._file.source.name
            raise ConfigError(f"{source}: no route is called {quote_name(name)}; {suggest_name(name, routes)}")
        resolver = copy(self)
        resolver._only_route = routes[name]
        resolver._resolve_from_cache = lru_cache(_MAX_CACHED_POLICIES)(resolver._resolve_cacheable)
        return resolver

    def resolve(self, facts: RequestFacts) -> Policy:
        """The policy of one request; raises `ForbiddenError` if it asks for something that its tenant may not have."""
        policy = self._resolve_with_shares(facts)
        if policy.aligner_shares and facts.traffic_percentile is not None:
            policy = shares.pick_aligner(policy, facts.traffic_percentile)
        return policy

    def _resolve_with_shares(self, facts: RequestFacts) -> Policy:
        """The policy before an aligner is picked, from the cache if the request is cacheable."""
        if not _is_cacheable(facts):
            return self._resolve(facts)
        return self._resolve_from_cache(_read_cache_key(facts))

    def policies_by_route(self, facts: RequestFacts) -> list[tuple[str, Policy]]:
        """(name, policy) for each route and for no route, as if the request matched it despite its model and tags."""
        plain = replace(facts, asked=(), own=(), bypass=False)
        policies = [
            (entry_name(route, n), self._build_policy(plain, lambda candidate, route=route: candidate is route))  # type: ignore[misc]
            for n, route in enumerate(self._file.routes)
        ]
        return [*policies, (NO_ROUTE, self._build_policy(plain, lambda _: False))]

    def active_settings(self) -> Iterator[Policy]:
        """The settings of every combination of a route (or none) and a tenant of the file (or none).

        They are returned as policies without objectives; routes or tenants with equal settings are used once.
        """
        defaults = Layer(self._file.defaults, "defaults", ("defaults",))
        for route, tenant in product(self._unique_layers(self._file.routes), self._unique_layers(self._file.tenants)):
            judges_harm = any(map(_judges_harm, (*route, *tenant)))
            settings, _ = self._merge_layers([defaults, *route, *tenant], judges_harm=judges_harm)
            extensions = tuple(self._pop_plugin_settings(settings))
            del settings["aligner_shares"], settings["shadow_aligner"]  # these make no difference to the settings
            yield Policy("-", extensions=extensions, **settings)

    def _unique_layers(self, entries: Sequence[Route] | Sequence[Tenant]) -> list[list[Layer]]:
        """An empty list for no entry, then a one-layer list for each group of entries with equal settings."""
        layer_by_settings: dict[str, Layer] = {}
        for entry in entries:
            layer = Layer(entry, entry.name or "-")
            # Whether anything is enforced or about safety counts, too, as it changes the defaults of other settings.
            enforces = bool(getattr(entry, "enforce", ()))
            layer_by_settings[str([*self._layer_values(entry), enforces, _judges_harm(layer)])] = layer
        return [[], *([layer] for layer in layer_by_settings.values())]

    def settings(self, policy: Policy) -> dict[str, Any]:
        """Every setting of a policy by name, including those of plugins."""
        gateway_values = {name: setting_value(policy, name) for name in SETTINGS}
        plugin_values = {name: policy.extension(name, key.default) for name, key in self._keys.items()}
        return gateway_values | {
            name: value.labels if isinstance(value, Requirement) else value for name, value in plugin_values.items()
        }

    def _resolve_cacheable(self, values: tuple[Any, ...]) -> Policy:
        """The policy of a cacheable request with these values of `_CACHE_KEY`."""
        return self._resolve(RequestFacts(**dict(zip(_CACHE_KEY, values, strict=True))))

    def _resolve(self, facts: RequestFacts) -> Policy:
        """The policy for all names of the model, tightened to that of each model group behind it."""
        policy = self._build_policy(facts)
        for group in facts.groups:
            policy = stricter_policy(policy, self._build_policy(replace(facts, model=group, groups=())))
        return policy

    def _build_policy(self, facts: RequestFacts, applies: Callable[[Route], bool] | None = None) -> Policy:
        """The policy from file and metadata, with the first route for which `applies` is true (default: it matches)."""
        route = _first_layer(self._file.routes, applies or partial(self._route_applies, facts))
        tenant = _first_layer(
            self._file.tenants, lambda tenant: tenant_matches(tenant, facts, self._file.trust.aliases)
        )
        configured = self._objectives_of(tenant)
        facts = replace(facts, asked=match_known_names(facts.asked, facts.own, configured)) if facts.own else facts
        grants = [*tenant, *self._metadata.layers(facts.namespace, facts.team_settings, facts.key_settings, configured)]
        objectives, chosen_origins, selection = choose_objectives(self._file, facts, route, grants, configured)
        settings, origins = self._merge_layers(
            [Layer(self._file.defaults, "defaults", ("defaults",)), *route, *grants],
            judges_harm=any(objective.name in SAFETY_OBJECTIVES for objective in objectives),
        )
        in_own_words = own_objectives(facts.own, configured, allowed=facts.is_operator or may_use_own_words(grants))
        quota, quota_origin = self._find_quota(facts, grants)
        plugin_grants, granted_origins = self._plugin_grants(grants)
        hand_off, hand_off_origin = self._find_hand_off(route)
        extensions = (*self._pop_plugin_settings(settings), *plugin_grants)
        if settings["aligner_shares"]:
            percents = settings["aligner_shares"]
            settings["aligner_shares"] = tuple(
                self._make_share(name, percent, objectives, tenant) for name, percent in percents
            )
        if settings["shadow_aligner"]:
            # A shadow aligner corrects nothing, so it has no share of the traffic.
            settings["shadow_aligner"] = self._make_share(settings["shadow_aligner"], 0, objectives, tenant)
        return Policy(
            name="+".join(layer.name for layer in (*route, *tenant)) or "default",
            objectives=self._attach_heads(objectives, tenant, settings["aligner"]) + in_own_words,
            bypass=facts.bypass and may_bypass(grants),
            tenant=facts.namespace,
            traffic=Traffic(
                tenant[0].name if tenant else facts.tenant_name,
                facts.groups[0] if facts.groups else facts.model or "-",
            ),
            quota=quota,
            selection=selection,
            extensions=extensions,
            origins=(
                *origins,
                *quota_origin,
                *hand_off_origin,
                *granted_origins,
                *chosen_origins,
                *deny_origins(self._file.source, grants),
            ),
            hand_off=hand_off,
            **settings,
        )

    def _route_applies(self, facts: RequestFacts, route: Route) -> bool:
        """Whether this route matches the request, or is the only one that counts (`restrict_to_route`)."""
        return route_matches(route, facts.names, facts.tags) if self._only_route is None else route is self._only_route

    def _objectives_of(self, tenant: Sequence[Layer]) -> Mapping[str, Objective]:
        """The objectives that a tenant's requests can use: those of the file and the tenant's own."""
        return self._tenant_objectives[int(tenant[0].path[1])] if tenant and tenant[0].path else self._file_objectives

    def _attach_heads(
        self, objectives: Sequence[Objective], tenant: Sequence[Layer], aligner: str
    ) -> tuple[Objective, ...]:
        """Add the taught heads to objectives; heads of a tenant's own objectives are looked up for that tenant."""
        values = tenant[0].values if tenant else None
        entry = values if isinstance(values, Tenant) else None
        own_names = entry.objectives if entry is not None else {}
        result = []
        for objective in objectives:
            owner = entry if objective.name in own_names else None
            result.append(replace(objective, head=self._head_of(owner, objective, aligner)))
        return tuple(result)

    def _make_share(
        self, name: str, percent: int, objectives: Sequence[Objective], tenant: Sequence[Layer]
    ) -> AlignerShare:
        """The share of one aligner, with the heads that were taught for it."""
        taught_objectives = self._attach_heads(objectives, tenant, name)
        heads = ((objective.name, objective.head) for objective in taught_objectives if objective.head)
        return AlignerShare(name, percent, tuple(heads))

    def _pop_plugin_settings(self, settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Remove the keys of plugins from `settings`, and yield (key, value) for each value that is not the default."""
        for key in self._keys.values():
            value = settings.pop(key.name)
            if value != key.default:
                yield key.name, self._with_files(key.name, value)

    def _with_files(self, key: str, value: Any) -> Any:
        """The value of a plugin's key, completed by the texts of the files that it names."""
        return value.with_files(self._file.file_texts.get(key, {})) if isinstance(value, Requirement) else value

    def _plugin_grants(
        self, grants: Sequence[Layer]
    ) -> tuple[tuple[tuple[str, Any], ...], tuple[tuple[str, str], ...]]:
        """(name, value) of plugins' grants that differ from the default, and (name, origin) of all that are set.

        The last layer that sets a grant wins.
        """
        values: dict[str, tuple[PolicyKey, Any]] = {}
        origins: dict[str, str] = {}
        for key in self._file.declarations.grants:
            for layer in grants:
                value = getattr(layer.values, key.name, None)
                if value is not None:
                    values[key.name] = (key, value)
                    origins[key.name] = layer.origin(self._file.source, key.name)
        differing = ((name, value) for name, (key, value) in values.items() if value != key.default)
        return tuple(differing), tuple(origins.items())

    def _merge_layers(
        self, layers: Sequence[Layer], *, judges_harm: bool
    ) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
        """(settings of a policy by name, (name, origin) of each), merged from the layers, of which the last one wins.

        `judges_harm` says that an objective about safety applies; an answer that is all harm is then not delivered.
        """
        enforced = any(getattr(layer.values, "enforce", ()) for layer in layers)
        settings, origins = self._default_settings(enforced, judges_harm)
        rules = dict.fromkeys(GateRule, True)
        for layer in layers:
            for name, value in self._layer_values(layer.values):
                # An untrusted `decline` counts whatever was violated, so it is stricter than the default against harm.
                declines_more = value == settings[name] and origins[name] == _AGAINST_HARM
                if layer.trusted or declines_more or may_tighten(name, value, settings[name]):
                    settings[name] = value
                    origins[name] = layer.origin(self._file.source, *name.split("."))
                elif value != settings[name]:
                    warn_not_trusted(layer.name, name)
            # An untrusted layer switches no rule of the gate, neither off nor on.
            for rule, is_on in read_switches(layer.values.gate).items() if layer.trusted else ():
                rules[rule] = is_on
                origins[f"gate.{rule}"] = layer.origin(self._file.source, "gate", rule.value)
        by_class = {name.removeprefix(_ON_ERROR): settings.pop(name) for name in ON_ERROR}
        by_reason = {name.removeprefix(_ON_SKIP): settings.pop(name) for name in ON_SKIP}
        if settings["if_nothing_remains"] is IfNothingRemains.SECOND_TRY and settings["editor"] == LOCAL_EDITOR:
            settings["if_nothing_remains"] = IfNothingRemains.DECLINE  # metadata removed the editor, or set second_try
        settings["declines_harm_alone"] = origins["if_nothing_remains"] == _AGAINST_HARM
        if settings["declines_harm_alone"] and origins["decline_within"] == BUILT_IN:
            # Nobody asked for a refusal in place of good text beside the harm.
            settings["decline_within"] = 0.0
        settings |= {"on_error": FailurePolicy(**by_class), "on_skip": SkipPolicy(**by_reason)}
        _judge_side_texts(enforced, settings, origins)
        self._choose_write(settings, origins)
        settings["gate"] = tuple(rule for rule, is_on in rules.items() if is_on)
        aligner = settings["aligner"]
        settings |= {
            "aligner": shares.leading_aligner(aligner),
            "aligner_shares": () if isinstance(aligner, str) else aligner,
        }
        return settings, tuple(origins.items())

    def _choose_write(self, settings: dict[str, Any], origins: dict[str, str]) -> None:
        """Set what aligner and editor may write: what a layer says; if none does, all but the embedded aligner may."""
        settings["editor_write"] = settings["write"]
        if origins["write"] == BUILT_IN:
            settings["write"] = default_write(self._file, shares.aligner_names(settings["aligner"]))

    def _default_settings(self, enforced: bool, judges_harm: bool) -> tuple[dict[str, Any], dict[str, str]]:
        """(settings that count where no layer sets them, origin of each), both by name."""
        settings = self.settings(_BUILT_IN_POLICY)
        settings["write"] = Write.FREE  # metadata that is not trusted may tighten it
        origins = dict.fromkeys(settings, BUILT_IN)
        if enforced:
            settings |= dict.fromkeys(ON_SKIP, OnSkip.JUDGE)
            origins |= dict.fromkeys(ON_SKIP, _AS_ENFORCED)
        if enforced or judges_harm:
            settings["if_nothing_remains"] = IfNothingRemains.DECLINE
            origins["if_nothing_remains"] = _AS_ENFORCED if enforced else _AGAINST_HARM
        return settings, origins

    def _layer_values(self, values: PolicySettings) -> Iterator[tuple[str, Any]]:
        """The settings of one layer as (name, value), with one for each class of `on_error` and reason of `on_skip`."""
        for name in (*PolicySettings.model_fields, *self._keys):
            value = getattr(values, name, None)
            if isinstance(value, OnErrorByClass | OnSkipByReason):
                yield from ((f"{name}.{kind}", action) for kind, action in value if action is not None)
            elif value is not None:
                yield name, value

    def _find_quota(
        self, facts: RequestFacts, grants: Sequence[Layer]
    ) -> tuple[Quota | None, tuple[tuple[str, str], ...]]:
        """The quota of the last layer that sets one, or None, and ("quota", its origin) or nothing.

        Each tenant, or key for a key's own quota, has an account of its own.
        """
        for layer in reversed(grants):
            seconds = getattr(layer.values, "quota", None)
            if seconds is not None:
                key = facts.key_hash or facts.key_alias
                owner = f"key:{key}" if layer.is_key_metadata and key else facts.namespace
                origin = layer.origin(self._file.source, "quota")
                return Quota(f"{layer.label} {owner}", seconds), (("quota", origin),)
        return None, ()

    def _find_hand_off(self, route: Sequence[Layer]) -> tuple[HandOff | None, tuple[tuple[str, str], ...]]:
        """The webhook of the route for doubtful answers, or None, and ("hand_off", its origin) or nothing."""
        block = getattr(route[0].values, "hand_off", None) if route else None
        if block is None:
            return None, ()
        return HandOff(**block.model_dump()), (("hand_off", route[0].origin(self._file.source, "hand_off")),)


def _judges_harm(layer: Layer) -> bool:
    """Whether a route's objectives, or those that a tenant enforces, include one about safety."""
    entry = layer.values
    names = [name for name, _ in route_objectives(entry, (EVERY,))] if isinstance(entry, Route) else ()
    return not SAFETY_OBJECTIVES.isdisjoint((*names, *getattr(entry, "enforce", ()))) or EVERY in names


def _first_layer(entries: Sequence[_Entry], matches: Callable[[_Entry], bool]) -> list[Layer]:
    """The first entry that matches, as a list with one layer; empty if none matches."""
    for i, entry in enumerate(entries):
        if matches(entry):
            kind = "route" if isinstance(entry, Route) else "tenant"
            name = entry_name(entry, i)
            return [Layer(entry, f"{kind} {name}", (f"{kind}s", i), name)]
    return []


def setting_value(policy: Policy, name: str) -> Any:
    """The value of one of `SETTINGS`, in the form of the policies file: "on_error.gate" gives the reaction to it."""
    if name == "aligner" and policy.aligner_shares:
        return shares.share_percents(policy.aligner_shares)
    if name == "write":
        return policy.effective_write
    if name == "shadow_aligner":
        return policy.shadow_aligner and policy.shadow_aligner.name
    return read_setting(policy, name)


def _judge_side_texts(enforced: bool, settings: dict[str, Any], origins: dict[str, str]) -> None:
    """Set texts beside the answer to `judge` by default, if objectives are enforced and unjudged answers block.

    Changes `settings` and `origins`; texts whose treatment some layer sets are left as they are.
    """
    if not (enforced and settings["mode"] is Mode.ENFORCE):
        return
    policy = replace(_BUILT_IN_POLICY, on_error=settings["on_error"], after_retry=settings["after_retry"])
    if policy.blocks_unjudged:
        kinds = [kind.value for kind in SideKind if origins[kind.value] == BUILT_IN]
        settings |= dict.fromkeys(kinds, SideTreatment.JUDGE)
        origins |= dict.fromkeys(kinds, _AS_ENFORCED)


def resolve_for_models(resolver: PolicyResolver, facts: RequestFacts, other_facts: Iterable[RequestFacts]) -> Policy:
    """The policy of a request that further models may also answer.

    `other_facts` are the facts as if the client had asked for each of these models. Raises `SeveralPolicies` if the
    policies of the models differ, and `ForbiddenError` like `resolve`.
    """
    policy = resolver.resolve(facts)
    other_policies = map(resolver.resolve, other_facts)
    # For several models in one field LiteLLM returns a list of answers without calling any guardrail.
    if "," in facts.model or any(_policy_effect(other) != _policy_effect(policy) for other in other_policies):
        raise SeveralPolicies("the models of this request have different policies; ask for one of them")
    return policy


def _policy_effect(policy: Policy) -> Policy:
    """The policy without its name and origins, for comparing what it does."""
    return replace(policy, name="", origins=())
