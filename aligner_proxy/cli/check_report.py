"""Report of `aligner-proxy check`: the policy of a request with the origin of each value, as tables or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from aligner_proxy.cli.check_warnings import moment_text
from aligner_proxy.cli.checked_config import CheckedConfig
from aligner_proxy.cli.diff import TextTable
from aligner_proxy.engine.weights import sources
from aligner_proxy.policy.config import engine_backend
from aligner_proxy.policy.keys_file import KeyEntry
from aligner_proxy.policy.resolver import NO_ROUTE, PRECEDENCE
from aligner_proxy.policy.schema import Trust
from aligner_proxy.policy.yaml_file import BUILT_IN
from aligner_proxy.teaching.overview import HEAD as TAUGHT_HEAD
from aligner_proxy.types import GateRule, Judge, Objective, Policy

_EVERY_LANGUAGE = "not named by the aligner's card: all count"
_DENY = "deny:"
"""Beginning of the names under which a policy stores the origins of denied objectives."""
_MAX_REASONS = 6
"""Most reasons of a route that are printed one by one."""
_KEY_COLUMNS = ("team", "expires", "models", "routes", "rpm", "max_parallel", "max_body_mb")
"""Settings of a key that are printed."""


def key_settings(entry: KeyEntry | None) -> dict[str, Any] | None:
    """The settings of a key in the keys file, without its hash; None if the key has no entry."""
    if entry is None:
        return None
    settings = entry.model_dump(mode="json", include=set(_KEY_COLUMNS), exclude_none=True)
    return {"alias": entry.alias} | {name: settings[name] for name in _KEY_COLUMNS if settings.get(name)}


def _objective_notes(objective: Objective) -> str:
    """Return in brackets whether an objective was taught, and the judge of its own; empty if there is neither."""
    notes = []
    if objective.head:
        notes.append("taught")
    if objective.judge is not None:
        notes.append(f"judge: {objective.judge.group or 'off'}")
    return f" ({', '.join(notes)})" if notes else ""


def _setting_rows(settings: Mapping[str, Any], policy: Policy) -> list[tuple[str, str, str]]:
    """Return a row (setting, value, origin) for every setting, and one for each gate rule that is off."""
    origins = dict(policy.origins)
    rules_off = [rule for rule in GateRule if rule not in policy.gate]
    gate_text = f"all rules but {len(rules_off)}" if rules_off else "all rules"
    rows = [
        (name, gate_text if name == "gate" else _value_text(value), origins[name]) for name, value in settings.items()
    ]
    rows += [(f"gate.{rule}", "off", origins[f"gate.{rule}"]) for rule in rules_off]
    if policy.quota is not None:
        rows.append(("quota", f"{policy.quota.seconds:g} s a minute", origins["quota"]))
    if policy.hand_off is not None:
        hand_off = policy.hand_off
        summary = f"{hand_off.url} within {hand_off.within:g} nats, {'with' if hand_off.text else 'without'} text"
        rows.append(("hand_off", summary, origins["hand_off"]))
    return rows


def _value_text(value: object) -> str:
    """Return the value of a setting as readable text."""
    if isinstance(value, dict):  # only the shares of aligners are a dict: aligner -> per cent
        return ", ".join(f"{aligner}: {percent} %" for aligner, percent in value.items())
    if not isinstance(value, tuple):
        return str(value)
    texts = []
    for element in value:
        if isinstance(element, tuple):  # only refusal texts are pairs: (language, text)
            language, refusal_text = element
            texts.append(f"{language or 'default'}: {refusal_text}")
        else:
            texts.append(str(element))
    return ", ".join(texts) or "none"


def _denied_objectives(policy: Policy) -> list[tuple[str, str]]:
    """The name of each objective that a request may not ask for, and the place of the setting that says so."""
    return [(name.removeprefix(_DENY), origin) for name, origin in policy.origins if name.startswith(_DENY)]


def report_fields(checked: CheckedConfig, policy: Policy, warnings: Sequence[str]) -> dict[str, Any]:
    """Return the config and the policy as --json prints them."""
    origins = dict(policy.origins)
    engine = engine_backend(checked.policies)
    settings = checked.resolver.settings(policy)
    return (
        checked.extensions.record(policy)
        | checked.extensions.details(policy)
        | {
            "file": str(checked.path),
            "engine": {"at": list(engine.at), "kind": engine.kind, "scorer": engine.scorer},
            "languages": list(_languages(checked, policy)),
            "policy": policy.name,
            "tenant": policy.tenant,
            "settings": {
                name: {"value": str(value) if isinstance(value, Judge) else value, "origin": origins[name]}
                for name, value in settings.items()
            },
            "quota": {"value": policy.quota.seconds, "origin": origins["quota"]} if policy.quota else None,
            "denied": [{"name": name, "origin": origin} for name, origin in _denied_objectives(policy)],
            "objectives": [_objective_fields(checked, objective, origins) for objective in policy.objectives],
            "taught": [status.as_json() for status in checked.statuses],
            "trust": checked.policies.trust.model_dump(),
            "precedence": list(PRECEDENCE),
            "warnings": list(warnings),
            "valid": not checked.faults,
        }
    )


def _objective_fields(checked: CheckedConfig, objective: Objective, origins: Mapping[str, str]) -> dict[str, Any]:
    """Return an objective of the policy as --json prints it; `met` is what a plugin says about it, if it does."""
    fields: dict[str, Any] = {
        "name": objective.name,
        "text": objective.text,
        "origin": origins[f"objective:{objective.name}"],
        "head": objective.head or None,
    }
    description = checked.extensions.describe(objective)
    return fields | {"met": description} if description else fields


def _print_keys(console: Console, checked: CheckedConfig, settings_of_key: Mapping[str, Any] | None) -> None:
    """Print how many keys the keys file has, when the first one expires, and the settings of the request's key."""
    if checked.keys:
        ends = sorted(entry.expires for entry in checked.keys.values() if entry.expires is not None)
        end_text = f", {len(ends)} with an end, the first at {moment_text(ends[0])}" if ends else ""
        console.print(f"keys    {len(checked.keys)}{end_text}", soft_wrap=True)
    if settings_of_key is not None:
        rows = [
            (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
            for name, value in settings_of_key.items()
        ]
        console.print(TextTable(("key of the file", "value"), rows))


def _print_objectives(console: Console, checked: CheckedConfig, policy: Policy) -> None:
    """Print the objectives of the policy, with a column for each value that a plugin has for them, such as weights."""
    plugin_columns = {
        name: values for name, values in checked.extensions.record(policy).items() if isinstance(values, Mapping)
    }
    origins = dict(policy.origins)
    rows = []
    for number, objective in enumerate(policy.objectives, 1):
        title = f"{number}. {objective.name}{_objective_notes(objective)}"
        plugin_values = [values.get(objective.name, "-") for values in plugin_columns.values()]
        cells = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in plugin_values]
        origin = origins[f"objective:{objective.name}"]
        description = checked.extensions.describe(objective)
        rows.append((title, *cells, objective.text, f"{origin}: {description}" if description else origin))
    console.print(TextTable(("objective", *plugin_columns, "text", "from"), rows))


def _print_settings(console: Console, checked: CheckedConfig, policy: Policy, *, in_full: bool) -> None:
    """Print the settings; unless `in_full` is set, only the number of settings that have their default."""
    rows = _setting_rows(checked.resolver.settings(policy), policy)
    shown_rows = [
        (setting, value, origin) for setting, value, origin in rows if in_full or not origin.startswith(BUILT_IN)
    ]
    if shown_rows:
        console.print(TextTable(("setting", "value", "from"), shown_rows))
    if len(shown_rows) < len(rows):
        console.print(f"[dim]{len(rows) - len(shown_rows)} settings have their default; --all prints them[/]")


def print_policy(
    console: Console,
    checked: CheckedConfig,
    policy: Policy,
    settings_of_key: Mapping[str, Any] | None,
    *,
    in_full: bool,
) -> None:
    """Print the policy as tables: settings, objectives, taught heads and their origins.

    `settings_of_key` are those of the request's key in the keys file, if it is there. Unless `in_full` is set,
    settings with their default are left out.
    """
    aligner = checked.policies.aligner
    engine = engine_backend(checked.policies)
    fault = f": {escape(checked.faults[0])}" if checked.faults else ""
    verdict = "[red]not valid[/]" if fault else "[green]valid[/]"
    console.print(f"{verdict}  {escape(str(checked.path))}{fault}", soft_wrap=True)
    console.print(
        f"aligner {escape(aligner.model)} ({aligner.quantization}), engine {escape(str(engine))} ({engine.kind})",
        soft_wrap=True,
    )
    console.print(f"languages {escape(', '.join(_languages(checked, policy)) or _EVERY_LANGUAGE)}", soft_wrap=True)
    console.print(f"policy [bold]{escape(policy.name)}[/], tenant namespace {escape(policy.tenant)}")
    _print_keys(console, checked, settings_of_key)
    _print_settings(console, checked, policy, in_full=in_full)
    _print_objectives(console, checked, policy)
    if checked.statuses:
        console.print(TextTable(TAUGHT_HEAD, [status.row for status in checked.statuses]))
    for table in checked.extensions.tables(policy):
        console.print(TextTable(table.head, table.rows))
    for name, origin in _denied_objectives(policy):
        console.print(f"denied  {escape(name)}, by {escape(origin)}: asking for it is a 403", soft_wrap=True)
    console.print(f"trust   {escape(_trust_text(checked.policies.trust))}", soft_wrap=True)
    for line in PRECEDENCE:
        console.print(f"[dim]{escape(line)}[/]", soft_wrap=True)


def print_notes(
    console: Console,
    let_through_reasons: Mapping[str, Sequence[str]],
    nothing_remains: Mapping[str, str],
    warnings: Sequence[str],
    *,
    in_full: bool,
) -> None:
    """Print what can happen to an answer on each route, and the warnings.

    Both mappings have the names of routes as keys: `let_through_reasons` are those for which an answer goes out
    uncorrected, and `nothing_remains` says what is delivered if every sentence of an answer is flagged.
    """
    rows = []
    for route, reasons in let_through_reasons.items():
        route_text = route if route != NO_ROUTE else "(no route matches)"
        rows.append((route_text, _reasons_text(reasons, in_full=in_full), nothing_remains[route]))
    console.print(TextTable(("route", "the original goes out uncorrected", "if nothing would remain"), rows))
    for warning in warnings:
        console.print(f"[yellow]warning[/] {escape(warning)}", soft_wrap=True)


def _reasons_text(reasons: Sequence[str], *, in_full: bool) -> str:
    """The reasons for which an answer goes out uncorrected, as text; unless `in_full`, of many only their number."""
    if len(reasons) > _MAX_REASONS and not in_full:
        return f"wherever it cannot be judged or corrected ({len(reasons)} reasons; --all prints them)"
    return f"on {', '.join(reasons)}" if reasons else "never"


def _languages(checked: CheckedConfig, policy: Policy) -> tuple[str, ...]:
    """The languages of the policy's aligner according to its model card; empty if the card names none."""
    aligner = checked.policies.aligner
    return sources.languages(aligner.adapters.get(policy.aligner, aligner.model))


def _trust_text(trust: Trust) -> str:
    """A text that names the sources allowed to loosen a policy."""
    sources_of_trust = [name for name, value in trust if value is True]
    sources_of_trust += [f"body field {name}" for name in trust.router_fields]
    return ", ".join(sources_of_trust) or "this file alone: metadata of teams and keys only makes a policy stricter"
