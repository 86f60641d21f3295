"""Settings in the metadata of teams and keys, as layers of a policy.

They may name only what the policies file loads. An operator's mistake in them is ignored and logged once.
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
_OBJECTIVE_LISTS = ("enforce", "allow", "deny")


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of settings; `path` is its key path in the policies file, None for metadata."""

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
        """A description for operators of where `key` is set: file and line, or the metadata."""
        return self.label if self.path is None else f"{source.place_of(*self.path, *key)} ({self.label})"


class MetadataReader:
    """Reads the settings in the metadata of teams and keys; these may name only what the policies file loads."""

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
        """The layers of team and key metadata; untrusted ones keep only grants that take rights away."""
        metadata = (
            ("team metadata", team_settings, self._file.trust.team_metadata),
            ("key metadata", key_settings, self._file.trust.key_metadata),
        )
        return [
            self._make_layer(raw, label, f"{namespace}: {label}", trusted, configured)
            for label, raw, trusted in metadata
            if raw is not None
        ]

    def _make_layer(
        self, raw: object, label: str, source: str, trusted: bool, configured: Mapping[str, Objective]
    ) -> Layer:
        """The layer of one metadata; if it is not trusted, grants that would give rights are dropped and logged."""
        values = self._parse_grants(raw, source, configured)
        if not trusted:
            # `allow` stays even if not trusted: it can shorten the list before it, see `_allowed_objectives`.
            set_names = [name for name in self._grant_names() if getattr(values, name) is not None and name != "allow"]
            ignored = [name for name in set_names if not takes_away(name, getattr(values, name))]
            for name in ignored:
                warn_not_trusted(source, name)
            values = values.model_copy(update=dict.fromkeys(ignored))
        return Layer(values, label, name=source, is_key_metadata=label == "key metadata", trusted=trusted)

    def _grant_names(self) -> Iterator[str]:
        """The keys that are grants, including those of plugins."""
        yield from (name for name in Grants.model_fields if name not in PolicySettings.model_fields)
        yield from (key.name for key in self._file.declarations.grants)

    def _parse_grants(self, raw: object, source: str, configured: Mapping[str, Objective]) -> Grants:
        """The valid settings of an operator's metadata; logs a warning for invalid and deprecated ones."""
        if not isinstance(raw, Mapping):
            _warn_invalid(source, "aligner")
            return self._grants_model()
        current, changes = rename_deprecated(
            {str(key): value for key, value in raw.items()}, self._file.declarations.current_names
        )
        for change in changes:
            _warn(source, str(change))
        return self._grants_model.model_validate(dict(self._valid_settings(current, source, configured)))

    def _valid_settings(
        self, raw: Mapping[str, Any], source: str, configured: Mapping[str, Objective]
    ) -> Iterator[tuple[str, Any]]:
        """Yield (name, value) of each valid setting of metadata; logs and skips invalid ones.

        Unknown objectives are dropped from lists.
        """
        for key, value in raw.items():
            try:
                parsed = getattr(self._grants_model.model_validate({key: value}), key)
            except ValidationError:
                _warn_invalid(source, key if key in self._grants_model.model_fields else "(unknown)")
                continue
            if not self._is_loaded(key, parsed):
                _warn_invalid(source, key)
                continue
            if key in _OBJECTIVE_LISTS:
                names = tuple(name for name in parsed if name in configured or (name == "*" and key == "allow"))
                if names != parsed:
                    _warn_invalid(source, key)
                parsed = names
            yield key, parsed

    def _is_loaded(self, key: str, value: Any) -> bool:
        """Whether the corrector, rules or files that metadata names are loaded; a policies file must name them, too."""
        if key == "corrector":
            return value in self._correctors
        if isinstance(value, Requirement):
            return self._file.file_texts.get(key, {}).keys() >= set(value.file_names)
        return key != "plugin_rules" or self._rules.issuperset(value or ())


def _warn_invalid(source: str, key: str) -> None:
    """Log that metadata has a setting which is no valid one there."""
    _warn(source, f"ignoring setting {key}: not valid here")


def warn_not_trusted(source: str, key: str) -> None:
    """Log that metadata which the file does not trust tried to loosen a setting."""
    setting = "team_metadata" if source.endswith("team metadata") else "key_metadata"
    _warn(source, f"ignoring setting {key}: it would loosen the policy, and trust.{setting} is false")


@lru_cache(maxsize=1024)
def _warn(source: str, problem: str) -> None:
    """Log a warning once for each source and problem (cached): a typo would otherwise be logged with every request."""
    log.warning("%s: %s", source, problem)
