"""Facts about a request on which its policy depends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_USUAL_CHARS = 200
"""Longest name of a model under which a policy is remembered: clients choose names freely."""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Facts about a request, free of LiteLLM's shapes.

    Team, key and their settings (the value of metadata "aligner") must come from what LiteLLM authenticated, never from
    the body; `asked` (objectives) and `bypass` come from the request itself.
    """

    model: str = ""
    tags: tuple[str, ...] = ()
    team_id: str | None = None
    team_alias: str | None = None
    key_hash: str | None = None
    key_alias: str | None = None
    user_id: str | None = None
    """The person behind a token without a key (JWT)."""
    team_settings: object = None
    key_settings: object = None
    asked: tuple[str, ...] = ()
    own: tuple[str, ...] = field(default=(), repr=False)
    """Objectives in the words of the request, which only `POST /v1/align` reads."""
    bypass: bool = False
    system: str = field(default="", repr=False)
    """The request's system prompt, from any endpoint."""
    fields: Mapping[str, object] = field(default_factory=dict, repr=False)
    """Values of `metadata.aligner` in the fields that plugins declare; not checked."""
    tool_results: str = field(default="", repr=False)
    """What the tools returned that the request carries, from any endpoint."""
    given: Mapping[str, str] = field(default_factory=dict, repr=False)
    """References that the request brings, by the name of their header."""
    brought: tuple[str, ...] = field(default=(), repr=False)
    """References in the body, which only `POST /v1/align` reads."""
    groups: tuple[str, ...] = ()
    """The model groups behind `model` where it is an alias or another name of theirs."""
    alias_by_operator: bool = False
    """Whether the operator gave the aliases, in the keys file; LiteLLM's own are chosen by the owners of keys."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name by which a route may know the model."""
        return (self.model, *self.groups)

    @property
    def usual(self) -> bool:
        """Whether its policy follows from the file, model, team and key alone, so that it can be cached."""
        settled = self.team_settings is None and self.key_settings is None
        return settled and not (self.tags or self.asked or self.own or self.bypass) and len(self.model) <= _USUAL_CHARS

    @property
    def namespace(self) -> str:
        """The tenant's identity: the team, else the key, else the user; a prefix keeps one from posing as another."""
        teams = (("team", self.team_id), ("alias", self.team_alias))
        single = (("key", self.key_hash), ("name", self.key_alias), ("user", self.user_id))
        return next((f"{kind}:{value}" for kind, value in (*teams, *single) if value), "-")
