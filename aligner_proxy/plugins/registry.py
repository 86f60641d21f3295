"""Registry of the installed plugins: what each offers, and what a policies file uses.

Bundled plugins are loaded first, so that no other plugin can take their names. A plugin that cannot be loaded, or
offers something invalid, is left out completely, and the reason is logged. Plugin rules are additional rules of the
gate.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from aligner_proxy.errors import ConfigError, CorrectionError, MissingPlugin, PluginFault
from aligner_proxy.gate.edits import Candidate
from aligner_proxy.gate.judge import Verdict, judge
from aligner_proxy.gate.rules import Rule
from aligner_proxy.plugins import api
from aligner_proxy.plugins.api import GROUP, Endpoint, EndpointRefusal, Extension, GateCheck, Kind
from aligner_proxy.plugins.endpoint import Answering
from aligner_proxy.plugins.extensions import Boundary, Extensions, ExtensionWithRunner, InlineRunner, Runner
from aligner_proxy.plugins.isolation import ThreadRunner
from aligner_proxy.policy import config
from aligner_proxy.policy.plugin_keys import BUNDLED, RENAMED_KEYS, SERVERS_OF_PLUGINS, Declarations
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.schema import (
    KIND,
    Grants,
    PluginEntry,
    PolicyFile,
    Route,
    Tenant,
    corrector_names,
    plugin_kind,
    plugin_settings,
    rule_names,
)
from aligner_proxy.policy.shares import NAME
from aligner_proxy.policy.storage_schema import ServerAddress
from aligner_proxy.policy.yaml_file import KeyPath, YamlSource, quote_name, suggest_name
from aligner_proxy.types import METAALIGNER, Correction, Policy

log = logging.getLogger(__name__)

SORTS = ("correctors", "caches", "gate_rules", "audit_sinks", *SERVERS_OF_PLUGINS)
"""The hooks that return kinds, that is, factories of objects that a policies file names."""
_KEY_NAME = r"[a-z][a-z0-9_]{0,63}"
"""Matches a valid name of a key or selector in the policies file."""
_ENDPOINT_PATH = r"(/v1/|/v1/[a-z0-9_/-]*/)[a-z][a-z0-9_-]{0,63}"
"""Matches a valid path of an endpoint."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """An installed plugin with all that it offers. What it offers is sorted by hook: a sort is the name of a hook."""

    name: str
    version: str
    third_party: bool
    """Whether it comes in none of our own distributions."""
    distribution: str
    """Name of the distribution that it comes in."""
    offers: Mapping[str, tuple[Kind[Any], ...]]
    """The kinds that it offers, by sort."""
    extensions: tuple[Extension, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    fault: str | None = None
    """Why it cannot be used; None if it can."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A kind that a plugin offers, with the plugin."""

    kind: Kind[Any]
    plugin: Plugin


@dataclass(frozen=True, slots=True)
class ConfiguredPlugin:
    """A plugin object that a policies file configures, with checked settings."""

    name: str
    offer: Offer
    settings: BaseModel
    label: str
    """Name, kind, plugin, version and settings, for cache keys."""

    def make(self) -> Any:
        """Create the object; raises `ConfigError` if that fails."""
        try:
            with Boundary():
                return self.offer.kind.make(self.settings)
        except CorrectionError as error:
            raise ConfigError(f"plugin {self.offer.plugin.name}: {self.name} cannot be created ({error})") from None

    def make_runner(self) -> Runner:
        """Make the runner of the object's code: third-party code gets its own thread, since it may block the loop."""
        return ThreadRunner(self.name) if self.offer.plugin.third_party else InlineRunner()


@dataclass(frozen=True, slots=True)
class PluginEndpoint:
    """An endpoint of a plugin, ready to serve requests."""

    endpoint: Endpoint
    answering: Answering
    runner: Runner = field(default_factory=InlineRunner)

    async def call(self, body: BaseModel, caller: RequestFacts) -> BaseModel | EndpointRefusal:
        """Answer a request of this caller; raises only `CorrectionError` subclasses and `CancelledError`."""

        async def answer_request() -> BaseModel | EndpointRefusal:
            return await self.answering(body, caller)

        answer = await self.runner.call(answer_request)
        if not isinstance(answer, (self.endpoint.answer, EndpointRefusal)):
            raise PluginFault(f"the endpoint {self.endpoint.path} returned something other than its answer model")
        return answer


@dataclass(frozen=True)
class PluginSet:
    """All plugins of this process, and what they add to the policies file."""

    plugins: tuple[Plugin, ...]

    @cached_property
    def declarations(self) -> Declarations:
        """What the plugins add to the policies file: keys, selectors and correctors, and the usable distributions."""
        extensions = [extension for plugin in self.plugins for extension in plugin.extensions]
        return Declarations(
            tuple(key for extension in extensions for key in extension.keys),
            tuple(form for extension in extensions for form in extension.selectors),
            frozenset(self.offers("correctors")),
            frozenset(plugin.distribution for plugin in self.plugins if not plugin.fault),
        )

    def offers(self, sort: str) -> dict[str, Offer]:
        """The kinds of this sort that all plugins offer, by the name of the kind."""
        return {kind.name: Offer(kind, plugin) for plugin in self.plugins for kind in plugin.offers.get(sort, ())}


def load_policies(path: Path | str) -> PolicyFile:
    """Read and validate a policies file, with the keys of the installed plugins; raises `ConfigError`."""
    return config.load(path, _load_declarations)


def parse_policies(text: str, path: Path, *, with_files: bool = True) -> PolicyFile:
    """Validate the text of a policies file, which need not exist at `path` yet; raises `ConfigError`."""
    return config.parse(text, path, _load_declarations, with_files=with_files)


def _load_declarations(third_party: bool) -> Declarations:
    """What the installed plugins add to the policies file; `third_party` says whether third-party plugins count."""
    return load_plugins(third_party).declarations


def load_extensions(file: PolicyFile) -> Extensions:
    """The extensions of the installed plugins; each third-party plugin gets its own thread."""
    members: list[ExtensionWithRunner] = []
    for plugin in load_plugins(config.allows_third_party(file)).plugins:
        # our own plugins run in the gateway's loop
        runner = ThreadRunner(plugin.name) if plugin.third_party and plugin.extensions else None
        members += [ExtensionWithRunner(extension, runner) for extension in plugin.extensions]
    return Extensions(members)


def load_endpoints(file: PolicyFile) -> dict[str, PluginEndpoint]:
    """The endpoints of the installed plugins by path; raises `ConfigError` if one cannot be created."""
    return {
        endpoint.path: _make_endpoint(plugin, endpoint, file)
        for plugin in load_plugins(config.allows_third_party(file)).plugins
        for endpoint in plugin.endpoints
    }


def _make_endpoint(plugin: Plugin, endpoint: Endpoint, file: PolicyFile) -> PluginEndpoint:
    """Make an endpoint ready to serve; third-party code gets its own thread. Raises `ConfigError` if this fails."""
    try:
        with Boundary():
            answering = endpoint.make(file)
    except CorrectionError as error:
        raise ConfigError(f"plugin {plugin.name}: {endpoint.path} cannot be served ({error})") from None
    return PluginEndpoint(endpoint, answering, ThreadRunner(plugin.name) if plugin.third_party else InlineRunner())


def configure_plugins(file: PolicyFile) -> dict[str, tuple[ConfiguredPlugin, ...]]:
    """The plugin objects that this file configures, by sort; raises `ConfigError` for missing or wrong ones."""
    plugins = load_plugins(config.allows_third_party(file))
    _refuse_missing_servers(file, plugins)
    block = file.plugins
    correctors = corrector_names(file)
    rules = rule_names(file)
    if METAALIGNER in block.correctors:
        place = file.source.place_of("plugins", "correctors", METAALIGNER)
        raise ConfigError(f"{place}: {METAALIGNER} is the aligner on the engine; its settings are under aligner")
    # (name of the object, its entry in the file, path of the entry) by sort
    entries: dict[str, list[tuple[str, PluginEntry, KeyPath]]] = {
        # If a corrector of our own distributions is not installed, the gateway starts without it (config.py warns).
        "correctors": [
            (name, block.correctors.get(name, {}), path)
            for name, path in correctors.items()
            if plugin_kind(name, block.correctors.get(name, {})) not in plugins.declarations.missing_correctors
        ],
        "gate_rules": [(name, {}, path) for name, path in rules.items()],
        "audit_sinks": [(name, entry, ("plugins", "audit_sinks", name)) for name, entry in block.audit_sinks.items()],
        "caches": [("cache", block.cache, ("plugins", "cache"))] if block.cache is not None else [],
    }
    return {
        sort: tuple(_configure_plugin(file.source, plugins, sort, *entry) for entry in sort_entries)
        for sort, sort_entries in entries.items()
    }


def make_server(file: PolicyFile, sort: str, address: ServerAddress) -> Any:
    """Make the plugin object for a server that several hosts share (`SERVERS_OF_PLUGINS`); raises `ConfigError`."""
    plugins = load_plugins(config.allows_third_party(file))
    return _find_server_kind(plugins, sort, address.setting).make(address)


def _refuse_missing_servers(file: PolicyFile, plugins: PluginSet) -> None:
    """Raise `ConfigError` if the file names a server that no plugin can open; its data must not be kept locally."""
    if file.cache.redis_env:
        _find_server_kind(plugins, "shared_servers", config.server_setting(file, "cache", "redis_env"))
    if file.audit.enabled and file.audit.database_env:
        _find_server_kind(plugins, "audit_databases", config.server_setting(file, "audit", "database_env"))


def _find_server_kind(plugins: PluginSet, sort: str, setting: str) -> Kind[Any]:
    """The kind that opens the server that `setting` names; raises `ConfigError` if its plugin is missing or broken."""
    offer = next(iter(plugins.offers(sort).values()), None)
    if offer is not None:
        return offer.kind
    distribution = SERVERS_OF_PLUGINS[sort]
    if distribution not in plugin_distributions():
        raise MissingPlugin(distribution, setting)
    faults = "; ".join(f"{plugin.name}: {plugin.fault}" for plugin in plugins.plugins if plugin.fault)
    raise ConfigError(f"{setting} needs the plugin distribution {distribution}, which cannot be used ({faults})")


def _configure_plugin(
    source: YamlSource, plugins: PluginSet, sort: str, name: str, entry: PluginEntry, path: KeyPath
) -> ConfiguredPlugin:
    """The object that the entry at `path` of the policies file configures; raises `ConfigError` if it is wrong."""
    offers = plugins.offers(sort)
    kind_name = plugin_kind(name, entry)
    offer = offers.get(kind_name)
    if offer is None:
        valid_names = [METAALIGNER, *offers] if sort == "correctors" else list(offers)
        broken_plugins = [f"{plugin.name} ({plugin.fault})" for plugin in plugins.plugins if plugin.fault]
        broken_text = f"; plugins that could not be loaded: {', '.join(broken_plugins)}" if broken_plugins else ""
        hint = suggest_name(kind_name, valid_names) if valid_names else "no plugin offers any"
        raise ConfigError(
            f"{source.place_of(*path)}: no plugin offers {quote_name(kind_name)} among its {sort}; {hint}{broken_text}"
        )
    try:
        with Boundary():
            settings = _validate_settings(offer.kind, plugin_settings(entry))
            plugin_text = f"{offer.plugin.name} {offer.plugin.version}"
            label = f"{name} {kind_name} {plugin_text} {settings.model_dump_json()}"
            return ConfiguredPlugin(name, offer, settings, label)
    except _InvalidSettings as error:
        raise ConfigError(f"{source.place_of(*path)}: {sort} {quote_name(name)}: {error}") from None
    except PluginFault as error:
        raise ConfigError(
            f"{source.place_of(*path)}: {sort} {quote_name(name)}: its settings cannot be read ({error})"
        ) from None


class _InvalidSettings(CorrectionError):
    """Invalid settings of a plugin; the message names the settings, never their values."""


def _validate_settings(kind: Kind[Any], entry: PluginEntry) -> BaseModel:
    """Check the settings of an entry by the kind's model, and return them; raises `_InvalidSettings`."""
    try:
        return kind.settings.model_validate(entry)
    except ValidationError as error:
        # the input may be a secret, so the message must not repeat it
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        lines = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems)
        raise _InvalidSettings("; ".join(lines)) from None


@cache
def load_plugins(third_party: bool) -> PluginSet:
    """Load all installed plugins, once per process; without `third_party`, only those of our own distributions."""
    hooks = pluggy.PluginManager(GROUP)
    hooks.add_hookspecs(api)
    entries = [entry for entry in installed_plugins() if third_party or _is_bundled(entry)]
    # bundled ones first, so that their names are taken
    entries.sort(key=lambda entry: (not _is_bundled(entry), entry.name))
    plugins: list[Plugin] = []
    for entry in entries:
        plugin = _load_plugin(hooks, entry, plugins)
        plugins.append(plugin)
        if plugin.fault:
            log.warning("plugin %s is not used: %s", plugin.name, plugin.fault)
    return PluginSet(tuple(plugins))


def installed_plugins() -> tuple[importlib.metadata.EntryPoint, ...]:
    """The entry points of all installed plugins, not loaded."""
    return tuple(importlib.metadata.entry_points(group=GROUP))


def plugin_distributions() -> set[str]:
    """Names of the distributions that installed plugins belong to."""
    return {entry.dist.name for entry in installed_plugins() if entry.dist is not None}


def third_party_names() -> list[str]:
    """Names of the installed plugins that are not of our own distributions."""
    return sorted(entry.name for entry in installed_plugins() if not _is_bundled(entry))


def _is_bundled(entry: importlib.metadata.EntryPoint) -> bool:
    """Whether a plugin comes in one of our own distributions."""
    return entry.dist is not None and entry.dist.name in BUNDLED


def _load_plugin(
    hooks: pluggy.PluginManager, entry: importlib.metadata.EntryPoint, earlier: Sequence[Plugin]
) -> Plugin:
    """Load one plugin; return it with its offers, or with its fault. The names of `earlier` plugins are taken."""
    version = entry.dist.version if entry.dist else "?"
    distribution = entry.dist.name if entry.dist else ""
    plugin = Plugin(entry.name, version, not _is_bundled(entry), distribution, {})
    if entry.name in {other.name for other in earlier}:
        return replace(plugin, fault="another plugin has this name")
    try:
        with Boundary():
            hooks.register(entry.load(), entry.name)
            hooks.check_pending()
            return _check_plugin(_add_offers(hooks, plugin), earlier)
    except CorrectionError as error:
        # `check_pending` checks the hooks of all registered plugins, so this plugin would make all later ones fail
        if hooks.has_plugin(entry.name):
            hooks.unregister(name=entry.name)
        return replace(plugin, fault=str(error))


def _add_offers(hooks: pluggy.PluginManager, plugin: Plugin) -> Plugin:
    """The plugin with what its hooks return; raises `PluginFault` for anything invalid."""
    offers = {sort: tuple(_read_kinds(hooks, plugin.name, sort)) for sort in SORTS}
    extensions = tuple(chain.from_iterable(_hook_results(hooks, plugin.name, "extensions")))
    endpoints = tuple(chain.from_iterable(_hook_results(hooks, plugin.name, "endpoints")))
    return replace(plugin, offers=offers, extensions=extensions, endpoints=endpoints)


def _check_plugin(plugin: Plugin, earlier: Sequence[Plugin]) -> Plugin:
    """Return the plugin; raises `PluginFault` if an offer is invalid, or is taken by one of the `earlier` plugins."""
    offered_names = {(sort, kind.name) for other in earlier for sort, kinds in other.offers.items() for kind in kinds}
    for sort, kinds in plugin.offers.items():
        for kind in kinds:
            if (sort, kind.name) in offered_names or kind.name == METAALIGNER:
                raise PluginFault(f"it offers {quote_name(kind.name)}, which another plugin offers already")
    # shared servers are used in the gateway's loop, where foreign code could block everything
    if plugin.third_party and any(plugin.offers[sort] for sort in SERVERS_OF_PLUGINS):
        raise PluginFault("only plugins that come with the gateway may offer a server that hosts share")
    if not all(isinstance(extension, Extension) for extension in plugin.extensions):
        raise PluginFault("its hook extensions must return a list of aligner_proxy.plugins.api.Extension")
    _check_names(plugin, earlier)
    _check_endpoints(plugin, earlier)
    return plugin


def _check_endpoints(plugin: Plugin, earlier: Sequence[Plugin]) -> None:
    """Raise `PluginFault` if the path of an endpoint is invalid, or taken by another endpoint."""
    paths = {endpoint.path for other in earlier for endpoint in other.endpoints}
    for endpoint in plugin.endpoints:
        if not isinstance(endpoint, Endpoint):
            raise PluginFault("its hook endpoints must return a list of aligner_proxy.plugins.api.Endpoint")
        if not re.fullmatch(_ENDPOINT_PATH, endpoint.path):
            raise PluginFault(f"its endpoint {quote_name(endpoint.path)} has no valid path below /v1/")
        if endpoint.path in paths:
            raise PluginFault(f"its endpoint {quote_name(endpoint.path)} is already taken")
        paths.add(endpoint.path)


def _check_names(plugin: Plugin, earlier: Sequence[Plugin]) -> None:
    """Raise `PluginFault` if a name that the plugin declares in the policies file is invalid, or taken."""
    # a plugin's key must not hide one of the gateway's own, even under its former name
    declared_names = {*Grants.model_fields, *Route.model_fields, *Tenant.model_fields, *RENAMED_KEYS}
    declared_names.update(
        name for other in earlier for extension in other.extensions for name in _declared_names(extension)
    )
    for name in (name for extension in plugin.extensions for name in _declared_names(extension)):
        if not re.fullmatch(_KEY_NAME, name):
            raise PluginFault(f"it declares {quote_name(name)}, which is not a valid name of a key")
        if name in declared_names:
            raise PluginFault(f"it declares {quote_name(name)}, which is already declared")
        declared_names.add(name)


def _declared_names(extension: Extension) -> Iterator[str]:
    """Yield the names of the keys and selectors that an extension declares, former names included."""
    for key in extension.keys:
        yield from (key.name, *key.deprecated)
    yield from (form.word for form in extension.selectors)


def _hook_results(hooks: pluggy.PluginManager, name: str, hook: str) -> Iterator[Sequence[Any]]:
    """Call the plugin's implementations of a hook and yield their lists; raises `PluginFault` for anything else."""
    for implementation in getattr(hooks.hook, hook).get_hookimpls():
        if implementation.plugin_name == name:
            returned = implementation.function()
            if not isinstance(returned, (list, tuple)):
                raise PluginFault(f"its hook {hook} must return a list")
            yield returned


def _read_kinds(hooks: pluggy.PluginManager, name: str, sort: str) -> Iterator[Kind[Any]]:
    """Yield the kinds that a hook of a plugin returns; raises `PluginFault` if a kind has no valid name or settings."""
    for kind in chain.from_iterable(_hook_results(hooks, name, sort)):
        if not isinstance(kind, Kind):
            raise PluginFault(f"its hook {sort} must return a list of aligner_proxy.plugins.api.Kind")
        if not re.fullmatch(NAME, str(kind.name)):
            raise PluginFault(f"its hook {sort} offers something without a valid name")
        if not (isinstance(kind.settings, type) and issubclass(kind.settings, BaseModel)):
            raise PluginFault(f"settings of {kind.name} must be a pydantic model")
        if KIND in kind.settings.model_fields:
            raise PluginFault(f"settings of {kind.name} must have no field called {KIND}")
        yield kind


def schema() -> dict[str, Any]:
    """The JSON schema of policies.yaml with the keys of the bundled plugins."""
    return config.schema(load_plugins(False).declarations)


class PluginRules:
    """The gate with the rules of plugins, by the names that policies give in `plugin_rules`."""

    def __init__(self, checks: Mapping[str, GateCheck]) -> None:
        self._checks = checks
        self._runner = ThreadRunner("gate rules")

    @classmethod
    def from_file(cls, file: PolicyFile) -> PluginRules:
        """Make the rules that a policies file names; raises `ConfigError`."""
        return cls({rule.name: rule.make() for rule in configure_plugins(file)["gate_rules"]})

    async def judge(self, original: str, correction: Correction, policy: Policy) -> Verdict:
        """The gate's verdict, including the plugin rules of the policy; raises `PluginFault` if one is not loaded."""
        # without an edit, there is nothing that a plugin's rule could refuse
        if correction.text == original:
            return judge(original, correction, policy)
        missing_names = set(policy.plugin_rules) - set(self._checks)
        if missing_names:
            raise PluginFault("a plugin rule of the policy is not loaded; restart the gateway to load it")
        plugin_rules = {name: _adapt_check(self._checks[name]) for name in policy.plugin_rules}

        async def judge_with_plugin_rules() -> Verdict:
            return judge(original, correction, policy, plugin_rules)

        return await self._runner.call(judge_with_plugin_rules)


def _adapt_check(check: GateCheck) -> Rule:
    """Return a rule of the gate that asks a plugin's check."""

    def breaks(candidate: Candidate) -> bool:
        objectives = [objective.text for objective in candidate.objectives]
        return bool(check.breaks(candidate.before.text, candidate.after.text, objectives))

    return breaks


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
