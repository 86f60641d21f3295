"""Explains a policy: each setting with its value and the line of its origin."""

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


def explain_request(configured: ConsoleConfig, model: str, team: str, key: str) -> ExplainedPolicy:
    """The policy that a model, team and key would get; raises `ForbiddenError` or `BadRequest` if it is refused."""
    caller = find_caller(configured.keys, team or None, key or None)
    name, groups = litellm_config.resolve_model(configured.litellm, model)
    # the text may be a team's id or its alias, so it is given as both
    facts = RequestFacts(name, (), caller.team, caller.team, caller.key_digest, caller.key_alias)
    return _explain_facts(configured, replace(facts, groups=groups, alias_by_operator=caller.is_known))


def explain_entry(configured: ConsoleConfig, entry: Entry) -> ExplainedPolicy | None:
    """The policy that a recorded answer would get now; None if its text is missing or the request would be refused."""
    if entry.content is None:
        return None
    try:
        return _explain_facts(configured, entry.content.facts, entry.policy_hash)
    except (ForbiddenError, BadRequest):
        return None


def _explain_facts(configured: ConsoleConfig, facts: RequestFacts, recorded: str | None = None) -> ExplainedPolicy:
    """Explain the policy of a request; `recorded` is the hash of the policy to compare it with."""
    resolver = configured.resolver
    policy = configured.extensions.resolve(resolver.resolve(facts), facts)
    origins = dict(policy.origins)
    settings = resolver.settings(policy)
    return ExplainedPolicy(
        policy.name,
        policy.caution,
        tuple((objective, origins.get(f"objective:{objective.name}", "-")) for objective in policy.objectives),
        tuple(_explained_settings(settings, policy, origins)),
        # without a recorded policy there is nothing to differ from
        recorded in (None, policy_hash(policy)),
    )


def _explained_settings(
    values: Mapping[str, Any], policy: Policy, origins: Mapping[str, str]
) -> list[ExplainedSetting]:
    """All settings and the quota, first those that somebody has set; `origins` is by setting."""
    rows = [ExplainedSetting(name, _value_text(value), origins.get(name, BUILT_IN)) for name, value in values.items()]
    if policy.quota is not None:
        rows.append(ExplainedSetting("quota", f"{policy.quota.seconds:g} s a minute", origins.get("quota", "-")))
    return sorted(rows, key=lambda row: row.is_default)


def _value_text(value: object) -> str:
    """A setting's value as text; the parts of a tuple with commas, "none" for an empty one."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
