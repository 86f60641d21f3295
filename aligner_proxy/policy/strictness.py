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
_SIDE_TREATMENTS = tuple(SideTreatment)
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
    **dict.fromkeys(SideKind, _SIDE_TREATMENTS),
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
    """Whether this value of a grant only takes rights away: it enforces or denies more, or withdraws a right.

    False for `allow`, because whether a list allows less depends on the list before it.
    """
    return grant in ("enforce", "deny") or value is False


def stricter_policy(policy: Policy, other: Policy) -> Policy:
    """Merge two policies into one as strict as both: the one with the stricter mode, tightened by the other.

    If the modes are equal, the first policy and its objectives are used. A policy without objectives and requirements
    corrects nothing, so it counts as `off` and its settings are ignored. Both contain what the tenant enforces.
    Metrics name the traffic of the first one, whichever is stricter.
    """
    lead, weaker = (policy, other) if _strength(policy) >= _strength(other) else (other, policy)
    # A bypass needs the consent of both.
    lead = replace(lead, bypass=policy.bypass and other.bypass, traffic=policy.traffic)
    lead = _with_requirements(lead, weaker)
    if not _strength(weaker):
        return lead
    values = {name: _stricter_value(name, getattr(lead, name), getattr(weaker, name)) for name in _compared_settings()}
    merged = replace(lead, **values)
    merged = replace(merged, judge=_stricter_judge(lead.judge, weaker.judge))
    merged = replace(merged, declines_harm_alone=_declines_harm_alone(lead, weaker))
    origins = dict(lead.origins)
    origins |= {
        name: origin for name, origin in weaker.origins if read_setting(merged, name) != read_setting(lead, name)
    }
    return replace(merged, origins=tuple(origins.items()))


def _declines_harm_alone(*policies: Policy) -> bool:
    """Whether some of the policies withhold an answer of which nothing remains, and each of these only after harm."""
    withholding = [policy for policy in policies if policy.if_nothing_remains is not IfNothingRemains.ORIGINAL]
    return bool(withholding) and all(policy.declines_harm_alone for policy in withholding)


def _strength(policy: Policy) -> int:
    """The index of the mode on its scale; 0, as for `off`, for a policy with neither objectives nor requirements."""
    return _SCALES["mode"].index(policy.mode) if policy.objectives or policy.requirements else 0


def _with_requirements(policy: Policy, other: Policy) -> Policy:
    """Add each requirement of `other` whose key `policy` does not have."""
    present = {name for name, _ in policy.requirements}
    for name, requirement in other.requirements:
        if name not in present:
            policy = policy.with_extension(name, requirement)
    return policy


def _compared_settings() -> tuple[str, ...]:
    """The settings of a policy that can be compared, except its mode."""
    names = {field.name for field in fields(Policy)} - {"mode"}
    return tuple(name for name in (*_SCALES, *_AMOUNTS) if name in names)


def _stricter_value(name: str, first: Any, second: Any) -> Any:
    """The stricter of two values; reactions by class or reason are compared one by one."""
    if name in _AMOUNTS:
        return max(first, second)
    if is_dataclass(first):
        parts = [field.name for field in fields(first)]
        return replace(
            first, **{part: _stricter_value(name, getattr(first, part), getattr(second, part)) for part in parts}
        )  # type: ignore[type-var]
    return second if tightens(name, second, first) else first


def _stricter_judge(judge: Judge, other: Judge) -> Judge:
    """The stricter judge: one that only flags is stricter than none, and none is stricter than one that may clear."""
    if judge == other or (judge and not judge.may_clear):
        return judge
    return NO_JUDGE if other.may_clear else other


def read_setting(policy: Policy, name: str) -> Any:
    """The value of a setting by its name in `origins`, such as on_error.gate; None if the name is not a setting."""
    setting, _, part = name.partition(".")
    value = getattr(policy, setting, None)
    return getattr(value, part, None) if part else value
