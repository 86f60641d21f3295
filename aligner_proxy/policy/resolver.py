"""Resolver of the policy of a request: the policy is resolved once, before any work, and never changes afterwards.
A layer is one source of settings (defaults, route, tenant, metadata), and the layers that may also grant rights are
called grants. Lists named `route` and `tenant` have one layer, or none if no entry of the file matches. The origin of
a value says where it is set.

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

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from itertools import product
from typing import Any, TypeVar

from aligner_proxy.errors import ConfigError, SeveralPolicies
from aligner_proxy.policy import shares
from aligner_proxy.policy.config import default_write, objectives
from aligner_proxy.policy.gate_schema import read_switches
from aligner_proxy.policy.metadata_layers import Layer, MetadataReader, warn_not_trusted
from aligner_proxy.policy.objective_choice import (
    choose_objectives,
    deny_origins,
    match_known_names,
    may_bypass,
    may_use_own_words,
    own_objectives,
)
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
_read_cache_key = operator.attrgetter(*_CACHE_KEY)
_BUILT_IN_POLICY = Policy(name="-")
_AS_ENFORCED = f"{BUILT_IN}, as objectives are enforced"
_AGAINST_HARM = f"{BUILT_IN} where {', '.join(sorted(SAFETY_OBJECTIVES))} is violated"
HeadLookup = Callable[[Tenant | None, Objective, str], str]
"""A function (tenant or None for the file, objective, aligner) that returns the content hash of the head taught for
this objective and this aligner; empty if there is none."""


def find_no_head(tenant: Tenant | None, objective: Objective, aligner: str) -> str:
    """Return "", for callers that have no taught heads (a `HeadLookup`)."""
    return ""


def _is_cacheable(facts: RequestFacts) -> bool:
    """Whether the policy depends only on file, model, team and key, so that it can be cached.

    `traffic_percentile` is not checked, because the aligner is picked after the policy was taken from the cache.
    """
    has_metadata = facts.team_settings is not None or facts.key_settings is not None
    asks_for_something = facts.tags or facts.asked or facts.own or facts.bypass
    return not has_metadata and not asks_for_something and len(facts.model) <= _MAX_CACHED_MODEL_CHARS


def route_matches(route: Route, names: Sequence[str], tags: Sequence[str]) -> bool:
    """Whether this route matches a request with `tags` for a model that has all these `names`; one must match."""
    match = route.match
    model_fits = match.model is None or any(fnmatchcase(name, match.model) for name in names)
    tag_fits = match.tag is None or any(fnmatchcase(tag, match.tag) for tag in tags)
    return model_fits and tag_fits


def entry_name(entry: Route | Tenant, index: int) -> str:
    """Name of the entry at `index` in the file, for headers and tables: its own, else route-1, tenant-1, ..."""
    kind = "route" if isinstance(entry, Route) else "tenant"
    return entry.name or f"{kind}-{index + 1}"


def tenant_matches(tenant: Tenant, facts: RequestFacts, any_alias: bool) -> bool:
    """Whether this tenant entry matches a request, by its team and its key.

    An alias from the keys file always counts. Key owners choose LiteLLM's aliases, so these count only with
    `any_alias`.
    """
    match = tenant.match
    team_names = [facts.team_id]
    key_names = [facts.key_hash]
    if any_alias or facts.alias_by_operator:
        team_names.append(facts.team_alias)
        key_names.append(facts.key_alias)
    return _any_matches(match.team, team_names) and _any_matches(match.key, key_names)


def _any_matches(pattern: str | None, values: Sequence[str | None]) -> bool:
    """Whether the glob `pattern` matches one of the values that are set; a pattern that is None matches everything."""
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
        """Read the file; `head_of` returns the detector head that was taught for an objective and an aligner."""
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
        """Return a resolver that applies the route `name` to every request; raises `ConfigError` for unknown names."""
        route_by_name = {entry_name(route, index): route for index, route in enumerate(self._file.routes)}
        if name not in route_by_name:
            source = self._file.source.name
            raise ConfigError(f"{source}: no route is called {quote_name(name)}; {suggest_name(name, route_by_name)}")
        resolver = copy(self)
        resolver._only_route = route_by_name[name]
        resolver._resolve_from_cache = lru_cache(_MAX_CACHED_POLICIES)(resolver._resolve_cacheable)
        return resolver

    def resolve(self, facts: RequestFacts) -> Policy:
        """Return the policy of a request; raises `ForbiddenError` if it asks for what its tenant may not have."""
        policy = self._resolve_from_cache(_read_cache_key(facts)) if _is_cacheable(facts) else self._resolve(facts)
        if policy.aligner_shares and facts.traffic_percentile is not None:
            policy = shares.pick_aligner(policy, facts.traffic_percentile)
        return policy

    def policies_by_route(self, facts: RequestFacts) -> list[tuple[str, Policy]]:
        """Name and policy for each route as if it matched, then for no route; what the request asks for is ignored."""
        plain_facts = replace(facts, asked=(), own=(), bypass=False)
        policies = []
        for index, route in enumerate(self._file.routes):
            policy = self._build_policy(plain_facts, partial(operator.is_, route))
            policies.append((entry_name(route, index), policy))
        policies.append((NO_ROUTE, self._build_policy(plain_facts, lambda _: False)))
        return policies

    def active_settings(self) -> Iterator[Policy]:
        """Yield the settings for every combination of a route (or none) and a tenant of the file (or none).

        They are yielded as policies without objectives; of routes or tenants with equal settings, only one is used.
        """
        defaults = Layer(self._file.defaults, "defaults", ("defaults",))
        for route, tenant in product(self._unique_layers(self._file.routes), self._unique_layers(self._file.tenants)):
            judges_harm = any(map(_judges_harm, (*route, *tenant)))
            settings, _ = self._merge_layers([defaults, *route, *tenant], judges_harm=judges_harm)
            extensions = tuple(self._pop_plugin_settings(settings))
            # The callers do not read these, and their values here are not yet those of a policy.
            del settings["aligner_shares"], settings["shadow_aligner"]
            yield Policy("-", extensions=extensions, **settings)

    def _unique_layers(self, entries: Sequence[Route] | Sequence[Tenant]) -> list[list[Layer]]:
        """Return the choices that a request has among routes or tenants: no entry (an empty list), or one layer.

        Of entries with equal effect on the settings only the last is used, so that there are fewer combinations.
        """
        layer_by_effect: dict[str, Layer] = {}
        for entry in entries:
            layer = Layer(entry, entry.name or "-")
            # An entry that enforces objectives, or names one about safety, changes the defaults of other settings.
            enforces = bool(getattr(entry, "enforce", ()))
            effect = str([*self._layer_values(entry), enforces, _judges_harm(layer)])
            layer_by_effect[effect] = layer
        return [[], *([layer] for layer in layer_by_effect.values())]

    def settings(self, policy: Policy) -> dict[str, Any]:
        """Return every setting of a policy by name, including those of plugins, in the form shown to operators."""
        values = {name: setting_value(policy, name) for name in SETTINGS}
        for name, key in self._keys.items():
            value = policy.extension(name, key.default)
            values[name] = value.labels if isinstance(value, Requirement) else value
        return values

    def _resolve_cacheable(self, values: tuple[Any, ...]) -> Policy:
        """Return the policy of a cacheable request; `values` are the facts named in `_CACHE_KEY`, in this order."""
        return self._resolve(RequestFacts(**dict(zip(_CACHE_KEY, values, strict=True))))

    def _resolve(self, facts: RequestFacts) -> Policy:
        """Return the policy for the model under all its names, made as strict as that of each model group behind it."""
        policy = self._build_policy(facts)
        for group in facts.groups:
            policy = stricter_policy(policy, self._build_policy(replace(facts, model=group, groups=())))
        return policy

    def _build_policy(self, facts: RequestFacts, applies: Callable[[Route], bool] | None = None) -> Policy:
        """Build the policy of a request from file and metadata.

        The first route for which `applies` returns True is used; if it is None, the first that matches the request.
        """
        route = _first_layer(self._file.routes, applies or partial(self._route_applies, facts))
        tenant = _first_layer(
            self._file.tenants, lambda tenant: tenant_matches(tenant, facts, self._file.trust.aliases)
        )
        configured = self._objectives_of(tenant)
        if facts.own:
            # Own words that repeat a configured objective ask for that objective.
            facts = replace(facts, asked=match_known_names(facts.asked, facts.own, configured))
        grants = [*tenant, *self._metadata.layers(facts.namespace, facts.team_settings, facts.key_settings, configured)]
        objectives, objective_origins, selection = choose_objectives(self._file, facts, route, grants, configured)
        settings, origins = self._merge_layers(
            [Layer(self._file.defaults, "defaults", ("defaults",)), *route, *grants],
            judges_harm=any(objective.name in SAFETY_OBJECTIVES for objective in objectives),
        )
        in_own_words = own_objectives(facts.own, configured, allowed=facts.is_operator or may_use_own_words(grants))
        quota = self._find_quota(facts, grants, origins)
        hand_off = self._find_hand_off(route, origins)
        extensions = (*self._pop_plugin_settings(settings), *self._find_plugin_grants(grants, origins))
        self._set_shares(settings, objectives, tenant)
        return Policy(
            name="+".join(layer.name for layer in (*route, *tenant)) or "default",
            objectives=self._attach_heads(objectives, tenant, settings["aligner"]) + in_own_words,
            bypass=facts.bypass and may_bypass(grants),
            tenant=facts.namespace,
            traffic=Traffic(
                tenant=tenant[0].name if tenant else facts.tenant_name,
                model=facts.groups[0] if facts.groups else facts.model or "-",
            ),
            quota=quota,
            selection=selection,
            extensions=extensions,
            origins=(*origins.items(), *objective_origins, *deny_origins(self._file.source, grants)),
            hand_off=hand_off,
            **settings,
        )

    def _route_applies(self, facts: RequestFacts, route: Route) -> bool:
        """Whether this route matches the request; after `restrict_to_route`, whether it is that route."""
        if self._only_route is not None:
            return route is self._only_route
        return route_matches(route, facts.names, facts.tags)

    def _objectives_of(self, tenant: Sequence[Layer]) -> Mapping[str, Objective]:
        """The objectives that a tenant's requests can use: those of the file and the tenant's own, by name."""
        if not tenant or tenant[0].path is None:
            return self._file_objectives
        _, index = tenant[0].path  # ("tenants", index)
        return self._tenant_objectives[int(index)]

    def _attach_heads(
        self, objectives: Sequence[Objective], tenant: Sequence[Layer], aligner: str
    ) -> tuple[Objective, ...]:
        """Add to each objective the detector head that was taught for it and for `aligner`, if there is one.

        A head of one of the tenant's own objectives is looked up for the tenant, any other for the whole file.
        """
        values = tenant[0].values if tenant else None
        entry = values if isinstance(values, Tenant) else None
        own_names = entry.objectives if entry is not None else {}
        taught_objectives = []
        for objective in objectives:
            owner = entry if objective.name in own_names else None
            taught_objectives.append(replace(objective, head=self._head_of(owner, objective, aligner)))
        return tuple(taught_objectives)

    def _set_shares(self, settings: dict[str, Any], objectives: Sequence[Objective], tenant: Sequence[Layer]) -> None:
        """Replace the names of aligners that share the traffic, and of the shadow aligner, by `AlignerShare`s."""
        if settings["aligner_shares"]:
            settings["aligner_shares"] = tuple(
                self._make_share(name, percent, objectives, tenant) for name, percent in settings["aligner_shares"]
            )
        if settings["shadow_aligner"]:
            # A shadow aligner corrects nothing, so it has no share of the traffic.
            settings["shadow_aligner"] = self._make_share(settings["shadow_aligner"], 0, objectives, tenant)

    def _make_share(
        self, name: str, percent: int, objectives: Sequence[Objective], tenant: Sequence[Layer]
    ) -> AlignerShare:
        """Return the share of one aligner, with the names of objectives and the heads that were taught for it."""
        taught_objectives = self._attach_heads(objectives, tenant, name)
        heads = ((objective.name, objective.head) for objective in taught_objectives if objective.head)
        return AlignerShare(name, percent, tuple(heads))

    def _pop_plugin_settings(self, settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Remove the keys of plugins from `settings`, and yield (key, value) for each value that is not the default."""
        for key in self._keys.values():
            value = settings.pop(key.name)
            if value != key.default:
                if isinstance(value, Requirement):
                    value = value.with_files(self._file.file_texts.get(key.name, {}))
                yield key.name, value

    def _find_plugin_grants(self, grants: Sequence[Layer], origins: dict[str, str]) -> Iterator[tuple[str, Any]]:
        """Yield (name, value) of plugins' grants without the default, and add the origins of all that are set.

        The last layer that sets a grant wins.
        """
        for key in self._file.declarations.grants:
            values_by_layer = [(layer, getattr(layer.values, key.name, None)) for layer in grants]
            set_values = [(layer, value) for layer, value in values_by_layer if value is not None]
            if set_values:
                layer, value = set_values[-1]
                origins[key.name] = layer.origin(self._file.source, key.name)
                if value != key.default:
                    yield key.name, value

    def _merge_layers(self, layers: Sequence[Layer], *, judges_harm: bool) -> tuple[dict[str, Any], dict[str, str]]:
        """Merge layers, of which the last one wins. Return the settings of a policy, and their origins, by name.

        `judges_harm` says whether an objective about safety applies; an answer that is all harm is then not delivered.
        """
        enforced = any(getattr(layer.values, "enforce", ()) for layer in layers)
        settings, origins = self._default_settings(enforced=enforced, judges_harm=judges_harm)
        rule_switches = dict.fromkeys(GateRule, True)
        for layer in layers:
            for name, value in self._layer_values(layer.values):
                # The default `decline` applies only to harm. The same value from an untrusted layer applies to any
                # violation, so it is stricter and counts.
                declines_more = value == settings[name] and origins[name] == _AGAINST_HARM
                if layer.trusted or declines_more or may_tighten(name, value, settings[name]):
                    settings[name] = value
                    origins[name] = layer.origin(self._file.source, *name.split("."))
                elif value != settings[name]:
                    warn_not_trusted(layer.name, name)
            # An untrusted layer switches no rule of the gate, neither off nor on.
            for rule, is_on in read_switches(layer.values.gate).items() if layer.trusted else ():
                rule_switches[rule] = is_on
                origins[f"gate.{rule}"] = layer.origin(self._file.source, "gate", rule.value)
        reaction_by_class = {name.removeprefix(_ON_ERROR): settings.pop(name) for name in ON_ERROR}
        reaction_by_reason = {name.removeprefix(_ON_SKIP): settings.pop(name) for name in ON_SKIP}
        if settings["if_nothing_remains"] is IfNothingRemains.SECOND_TRY and settings["editor"] == LOCAL_EDITOR:
            # The file is checked for this, so metadata removed the editor or set second_try.
            settings["if_nothing_remains"] = IfNothingRemains.DECLINE
        settings["declines_harm_alone"] = origins["if_nothing_remains"] == _AGAINST_HARM
        if settings["declines_harm_alone"] and origins["decline_within"] == BUILT_IN:
            # Nobody asked for a refusal in place of good text beside the harm.
            settings["decline_within"] = 0.0
        settings |= {"on_error": FailurePolicy(**reaction_by_class), "on_skip": SkipPolicy(**reaction_by_reason)}
        _judge_side_texts(settings, origins, enforced=enforced)
        self._choose_write(settings, origins)
        settings["gate"] = tuple(rule for rule, is_on in rule_switches.items() if is_on)
        aligner = settings["aligner"]
        settings |= {
            "aligner": shares.leading_aligner(aligner),
            "aligner_shares": () if isinstance(aligner, str) else aligner,
        }
        return settings, origins

    def _choose_write(self, settings: dict[str, Any], origins: dict[str, str]) -> None:
        """Set what the editor and the aligner may write, where the editor's setting is `editor_write`.

        If no layer sets `write`, the editor may write freely, and an aligner unless it is the embedded one.
        """
        settings["editor_write"] = settings["write"]
        if origins["write"] == BUILT_IN:
            settings["write"] = default_write(self._file, shares.aligner_names(settings["aligner"]))

    def _default_settings(self, *, enforced: bool, judges_harm: bool) -> tuple[dict[str, Any], dict[str, str]]:
        """The settings where no layer sets them, and their origins, by name; `judges_harm` is as in `_merge_layers`."""
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
        """Yield name and value of each setting of a layer; reactions have names such as on_error.gate."""
        for name in (*PolicySettings.model_fields, *self._keys):
            value = getattr(values, name, None)
            if isinstance(value, OnErrorByClass | OnSkipByReason):
                for class_or_reason, reaction in value:
                    if reaction is not None:
                        yield f"{name}.{class_or_reason}", reaction
            elif value is not None:
                yield name, value

    def _find_quota(self, facts: RequestFacts, grants: Sequence[Layer], origins: dict[str, str]) -> Quota | None:
        """Return the quota of the last layer that sets one, and add its origin; None if no layer does.

        Each tenant has an account, and so does each key whose metadata sets a quota.
        """
        for layer in reversed(grants):
            seconds = getattr(layer.values, "quota", None)
            if seconds is not None:
                key = facts.key_hash or facts.key_alias
                owner = f"key:{key}" if layer.is_key_metadata and key else facts.namespace
                origins["quota"] = layer.origin(self._file.source, "quota")
                return Quota(f"{layer.label} {owner}", seconds)
        return None

    def _find_hand_off(self, route: Sequence[Layer], origins: dict[str, str]) -> HandOff | None:
        """Return the route's webhook for doubtful answers, and add its origin; None if the route has none."""
        block = getattr(route[0].values, "hand_off", None) if route else None
        if block is None:
            return None
        origins["hand_off"] = route[0].origin(self._file.source, "hand_off")
        return HandOff(**block.model_dump())


def _judges_harm(layer: Layer) -> bool:
    """Whether a route's objectives, or those that a tenant enforces, include one about safety."""
    entry = layer.values
    if isinstance(entry, Route):
        names = {name for name, _ in route_objectives(entry, configured=(EVERY,))}
        return EVERY in names or not SAFETY_OBJECTIVES.isdisjoint(names)
    return not SAFETY_OBJECTIVES.isdisjoint(getattr(entry, "enforce", ()))


def _first_layer(entries: Sequence[_Entry], matches: Callable[[_Entry], bool]) -> list[Layer]:
    """Return a list with the layer of the first entry for which `matches` returns True; empty if there is none."""
    for index, entry in enumerate(entries):
        if matches(entry):
            kind = "route" if isinstance(entry, Route) else "tenant"
            name = entry_name(entry, index)
            return [Layer(entry, label=f"{kind} {name}", path=(f"{kind}s", index), name=name)]
    return []


def setting_value(policy: Policy, name: str) -> Any:
    """The setting called `name` (one of `SETTINGS`, such as "on_error.gate") in the form of the policies file."""
    if name == "aligner" and policy.aligner_shares:
        return {share.name: share.percent for share in policy.aligner_shares}
    if name == "write":
        return policy.effective_write
    if name == "shadow_aligner":
        return policy.shadow_aligner and policy.shadow_aligner.name
    return read_setting(policy, name)


def _judge_side_texts(settings: dict[str, Any], origins: dict[str, str], *, enforced: bool) -> None:
    """Set the treatment of texts beside the answer to `judge` in `settings`, where no layer sets another one.

    This happens only if objectives are enforced and the policy withholds answers that could not be judged.
    """
    if not (enforced and settings["mode"] is Mode.ENFORCE):
        return
    policy = replace(_BUILT_IN_POLICY, on_error=settings["on_error"], after_retry=settings["after_retry"])
    if policy.blocks_unjudged:
        kinds = [kind.value for kind in SideKind if origins[kind.value] == BUILT_IN]
        settings |= dict.fromkeys(kinds, SideTreatment.JUDGE)
        origins |= dict.fromkeys(kinds, _AS_ENFORCED)


def resolve_for_models(resolver: PolicyResolver, facts: RequestFacts, other_facts: Iterable[RequestFacts]) -> Policy:
    """Return the policy of a request that further models, such as fallbacks, may answer, too.

    `other_facts` are, for each further model, the facts of the request as if the client had asked for that model.
    Raises `SeveralPolicies` if the policies of the models differ, and `ForbiddenError` like `resolve`.
    """
    policy = resolver.resolve(facts)
    other_policies = map(resolver.resolve, other_facts)
    # For several models in one field LiteLLM returns a list of answers without calling any guardrail.
    if "," in facts.model or any(_policy_effect(other) != _policy_effect(policy) for other in other_policies):
        raise SeveralPolicies("the models of this request have different policies; ask for one of them")
    return policy


def _policy_effect(policy: Policy) -> Policy:
    """Return the policy without its name and origins, to compare what two policies do."""
    return replace(policy, name="", origins=())
