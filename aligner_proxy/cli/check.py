"""`aligner-proxy check`: is this config right, and which policy would such a request get, value by value?

Reads a LiteLLM YAML (and finds the policies file in it) or a policies file. It starts nothing and asks no network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aligner_proxy.config import KeyEntry, PolicyFile, find_policies, keys_path, load, load_keys
from aligner_proxy.policy import PRECEDENCE, SETTINGS, PolicyResolver, RequestFacts, route_matches, route_name
from aligner_proxy.provenance import read
from aligner_proxy.types import Policy

_LITELLM_KEYS = frozenset({"model_list", "guardrails", "litellm_settings", "general_settings", "router_settings"})


@dataclass(frozen=True, slots=True)
class _Checked:
    """A config that was read without complaint; `models` is None when only a policies file was given."""

    path: Path
    policies: PolicyFile
    models: tuple[str, ...] | None
    keys: dict[str, KeyEntry]


@click.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", default="", help="Model name as the client sends it.")
@click.option("--tag", "tags", multiple=True, help="A tag of the request; may be given several times.")
@click.option("--team", help="Team id or alias.")
@click.option("--key", help="Key alias or sha256; an entry of the keys file also says its team.")
@click.option("--objective", "-o", "asked", multiple=True, help="An objective that the request asks for by itself.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(
    file: Path,
    model: str,
    tags: tuple[str, ...],
    team: str | None,
    key: str | None,
    asked: tuple[str, ...],
    as_json: bool,
) -> None:
    """Validate FILE (LiteLLM YAML or policies file) and print the policy that such a request would get, and why."""
    checked = _read(file)
    facts = _facts(checked, model, tags, team, key, asked)
    policy = PolicyResolver(checked.policies).resolve(facts)
    warnings = _warnings(checked, facts, policy)
    if as_json:
        click.echo(json.dumps(_as_json(checked, policy, warnings), indent=2))
    else:
        _print(Console(), checked, policy, warnings)


def _read(file: Path) -> _Checked:
    data, _ = read(file)
    litellm = isinstance(data, dict) and not _LITELLM_KEYS.isdisjoint(data)
    path = find_policies(file) if litellm else file
    policies = load(path)
    keys = keys_path(policies)
    return _Checked(path, policies, _models(data) if litellm else None, load_keys(keys) if keys else {})


def _models(data: dict[str, Any]) -> tuple[str, ...]:
    """Every name that a client can send to this LiteLLM: its model groups and their aliases."""
    entries = data.get("model_list") or []
    aliases = (data.get("router_settings") or {}).get("model_group_alias") or {}
    return (*(str(e["model_name"]) for e in entries if isinstance(e, dict) and "model_name" in e), *aliases)


def _facts(
    checked: _Checked, model: str, tags: tuple[str, ...], team: str | None, key: str | None, asked: tuple[str, ...]
) -> RequestFacts:
    digest, entry = next(
        ((d, e) for d, e in checked.keys.items() if key is not None and key in (d, e.alias)), (key, None)
    )
    alias, own_team = (entry.alias, entry.team) if entry else (key, None)
    team = team or own_team
    return RequestFacts(model, tags, team, team, digest, alias, asked=asked)


def _warnings(checked: _Checked, facts: RequestFacts, policy: Policy) -> list[str]:
    found = []
    for i, route in enumerate(checked.policies.routes):
        pattern = route.match.model
        if checked.models is not None and pattern is not None and not _serves(checked.models, pattern):
            place = checked.policies.source.at("routes", i)
            found.append(f"{place}: {route_name(route, i)} ({pattern}) matches no model of the model_list")
    if not facts.model:
        found.append("no --model given: routes that name a model were passed over")
    elif checked.models is not None and not _serves(checked.models, facts.model):
        found.append(f"the model_list has no model {facts.model!r}")
    if not any(route_matches(route, facts.model, facts.tags) for route in checked.policies.routes):
        found.append("no route matches this request")
    if not policy.objectives:
        found.append("no objectives: such an answer is skipped (reason no_objectives)")
    return found


def _serves(models: Sequence[str], pattern: str) -> bool:
    """Either side may be a pattern: LiteLLM's model names can hold wildcards too."""
    return any(fnmatchcase(model, pattern) or fnmatchcase(pattern, model) for model in models)


def _rows(policy: Policy) -> list[tuple[str, str, str]]:
    origins = dict(policy.origins)
    return [(name, str(getattr(policy, name)), origins[name]) for name in SETTINGS]


def _as_json(checked: _Checked, policy: Policy, warnings: Sequence[str]) -> dict[str, Any]:
    origins = dict(policy.origins)
    return {
        "file": str(checked.path),
        "policy": policy.name,
        "tenant": policy.tenant,
        "settings": {name: {"value": getattr(policy, name), "origin": origins[name]} for name in SETTINGS},
        "objectives": [
            {"name": o.name, "text": o.text, "origin": origins[f"objective:{o.name}"]} for o in policy.objectives
        ],
        "precedence": list(PRECEDENCE),
        "warnings": list(warnings),
    }


def _print(console: Console, checked: _Checked, policy: Policy, warnings: Sequence[str]) -> None:
    aligner = checked.policies.aligner
    console.print(f"[green]valid[/]  {escape(str(checked.path))}", soft_wrap=True)
    console.print(f"aligner {escape(aligner.model)} ({aligner.quantization}), engine {escape(aligner.engine)}")
    console.print(f"policy [bold]{escape(policy.name)}[/], tenant namespace {escape(policy.tenant)}")
    console.print(_table(("setting", "value", "from"), _rows(policy)))
    origins = dict(policy.origins)
    rows = [(f"{i}. {o.name}", o.text, origins[f"objective:{o.name}"]) for i, o in enumerate(policy.objectives, 1)]
    console.print(_table(("objective", "text", "from"), rows))
    for line in PRECEDENCE:
        console.print(f"[dim]{escape(line)}[/]", soft_wrap=True)
    for warning in warnings:
        console.print(f"[yellow]warning[/] {escape(warning)}", soft_wrap=True)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*head)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table
