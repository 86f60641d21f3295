"""Strictness: which of two values or policies is stricter, and which changes only tighten a policy.

All comparisons of strictness are made here: for a model that answers in place of another, for an alias and its model
group, and for untrusted metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from aligner_proxy.types import JsonStrings, Mode, OnError, Policy, SideKind, SideTreatment, StreamMode

_REACTIONS = (OnError.PASSTHROUGH, OnError.RETRY, OnError.BLOCK)
_SIDE = tuple(SideTreatment)
_SCALES: Mapping[str, tuple[str, ...]] = {
    "mode": (Mode.OFF, Mode.SHADOW, Mode.ENFORCE),
    "stream": (StreamMode.PASSTHROUGH, StreamMode.SENTENCE, StreamMode.HOLD),
    "on_error": _REACTIONS,
    "after_retry": _REACTIONS,
    "on_skip": ("passthrough", "judge", "block"),
    "if_nothing_remains": ("original", "second_try", "decline", "block"),
    "json_strings": (JsonStrings.KEEP, JsonStrings.CORRECT),
    **dict.fromkeys(SideKind, _SIDE),
}
"""Values of settings, each from lax to strict; a name with a dot is on the scale of its first part."""
_AMOUNTS = ("sample", "max_answer_chars", "decline_within")
"""Settings by which more answers are looked at, or declined, the larger they are."""
_FROM_METADATA = ("mode", "stream", "on_error", "after_retry", "on_skip", "if_nothing_remains")
"""Settings that metadata may tighten without being trusted."""


def tightens(name: str, value: object, current: object) -> bool:
    """Whether `value` of a setting is stricter than `current`; never, for a setting that no scale is for."""
    scale = _SCALES.get(name.partition(".")[0], ())
    return value in scale and current in scale and scale.index(str(value)) > scale.index(str(current))


def may_tighten(name: str, value: object, current: object) -> bool:
    """Whether metadata that is not trusted may change this setting from `current` to `value`."""
    return name.partition(".")[0] in _FROM_METADATA and tightens(name, value, current)


def takes_away(grant: str, value: object) -> bool:
    """Whether this value of a grant gives no right: it enforces or denies more, or withdraws a right.

    `allow` is not among them: whether a list is shorter than another depends on the other.
    """
    return grant in ("enforce", "deny") or value is False


def stricter_policy(policy: Policy, other: Policy) -> Policy:
    """A policy as strict as both: that of the stricter mode, with each setting in which the other is stricter.

    Between equal modes the first leads, and its objectives count. A policy without objectives and standards
    corrects nothing, so it counts as `off` and adds nothing to another. What a tenant enforces is in both.
    """
    lead, rest = (policy, other) if _strength(policy) >= _strength(other) else (other, policy)
    lead = _with_standards(replace(lead, bypass=policy.bypass and other.bypass), rest)
    if not _strength(rest):
        return lead
    raised = replace(
        lead, **{name: _stricter_value(name, getattr(lead, name), getattr(rest, name)) for name in _compared_settings()}
    )
    origins = dict(lead.origins)
    origins |= {
        name: origin for name, origin in rest.origins if _setting_value(raised, name) != _setting_value(lead, name)
    }
    return replace(raised, origins=tuple(origins.items()))


def _strength(policy: Policy) -> int:
    """The position of the mode on its scale; that of `off` for a policy with neither objectives nor standards."""
    return _SCALES["mode"].index(policy.mode) if policy.objectives or policy.standards else 0


def _with_standards(policy: Policy, other: Policy) -> Policy:
    """A policy with each standard of another that it has none of."""
    present = {name for name, _ in policy.standards}
    for name, standard in other.standards:
        if name not in present:
            policy = policy.with_extension(name, standard)
    return policy


def _compared_settings() -> tuple[str, ...]:
    """The settings of a policy that can be compared, besides its mode."""
    names = {field.name for field in fields(Policy)} - {"mode"}
    return tuple(name for name in (*_SCALES, *_AMOUNTS) if name in names)


def _stricter_value(name: str, first: Any, second: Any) -> Any:
    """The stricter of two values; of reactions by class or reason, each by itself."""
    if name in _AMOUNTS:
        return max(first, second)
    if is_dataclass(first):
        parts = [field.name for field in fields(first)]
        return replace(
            first, **{part: _stricter_value(name, getattr(first, part), getattr(second, part)) for part in parts}
        )  # type: ignore[type-var]
    return second if tightens(name, second, first) else first


def _setting_value(policy: Policy, name: str) -> object:
    """The value of a setting by its name in `origins`; None for what is no setting."""
    setting, _, part = name.partition(".")
    value = getattr(policy, setting, None)
    return getattr(value, part, None) if part else value
