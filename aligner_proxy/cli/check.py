"""`aligner-proxy check`: validate a config, and print the policy of a request with the origin of each value.

Reads a LiteLLM YAML (and the policies file that it registers) or a policies file. It starts nothing, and calls the
engine only to choose objectives for a `--prompt`. Exit status 0: valid; 1: a file that the policies file names cannot
be used, such as a file of examples or the audit store; 2: the config itself is wrong. What only the environment lacks,
such as a key, is a warning: a config may be checked on another machine than the gateway's.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from aligner_proxy.audit import writer
from aligner_proxy.cli.callers import find_caller
from aligner_proxy.cli.diff import TextTable
from aligner_proxy.cli.options import check_guardrail_entry, check_local_aligner
from aligner_proxy.cli.terminal import Terminal, echo_json
from aligner_proxy.engine.weights import sources
from aligner_proxy.errors import ConfigError, WeightsError
from aligner_proxy.gateway import active_policies
from aligner_proxy.gateway.build import check_completions, open_engine
from aligner_proxy.gateway.shared_server import open_shared_server
from aligner_proxy.pipeline.outcomes import describe_nothing_remains, lets_through
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.extensions import NO_EXTENSIONS, Extensions
from aligner_proxy.policy import guardrail_entry, litellm_config
from aligner_proxy.policy.config import (
    builtin_objectives,
    check_audit_file,
    check_hand_offs,
    check_local_engine,
    engine_backend,
    keys_path,
    known_keys,
    refuse_without_policies,
    refuse_wrong_audit_file,
)
from aligner_proxy.policy.editor_schema import editor_groups
from aligner_proxy.policy.engine_schema import ServerKind
from aligner_proxy.policy.judge_schema import find_judges
from aligner_proxy.policy.keys_file import KeyEntry
from aligner_proxy.policy.litellm_config import find_policies, is_litellm, model_groups, resolve_policies_file
from aligner_proxy.policy.losses import refuse_losses
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import (
    NO_ROUTE,
    PRECEDENCE,
    PolicyResolver,
    entry_name,
    route_matches,
    tenant_matches,
)
from aligner_proxy.policy.schema import PolicyFile, Trust, plugin_kind
from aligner_proxy.policy.yaml_file import BUILT_IN, read_yaml, suggest_name
from aligner_proxy.teaching.active_heads import ActiveHeads
from aligner_proxy.teaching.overview import HEAD as TAUGHT_HEAD
from aligner_proxy.teaching.overview import HeadStatus, head_statuses
from aligner_proxy.teaching.subjects import TeachingState
from aligner_proxy.types import EMBEDDED, Exchange, GateRule, Judge, JudgeKind, Objective, Policy, Turn

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
_EVERY_LANGUAGE = "not named by the aligner's card: all count"
_DENY = "deny:"
"""Beginning of the names under which a policy stores the origins of denied objectives."""
_MAX_REASONS = 6
"""Most reasons of a route that are printed one by one."""
_NO_START = "a gateway with this environment does not start"
_SOON = timedelta(days=14)
"""How long before its end a key is warned about."""
_KEY_COLUMNS = ("team", "expires", "models", "routes", "rpm", "max_parallel", "max_body_mb")
"""Settings of a key that are printed."""


@dataclass(frozen=True)
class _CheckedConfig:
    """A valid config: the policies file, and what the LiteLLM YAML says if one was given."""

    path: Path
    """Path of the policies file."""
    policies: PolicyFile
    models: tuple[str, ...] | None
    """The model groups of the LiteLLM YAML; None if only a policies file was given."""
    keys: dict[str, KeyEntry]
    """The entries of the keys file by the sha256 of the key."""
    litellm_warnings: tuple[str, ...] = ()
    """Warnings about the LiteLLM YAML, for example about ways on which answers go out uncorrected."""
    litellm: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The LiteLLM YAML; empty if only a policies file was given."""
    statuses: tuple[HeadStatus, ...] = ()
    """The state of each objective that has examples: taught or not."""
    extensions: Extensions = field(default=NO_EXTENSIONS, repr=False)

    @cached_property
    def faults(self) -> list[str]:
        """What is wrong with the files that the policies file names: files of examples and the audit store."""
        unreadable = (status for status in self.statuses if status.state is TeachingState.UNREADABLE)
        faults = [status.warning for status in unreadable if status.warning is not None]
        try:
            refuse_wrong_audit_file(self.policies)
        except ConfigError as error:
            faults.append(str(error))
        return faults

    def lacks_model(self, pattern: str) -> bool:
        """Whether no model of the model_list matches the pattern; False if there is no model_list.

        LiteLLM's model names can have wildcards, too, so both are tried as the pattern.
        """
        models = self.models
        return models is not None and not any(fnmatchcase(m, pattern) or fnmatchcase(pattern, m) for m in models)

    @property
    def resolver(self) -> PolicyResolver:
        """A resolver for these policies, with the taught heads."""
        return PolicyResolver(self.policies, ActiveHeads.read(self.policies).head_of)


class _CheckCommand(click.Command):
    """The `check` command with one more option for each request field of the bundled plugins."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then those of plugins."""
        extensions = (e for plugin in registry.load_plugins(False).plugins for e in plugin.extensions)
        fields = (field for extension in extensions for field in extension.request_fields)
        options = (click.Option([f"--{f.name.replace('_', '-')}", f.name], help=f.about) for f in fields)
        return [*super().get_params(ctx), *options]


@click.command("check", cls=_CheckCommand)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", default="", help="Model name as the client sends it.")
@click.option("--tag", "tags", multiple=True, help="A tag of the request; may be given several times.")
@click.option("--team", help="Team id, or team alias (which matches only with trust: {aliases: true}).")
@click.option("--key", help="Key alias or sha256; for a key of the keys file, its team is used, too.")
@click.option("--team-metadata", help='The team\'s metadata in LiteLLM, as JSON: {"aligner": {...}}.')
@click.option("--key-metadata", help='The key\'s metadata in LiteLLM, as JSON: {"aligner": {...}}.')
@click.option("--objective", "-o", "objectives", multiple=True, help="An objective that the request itself asks for.")
@click.option("--prompt", help="A sample prompt; for `objectives: auto` the engine chooses objectives for it.")
@click.option("--field", "fields", multiple=True, help="NAME=TEXT: the request's value of metadata.aligner.NAME.")
@click.option("--system", default="", help="The request's system prompt.")
@click.option(
    "--against", type=click.Path(path_type=Path), help="The old file: refuse FILE if tenants lose objectives."
)
@click.option("--running", is_flag=True, help="As --against, but compare with the policies that `serve` uses here.")
@click.option("--allow-less", is_flag=True, help="Only warn if tenants lose enforced objectives by FILE.")
@click.option("--all", "in_full", is_flag=True, help="Print settings that have their default, and every reason.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(
    file: Path,
    model: str,
    tags: tuple[str, ...],
    team: str | None,
    key: str | None,
    team_metadata: str | None,
    key_metadata: str | None,
    objectives: tuple[str, ...],
    prompt: str | None,
    fields: tuple[str, ...],
    system: str,
    against: Path | None,
    running: bool,
    allow_less: bool,
    in_full: bool,
    as_json: bool,
    **fields_of_plugins: str | None,
) -> None:
    """Validate FILE (LiteLLM YAML or policies file), and print the policy that a request would get, and why.

    For example: aligner-proxy check gateway/litellm.yaml --model gpt-4o-mini
    """
    checked = _read_config(file)
    losses = _find_losses(checked, against, running)
    if losses and not allow_less:
        raise ConfigError(losses[0])
    caller = find_caller(checked.keys, team, key)
    model, groups = litellm_config.resolve_model(checked.litellm, model)
    facts = RequestFacts(
        model,
        tags,
        team_id=caller.team,
        team_alias=caller.team,  # --team may be an id or an alias
        key_hash=caller.key_digest,
        key_alias=caller.key_alias,
        asked=objectives,
        groups=groups,
        alias_by_operator=caller.is_known,
        team_settings=_parse_metadata("--team-metadata", team_metadata),
        key_settings=_parse_metadata("--key-metadata", key_metadata),
        system=system,
        fields=_parse_fields(fields) | {name: text for name, text in fields_of_plugins.items() if text is not None},
    )
    policy = checked.extensions.resolve(checked.resolver.resolve(facts), facts)
    if prompt is not None:
        policy = asyncio.run(_select_objectives(checked, policy, prompt))
    warnings = [*losses, *_find_warnings(checked, facts, policy)]
    key_settings = _key_settings(checked.keys.get(facts.key_hash or ""))
    by_route = checked.resolver.policies_by_route(facts)
    uncorrected = {name: lets_through(on_route) for name, on_route in by_route}
    remains = {name: describe_nothing_remains(on_route) for name, on_route in by_route}
    if as_json:
        by_request = {"key": key_settings, "lets_through": uncorrected, "nothing_remains": remains}
        echo_json(_report_fields(checked, policy, warnings) | by_request, indent=2)
    else:
        _print_policy(Terminal(), checked, policy, key_settings, in_full=in_full)
        _print_notes(Terminal(), uncorrected, remains, warnings, in_full=in_full)
    sys.exit(1 if checked.faults else 0)


async def _select_objectives(checked: _CheckedConfig, policy: Policy, prompt: str) -> Policy:
    """Return the policy with the objectives that the engine chooses for this prompt; opens and closes an engine."""
    engine = open_engine(checked.policies, wait_s=0.0)
    try:
        pipeline = Pipeline(engine, extensions=checked.extensions)
        return await pipeline.select_objectives(Exchange("check", 0, (Turn("user", prompt),), None), policy)
    finally:
        await engine.aclose()


def _find_losses(checked: _CheckedConfig, against: Path | None, running: bool) -> list[str]:
    """The reasons why a gateway would refuse a change to these policies: tenants would lose enforced objectives."""
    old_files = [registry.load_policies(resolve_policies_file(against))] if against is not None else []
    comparisons = [partial(refuse_losses, file, checked.policies) for file in old_files]
    if running:
        active = active_policies.running_policies(checked.path)
        comparisons += [partial(policies.refuse_losses, checked.policies) for policies in active]
    reasons = list[str]()
    for compare in comparisons:
        try:
            compare()
        except ConfigError as error:
            reasons.append(str(error))
    return reasons


def _parse_fields(texts: Sequence[str]) -> dict[str, object]:
    """The values of --field by name; raises `ConfigError` for one that does not read NAME=TEXT."""
    pairs = [text.partition("=") for text in texts]
    if not all(name and mark for name, mark, _ in pairs):
        raise ConfigError("--field must read NAME=TEXT")
    return {name: text for name, _, text in pairs}


def _read_config(file: Path) -> _CheckedConfig:
    """Load and check everything that FILE names; raises `ConfigError` if a gateway would refuse it."""
    data, source = read_yaml(file)
    litellm = is_litellm(data)
    path = find_policies(file) if litellm else file
    policies = registry.load_policies(path)
    refuse_without_policies(policies)
    registry.configure_plugins(policies)
    open_shared_server(policies)  # for its checks: an error here would keep the gateway from starting
    extensions = registry.load_extensions(policies)
    keys = known_keys(policies)
    statuses = tuple(head_statuses(policies))
    if not litellm:
        return _CheckedConfig(path, policies, None, keys, statuses=statuses, extensions=extensions)
    litellm_warnings = (
        *guardrail_entry.check_entries(data, source, policies, check_guardrail_entry),
        *litellm_config.find_uncovered(data, source),
        *litellm_config.find_unset_variables(data, source),
        *(f"{fault}; {_NO_START}" for fault in litellm_config.find_start_faults(file)),
    )
    checked = _CheckedConfig(path, policies, model_groups(data), keys, litellm_warnings, data, statuses, extensions)
    missing_group = next(_missing_editor_groups(checked), None)
    # The group may also be in LiteLLM's database, which is not visible here.
    if missing_group is not None and not litellm_config.has_models_in_database(data):
        raise ConfigError(missing_group)
    return checked


def _parse_metadata(option_name: str, metadata: str | None) -> object:
    """Parse LiteLLM's metadata from an option's JSON and return its value of "aligner"; raises `ConfigError`."""
    try:
        data = json.loads(metadata or "{}")
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise ConfigError(f'{option_name} must be a JSON object, for example {{"aligner": {{"quota": 6}}}}')
    return data.get("aligner")


def _find_warnings(checked: _CheckedConfig, facts: RequestFacts, policy: Policy) -> list[str]:
    """All warnings about the config and about the policy that this request gets."""
    warnings = list(checked.policies.warnings)
    for i, route in enumerate(checked.policies.routes):
        pattern = route.match.model
        if pattern is not None and checked.lacks_model(pattern):
            place = checked.policies.source.place_of("routes", i)
            warnings.append(f"{place}: {entry_name(route, i)} ({pattern}) matches no model of the model_list")
    if not facts.model:
        warnings.append("no --model given: routes that name a model were passed over")
    elif checked.lacks_model(facts.model):
        warnings.append(f"the model_list has no model {facts.model!r}")
    if not any(route_matches(route, facts.names, facts.tags) for route in checked.policies.routes):
        warnings.append("no route matches this request")
    trusts_aliases = checked.policies.trust.aliases
    is_named = facts.team_id or facts.key_hash or facts.key_alias
    if is_named and not any(tenant_matches(tenant, facts, trusts_aliases) for tenant in checked.policies.tenants):
        warnings.append("no tenant matches this team or key")
    warnings.extend(_start_warnings(checked.policies))
    warnings.extend(_redis_warnings(checked.policies))
    warnings.extend(_key_warnings(checked))
    warnings.extend(_engine_warnings(checked, policy))
    warnings += [*_missing_corrector_models(checked), *_missing_editor_groups(checked)]
    warnings += [status.warning for status in checked.statuses if status.warning is not None]
    warnings += _objective_warnings(checked, policy)
    warnings += checked.extensions.explain(policy, facts)
    if not (policy.objectives or policy.requirements):
        warnings.append("no objectives: such an answer is skipped (reason no_objectives)")
    return [*warnings, *checked.litellm_warnings]


def _objective_warnings(checked: _CheckedConfig, policy: Policy) -> Iterator[str]:
    """Warn about built-in objectives that make the embedded aligner edit good answers, unless they were taught."""
    if EMBEDDED not in (checked.policies.aligner.model, *checked.policies.aligner.adapters.values()):
        return
    origins = dict(policy.origins)
    built_in = builtin_objectives()
    for objective in policy.objectives:
        name = objective.name
        if name in EDITS_GOOD_ANSWERS and not objective.head and objective.text == built_in[name].text:
            yield (
                f"{origins[f'objective:{name}']}: {name} edits {EDITS_GOOD_ANSWERS[name]} % of good answers; "
                "teach it by your own answers, or try it with mode: shadow first (docs/reference/objectives.md)"
            )


def _start_warnings(policies: PolicyFile) -> Iterator[str]:
    """Warn about what is missing in this environment for a gateway to start, such as keys and secrets."""
    own = (writer.make_recorder, check_audit_file, check_hand_offs, check_local_engine, check_local_aligner)
    faults = []
    for check in (*own, lambda file: check_completions(file, engine_backend(file))):
        try:
            check(policies)
        except (ConfigError, WeightsError) as error:
            faults.append(f"{error}; {_NO_START}")
    # Two checks may find the same.
    yield from dict.fromkeys(faults)


def _redis_warnings(policies: PolicyFile) -> Iterator[str]:
    """Warn about a shared Redis without encryption, because anyone who can read it can read corrected texts."""
    if policies.cache.redis_env and not policies.cache.key_env:
        place = policies.source.place_of("cache", "redis_env")
        yield f"{place}: corrected texts are stored in Redis unencrypted; name a variable with a key: cache.key_env"


def _key_warnings(checked: _CheckedConfig) -> Iterator[str]:
    """Warn about keys of the keys file that a gateway refuses now or soon, and about unknown models in it."""
    path = keys_path(checked.policies)
    if path is not None and not path.exists():
        yield f"{path.name} does not exist, so none of its keys is accepted"
    now = datetime.now(UTC)
    for entry in checked.keys.values():
        if entry.is_expired(now):
            yield f"key {entry.alias} expired at {_moment_text(entry.expires)} and is refused"
        elif entry.is_expired(now + _SOON):
            yield f"key {entry.alias} expires at {_moment_text(entry.expires)}"
        unserved = [name for name in entry.models or () if checked.lacks_model(name)]
        if unserved:
            yield f"key {entry.alias} may call {', '.join(unserved)}, which the model_list does not have"


def _key_settings(entry: KeyEntry | None) -> dict[str, Any] | None:
    """The settings of a key in the keys file, without its hash; None if the key has no entry."""
    if entry is None:
        return None
    settings = entry.model_dump(mode="json", include=set(_KEY_COLUMNS), exclude_none=True)
    return {"alias": entry.alias} | {name: settings[name] for name in _KEY_COLUMNS if settings.get(name)}


def _moment_text(moment: datetime | None) -> str:
    """A time to the minute; "never" for None."""
    return "never" if moment is None else moment.isoformat(sep=" ", timespec="minutes")


def _engine_warnings(checked: _CheckedConfig, policy: Policy) -> list[str]:
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


def _missing_corrector_models(checked: _CheckedConfig) -> Iterator[str]:
    """Warn about correctors of the kind `self_refine` whose model is not in the model_list."""
    for name, entry in checked.policies.plugins.correctors.items():
        model = str(entry.get("model", ""))
        if plugin_kind(name, entry) == "self_refine" and checked.models is not None and model not in checked.models:
            place = checked.policies.source.place_of("plugins", "correctors", name)
            yield f"{place}: corrector {name} asks {model!r}, which the model_list does not have"


def _missing_editor_groups(checked: _CheckedConfig) -> Iterator[str]:
    """Warn about each editor and judge that is not a model group of the LiteLLM YAML."""
    policies = checked.policies
    editors = (("editor", *entry) for entry in editor_groups(policies.blocks()).items())
    judges_by_path = find_judges([*policies.blocks(), *policies.objective_entries()])
    judges = (("judge", judge.group, path) for judge, path in judges_by_path if judge.kind is not JudgeKind.TOKENS)
    for name, group, path in (*editors, *judges):
        if checked.lacks_model(group):
            place = policies.source.place_of(*path)
            hint = suggest_name(group, checked.models or ())
            yield f"{place}: {name} {group!r} is no model group of the model_list; {hint}"


def _objective_notes(objective: Objective) -> str:
    """In brackets, whether an objective was taught, and its own judge; empty if neither is so."""
    judge = objective.judge
    notes = ["taught"] if objective.head else []
    notes += [f"judge: {judge.group or 'off'}"] if judge is not None else []
    return f" ({', '.join(notes)})" if notes else ""


def _setting_rows(settings: Mapping[str, Any], policy: Policy) -> list[tuple[str, str, str]]:
    """A row (setting, value, origin) for every setting, and one for each gate rule that is off."""
    origins = dict(policy.origins)
    off = [rule for rule in GateRule if rule not in policy.gate]
    gate = ("gate", f"all rules but {len(off)}" if off else "all rules", origins["gate"])
    rows = [gate if name == "gate" else (name, _value_text(value), origins[name]) for name, value in settings.items()]
    rows += [(f"gate.{rule}", "off", origins[f"gate.{rule}"]) for rule in off]
    if policy.quota is not None:
        rows.append(("quota", f"{policy.quota.seconds:g} s a minute", origins["quota"]))
    if policy.hand_off is not None:
        hand_off = policy.hand_off
        summary = f"{hand_off.url} within {hand_off.within:g} nats, {'with' if hand_off.text else 'without'} text"
        rows.append(("hand_off", summary, origins["hand_off"]))
    return rows


def _value_text(value: object) -> str:
    """A value as it would be written in the policies file."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {percent} %" for name, percent in value.items())
    if not isinstance(value, tuple):
        return str(value)
    texts = (f"{part[0] or 'default'}: {part[1]}" if isinstance(part, tuple) else str(part) for part in value)
    return ", ".join(texts) or "none"


def _denied_objectives(policy: Policy) -> list[tuple[str, str]]:
    """The name of each objective that a request may not ask for, and where the policy got that from."""
    return [(name.removeprefix(_DENY), origin) for name, origin in policy.origins if name.startswith(_DENY)]


def _report_fields(checked: _CheckedConfig, policy: Policy, warnings: Sequence[str]) -> dict[str, Any]:
    """The config and the policy as --json prints them."""
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
            "objectives": [
                {"name": o.name, "text": o.text, "origin": origins[f"objective:{o.name}"], "head": o.head or None}
                | ({"met": how} if (how := checked.extensions.describe(o)) else {})
                for o in policy.objectives
            ],
            "taught": [status.as_json() for status in checked.statuses],
            "trust": checked.policies.trust.model_dump(),
            "precedence": list(PRECEDENCE),
            "warnings": list(warnings),
            "valid": not checked.faults,
        }
    )


def _print_settings(console: Console, checked: _CheckedConfig, policy: Policy, *, in_full: bool) -> None:
    """Print the settings; unless `in_full`, those with their default only as a number."""
    rows = _setting_rows(checked.resolver.settings(policy), policy)
    shown_rows = [row for row in rows if in_full or not row[2].startswith(BUILT_IN)]
    if shown_rows:
        console.print(TextTable(("setting", "value", "from"), shown_rows))
    if len(shown_rows) < len(rows):
        console.print(f"[dim]{len(rows) - len(shown_rows)} settings have their default; --all prints them[/]")


def _print_policy(
    console: Console, checked: _CheckedConfig, policy: Policy, key: Mapping[str, Any] | None, *, in_full: bool
) -> None:
    """Print the policy as tables: settings, objectives, taught heads and their origins."""
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
    if checked.keys:
        moments = sorted(entry.expires for entry in checked.keys.values() if entry.expires is not None)
        first_end = f", {len(moments)} with an end, the first at {_moment_text(moments[0])}" if moments else ""
        console.print(f"keys    {len(checked.keys)}{first_end}", soft_wrap=True)
    if key is not None:
        texts = ((name, ", ".join(map(str, v)) if isinstance(v, list) else str(v)) for name, v in key.items())
        console.print(TextTable(("key of the file", "value"), list(texts)))
    _print_settings(console, checked, policy, in_full=in_full)
    origins = dict(policy.origins)
    # Columns with plugins' values for each objective, for example its weight.
    by_objective = {k: v for k, v in checked.extensions.record(policy).items() if isinstance(v, Mapping)}
    rows = [
        (
            f"{number}. {objective.name}{_objective_notes(objective)}",
            *(_number_text(values.get(objective.name, "-")) for values in by_objective.values()),
            objective.text,
            _origin_text(checked, objective, origins),
        )
        for number, objective in enumerate(policy.objectives, 1)
    ]
    console.print(TextTable(("objective", *by_objective, "text", "from"), rows))
    if checked.statuses:
        console.print(TextTable(TAUGHT_HEAD, [status.row for status in checked.statuses]))
    for table in checked.extensions.tables(policy):
        console.print(TextTable(table.head, table.rows))
    for name, origin in _denied_objectives(policy):
        console.print(f"denied  {escape(name)}, by {escape(origin)}: asking for it is a 403", soft_wrap=True)
    console.print(f"trust   {escape(_trust_text(checked.policies.trust))}", soft_wrap=True)
    for line in PRECEDENCE:
        console.print(f"[dim]{escape(line)}[/]", soft_wrap=True)


def _print_notes(
    console: Console,
    uncorrected: Mapping[str, Sequence[str]],
    remains: Mapping[str, str],
    warnings: Sequence[str],
    *,
    in_full: bool,
) -> None:
    """Print what can happen to an answer on each route, and the warnings.

    By route: `uncorrected` are the reasons for which the original goes out uncorrected, and `remains` is what is
    delivered if every sentence of an answer is flagged.
    """
    rows = [
        (name if name != NO_ROUTE else "(no route matches)", _reasons_text(reasons, in_full=in_full), remains[name])
        for name, reasons in uncorrected.items()
    ]
    console.print(TextTable(("route", "the original goes out uncorrected", "if nothing would remain"), rows))
    for warning in warnings:
        console.print(f"[yellow]warning[/] {escape(warning)}", soft_wrap=True)


def _reasons_text(reasons: Sequence[str], *, in_full: bool) -> str:
    """Reasons for which an original goes out; unless `in_full`, many of them only as a number."""
    if len(reasons) > _MAX_REASONS and not in_full:
        return f"wherever it cannot be judged or corrected ({len(reasons)} reasons; --all prints them)"
    return f"on {', '.join(reasons)}" if reasons else "never"


def _languages(checked: _CheckedConfig, policy: Policy) -> tuple[str, ...]:
    """The languages of the policy's aligner according to its model card; empty if the card names none."""
    aligner = checked.policies.aligner
    return sources.languages(aligner.adapters.get(policy.aligner, aligner.model))


def _trust_text(trust: Trust) -> str:
    """A text that names the sources allowed to loosen a policy."""
    words = [name for name, value in trust if value is True] + [f"body field {name}" for name in trust.router_fields]
    return ", ".join(words) or "this file alone: metadata of teams and keys only makes a policy stricter"


def _origin_text(checked: _CheckedConfig, objective: Objective, origins: Mapping[str, str]) -> str:
    """Where an objective of the policy comes from, with what a plugin says about it."""
    origin = origins[f"objective:{objective.name}"]
    description = checked.extensions.describe(objective)
    return f"{origin}: {description}" if description else origin


def _number_text(value: object) -> str:
    """A number with three decimals; anything else as it is."""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
