"""Layers of a policy: sources of settings (blocks of the policies file, metadata of teams and keys) that are merged.

Metadata may name only what the policies file loads. An operator's mistake in metadata is ignored and logged once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from aligner_proxy.policy.plugin_keys import rename_deprecated
from aligner_proxy.policy.plugin_schema import grants_model
from aligner_proxy.policy.schema import Grants, PolicyFile, PolicySettings, corrector_names, rule_names
from aligner_proxy.policy.strictness import takes_away
from aligner_proxy.policy.yaml_file import KeyPath, YamlSource
from aligner_proxy.types import METAALIGNER, Objective, Requirement

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of settings; `path` is the key path of its block in the policies file, None for metadata."""

    values: PolicySettings
    label: str
    """What the source is called in origins: "route chat", "key metadata"."""
    path: KeyPath | None = None
    name: str = ""
    """Name of the route or tenant; for metadata, the tenant and the label, for log lines."""
    is_key_metadata: bool = False
    """Whether these are a key's metadata: a quota is then the key's, not the team's."""
    trusted: bool = True
    """Whether the layer may loosen a policy; if not, only its stricter settings count."""

    def origin(self, source: YamlSource, *key: str | int) -> str:
        """Return where `key` of this layer is set, as text for operators: file and line, or the metadata."""
        return self.label if self.path is None else f"{source.place_of(*self.path, *key)} ({self.label})"


class MetadataReader:
    """Reader of the settings in the metadata of teams and keys; these may name only what the policies file loads.
    A grant is a setting that gives a tenant a right or takes a right away, such as `allow` and `deny`. `configured` are
    the objectives, by name, that metadata may name, and `source` names the metadata in log lines.
    """

    def __init__(self, policy_file: PolicyFile) -> None:
        self._file = policy_file
        self._grants_model = grants_model(policy_file.declarations)
        """The pydantic model that validates metadata: settings and grants, with the keys of plugins."""
        self._correctors = {METAALIGNER, *corrector_names(policy_file)}
        self._rules = frozenset(rule_names(policy_file))
        """The plugin rules that the file loads."""

    def layers(
        self, namespace: str, team_settings: object, key_settings: object, configured: Mapping[str, Objective]
    ) -> list[Layer]:
        """Return the layers of a tenant's team metadata and key metadata, in this order; None has no layer.

        The settings are not validated yet. `namespace` identifies the tenant in log lines, and `configured` has the
        objectives that the tenant may name. A layer that the file does not trust has no grants that give rights.
        """
        layers = []
        trust = self._file.trust
        if team_settings is not None:
            layers.append(self._make_layer(team_settings, "team metadata", namespace, trust.team_metadata, configured))
        if key_settings is not None:
            layers.append(self._make_layer(key_settings, "key metadata", namespace, trust.key_metadata, configured))
        return layers

    def _make_layer(
        self, raw: object, label: str, namespace: str, trusted: bool, configured: Mapping[str, Objective]
    ) -> Layer:
        """Return the layer of one metadata; if it is not trusted, grants that give rights are logged and left out."""
        source = f"{namespace}: {label}"
        values = self._parse_grants(raw, source, configured)
        if not trusted:
            names = [name for name in self._grant_names() if getattr(values, name) is not None]
            # `allow` stays, because an untrusted list can only shorten the list before it (`_allowed_objectives`).
            ignored_names = [name for name in names if name != "allow" and not takes_away(name, getattr(values, name))]
            for name in ignored_names:
                warn_not_trusted(source, name)
            values = values.model_copy(update=dict.fromkeys(ignored_names))
        return Layer(values, label, name=source, is_key_metadata=label == "key metadata", trusted=trusted)

    def _grant_names(self) -> Iterator[str]:
        yield from (name for name in Grants.model_fields if name not in PolicySettings.model_fields)
        yield from (key.name for key in self._file.declarations.grants)

    def _parse_grants(self, raw: object, source: str, configured: Mapping[str, Objective]) -> Grants:
        """Return the valid settings and grants of metadata; logs a warning for each invalid or deprecated one."""
        if not isinstance(raw, Mapping):
            _warn_invalid(source, "aligner")
            return self._grants_model()
        raw_by_key = {str(key): value for key, value in raw.items()}
        current, changes = rename_deprecated(raw_by_key, self._file.declarations.current_names)
        for change in changes:
            _warn(source, str(change))
        return self._grants_model.model_validate(dict(self._valid_settings(current, source, configured)))

    def _valid_settings(
        self, raw: Mapping[str, Any], source: str, configured: Mapping[str, Objective]
    ) -> Iterator[tuple[str, Any]]:
        """Yield name and parsed value of each valid setting; invalid ones, and unknown objectives, are logged."""
        for key, value in raw.items():
            try:
                # Each setting is validated alone, so that a wrong one does not affect the others.
                parsed = getattr(self._grants_model.model_validate({key: value}), key)
            except ValidationError:
                _warn_invalid(source, key if key in self._grants_model.model_fields else "(unknown)")
                continue
            if not self._is_loaded(key, parsed):
                _warn_invalid(source, key)
                continue
            if key in ("enforce", "allow", "deny"):
                known_names = tuple(name for name in parsed if name in configured or (name == "*" and key == "allow"))
                if known_names != parsed:
                    _warn_invalid(source, key)
                parsed = known_names
            yield key, parsed

    def _is_loaded(self, key: str, value: Any) -> bool:
        """Whether the corrector, rules or files that this setting of metadata names are loaded.

        They are loaded only if the policies file names them, too. True for a setting that names nothing of this kind.
        """
        if key == "corrector":
            return value in self._correctors
        if isinstance(value, Requirement):
            return self._file.file_texts.get(key, {}).keys() >= set(value.file_names)
        return key != "plugin_rules" or self._rules.issuperset(value or ())


def _warn_invalid(source: str, key: str) -> None:
    _warn(source, f"ignoring setting {key}: not valid here")


def warn_not_trusted(source: str, key: str) -> None:
    """Log that a setting of metadata is ignored because it would loosen the policy and the file does not trust it."""
    trust_key = "team_metadata" if source.endswith("team metadata") else "key_metadata"
    _warn(source, f"ignoring setting {key}: it would loosen the policy, and trust.{trust_key} is false")


@lru_cache(maxsize=1024)
def _warn(source: str, problem: str) -> None:
    """Log a warning; thanks to the cache, each one is logged once and not with every request."""
    log.warning("%s: %s", source, problem)
