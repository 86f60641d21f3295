"""`aligner-proxy promote`: write a change of policy into the policies file, and nothing else.

Comments and layout stay. What `check` would refuse is not written, neither is a change that would say more than was
asked for. The file is replaced whole, and what was before lies beside it.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text
from yaml import YAMLError

from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.policy.config import load_keys
from aligner_proxy.policy.litellm_config import policies_in
from aligner_proxy.policy.resolver import route_name, tenant_name
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.policy.yaml_file import KeyPath, nearest, parse, put, short
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
    file: Path, route: str | None, tenant: str | None, defaults: bool, dry_run: bool, as_json: bool, **wanted: Any
) -> None:
    """Change settings of one route, one tenant or the defaults in FILE (policies file, or LiteLLM YAML)."""
    path = policies_in(file).resolve()
    settings = {name: value for name, value in wanted.items() if value is not None}
    if [route, tenant, defaults or None].count(None) != 2 or not settings:
        raise ConfigError("say where (one of --route, --tenant, --defaults) and what (--mode, --sample, --caution)")
    before = _text(path)
    loaded = registry.parse_policies(before, path)
    after = changed(before, path, place(loaded, route, tenant), settings)
    _refuse_bad_keys(registry.parse_policies(after, path))
    backup = None if dry_run or after == before else write(path, before, after)
    _report(path, before, after, backup, as_json)


def place(file: PolicyFile, route: str | None, tenant: str | None) -> KeyPath:
    """Where the settings of this route, of this tenant or of all stand in the file."""
    if route is not None:
        return "routes", _position("route", route, [route_name(one, i) for i, one in enumerate(file.routes)])
    if tenant is not None:
        return "tenants", _position("tenant", tenant, [tenant_name(one, i) for i, one in enumerate(file.tenants)])
    return ("defaults",)


def changed(text: str, path: Path, where: KeyPath, settings: dict[str, Any]) -> str:
    """The text with `settings` at `where`; raises when anything else would change with them."""
    wanted, _ = parse(text, path)
    if not _set(wanted, where, settings):
        return text
    try:
        for name, value in settings.items():
            text = put(text, where, name, value)
        same = parse(text, path)[0] == wanted
    except (ConfigError, YAMLError):
        same = False
    if not same:
        raise ConfigError(f"{path.name}: more would change with it (an alias, most likely); edit it by hand")
    return text


def write(path: Path, before: str, after: str) -> Path:
    """Replace the file at once, unless somebody changed it meanwhile; where the old one lies now."""
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
            raise ConfigError(f"{path} was changed meanwhile; look at it and try again")
        shutil.copy2(path, backup)
        os.replace(name, path)
        name = None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    finally:
        if name is not None:
            Path(name).unlink()
    return backup


def _position(kind: str, name: str, names: list[str]) -> int:
    if name not in names:
        raise ConfigError(f"no {kind} {short(name)} in this file; {nearest(name, names)}")
    return names.index(name)


def _set(data: dict[str, Any], where: KeyPath, settings: dict[str, Any]) -> bool:
    """Put the settings into the plain data of the file; whether that changes anything."""
    target: Any = data
    for part in where:
        if part == "defaults":
            target[part] = target.get(part) or {}
        target = target[part]
    before = dict(target)
    target.update(settings)
    return dict(target) != before


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name}: not UTF-8 text; save it as UTF-8") from None


def _refuse_bad_keys(file: PolicyFile) -> None:
    keys = config.keys_path(file)
    if keys is not None:
        load_keys(keys)


def _report(path: Path, before: str, after: str, backup: Path | None, as_json: bool) -> None:
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), path.name, path.name, lineterm=""))
    if as_json:
        told = {"file": str(path), "diff": lines, "backup": str(backup) if backup else None}
        click.echo(json.dumps(told, indent=2))
        return
    console = Console(soft_wrap=True)
    for line in lines or ["nothing to change: the file says so already"]:
        console.print(Text(line, style=_COLOURS.get(line[0], "") if lines else ""))
    if backup is not None:
        console.print(Text(f"written; what was before: {backup.name}", style="dim"))
