"""Strictness: which of two values or policies is stricter, and which changes only tighten a policy.

All comparisons of strictness are made here: between a model and its fallback, between an alias and its model group, and
for untrusted metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from aligner_proxy.types import (
    NO_JUDGE,
    IfNothingRemains,
    IncomingKind,
    IncomingTreatment,
    JsonStrings,
    Judge,
    Mode,
    OnError,
    Policy,
    SideKind,
    SideTreatment,
    StreamMode,
    Write,
)

_REACTIONS = (OnError.PASSTHROUGH, OnError.RETRY, OnError.BLOCK)
_SCALES: Mapping[str, tuple[str, ...]] = {
    "mode": (Mode.OFF, Mode.SHADOW, Mode.ENFORCE),
    "stream": (StreamMode.PASSTHROUGH, StreamMode.SENTENCE, StreamMode.HOLD),
    "on_error": _REACTIONS,
    "after_retry": _REACTIONS,
    "on_skip": ("passthrough", "judge", "block"),
    "if_nothing_remains": ("original", "second_try", "decline", "block"),
    "write": tuple(reversed(Write)),
    "editor_write": tuple(reversed(Write)),
    "json_strings": (JsonStrings.KEEP, JsonStrings.CORRECT),
    **dict.fromkeys(SideKind, tuple(SideTreatment)),
    **dict.fromkeys(IncomingKind, tuple(IncomingTreatment)),
}
"""Values of each setting, from lax to strict; a setting such as on_error.gate uses the scale of its first part."""
_AMOUNTS = ("sample", "max_answer_chars", "decline_within", "decline_whole_answers")
"""Settings that are stricter when larger (or true): more answers are processed, or declined."""
_FROM_METADATA = ("mode", "stream", "on_error", "after_retry", "on_skip", "if_nothing_remains", "write")
"""Settings that metadata may tighten without being trusted."""


def tightens(name: str, value: object, current: object) -> bool:
    """Whether `value` of a setting is stricter than `current`; False for a setting without a scale."""
    scale = _SCALES.get(name.partition(".")[0], ())
    return value in scale and current in scale and scale.index(str(value)) > scale.index(str(current))


def may_tighten(name: str, value: object, current: object) -> bool:
    """Whether untrusted metadata may change this setting from `current` to `value`."""
    return name.partition(".")[0] in _FROM_METADATA and tightens(name, value, current)


def takes_away(grant: str, value: object) -> bool:
    """Whether this value of a grant (a tenant's right) only takes rights away: it enforces, denies or withdraws.

    False for `allow`, because whether a list allows less depends on the list before it.
    """
    return grant in ("enforce", "deny") or value is False


def stricter_policy(policy: Policy, other: Policy) -> Policy:
    """Merge two policies into one that is as strict as both: the one with the stricter mode, tightened by the other.

    If the modes are equal, the first policy and its objectives are used. A policy without objectives and requirements
    corrects nothing, so it counts as `off` and its settings are ignored. Objectives that the tenant enforces are in
    both. Metrics name the traffic of the first policy, even if the other one is stricter.
    """
    stricter, weaker = (policy, other) if _strength(policy) >= _strength(other) else (other, policy)
    # A bypass must be allowed by both.
    stricter = replace(stricter, bypass=policy.bypass and other.bypass, traffic=policy.traffic)
    stricter = _with_requirements(stricter, weaker)
    if not _strength(weaker):
        return stricter
    values = {
        name: _stricter_value(name, getattr(stricter, name), getattr(weaker, name)) for name in _compared_settings()
    }
    values["judge"] = _stricter_judge(stricter.judge, weaker.judge)
    values["declines_harm_alone"] = _declines_harm_alone(stricter, weaker)
    merged = replace(stricter, **values)
    origins = dict(stricter.origins)
    for name, origin in weaker.origins:
        if read_setting(merged, name) != read_setting(stricter, name):
            origins[name] = origin  # the value comes from the weaker policy
    return replace(merged, origins=tuple(origins.items()))


def _declines_harm_alone(*policies: Policy) -> bool:
    """Whether an answer of which nothing remains is withheld, but only if it was harmful.

    True if at least one policy withholds such answers, and each policy that does so withholds only harmful ones.
    """
    withholding_policies = [policy for policy in policies if policy.if_nothing_remains is not IfNothingRemains.ORIGINAL]
    return bool(withholding_policies) and all(policy.declines_harm_alone for policy in withholding_policies)


def _strength(policy: Policy) -> int:
    """Return the index of the mode on its scale; 0 (`off`), too, without objectives and requirements."""
    return _SCALES["mode"].index(policy.mode) if policy.objectives or policy.requirements else 0


def _with_requirements(policy: Policy, other: Policy) -> Policy:
    """Return `policy` with the requirements (plugins' checks of answers) of `other` whose keys it does not have."""
    own_names = {name for name, _ in policy.requirements}
    for name, requirement in other.requirements:
        if name not in own_names:
            policy = policy.with_extension(name, requirement)
    return policy


def _compared_settings() -> tuple[str, ...]:
    """The names of the settings of a policy whose strictness can be compared, except its mode."""
    field_names = {field.name for field in fields(Policy)} - {"mode"}
    return tuple(name for name in (*_SCALES, *_AMOUNTS) if name in field_names)


def _stricter_value(name: str, first: Any, second: Any) -> Any:
    """Return the stricter of two values of the setting called `name`.

    The reactions of `on_error` and `on_skip` are compared one by one for each class and reason.
    """
    if name in _AMOUNTS:
        return max(first, second)
    if is_dataclass(first):
        reactions = {
            field.name: _stricter_value(name, getattr(first, field.name), getattr(second, field.name))
            for field in fields(first)
        }
        return replace(first, **reactions)  # type: ignore[type-var]
    return second if tightens(name, second, first) else first


def _stricter_judge(judge: Judge, other: Judge) -> Judge:
    """Return the stricter of two judges; the first one if both only flag.

    A judge that can only flag is stricter than no judge, and no judge is stricter than one that may clear a flag.
    """
    if judge == other or (judge and not judge.may_clear):
        return judge
    return NO_JUDGE if other.may_clear else other


def read_setting(policy: Policy, name: str) -> Any:
    """A policy's setting by name, such as `mode` or `on_error.gate`; None if there is no such setting."""
    attribute, _, part = name.partition(".")
    value = getattr(policy, attribute, None)
    return getattr(value, part, None) if part else value
