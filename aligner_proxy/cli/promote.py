"""`aligner-proxy promote`: a change of policy, written into the policies file.

Comments and layout stay. A change is refused if `check` would refuse its result, or if it would affect other settings.
The file is replaced atomically, with a backup beside it.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text
from yaml import YAMLError

from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.policy.litellm_config import policies_in
from aligner_proxy.policy.resolver import entry_name
from aligner_proxy.policy.schema import PolicyFile, Route, Tenant
from aligner_proxy.policy.yaml_file import KeyPath, nearest, parse, put, read_text, short
from aligner_proxy.types import Mode

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command("promote")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--route", help="Name of the route to change, as x-aligner-policy shows it.")
@click.option("--tenant", help="Name of the tenant to change.")
@click.option("--defaults", is_flag=True, help="Change what holds where neither route nor tenant says anything.")
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), help="enforce, shadow or off.")
@click.option("--sample", type=click.FloatRange(0, 1), help="Share of requests that is looked at.")
@click.option("--caution", type=float, help="Nats by which an edit must beat leaving things as they are.")
@click.option("--dry-run", is_flag=True, help="Show the change and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the diff.")
def command(
    file: Path, route: str | None, tenant: str | None, defaults: bool, dry_run: bool, as_json: bool, **given: Any
) -> None:
    """Change settings of one route, one tenant or the defaults in FILE (policies file, or LiteLLM YAML)."""
    path = policies_in(file).resolve()
    settings = {name: value for name, value in given.items() if value is not None}
    if [route, tenant, defaults or None].count(None) != 2 or not settings:
        raise ConfigError("say where (one of --route, --tenant, --defaults) and what (--mode, --sample, --caution)")
    before = read_text(path)
    loaded = registry.parse_policies(before, path)
    after = changed(before, path, place(loaded, route, tenant), settings)
    config.known_keys(registry.parse_policies(after, path))
    backup = None if dry_run or after == before else write(path, before, after)
    _report(path, before, after, backup, as_json)


def place(file: PolicyFile, route: str | None, tenant: str | None) -> KeyPath:
    """Position in the file of the settings of this route, this tenant, or the defaults."""
    if route is not None:
        return "routes", _position("route", route, file.routes)
    if tenant is not None:
        return "tenants", _position("tenant", tenant, file.tenants)
    return ("defaults",)


def changed(text: str, path: Path, where: KeyPath, settings: dict[str, Any]) -> str:
    """The text with `settings` at `where`; raises `ConfigError` when anything else would change."""
    intended, _ = parse(text, path)
    if not _set(intended, where, settings):
        return text
    try:
        for name, value in settings.items():
            text = put(text, where, name, value)
        same = parse(text, path)[0] == intended
    except (ConfigError, YAMLError):
        same = False
    if not same:
        raise ConfigError(f"{path.name}: more would change with it (an alias, most likely); edit it by hand")
    return text


def write(path: Path, before: str, after: str) -> Path:
    """Replace the file atomically, unless it has changed since; returns the backup."""
    backup = path.with_name(f"{path.name}.{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.bak")
    name = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(after.encode())
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, name)
        if path.read_bytes() != before.encode():
            raise ConfigError(f"{path} was changed by somebody else in the meantime; look at it and try again")
        shutil.copy2(path, backup)
        os.replace(name, path)
        name = None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    finally:
        if name is not None:
            Path(name).unlink()
    return backup


def _position(kind: str, name: str, entries: Sequence[Route | Tenant]) -> int:
    names = [entry_name(entry, i) for i, entry in enumerate(entries)]
    if name not in names:
        raise ConfigError(f"no {kind} {short(name)} in this file; {nearest(name, names)}")
    return names.index(name)


def _set(data: dict[str, Any], where: KeyPath, settings: dict[str, Any]) -> bool:
    """Put the settings into the plain data of the file; returns whether anything changed."""
    target: Any = data
    for part in where:
        if part == "defaults":
            target[part] = target.get(part) or {}
        target = target[part]
    before = dict(target)
    target.update(settings)
    return dict(target) != before


def _report(path: Path, before: str, after: str, backup: Path | None, as_json: bool) -> None:
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), path.name, path.name, lineterm=""))
    if as_json:
        report = {"file": str(path), "diff": lines, "backup": str(backup) if backup else None}
        click.echo(json.dumps(report, indent=2))
        return
    console = Console(soft_wrap=True)
    for line in lines or ["nothing to change: the file has these settings already"]:
        console.print(Text(line, style=_COLOURS.get(line[0], "") if lines else ""))
    if backup is not None:
        console.print(Text(f"written; backup of the old file: {backup.name}", style="dim"))
