"""What may policies.yaml say about plugins? Which are made and how they are set; what that means is their business.

Every entry names its kind, by default by its own name. Which names a policy may then use is read off the file alone,
without loading a plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.provenance import KeyPath
from aligner_proxy.types import METAALIGNER

if TYPE_CHECKING:
    from aligner_proxy.policy_file import PolicyFile

KIND = "kind"
PLUGIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
PluginName = Annotated[str, Field(pattern=PLUGIN_NAME)]
Told = dict[str, Any]


class PluginSettings(BaseModel):
    """Plugins that are made at the start, and their settings; doctor says which kinds there are."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    third_party: Annotated[bool, Field(strict=True)] = True
    """false: no plugin is loaded but those that come with the gateway, whatever is installed."""
    correctors: dict[PluginName, Told] = {}
    """name -> settings, and the kind where it is not called so; `corrector:` may name any of these."""
    cache: Told | None = None
    """A store in place of the folder on disk: {kind: name, ...its settings}."""
    audit_sinks: dict[PluginName, Told] = {}
    """name -> settings: who is told of every answer that was looked at, texts included."""


def kind_of(name: str, told: Told) -> str:
    """The kind of an entry."""
    return str(told.get(KIND, name))


def own_settings(told: Told) -> Told:
    """What is the plugin's own among the settings of an entry."""
    return {key: value for key, value in told.items() if key != KIND}


def corrector_names(file: PolicyFile) -> dict[str, KeyPath]:
    """Every corrector that this file names or sets, and where first; the aligner on the engine is always there."""
    found: dict[str, KeyPath] = {name: ("plugins", "correctors", name) for name in file.plugins.correctors}
    for path, values in file.blocks():
        if values.corrector is not None and values.corrector != METAALIGNER:
            found.setdefault(values.corrector, (*path, "corrector"))
    return found


def rule_names(file: PolicyFile) -> dict[str, KeyPath]:
    """Every rule of a plugin that this file names, and where first."""
    found: dict[str, KeyPath] = {}
    for path, values in file.blocks():
        for n, name in enumerate(values.plugin_rules or ()):
            found.setdefault(name, (*path, "plugin_rules", n))
    return found
