"""Resolver of the policy that a request gets: once, before anything is spent, and never changed afterwards.

Settings, later ones win: built-in default < `defaults` < the route (first match in file order) < the tenant in the
file (first match) < team metadata < key metadata; of `on_error` each class of failure by itself. Of `allow`,
`allow_bypass` and `quota` the last that says anything wins; `enforce` and `deny` add up.

Objectives, in this order, duplicates dropped keeping the first: enforced (tenant in the file, team metadata, key
metadata), then the route's, then what the request asked for and may have, last its preferences. A request can only add.
It gets a 403 when it asks for more than it may; an operator's mistake in metadata is ignored and logged once. A request
that several models may answer is refused where their policies differ.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from aligner_proxy.errors import ForbiddenError, SeveralPolicies
from aligner_proxy.policy.config import objectives
from aligner_proxy.policy.plugin_keys import PolicyKey, in_todays_words
from aligner_proxy.policy.schema import (
    Grants,
    OnErrorByClass,
    PolicyFile,
    Route,
    Settings,
    Tenant,
    corrector_names,
    grants_model,
    listed,
    rule_names,
    selector_of,
    switches,
)
from aligner_proxy.policy.yaml_file import BUILT_IN, KeyPath, Source
from aligner_proxy.types import METAALIGNER, FailureClass, FailurePolicy, GateRule, Objective, Policy, Quota, Selection

log = logging.getLogger(__name__)
_ON_ERROR = "on_error."
PRECEDENCE = (
    "settings, quota, later wins: built-in default < defaults < route < tenant in the file < team < key metadata",
    "objectives, in order: enforced (tenant in the file, team, key metadata), the route's, what the request may add",
    "routes and tenants: the first match in file order",
)
# Policies, and the longest name of a model in a request whose policy is remembered: clients can write any.
_REMEMBERED = 1024
_USUAL_CHARS = 200
_OBJECTIVE_LISTS = ("enforce", "allow", "deny")
_NOTHING_SAID = Policy(name="-")


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


ON_ERROR = tuple(f"{_ON_ERROR}{kind.value}" for kind in FailureClass)
SETTINGS = tuple(one for name in Settings.model_fields for one in (ON_ERROR if name == "on_error" else (name,)))
"""The gateway's own settings by the name under which value and origin are shown; `on_error` has one for each class."""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What is known about a request, free of LiteLLM's shapes.

    Team, key and their settings (the value of metadata "aligner") must come from what LiteLLM authenticated, never from
    the body; `asked` and `bypass` are the request's own wishes.
    """

    model: str = ""
    tags: tuple[str, ...] = ()
    team_id: str | None = None
    team_alias: str | None = None
    key_hash: str | None = None
    key_alias: str | None = None
    team_settings: object = None
    key_settings: object = None
    asked: tuple[str, ...] = ()
    bypass: bool = False
    system: str = field(default="", repr=False)
    """The request's system prompt, whatever the endpoint calls it."""
    fields: Mapping[str, object] = field(default_factory=dict, repr=False)
    """What the request says under `metadata.aligner` in the fields that plugins declare; not checked."""

    @property
    def usual(self) -> bool:
        """Whether it is like many others: it wishes for nothing, and its policy is said by the file alone."""
        settled = self.team_settings is None and self.key_settings is None
        return settled and not (self.tags or self.asked or self.bypass) and len(self.model) <= _USUAL_CHARS

    @property
    def namespace(self) -> str:
        """What no two tenants share: the team, else the key; the prefix keeps a team from posing as a key."""
        ids = (("team", self.team_id), ("alias", self.team_alias), ("key", self.key_hash), ("name", self.key_alias))
        return next((f"{kind}:{value}" for kind, value in ids if value), "-")


@dataclass(frozen=True, slots=True)
class _Layer:
    """One place that may say settings; `path` is set when it stands in the policies file, `name` when it has one."""

    values: Settings
    label: str
    path: KeyPath | None = None
    name: str = ""
    own: bool = False
    """Whether it speaks of one key alone: a quota said here is the key's, not its team's."""

    def origin(self, source: Source, *key: str | int) -> str:
        """Where this layer says `key`."""
        return self.label if self.path is None else f"{source.at(*self.path, *key)} ({self.label})"


class PolicyResolver:
    """Resolves requests against one policies file. Of requests without wishes it remembers the last ones' policies."""

    def __init__(self, policy_file: PolicyFile) -> None:
        self._file = policy_file
        self._known = objectives(policy_file)
        declared = policy_file.declarations.keys
        self._keys = {key.name: key for key in declared if not key.grant}
        self._grants_of_plugins = [key for key in declared if key.grant]
        self._grants_model = grants_model(policy_file.declarations)
        self._renamed = policy_file.declarations.renamed
        self._correctors = {METAALIGNER, *corrector_names(policy_file)}
        self._rules = frozenset(rule_names(policy_file))
        self._remembered = lru_cache(_REMEMBERED)(self._stated_for)

    def resolve(self, facts: RequestFacts) -> Policy:
        """The policy of one request; raises `ForbiddenError` when it asks for what its tenant may not have."""
        who = facts.team_id, facts.team_alias, facts.key_hash, facts.key_alias
        return self._remembered(facts.model, *who) if facts.usual else self._stated(facts)

    def settings(self, policy: Policy) -> dict[str, Any]:
        """Every setting of a policy by name, those of plugins too."""
        own = {name: value_of(policy, name) for name in SETTINGS}
        return own | {name: policy.extension(name, key.default) for name, key in self._keys.items()}

    def _stated_for(
        self, model: str, team_id: str | None, team_alias: str | None, key_hash: str | None, key_alias: str | None
    ) -> Policy:
        """For a usual request, by all that counts of it; what clients say is not kept."""
        return self._stated(RequestFacts(model, (), team_id, team_alias, key_hash, key_alias))

    def _stated(self, facts: RequestFacts) -> Policy:
        """The policy by file and metadata."""
        route = self._route(facts)
        tenant = self._tenant(facts)
        grants = [*tenant, *self._metadata(facts)]
        settings, origins = self._settle([_Layer(self._file.defaults, "defaults", ("defaults",)), *route, *grants])
        chosen, chosen_origins, selection = self._objectives(facts, route, grants)
        quota, quota_origin = self._quota(facts, grants)
        granted, granted_origins = self._granted(grants)
        extensions = (*self._differing(settings), *granted)
        return Policy(
            name="+".join(layer.name for layer in (*route, *tenant)) or "default",
            objectives=chosen,
            bypass=facts.bypass and _may_bypass(grants),
            tenant=facts.namespace,
            quota=quota,
            selection=selection,
            extensions=extensions,
            origins=origins + quota_origin + granted_origins + chosen_origins + self._denied(grants),
            **settings,
        )

    def _differing(self, settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Take the keys of plugins out of the settings; those that are not at their default are kept."""
        for key in self._keys.values():
            value = settings.pop(key.name)
            if value != key.default:
                yield key.name, value

    def _granted(self, grants: Sequence[_Layer]) -> tuple[tuple[tuple[str, Any], ...], tuple[tuple[str, str], ...]]:
        """The grants of plugins that somebody says, and where; of each the last that says anything wins."""
        values: dict[str, tuple[PolicyKey, Any]] = {}
        origins: dict[str, str] = {}
        for key in self._grants_of_plugins:
            for layer in grants:
                value = getattr(layer.values, key.name, None)
                if value is not None:
                    values[key.name] = (key, value)
                    origins[key.name] = layer.origin(self._file.source, key.name)
        differing = ((name, value) for name, (key, value) in values.items() if value != key.default)
        return tuple(differing), tuple(origins.items())

    def _route(self, facts: RequestFacts) -> list[_Layer]:
        for i, route in enumerate(self._file.routes):
            if route_matches(route, facts.model, facts.tags):
                name = route_name(route, i)
                return [_Layer(route, f"route {name}", ("routes", i), name)]
        return []

    def _tenant(self, facts: RequestFacts) -> list[_Layer]:
        for i, tenant in enumerate(self._file.tenants):
            if tenant_matches(tenant, facts):
                name = tenant_name(tenant, i)
                return [_Layer(tenant, f"tenant {name}", ("tenants", i), name)]
        return []

    def _metadata(self, facts: RequestFacts) -> list[_Layer]:
        given = (("team metadata", facts.team_settings), ("key metadata", facts.key_settings))
        return [
            _Layer(self._grants(raw, f"{facts.namespace}: {label}"), label, own=label == "key metadata")
            for label, raw in given
            if raw is not None
        ]

    def _grants(self, raw: object, label: str) -> Grants:
        """What is usable of an operator's metadata, setting by setting."""
        if not isinstance(raw, Mapping):
            _warn(label, "aligner")
            return self._grants_model()
        today, changes = in_todays_words({str(key): value for key, value in raw.items()}, self._renamed)
        for change in changes:
            _warn_renamed(label, change.old, change.new)
        return self._grants_model.model_validate(dict(self._usable(today, label)))

    def _usable(self, raw: Mapping[str, Any], label: str) -> Iterator[tuple[str, Any]]:
        for key, value in raw.items():
            try:
                checked = getattr(self._grants_model.model_validate({key: value}), key)
            except ValidationError:
                _warn(label, key if key in self._grants_model.model_fields else "(unknown)")
                continue
            if not self._made(key, checked):
                _warn(label, key)
                continue
            if key in _OBJECTIVE_LISTS:
                known = tuple(name for name in checked if name in self._known or (name == "*" and key == "allow"))
                if known != checked:
                    _warn(label, key)
                checked = known
            yield key, checked

    def _made(self, key: str, value: Any) -> bool:
        """Whether what metadata names of plugins is among what the file names, and so was made at the start."""
        if key == "corrector":
            return value in self._correctors
        return key != "plugin_rules" or self._rules.issuperset(value or ())

    def _settle(self, layers: Sequence[_Layer]) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
        settings = self.settings(_NOTHING_SAID)
        origins = dict.fromkeys(settings, BUILT_IN)
        rules = dict.fromkeys(GateRule, True)
        for layer in layers:
            for name, value in self._stated_by(layer.values):
                settings[name] = value
                origins[name] = layer.origin(self._file.source, *name.split("."))
            for rule, on in switches(layer.values.gate).items():
                rules[rule] = on
                origins[f"gate.{rule}"] = layer.origin(self._file.source, "gate", rule.value)
        by_class = {name.removeprefix(_ON_ERROR): settings.pop(name) for name in ON_ERROR}
        settings |= {"on_error": FailurePolicy(**by_class), "gate": tuple(rule for rule, on in rules.items() if on)}
        return settings, tuple(origins.items())

    def _stated_by(self, values: Settings) -> Iterator[tuple[str, Any]]:
        """What one place says, each class of failure by itself."""
        for name in (*Settings.model_fields, *self._keys):
            value = getattr(values, name, None)
            if isinstance(value, OnErrorByClass):
                yield from ((f"{_ON_ERROR}{kind}", action) for kind, action in value if action is not None)
            elif value is not None:
                yield name, value

    def _quota(self, facts: RequestFacts, grants: Sequence[_Layer]) -> tuple[Quota | None, tuple[tuple[str, str], ...]]:
        """The last that says one; a place that says it has accounts of its own, one for each tenant it speaks of."""
        for layer in reversed(grants):
            seconds = getattr(layer.values, "quota", None)
            if seconds is not None:
                whose = f"key:{facts.key_hash or facts.key_alias}" if layer.own else facts.namespace
                origin = layer.origin(self._file.source, "quota")
                return Quota(f"{layer.label} {whose}", seconds), (("quota", origin),)
        return None, ()

    def _denied(self, grants: Sequence[_Layer]) -> tuple[tuple[str, str], ...]:
        """Where each denied objective is denied first."""
        found: dict[str, str] = {}
        for layer in grants:
            for n, name in enumerate(getattr(layer.values, "deny", ())):
                found.setdefault(f"deny:{name}", layer.origin(self._file.source, "deny", n))
        return tuple(found.items())

    def _objectives(
        self, facts: RequestFacts, route: Sequence[_Layer], grants: Sequence[_Layer]
    ) -> tuple[tuple[Objective, ...], tuple[tuple[str, str], ...], Selection | None]:
        chosen: dict[str, str] = {}
        for layer in grants:
            for n, name in enumerate(getattr(layer.values, "enforce", ())):
                chosen.setdefault(name, layer.origin(self._file.source, "enforce", n))
        enforced = tuple(chosen)
        selector = None
        for layer in route:
            assert isinstance(layer.values, Route)
            selector = selector_of(layer.values)
            for name, key in listed(layer.values, self._known):
                chosen.setdefault(name, layer.origin(self._file.source, *key))
        self._refuse(facts, chosen, grants)
        selection = None
        if selector is not None and selector.word not in self._file.declarations.missing_selectors:
            candidates = tuple(name for name in chosen if name not in (*enforced, *facts.asked))
            selection = Selection(selector.word, candidates, enforced, selector)
        chosen |= {name: "request" for name in facts.asked if name not in chosen}
        origins = tuple((f"objective:{name}", origin) for name, origin in chosen.items())
        return tuple(self._known[name] for name in chosen), origins, selection

    def _refuse(self, facts: RequestFacts, present: Mapping[str, str], grants: Sequence[_Layer]) -> None:
        """Raise for the first thing that was asked for and may not be had.

        Asking for what is there anyway is fine, unless it is denied: what the operator put there stays, but nobody of
        this tenant is to ask for it.
        """
        if facts.bypass and not _may_bypass(grants):
            raise ForbiddenError("this key may not bypass alignment; its tenant needs allow_bypass: true")
        may = self._may_ask(grants)
        denied = _denied(grants)
        for n, name in enumerate(facts.asked, 1):
            # LiteLLM logs these messages, so they do not repeat what a client wrote; nor do they tell who else's
            # objectives are configured.
            if name in denied:
                raise ForbiddenError(f"objective number {n} of those asked for is denied for this key")
            if name not in may and name not in present:
                offer = f"it may ask for: {', '.join(sorted(may))}" if may else "it may not add any objective"
                raise ForbiddenError(f"objective number {n} of those asked for is not allowed for this key; {offer}")

    def _may_ask(self, grants: Sequence[_Layer]) -> set[str]:
        allow = _last(grants, "allow") or ()
        names = set(self._known) if "*" in allow else set(allow)
        return names - _denied(grants)


def value_of(policy: Policy, name: str) -> Any:
    """The value of one of `SETTINGS`."""
    kind = name.removeprefix(_ON_ERROR)
    return getattr(policy, name) if kind == name else policy.on_error.of(FailureClass(kind))


def _denied(grants: Sequence[_Layer]) -> set[str]:
    return {name for layer in grants for name in getattr(layer.values, "deny", ())}


def _last(grants: Sequence[_Layer], name: str) -> Any:
    said = [value for layer in grants if (value := getattr(layer.values, name)) is not None]
    return said[-1] if said else None


def _may_bypass(grants: Sequence[_Layer]) -> bool:
    return bool(_last(grants, "allow_bypass"))


@lru_cache(maxsize=1024)
def _warn(label: str, key: str) -> None:
    """Once per tenant, place and setting: an operator's typo would otherwise fill the log with every request."""
    log.warning("%s: ignoring setting %s: not valid here", label, key)


@lru_cache(maxsize=1024)
def _warn_renamed(label: str, old: str, new: str) -> None:
    """Once per tenant, place and word."""
    log.warning("%s: write %s in place of %s, which is accepted until 1.0", label, new, old)


def policy_for_all(resolver: PolicyResolver, asked: RequestFacts, further: Sequence[str]) -> Policy:
    """The policy of a request that `further` models may answer, too; raises like `resolve`, or `SeveralPolicies`."""
    policy = resolver.resolve(asked)
    others = (resolver.resolve(replace(asked, model=model)) for model in further)
    # Of several models in one field LiteLLM makes a list of answers, which no guardrail is given to read.
    if "," in asked.model or any(_meant(other) != _meant(policy) for other in others):
        raise SeveralPolicies("models of different policies in one request")
    return policy


def _meant(policy: Policy) -> Policy:
    """What a policy does, whatever it is called and wherever it stands."""
    return replace(policy, name="", origins=())
