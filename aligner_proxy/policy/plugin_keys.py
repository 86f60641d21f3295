"""Keys and selector forms that plugins add to policies.yaml, and their deprecated names.

A plugin declares them (`Extension.keys`, `Extension.selectors`); schema.py builds the models of the policies file from
the declarations. This module lists the keys of the bundled distributions. So if a file uses such a key and the
distribution is not installed, the gateway warns with the package to install, and still starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

SYSTEMS = "aligner-proxy-systems"
"""The bundled distribution of research systems (plugins/aligner_proxy_systems)."""
FLEET = "aligner-proxy-fleet"
"""The distribution that shares state between hosts (plugins/fleet)."""
GROUNDING = "aligner-proxy-grounding"
"""The distribution that checks answers against references (plugins/grounding)."""
REVIEW = "aligner-proxy-review"
"""The distribution of reviews and the console (plugins/review)."""
BUNDLED = frozenset({SYSTEMS, FLEET, GROUNDING, REVIEW})
"""Our own distributions, whose plugins are trusted to run in the gateway's event loop."""


@dataclass(frozen=True, slots=True)
class PolicyKey:
    """A key that a plugin adds to the policies file."""

    name: str
    type: Any
    """The pydantic-annotated type of its value."""
    default: Any
    about: str
    """Its description in the JSON schema."""
    grant: bool = False
    """True: allowed only for tenants and in team and key metadata; False: allowed wherever settings are."""
    deprecated: tuple[str, ...] = ()
    """Older names of the key, accepted with a warning."""


class NoOptions(BaseModel):
    """The options of a selector form that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class SelectorForm:
    """The form `objectives: WORD` or `objectives: {WORD: [names], ...options}`, with which a plugin chooses objectives.

    The word alone means every objective of the file, in the order of the file.
    """

    word: str
    about: str
    """Its description in the JSON schema."""
    options: type[BaseModel] = NoOptions
    """The model of the other keys in the block; each option needs a default."""


KEYS_OF_PLUGINS: Mapping[str, str] = {
    **dict.fromkeys(("best_of", "drafts", "preferences", "allow_preferences"), SYSTEMS),
    **dict.fromkeys(("references", "replace_facts_from", "allow_references"), GROUNDING),
}
_GRANTS_OF_PLUGINS = frozenset({"allow_preferences", "allow_references"})
SELECTORS_OF_PLUGINS: Mapping[str, str] = {"auto": SYSTEMS}
CORRECTORS_OF_PLUGINS: Mapping[str, str] = dict.fromkeys(("self_refine", "aligner", "stream_aligner"), SYSTEMS)
"""Corrector -> the distribution that offers it; a policies file may name it even without the plugin."""
SETTINGS_OF_PLUGINS: Mapping[tuple[str, str], str] = {("audit", "feedback_rpm"): REVIEW}
"""Block and key of the policies file -> the distribution without which the key has no effect."""
COMMANDS_OF_PLUGINS: Mapping[str, str] = dict.fromkeys(
    ("replay", "review", "export", "compare", "console", "promote"), REVIEW
)
"""Command of `aligner-proxy` -> the distribution that provides it."""
COMPANIONS_OF_PLUGINS: Mapping[str, str] = {"console": REVIEW}
"""Flag of `serve`, without its dashes -> the distribution that provides it."""


def missing_plugin_text(feature: str, owner: str) -> str:
    """The message for a feature whose plugin distribution is not installed."""
    return f"{feature} needs the plugin distribution {owner}, which is not installed; pip install {owner}"


SERVERS_OF_PLUGINS: Mapping[str, str] = {"shared_servers": FLEET, "audit_databases": FLEET}
"""Plugin hook -> the distribution that offers it; a policies file that needs such a server is refused without it."""

RENAMED_KEYS: Mapping[str, str] = {"trail": "debug_trailer"}
RENAMED_VALUES: Mapping[tuple[str, str], str] = {("stream", "live"): "passthrough"}
"""Deprecated keys and values of the policies file, accepted with a warning until 1.0."""


class AnyOptions(BaseModel):
    """Options of a selector form whose plugin is not installed; any are accepted, and have no effect."""

    model_config = ConfigDict(extra="allow", frozen=True)


@dataclass(frozen=True, eq=False)
class Declarations:
    """The declarations of installed plugins, completed by stand-ins for known plugins that are not installed."""

    keys: tuple[PolicyKey, ...] = ()
    selectors: tuple[SelectorForm, ...] = ()
    correctors: frozenset[str] = frozenset()
    """Kinds of correctors that installed plugins offer."""
    distributions: frozenset[str] = frozenset()
    """Distributions whose plugins are installed."""

    @cached_property
    def grants(self) -> tuple[PolicyKey, ...]:
        """The declared keys that give rights, allowed only for tenants and in metadata."""
        return tuple(key for key in self.keys if key.grant)

    @cached_property
    def missing_correctors(self) -> Mapping[str, str]:
        """Kinds of known correctors whose plugin is not installed -> the distribution that offers them."""
        return {kind: owner for kind, owner in CORRECTORS_OF_PLUGINS.items() if kind not in self.correctors}

    @cached_property
    def missing_settings(self) -> Mapping[tuple[str, str], str]:
        """Block and key of settings without effect -> the missing distribution, whose plugin would read them."""
        return {path: owner for path, owner in SETTINGS_OF_PLUGINS.items() if owner not in self.distributions}

    @cached_property
    def missing_keys(self) -> Mapping[str, str]:
        """Names of known keys whose plugin is not installed -> the distribution that declares them."""
        declared_names = {name for key in self.keys for name in (key.name, *key.deprecated)}
        return {name: owner for name, owner in KEYS_OF_PLUGINS.items() if name not in declared_names}

    @cached_property
    def missing_selectors(self) -> Mapping[str, str]:
        """Words of known selectors whose plugin is not installed -> the distribution that declares them."""
        declared_words = {form.word for form in self.selectors}
        return {word: owner for word, owner in SELECTORS_OF_PLUGINS.items() if word not in declared_words}

    @cached_property
    def all_keys(self) -> tuple[PolicyKey, ...]:
        """The declared keys, and for each key of a missing plugin a stand-in that accepts any value."""
        stand_ins = (
            PolicyKey(
                name, type=Any, default=None, about=f"Needs the plugins of {owner}.", grant=name in _GRANTS_OF_PLUGINS
            )
            for name, owner in self.missing_keys.items()
        )
        return (*self.keys, *stand_ins)

    @cached_property
    def all_selectors(self) -> tuple[SelectorForm, ...]:
        """The declared selector forms, and for each form of a missing plugin a stand-in that accepts any options."""
        stand_ins = (
            SelectorForm(word, about=f"Needs the plugins of {owner}.", options=AnyOptions)
            for word, owner in self.missing_selectors.items()
        )
        return (*self.selectors, *stand_ins)

    @cached_property
    def current_names(self) -> Mapping[str, str]:
        """Deprecated names of keys, the gateway's own and those of plugins -> current names."""
        plugin_names = {old_name: key.name for key in self.keys for old_name in key.deprecated}
        return {**RENAMED_KEYS, **plugin_names}


NO_DECLARATIONS = Declarations()


@dataclass(frozen=True, slots=True)
class DeprecatedName:
    """A deprecated name in the policies file or in metadata; its text is the advice for the operator."""

    key: str
    """The key as written."""
    new_key: str
    old: str
    new: str
    """The current name: a key, or `key: value`."""

    def __str__(self) -> str:
        return f"write {self.new} in place of {self.old}, which is accepted until 1.0"


def rename_deprecated(
    block: Mapping[str, Any], new_names: Mapping[str, str]
) -> tuple[dict[str, Any], list[DeprecatedName]]:
    """Return the block with current names of keys and values, and the changes.

    `new_names` are the current names of keys by their deprecated ones. If a key is present under both names, the old
    one is kept, so that it is refused as unknown later.
    """
    renamed_block: dict[str, Any] = {}
    changes: list[DeprecatedName] = []
    for key, value in block.items():
        new_key = new_names.get(key, key)
        if new_key != key and new_key not in block:
            changes.append(DeprecatedName(key, new_key, old=key, new=new_key))
        else:
            new_key = key
        new_value = RENAMED_VALUES.get((new_key, value)) if isinstance(value, str) else None
        if new_value is not None:
            old_setting = f"{new_key}: {value}"
            changes.append(DeprecatedName(key, new_key, old=old_setting, new=f"{new_key}: {new_value}"))
        renamed_block[new_key] = value if new_value is None else new_value
    return renamed_block, changes
