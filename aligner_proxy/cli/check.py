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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click

from aligner_proxy.cli.callers import find_caller
from aligner_proxy.cli.check_report import key_settings, print_notes, print_policy, report_fields
from aligner_proxy.cli.check_warnings import find_warnings
from aligner_proxy.cli.checked_config import CheckedConfig, read_config
from aligner_proxy.cli.terminal import Terminal, echo_json
from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway import active_policies
from aligner_proxy.gateway.build import open_engine
from aligner_proxy.pipeline.outcomes import describe_nothing_remains, lets_through
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins import registry
from aligner_proxy.policy import litellm_config
from aligner_proxy.policy.litellm_config import resolve_policies_file
from aligner_proxy.policy.losses import refuse_losses
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Exchange, Policy, Turn


class _CheckCommand(click.Command):
    """The `check` command with one more option for each request field of the bundled plugins."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then those of plugins."""
        plugins = registry.load_plugins(False).plugins
        fields = [field for plugin in plugins for extension in plugin.extensions for field in extension.request_fields]
        options = [
            click.Option([f"--{field.name.replace('_', '-')}", field.name], help=field.about) for field in fields
        ]
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
    checked = read_config(file)
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
    warnings = [*losses, *find_warnings(checked, facts, policy)]
    settings_of_key = key_settings(checked.keys.get(facts.key_hash or ""))
    policies_by_route = checked.resolver.policies_by_route(facts)
    let_through_reasons = {name: lets_through(route_policy) for name, route_policy in policies_by_route}
    nothing_remains = {name: describe_nothing_remains(route_policy) for name, route_policy in policies_by_route}
    if as_json:
        route_fields = {"key": settings_of_key, "lets_through": let_through_reasons, "nothing_remains": nothing_remains}
        echo_json(report_fields(checked, policy, warnings) | route_fields, indent=2)
    else:
        print_policy(Terminal(), checked, policy, settings_of_key, in_full=in_full)
        print_notes(Terminal(), let_through_reasons, nothing_remains, warnings, in_full=in_full)
    sys.exit(1 if checked.faults else 0)


async def _select_objectives(checked: CheckedConfig, policy: Policy, prompt: str) -> Policy:
    """Return the policy with the objectives that the engine chooses for this prompt; opens and closes an engine."""
    engine = open_engine(checked.policies, wait_s=0.0)
    try:
        pipeline = Pipeline(engine, extensions=checked.extensions)
        return await pipeline.select_objectives(Exchange("check", 0, (Turn("user", prompt),), None), policy)
    finally:
        await engine.aclose()


def _find_losses(checked: CheckedConfig, against: Path | None, running: bool) -> list[str]:
    """Return the reasons why a gateway would refuse a change to these policies: tenants would lose objectives.

    They are compared with the file `against` and, if `running` is set, with the policies that `serve` uses.
    """
    comparisons: list[Callable[[], None]] = []
    if against is not None:
        old_file = registry.load_policies(resolve_policies_file(against))
        comparisons.append(partial(refuse_losses, old_file, checked.policies))
    if running:
        running_policies = active_policies.running_policies(checked.path)
        comparisons += [partial(policies.refuse_losses, checked.policies) for policies in running_policies]
    reasons = list[str]()
    for refuse in comparisons:
        try:
            refuse()
        except ConfigError as error:
            reasons.append(str(error))
    return reasons


def _parse_fields(texts: Sequence[str]) -> dict[str, object]:
    """Return the values of --field by name; raises `ConfigError` for a value that does not read NAME=TEXT."""
    fields: dict[str, object] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise ConfigError("--field must read NAME=TEXT")
        fields[name] = value
    return fields


def _parse_metadata(option_name: str, metadata: str | None) -> object:
    """Parse LiteLLM's metadata from an option's JSON and return its value of "aligner"; raises `ConfigError`."""
    try:
        data = json.loads(metadata or "{}")
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise ConfigError(f'{option_name} must be a JSON object, for example {{"aligner": {{"quota": 6}}}}')
    return data.get("aligner")
