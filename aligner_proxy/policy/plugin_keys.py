"""Keys and selector forms that plugins add to policies.yaml, and what their older names are.

A plugin declares them (`Extension.keys`, `Extension.selectors`); the models of the policies file are made from the
declarations (policy_file.py). The keys of the distribution that belongs to the gateway are known here by name, so that
a file that uses one says what to install where it is missing, and the gateway starts all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict

SYSTEMS = "aligner-proxy-systems"
"""The distribution of plugins that belongs to the gateway (plugins/aligner_proxy_systems)."""


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
    """True: stands only with tenants and in team and key metadata; otherwise wherever settings stand."""
    deprecated: tuple[str, ...] = ()
    """Older names, accepted with a warning."""


class NoOptions(BaseModel):
    """For a selector form with nothing to set."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class SelectorForm:
    """`objectives: WORD` or `objectives: {WORD: [names], ...options}` in place of a list: a plugin chooses among them.

    The word alone means every objective of the file, in its order.
    """

    word: str
    about: str
    """Its description in the JSON schema."""
    options: type[BaseModel] = NoOptions
    """What may stand beside the word; each option needs a default."""


KEYS_OF_PLUGINS: Mapping[str, str] = MappingProxyType(
    {"best_of": SYSTEMS, "drafts": SYSTEMS, "preferences": SYSTEMS, "allow_preferences": SYSTEMS}
)
_GRANTS_OF_PLUGINS = frozenset({"allow_preferences"})
SELECTORS_OF_PLUGINS: Mapping[str, str] = MappingProxyType({"auto": SYSTEMS})
CORRECTORS_OF_PLUGINS: Mapping[str, str] = MappingProxyType(
    {"self_refine": SYSTEMS, "aligner": SYSTEMS, "stream_aligner": SYSTEMS}
)
"""Name -> the distribution that offers it: what a policies file may use although no installed plugin offers it."""

RENAMED_KEYS: Mapping[str, str] = MappingProxyType({"trail": "debug_trailer"})
RENAMED_VALUES: Mapping[tuple[str, str], str] = MappingProxyType({("stream", "live"): "passthrough"})
"""Words of the policies file that had another name; the old one is accepted with a warning until 1.0."""


class AnyOptions(BaseModel):
    """Of a selector form whose plugin is not installed: whatever stands there has no effect."""

    model_config = ConfigDict(extra="allow", frozen=True)


@dataclass(frozen=True, eq=False)
class Declarations:
    """What the installed plugins declare, and what the plugins declare that are known but not installed."""

    keys: tuple[PolicyKey, ...] = ()
    selectors: tuple[SelectorForm, ...] = ()
    correctors: frozenset[str] = frozenset()
    """Kinds of correctors that are offered."""

    @cached_property
    def missing_correctors(self) -> Mapping[str, str]:
        """Known correctors that nobody offers -> the distribution that would."""
        return {kind: owner for kind, owner in CORRECTORS_OF_PLUGINS.items() if kind not in self.correctors}

    @cached_property
    def missing_keys(self) -> Mapping[str, str]:
        """Known keys that nobody declares -> the distribution that would."""
        declared = {name for key in self.keys for name in (key.name, *key.deprecated)}
        return {name: owner for name, owner in KEYS_OF_PLUGINS.items() if name not in declared}

    @cached_property
    def missing_selectors(self) -> Mapping[str, str]:
        """Known selector words that nobody declares -> the distribution that would."""
        declared = {form.word for form in self.selectors}
        return {word: owner for word, owner in SELECTORS_OF_PLUGINS.items() if word not in declared}

    @cached_property
    def all_keys(self) -> tuple[PolicyKey, ...]:
        """The declared keys, and one that accepts anything for each that is missing."""
        missing = (
            PolicyKey(name, Any, None, f"Needs the plugins of {owner}.", grant=name in _GRANTS_OF_PLUGINS)
            for name, owner in self.missing_keys.items()
        )
        return (*self.keys, *missing)

    @cached_property
    def all_selectors(self) -> tuple[SelectorForm, ...]:
        """The declared forms, and one that accepts any options for each that is missing."""
        missing = (
            SelectorForm(word, f"Needs the plugins of {owner}.", AnyOptions)
            for word, owner in self.missing_selectors.items()
        )
        return (*self.selectors, *missing)

    @cached_property
    def renamed(self) -> Mapping[str, str]:
        """Old names of keys -> the names of today."""
        return {**RENAMED_KEYS, **{old: key.name for key in self.keys for old in key.deprecated}}


NO_DECLARATIONS = Declarations()


@dataclass(frozen=True, slots=True)
class Renamed:
    """An old word of the policies file that was read as today's."""

    key: str
    """The key as it is written."""
    new_key: str
    old: str
    new: str
    """What is called differently today: the key, or its value."""


def in_todays_words(block: Mapping[str, Any], renamed: Mapping[str, str]) -> tuple[dict[str, Any], list[Renamed]]:
    """A block of settings with today's words, and what was called differently.

    Where a key stands under both names the old one stays, as a key that nobody knows.
    """
    today: dict[str, Any] = {}
    changes: list[Renamed] = []
    for key, value in block.items():
        new_key = renamed.get(key, key)
        if new_key != key and new_key not in block:
            changes.append(Renamed(key, new_key, key, new_key))
        else:
            new_key = key
        new = RENAMED_VALUES.get((new_key, value)) if isinstance(value, str) else None
        if new is not None:
            changes.append(Renamed(key, new_key, f"{new_key}: {value}", f"{new_key}: {new}"))
        today[new_key] = value if new is None else new
    return today, changes
