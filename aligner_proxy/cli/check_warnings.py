"""Warnings of `aligner-proxy check` about a valid config and the policy of a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from aligner_proxy.audit import writer
from aligner_proxy.cli.checked_config import NO_START, CheckedConfig, missing_editor_groups
from aligner_proxy.cli.options import check_local_aligner
from aligner_proxy.errors import ConfigError, WeightsError
from aligner_proxy.gateway.build import check_completions
from aligner_proxy.policy.config import (
    builtin_objectives,
    check_audit_file,
    check_hand_offs,
    check_local_engine,
    engine_backend,
    keys_path,
)
from aligner_proxy.policy.engine_schema import ServerKind
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import entry_name, route_matches, tenant_matches
from aligner_proxy.policy.schema import PolicyFile, plugin_kind
from aligner_proxy.types import EMBEDDED, Policy

EDITS_GOOD_ANSWERS: Mapping[str, int] = {
    "instruction-following": 1,
    "non-repetitive": 4,
    "informative": 6,
    "correct": 10,
    "honest": 11,
    "fair": 21,
    "truthful": 24,
    "factual": 26,
    "concise": 35,
    "professional": 35,
    "specific": 42,
}
"""Good answers, in percent, that the embedded aligner edits for a built-in objective: those above 0.5 % of
docs/reference/objectives.md, but for `harmless`."""
_WARNING_PERIOD = timedelta(days=14)
"""How long before a key expires a warning is given."""


def find_warnings(checked: CheckedConfig, facts: RequestFacts, policy: Policy) -> list[str]:
    """Return all warnings about the config and about the policy that a request with these facts gets."""
    warnings = list(checked.policies.warnings)
    for index, route in enumerate(checked.policies.routes):
        pattern = route.match.model
        if pattern is not None and checked.lacks_model(pattern):
            place = checked.policies.source.place_of("routes", index)
            warnings.append(f"{place}: {entry_name(route, index)} ({pattern}) matches no model of the model_list")
    if not facts.model:
        warnings.append("no --model given: routes that name a model were passed over")
    elif checked.lacks_model(facts.model):
        warnings.append(f"the model_list has no model {facts.model!r}")
    if not any(route_matches(route, facts.names, facts.tags) for route in checked.policies.routes):
        warnings.append("no route matches this request")
    trusts_aliases = checked.policies.trust.aliases
    names_tenant = facts.team_id or facts.key_hash or facts.key_alias
    if names_tenant and not any(tenant_matches(tenant, facts, trusts_aliases) for tenant in checked.policies.tenants):
        warnings.append("no tenant matches this team or key")
    warnings.extend(_start_warnings(checked.policies))
    warnings.extend(_redis_warnings(checked.policies))
    warnings.extend(_key_warnings(checked))
    warnings.extend(_engine_warnings(checked, policy))
    warnings += [*_missing_corrector_models(checked), *missing_editor_groups(checked)]
    warnings += [status.warning for status in checked.statuses if status.warning is not None]
    warnings += _objective_warnings(checked, policy)
    warnings += checked.extensions.explain(policy, facts)
    if not (policy.objectives or policy.requirements):
        warnings.append("no objectives: such an answer is skipped (reason no_objectives)")
    return [*warnings, *checked.litellm_warnings]


def _objective_warnings(checked: CheckedConfig, policy: Policy) -> Iterator[str]:
    """Warn about built-in objectives that make the embedded aligner edit good answers, unless they were taught."""
    if EMBEDDED not in (checked.policies.aligner.model, *checked.policies.aligner.adapters.values()):
        return
    origins = dict(policy.origins)
    built_in_objectives = builtin_objectives()
    for objective in policy.objectives:
        name = objective.name
        if name in EDITS_GOOD_ANSWERS and not objective.head and objective.text == built_in_objectives[name].text:
            yield (
                f"{origins[f'objective:{name}']}: {name} edits {EDITS_GOOD_ANSWERS[name]} % of good answers; "
                "teach it by your own answers, or try it with mode: shadow first (docs/reference/objectives.md)"
            )


def _start_warnings(policies: PolicyFile) -> Iterator[str]:
    """Warn about what is missing in this environment for a gateway to start, such as keys and secrets."""
    checks = (
        writer.make_recorder,
        check_audit_file,
        check_hand_offs,
        check_local_engine,
        check_local_aligner,
        lambda file: check_completions(file, engine_backend(file)),
    )
    faults = []
    for check in checks:
        try:
            check(policies)
        except (ConfigError, WeightsError) as error:
            faults.append(f"{error}; {NO_START}")
    # Two checks may find the same fault.
    yield from dict.fromkeys(faults)


def _redis_warnings(policies: PolicyFile) -> Iterator[str]:
    """Warn about a shared Redis without encryption, because anyone who can read it can read corrected texts."""
    if policies.cache.redis_env and not policies.cache.key_env:
        place = policies.source.place_of("cache", "redis_env")
        yield f"{place}: corrected texts are stored in Redis unencrypted; name a variable with a key: cache.key_env"


def _key_warnings(checked: CheckedConfig) -> Iterator[str]:
    """Warn about a missing keys file, keys in it that a gateway refuses now or soon, and unknown models of keys."""
    path = keys_path(checked.policies)
    if path is not None and not path.exists():
        yield f"{path.name} does not exist, so none of its keys is accepted"
    now = datetime.now(UTC)
    for entry in checked.keys.values():
        if entry.is_expired(now):
            yield f"key {entry.alias} expired at {moment_text(entry.expires)} and is refused"
        elif entry.is_expired(now + _WARNING_PERIOD):
            yield f"key {entry.alias} expires at {moment_text(entry.expires)}"
        unknown_models = [name for name in entry.models or () if checked.lacks_model(name)]
        if unknown_models:
            yield f"key {entry.alias} may call {', '.join(unknown_models)}, which the model_list does not have"


def moment_text(moment: datetime | None) -> str:
    """A time to the minute; "never" for None."""
    return "never" if moment is None else moment.isoformat(sep=" ", timespec="minutes")


def _engine_warnings(checked: CheckedConfig, policy: Policy) -> list[str]:
    """Warn about an engine without a detector head, and about a model group that does not exist."""
    engine = engine_backend(checked.policies)
    warnings = list[str]()
    if engine.completes and not engine.scorer:
        warnings.append(f"{engine} has no detector head: every answer is rewritten as a whole; set a scorer")
        if policy.caution:
            warnings.append(f"caution {policy.caution:g} has no effect without a detector head")
    if engine.kind is ServerKind.GROUP and checked.lacks_model(engine.group):
        warnings.append(f"the model_list has no model group {engine.group!r}, which aligner.engine names")
    return warnings


def _missing_corrector_models(checked: CheckedConfig) -> Iterator[str]:
    """Warn about correctors of the kind `self_refine` whose model is not in the model_list."""
    for name, entry in checked.policies.plugins.correctors.items():
        model = str(entry.get("model", ""))
        if plugin_kind(name, entry) == "self_refine" and checked.models is not None and model not in checked.models:
            place = checked.policies.source.place_of("plugins", "correctors", name)
            yield f"{place}: corrector {name} asks {model!r}, which the model_list does not have"
