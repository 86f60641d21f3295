"""Facts about a request that decide its policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Facts about a request, independent of LiteLLM's data structures.

    Team, key and their settings (the value of metadata "aligner") must come from LiteLLM's authentication, never from
    the body; `asked` (objectives) and `bypass` come from the request itself.
    """

    model: str = ""
    tags: tuple[str, ...] = ()
    team_id: str | None = None
    team_alias: str | None = None
    key_hash: str | None = None
    key_alias: str | None = None
    user_id: str | None = None
    """The user, for a token without a key (JWT)."""
    team_settings: object = None
    """The value of the team's metadata "aligner"; not validated."""
    key_settings: object = None
    """The value of the key's metadata "aligner"; not validated."""
    asked: tuple[str, ...] = ()
    """Names of the objectives that the request adds."""
    own: tuple[str, ...] = field(default=(), repr=False)
    """Objectives in the request's own words; only `POST /v1/align` reads them."""
    bypass: bool = False
    system: str = field(default="", repr=False)
    """The request's system prompt, for all endpoints."""
    fields: Mapping[str, object] = field(default_factory=dict, repr=False)
    """Values under `metadata.aligner` of the fields that plugins declare; not validated."""
    tool_results: str = field(default="", repr=False)
    """The tool results in the request, for all endpoints."""
    given: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Name -> text of the request headers that a plugin's key names."""
    brought: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Values of plugins' fields in the body, which only `POST /v1/align` reads; validated."""
    groups: tuple[str, ...] = ()
    """The model groups behind `model`, if it is an alias or another name for them."""
    alias_by_operator: bool = False
    """Whether the aliases come from the operator's keys file; key owners choose LiteLLM's own."""
    is_operator: bool = False
    """Whether the request came with the master key, or from an administrator of LiteLLM: it may add any objective."""
    traffic_percentile: int | None = None
    """The conversation's percentile in its tenant's traffic, 0 to 99; set only if aligners share the traffic."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every model name that a route may match."""
        return (self.model, *self.groups)

    @property
    def namespace(self) -> str:
        """The tenant's identity: "team:", "key:", "user:" or the like, and the id or name; "-" if none is known."""
        identities = (
            *(("team", self.team_id), ("alias", self.team_alias)),
            *(("key", self.key_hash), ("name", self.key_alias), ("user", self.user_id)),
        )
        return next((f"{prefix}:{name}" for prefix, name in identities if name), "-")

    @property
    def tenant_name(self) -> str:
        """The tenant in metrics, which name no other keys: the team, else the operator's alias of the key, else "-"."""
        operator_alias = self.key_alias if self.alias_by_operator else None
        return self.team_alias or self.team_id or operator_alias or "-"
