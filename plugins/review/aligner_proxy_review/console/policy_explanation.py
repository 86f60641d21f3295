"""Explanation of a policy: each setting with its value and the line of the policies file that it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aligner_proxy.audit.entry import policy_hash
from aligner_proxy.cli.callers import find_caller
from aligner_proxy.errors import BadRequest, ForbiddenError
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy import litellm_config
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.yaml_file import BUILT_IN
from aligner_proxy.types import Objective, Policy
from aligner_proxy_review.console.files import ConsoleConfig


@dataclass(frozen=True, slots=True)
class ExplainedSetting:
    """One setting of a policy."""

    name: str
    value: str
    origin: str
    """Where its value was set, such as a line of the policies file; or `BUILT_IN`."""

    @property
    def is_default(self) -> bool:
        """Whether nobody has set it."""
        return self.origin == BUILT_IN


@dataclass(frozen=True, slots=True)
class ExplainedPolicy:
    """A policy with the origin of each value."""

    name: str
    caution: float
    objectives: tuple[tuple[Objective, str], ...]
    """Each objective with its origin."""
    settings: tuple[ExplainedSetting, ...]
    is_same: bool = True
    """Whether it equals the policy under which the answer was recorded."""


def explain_request(console_config: ConsoleConfig, model: str, team: str, key: str) -> ExplainedPolicy:
    """Explain the policy that a request for a model by a team and a key's alias would get; both may be empty.

    Raises `ForbiddenError` or `BadRequest` if the request would be refused.
    """
    caller = find_caller(console_config.keys, team or None, key or None)
    model_name, groups = litellm_config.resolve_model(console_config.litellm, model)
    # the operator may write a team's id or its alias, so the text is given as both
    facts = RequestFacts(model_name, (), caller.team, caller.team, caller.key_digest, caller.key_alias)
    return _explain_facts(console_config, replace(facts, groups=groups, alias_by_operator=caller.is_known))


def explain_entry(console_config: ConsoleConfig, entry: Entry) -> ExplainedPolicy | None:
    """Explain the policy that a recorded answer would get now.

    None if its text was not stored, or if the request would be refused.
    """
    if entry.content is None:
        return None
    try:
        return _explain_facts(console_config, entry.content.facts, entry.policy_hash)
    except (ForbiddenError, BadRequest):
        return None


def _explain_facts(
    console_config: ConsoleConfig, facts: RequestFacts, recorded_hash: str | None = None
) -> ExplainedPolicy:
    """Explain the policy that a request with these facts gets now.

    `recorded_hash` is the hash of the policy with which an answer was recorded; None without a recorded answer.
    """
    resolver = console_config.resolver
    policy = console_config.extensions.resolve(resolver.resolve(facts), facts)
    origins = dict(policy.origins)
    return ExplainedPolicy(
        policy.name,
        policy.caution,
        tuple((objective, origins.get(f"objective:{objective.name}", "-")) for objective in policy.objectives),
        tuple(_explain_settings(resolver.settings(policy), policy, origins)),
        is_same=recorded_hash in (None, policy_hash(policy)),
    )


def _explain_settings(values: Mapping[str, Any], policy: Policy, origins: Mapping[str, str]) -> list[ExplainedSetting]:
    """List all settings and the quota, first those that somebody has set.

    `values` and `origins` (the lines that set a value) are by the name of the setting.
    """
    settings = [
        ExplainedSetting(name, _value_text(value), origins.get(name, BUILT_IN)) for name, value in values.items()
    ]
    if policy.quota is not None:
        settings.append(ExplainedSetting("quota", f"{policy.quota.seconds:g} s a minute", origins.get("quota", "-")))
    return sorted(settings, key=lambda setting: setting.is_default)


def _value_text(value: object) -> str:
    """A setting's value as text; the parts of a tuple are joined by commas, and an empty tuple is "none"."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
