"""Registry of the installed plugins: what each offers, and what a policies file asks for.

Bundled plugins come first: no other plugin can take their names. A plugin that cannot be loaded, or offers something
that is none of the kinds, is left out whole, with the reason. Rules of plugins are further rules of the gate.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from aligner_proxy.errors import ConfigError, CorrectionError, PluginFault
from aligner_proxy.gate import judge as gate_judge
from aligner_proxy.gate.edits import Candidate
from aligner_proxy.gate.judge import Verdict, judge
from aligner_proxy.plugins import api
from aligner_proxy.plugins.api import GROUP, Extension, GateCheck, Kind
from aligner_proxy.plugins.extensions import Extensions, Member
from aligner_proxy.plugins.isolation import ThreadRunner, boundary
from aligner_proxy.policy import config
from aligner_proxy.policy.plugin_keys import RENAMED_KEYS, SYSTEMS, Declarations
from aligner_proxy.policy.schema import (
    KIND,
    PLUGIN_NAME,
    Grants,
    PluginEntry,
    PolicyFile,
    Route,
    Tenant,
    corrector_names,
    kind_of,
    own_settings,
    rule_names,
)
from aligner_proxy.policy.yaml_file import KeyPath, Source, nearest, short
from aligner_proxy.types import METAALIGNER, Correction, Policy

log = logging.getLogger(__name__)


SORTS = ("correctors", "caches", "gate_rules", "audit_sinks")
"""The hooks that return kinds."""
_WORD = r"[a-z][a-z0-9_]{0,63}"


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin: who made it, what it offers by sort, and what is wrong with it."""

    name: str
    version: str
    third_party: bool
    offers: Mapping[str, tuple[Kind[Any], ...]]
    extensions: tuple[Extension, ...] = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """One thing that can be made, and whose it is."""

    kind: Kind[Any]
    plugin: Plugin


@dataclass(frozen=True, slots=True)
class ConfiguredPlugin:
    """What a policies file wants made, with its settings checked."""

    name: str
    offer: Offer
    settings: BaseModel
    label: str
    """Name, kind, whose, which version, and all settings, for keys of the cache."""

    def make(self) -> Any:
        """Make it; raises `ConfigError` when that fails."""
        try:
            with boundary():
                return self.offer.kind.make(self.settings)
        except CorrectionError as error:
            raise ConfigError(f"plugin {self.offer.plugin.name}: {self.name} cannot be made ({error})") from None


@dataclass(frozen=True)
class PluginSet:
    """All plugins of this process."""

    plugins: tuple[Plugin, ...]
    declarations: Declarations = field(init=False)
    """What they add to the policies file."""

    def __post_init__(self) -> None:
        extensions = [extension for plugin in self.plugins for extension in plugin.extensions]
        declared = Declarations(
            tuple(key for extension in extensions for key in extension.keys),
            tuple(form for extension in extensions for form in extension.selectors),
            frozenset(self.offers("correctors")),
        )
        object.__setattr__(self, "declarations", declared)

    def offers(self, sort: str) -> dict[str, Offer]:
        """What is offered of one sort, by name."""
        return {kind.name: Offer(kind, plugin) for plugin in self.plugins for kind in plugin.offers.get(sort, ())}


def load_policies(path: Path | str) -> PolicyFile:
    """Read and check a policies file, with the keys of the installed plugins; raises `ConfigError`."""
    return config.load(path, _declared)


def parse_policies(text: str, path: Path) -> PolicyFile:
    """The same for the text of a file that does not stand at `path` yet."""
    return config.loads(text, path, _declared)


def _declared(third_party: bool) -> Declarations:
    return load(third_party).declarations


def extensions(file: PolicyFile) -> Extensions:
    """The extensions of the installed plugins; those of third parties have a thread for each plugin."""
    members: list[Member] = []
    for plugin in load(config.third_party_plugins(file)).plugins:
        caller = ThreadRunner(plugin.name) if plugin.third_party and plugin.extensions else None
        members += [Member(extension, caller) for extension in plugin.extensions]
    return Extensions(members)


def configured(file: PolicyFile) -> dict[str, tuple[ConfiguredPlugin, ...]]:
    """What this file wants made, by sort; raises `ConfigError` for what is not there or is set wrongly."""
    there = load(config.third_party_plugins(file))
    told = file.plugins
    correctors = corrector_names(file)
    rules = rule_names(file)
    if METAALIGNER in told.correctors:
        place = file.source.at("plugins", "correctors", METAALIGNER)
        raise ConfigError(f"{place}: {METAALIGNER} is the aligner on the engine; its settings stand under aligner")
    asked: dict[str, list[tuple[str, PluginEntry, KeyPath]]] = {
        # A corrector of our own distribution that is not installed keeps no gateway from starting (config.py warns).
        "correctors": [
            (name, own, path)
            for name, path in correctors.items()
            if kind_of(name, own := told.correctors.get(name, {})) not in there.declarations.missing_correctors
        ],
        "gate_rules": [(name, {}, path) for name, path in rules.items()],
        "audit_sinks": [(name, own, ("plugins", "audit_sinks", name)) for name, own in told.audit_sinks.items()],
        "caches": [("cache", told.cache, ("plugins", "cache"))] if told.cache is not None else [],
    }
    return {sort: tuple(_configured(file.source, there, sort, *one) for one in each) for sort, each in asked.items()}


def _configured(
    source: Source, there: PluginSet, sort: str, name: str, told: PluginEntry, path: KeyPath
) -> ConfiguredPlugin:
    offers = there.offers(sort)
    kind = kind_of(name, told)
    offer = offers.get(kind)
    if offer is None:
        known = [METAALIGNER, *offers] if sort == "correctors" else list(offers)
        broken = [f"{plugin.name} ({plugin.fault})" for plugin in there.plugins if plugin.fault]
        more = f"; plugins that could not be loaded: {', '.join(broken)}" if broken else ""
        hint = nearest(kind, known) if known else "no plugin offers any"
        raise ConfigError(f"{source.at(*path)}: no plugin offers {short(kind)} among its {sort}; {hint}{more}")
    try:
        with boundary():
            settings = _settings(offer.kind, own_settings(told))
            version = f"{offer.plugin.name} {offer.plugin.version}"
            return ConfiguredPlugin(name, offer, settings, f"{name} {kind} {version} {settings.model_dump_json()}")
    except _Wrong as error:
        raise ConfigError(f"{source.at(*path)}: {sort} {short(name)}: {error}") from None
    except PluginFault as error:
        raise ConfigError(f"{source.at(*path)}: {sort} {short(name)}: its settings cannot be read ({error})") from None


class _Wrong(CorrectionError):
    """Settings of a plugin are wrong; the text names them, never their values."""


def _settings(kind: Kind[Any], told: PluginEntry) -> BaseModel:
    try:
        return kind.settings.model_validate(told)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise _Wrong("; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found)) from None


@cache
def load(third_party: bool) -> PluginSet:
    """Every installed plugin, once in each process; without `third_party` only those of our own distribution."""
    hooks = pluggy.PluginManager(GROUP)
    hooks.add_hookspecs(api)
    entries = [entry for entry in installed() if third_party or _bundled(entry)]
    # Plugins of our own distribution come first: nobody can take their names.
    entries.sort(key=lambda entry: (not _bundled(entry), entry.name))
    found: list[Plugin] = []
    for entry in entries:
        found.append(_loaded(hooks, entry, found))
    for plugin in found:
        if plugin.fault:
            log.warning("plugin %s is left out: %s", plugin.name, plugin.fault)
    return PluginSet(tuple(found))


def installed() -> tuple[importlib.metadata.EntryPoint, ...]:
    """The entry points of all installed plugins, not loaded."""
    return tuple(importlib.metadata.entry_points(group=GROUP))


def distributions() -> set[str]:
    """Names of the distributions that installed plugins belong to."""
    return {entry.dist.name for entry in installed() if entry.dist is not None}


def third_party() -> list[str]:
    """Names of the installed plugins that are not of our own distribution."""
    return sorted(entry.name for entry in installed() if not _bundled(entry))


def _bundled(entry: importlib.metadata.EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == SYSTEMS


def _loaded(hooks: pluggy.PluginManager, entry: importlib.metadata.EntryPoint, known: Sequence[Plugin]) -> Plugin:
    """One plugin, with what it offers; with its fault where it cannot be used."""
    plugin = Plugin(entry.name, entry.dist.version if entry.dist else "?", not _bundled(entry), {})
    if entry.name in {other.name for other in known}:
        return replace(plugin, fault="another plugin has this name")
    try:
        with boundary():
            hooks.register(entry.load(), entry.name)
            hooks.check_pending()
            return _checked(_offered(hooks, plugin), known)
    except CorrectionError as error:
        if hooks.has_plugin(entry.name):
            hooks.unregister(name=entry.name)
        return replace(plugin, fault=str(error))


def _offered(hooks: pluggy.PluginManager, plugin: Plugin) -> Plugin:
    """The plugin with what its hooks return."""
    offers = {sort: tuple(_kinds(hooks, plugin.name, sort)) for sort in SORTS}
    extensions = tuple(extension for given in _returned(hooks, plugin.name, "extensions") for extension in given)
    return replace(plugin, offers=offers, extensions=extensions)


def _checked(plugin: Plugin, known: Sequence[Plugin]) -> Plugin:
    """The same plugin; raises `PluginFault` where it offers what another one offers, or an extension is none."""
    taken = {(sort, kind.name) for other in known for sort, kinds in other.offers.items() for kind in kinds}
    for sort, kinds in plugin.offers.items():
        for kind in kinds:
            if (sort, kind.name) in taken or kind.name == METAALIGNER:
                raise PluginFault(f"it offers {short(kind.name)}, which another plugin offers already")
    if not all(isinstance(extension, Extension) for extension in plugin.extensions):
        raise PluginFault("its hook extensions must return a list of plugins.api.Extension")
    _check_words(plugin, known)
    return plugin


def _check_words(plugin: Plugin, known: Sequence[Plugin]) -> None:
    """Raise `PluginFault` for a key or a selector word that is no proper name, or that somebody else has."""
    taken = {*Grants.model_fields, *Route.model_fields, *Tenant.model_fields, *RENAMED_KEYS}
    taken.update(word for other in known for extension in other.extensions for word in _words(extension))
    for word in (word for extension in plugin.extensions for word in _words(extension)):
        if not re.fullmatch(_WORD, word):
            raise PluginFault(f"it declares {short(word)}, which is no proper name of a key")
        if word in taken:
            raise PluginFault(f"it declares {short(word)}, which is declared already")
        taken.add(word)


def _words(extension: Extension) -> Iterator[str]:
    """Every word of the policies file that an extension declares."""
    for key in extension.keys:
        yield from (key.name, *key.deprecated)
    yield from (form.word for form in extension.selectors)


def _returned(hooks: pluggy.PluginManager, name: str, hook: str) -> Iterator[Sequence[Any]]:
    """What a plugin's implementation of a hook returns; raises `PluginFault` where that is no list."""
    for implementation in getattr(hooks.hook, hook).get_hookimpls():
        if implementation.plugin_name == name:
            returned = implementation.function()
            if not isinstance(returned, (list, tuple)):
                raise PluginFault(f"its hook {hook} must return a list")
            yield returned


def _kinds(hooks: pluggy.PluginManager, name: str, sort: str) -> Iterator[Kind[Any]]:
    for kinds in _returned(hooks, name, sort):
        yield from _proper(kinds, sort)


def _proper(kinds: Sequence[Any], sort: str) -> Sequence[Kind[Any]]:
    if not all(isinstance(kind, Kind) for kind in kinds):
        raise PluginFault(f"its hook {sort} must return a list of plugins.api.Kind")
    for kind in kinds:
        if not re.fullmatch(PLUGIN_NAME, str(kind.name)):
            raise PluginFault(f"its hook {sort} offers something without a proper name")
        if not (isinstance(kind.settings, type) and issubclass(kind.settings, BaseModel)):
            raise PluginFault(f"settings of {kind.name} must be a pydantic model")
        if KIND in kind.settings.model_fields:
            raise PluginFault(f"settings of {kind.name} must have no field called {KIND}")
    return kinds


def schema() -> dict[str, Any]:
    """The JSON schema of policies.yaml with the keys of the plugins that come with the gateway."""
    return config.schema(load(False).declarations)


class PluginRules:
    """The rules that a policies file names, made."""

    def __init__(self, rules: Mapping[str, GateCheck]) -> None:
        self._rules = rules
        self._apart = ThreadRunner("gate rules")

    @classmethod
    def of(cls, file: PolicyFile) -> PluginRules:
        """Those of a policies file; raises `ConfigError`."""
        return cls({one.name: one.make() for one in configured(file)["gate_rules"]})

    async def judge(self, original: str, correction: Correction, policy: Policy) -> Verdict:
        """The gate's verdict with the policy's further rules."""
        if correction.text == original:
            return judge(original, correction, policy)
        missing = set(policy.plugin_rules) - set(self._rules)
        if missing:
            raise PluginFault("a rule of a plugin counts after a restart")
        further = {name: _rule(self._rules[name]) for name in policy.plugin_rules}

        async def work() -> Verdict:
            return judge(original, correction, policy, further)

        return await self._apart.call(work)


def _rule(check: GateCheck) -> gate_judge.Rule:
    def rule(candidate: Candidate) -> bool:
        objectives = [objective.text for objective in candidate.objectives]
        return bool(check.breaks(candidate.before.text, candidate.after.text, objectives))

    return rule


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
