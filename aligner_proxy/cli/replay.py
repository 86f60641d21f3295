"""`aligner-proxy replay`: recorded answers under another policy or aligner, compared with what was done then.

Reads the audit store, delivers nothing, records nothing. What is printed and written holds figures, ids and reasons;
texts are shown on the terminal alone, and only with --show.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from aligner_proxy import audit, plugged
from aligner_proxy.cli.align import opened_engine
from aligner_proxy.cli.aligner_options import weight_options
from aligner_proxy.cli.comparison import Comparison
from aligner_proxy.cli.diff import word_diff
from aligner_proxy.correctors import correctors
from aligner_proxy.engine.protocol import Engine
from aligner_proxy.errors import ConfigError
from aligner_proxy.litellm_file import policies_in
from aligner_proxy.pipeline import Pipeline
from aligner_proxy.plugged_rules import PluggedRules
from aligner_proxy.policy import PolicyResolver
from aligner_proxy.policy_file import PolicyFile
from aligner_proxy.replay import Case, Change, replay

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@click.command("replay")
@click.option("--policy", "policies", required=True, type=click.Path(path_type=Path), help="Policies to replay under.")
@click.option("--audit", "store", type=click.Path(path_type=Path), help="The store; by default that of the policies.")
@click.option("--since", default="7d", show_default=True, help="How far back: 30m, 12h, 7d, or a date like 2030-01-31.")
@click.option(
    "--limit", default=1000, show_default=True, type=click.IntRange(min=1), help="At most so many, the newest."
)
@click.option("--engine", "address", help="A running engine: unix:/path/to/engine.sock or http(s)://host:port.")
@click.option("--aligner", "model", help="Another aligner, run in this process: embedded, a hub id, or a folder.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of an aligner in this process.")
@click.option("--deadline", type=click.FloatRange(min=0, min_open=True), help="Seconds an answer; else the policy's.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for replay.md, replay.json and, with the extra `plots`, replay.svg.",
)
@click.option("--show", default=0, type=click.IntRange(min=0), help="Print the diffs of so many answers that differ.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@weight_options
def command(
    policies: Path, store: Path | None, since: str, limit: int, address: str | None, output: Path | None, **given: Any
) -> None:
    """Run recorded answers under other policies or another aligner, and compare."""
    show, as_json, deadline_s = given.pop("show"), given.pop("as_json"), given.pop("deadline")
    path = policies_in(policies)
    file = plugged.load_policies(path)
    entries = _entries(file, store, _moment(since), limit)
    if address and any(given.values()):
        raise ConfigError("give --engine or --aligner, not both: an engine that runs has its aligner")
    cases = asyncio.run(_replayed(entries, file, deadline_s, lambda: opened_engine(address, given, path)))
    comparison = Comparison(cases, policies.name, without_text=len(entries) - len(cases))
    if output is not None:
        comparison.write(output)
    if as_json:
        click.echo(json.dumps(comparison.as_json(), indent=2))
        return
    console = Console()
    comparison.show(console)
    _show(console, [case for case in cases if case.change is not Change.SAME][:show])


def _entries(file: PolicyFile, path: Path | None, since: float, limit: int) -> list[audit.Entry]:
    """All at once: a reader that stays in the file would keep the gateway from tidying it."""
    store = audit.store(file, path)
    try:
        found = list(store.entries(since=since, limit=limit))
    finally:
        store.close()
    if not found:
        raise ConfigError("the audit store has no entry of that time; choose another --since")
    return found[::-1]


def _moment(since: str) -> float:
    """Seconds since the epoch."""
    age = _AGE.fullmatch(since)
    if age is not None:
        return time.time() - float(age[1]) * _UNITS[age[2]]
    try:
        told = datetime.fromisoformat(since)
    except ValueError:
        raise ConfigError("--since must be an age such as 30m, 12h or 7d, or a date such as 2030-01-31") from None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()


async def _replayed(
    entries: list[audit.Entry],
    file: PolicyFile,
    deadline_s: float | None,
    opened: Callable[[], AbstractAsyncContextManager[Engine]],
) -> list[Case]:
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("replaying", total=sum(entry.content is not None for entry in entries))
        async with opened() as engine:
            pipeline = Pipeline(
                engine,
                correctors=correctors(file),
                rules=PluggedRules.of(file),
                extensions=plugged.extensions(file),
            )
            return await replay(entries, PolicyResolver(file), pipeline, lambda: progress.advance(bar), deadline_s)


def _show(console: Console, cases: list[Case]) -> None:
    for case in cases:
        console.print(Text(f"\n{case.entry.call_id}/{case.entry.choice}: {case.change}", style="bold"))
        answer = case.entry.content.exchange.answer if case.entry.content else None
        for name, side in (("before", case.before), ("after", case.after)):
            console.print(Text(f"{name} ({side.ending}{f', {side.reason}' if side.reason else ''}) ", style="dim"))
            console.print(word_diff(answer or "", side.text or ""))
