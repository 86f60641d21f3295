"""Which plugins are there, what does each offer, and does a policies file ask for anything that is not there?

Plugins of our own use the same hooks as those of others, and come first: nobody can take their names. A plugin that
cannot be loaded, or offers something that is none of the four kinds of thing, is left out whole, and says why.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from aligner_proxy import config, hookspecs
from aligner_proxy.apart import boundary
from aligner_proxy.errors import ConfigError, CorrectionError, PluginFault
from aligner_proxy.hookspecs import GROUP, Kind
from aligner_proxy.plugin_setting import KIND, PLUGIN_NAME, Told, corrector_names, kind_of, own_settings, rule_names
from aligner_proxy.policy_file import PolicyFile
from aligner_proxy.provenance import KeyPath, Source, nearest, short
from aligner_proxy.types import METAALIGNER

log = logging.getLogger(__name__)

SORTS = ("correctors", "caches", "gate_rules", "audit_sinks")
"""The hooks."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin: who made it, what it offers by sort, and what is wrong with it."""

    name: str
    version: str
    third_party: bool
    offers: Mapping[str, tuple[Kind[Any], ...]]
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """One thing that can be made, and whose it is."""

    kind: Kind[Any]
    plugin: Plugin


@dataclass(frozen=True, slots=True)
class Wanted:
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


@dataclass(frozen=True, slots=True)
class Plugged:
    """All plugins of this process."""

    plugins: tuple[Plugin, ...]

    def offers(self, sort: str) -> dict[str, Offer]:
        """What is offered of one sort, by name."""
        return {kind.name: Offer(kind, plugin) for plugin in self.plugins for kind in plugin.offers.get(sort, ())}


def wanted(file: PolicyFile) -> dict[str, tuple[Wanted, ...]]:
    """What this file wants made, by sort; raises `ConfigError` for what is not there or is set wrongly."""
    there, told = load(config.third_party_plugins(file)), file.plugins
    correctors, rules = corrector_names(file), rule_names(file)
    if METAALIGNER in told.correctors:
        place = file.source.at("plugins", "correctors", METAALIGNER)
        raise ConfigError(f"{place}: {METAALIGNER} is the aligner on the engine; its settings stand under aligner")
    asked: dict[str, list[tuple[str, Told, KeyPath]]] = {
        "correctors": [(name, told.correctors.get(name, {}), path) for name, path in correctors.items()],
        "gate_rules": [(name, {}, path) for name, path in rules.items()],
        "audit_sinks": [(name, own, ("plugins", "audit_sinks", name)) for name, own in told.audit_sinks.items()],
        "caches": [("cache", told.cache, ("plugins", "cache"))] if told.cache is not None else [],
    }
    return {sort: tuple(_wanted(file.source, there, sort, *one) for one in each) for sort, each in asked.items()}


def _wanted(source: Source, there: Plugged, sort: str, name: str, told: Told, path: KeyPath) -> Wanted:
    offers, kind = there.offers(sort), kind_of(name, told)
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
            return Wanted(name, offer, settings, f"{name} {kind} {version} {settings.model_dump_json()}")
    except _Wrong as error:
        raise ConfigError(f"{source.at(*path)}: {sort} {short(name)}: {error}") from None
    except PluginFault as error:
        raise ConfigError(f"{source.at(*path)}: {sort} {short(name)}: its settings cannot be read ({error})") from None


class _Wrong(CorrectionError):
    """Settings of a plugin are wrong; the text names them, never their values."""


def _settings(kind: Kind[Any], told: Told) -> BaseModel:
    try:
        return kind.settings.model_validate(told)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise _Wrong("; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found)) from None


@cache
def load(third_party: bool) -> Plugged:
    """Every plugin there is, once in each process."""
    from aligner_proxy import pku, self_refine, stream_aligner  # they are plugins, and know this room's neighbours

    hooks = pluggy.PluginManager(GROUP)
    hooks.add_hookspecs(hookspecs)
    version = _version()
    ours = {"aligner": pku, "self_refine": self_refine, "stream_aligner": stream_aligner}
    for name, module in ours.items():
        hooks.register(module, name)
    found = [_offered(hooks, Plugin(name, version, False, {}), {}) for name in ours]
    for entry in sorted(installed(), key=lambda one: one.name) if third_party else ():
        taken = {(sort, kind.name) for plugin in found for sort, kinds in plugin.offers.items() for kind in kinds}
        found.append(_loaded(hooks, entry, taken, {plugin.name for plugin in found}))
    for plugin in found:
        if plugin.fault:
            log.warning("plugin %s is left out: %s", plugin.name, plugin.fault)
    return Plugged(tuple(found))


def installed() -> tuple[importlib.metadata.EntryPoint, ...]:
    """The plugins of others, not loaded."""
    return tuple(importlib.metadata.entry_points(group=GROUP))


def _loaded(
    hooks: pluggy.PluginManager, entry: importlib.metadata.EntryPoint, taken: set[tuple[str, str]], names: set[str]
) -> Plugin:
    """One plugin of others."""
    plugin = Plugin(entry.name, entry.dist.version if entry.dist else "?", True, {})
    if entry.name in names:
        return replace(plugin, fault="another plugin has this name")
    try:
        with boundary():
            hooks.register(entry.load(), entry.name)
            hooks.check_pending()
            return _offered(hooks, plugin, dict.fromkeys(taken))
    except CorrectionError as error:
        if hooks.has_plugin(entry.name):
            hooks.unregister(name=entry.name)
        return replace(plugin, fault=str(error))


def _offered(hooks: pluggy.PluginManager, plugin: Plugin, taken: Mapping[tuple[str, str], None]) -> Plugin:
    offers = {sort: tuple(_kinds(hooks, plugin.name, sort)) for sort in SORTS}
    for sort, kinds in offers.items():
        for kind in kinds:
            if (sort, kind.name) in taken or kind.name == METAALIGNER:
                raise PluginFault(f"it offers {short(kind.name)}, which another plugin offers already")
    return replace(plugin, offers=offers)


def _kinds(hooks: pluggy.PluginManager, name: str, sort: str) -> Iterator[Kind[Any]]:
    for hook in getattr(hooks.hook, sort).get_hookimpls():
        if hook.plugin_name == name:
            yield from _checked(hook.function(), sort)


def _checked(told: object, sort: str) -> Sequence[Kind[Any]]:
    kinds = list(told) if isinstance(told, (list, tuple)) else None
    if kinds is None or not all(isinstance(kind, Kind) for kind in kinds):
        raise PluginFault(f"its hook {sort} must return a list of hookspecs.Kind")
    for kind in kinds:
        if not re.fullmatch(PLUGIN_NAME, str(kind.name)):
            raise PluginFault(f"its hook {sort} offers something without a proper name")
        if not (isinstance(kind.settings, type) and issubclass(kind.settings, BaseModel)):
            raise PluginFault(f"settings of {kind.name} must be a pydantic model")
        if KIND in kind.settings.model_fields:
            raise PluginFault(f"settings of {kind.name} must have no field called {KIND}")
    return kinds


def _version() -> str:
    from aligner_proxy import __version__

    return __version__
