"""Where do settings come from? Loads policies.yaml and the keys file, and is the only reader of the environment.

ALIGNER_PROXY_ENGINE (engine address), ALIGNER_PROXY_KEYS (keys file), ALIGNER_PROXY_HOME (cache and weights folder)
and ALIGNER_PROXY_POLICIES (policies file) each go before what the file says. It decides nothing about a request.
`python -m aligner_proxy.config > configs/policies.schema.json` writes the JSON schema of the policies file.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy_file import Aligner, CacheSettings, KeyEntry, PolicyFile, engine_address
from aligner_proxy.provenance import KeyPath, Source, explain, nearest, read, short
from aligner_proxy.reachable import refuse_unreachable
from aligner_proxy.types import Objective

__all__ = [
    "GUARDRAIL",
    "Aligner",
    "CacheSettings",
    "KeyEntry",
    "PolicyFile",
    "aligner_model",
    "builtin_objectives",
    "cache_dir",
    "default_socket",
    "engine_at",
    "find_policies",
    "home",
    "keys_path",
    "load",
    "load_keys",
    "objectives",
    "policies_path",
    "schema",
]

GUARDRAIL = "aligner_proxy.guardrail.AlignerGuardrail"
_ENGINE, _KEYS = "ALIGNER_PROXY_ENGINE", "ALIGNER_PROXY_KEYS"
_HOME, _POLICIES = "ALIGNER_PROXY_HOME", "ALIGNER_PROXY_POLICIES"
# sockaddr_un holds 104 bytes on macOS and 108 on Linux, the closing zero included.
_SOCKET_BYTES = 103


def load(path: Path | str) -> PolicyFile:
    """Read and check a policies file; every refusal names file, line and fix."""
    data, source = read(Path(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{source.name}:1: must be a block of keys; {nearest('', PolicyFile.model_fields)}")
    try:
        file = PolicyFile.model_validate(data).placed(source)
    except ValidationError as error:
        raise explain(error, source, PolicyFile) from None
    _check_names(file)
    refuse_unreachable(file)
    return file


@cache
def builtin_objectives() -> Mapping[str, Objective]:
    """The objectives that come with the package."""
    data, _ = read(Path(__file__).with_name("objectives.yaml"))
    return MappingProxyType({name: Objective(name, text) for name, text in data.items()})


def objectives(file: PolicyFile) -> dict[str, Objective]:
    """Every objective that may be named: the built-in ones, with the file's own over them."""
    own = {name: Objective(name, text) for name, text in file.objectives.items()}
    return {**builtin_objectives(), **own}


def _check_names(file: PolicyFile) -> None:
    known = objectives(file)
    for path, name in _named(file):
        if name not in known and not (name == "*" and path[-2] == "allow"):
            place = file.source.at(*path)
            raise ConfigError(f"{place}: unknown objective {short(name)}; {nearest(name, known)}")


def _named(file: PolicyFile) -> Iterator[tuple[KeyPath, str]]:
    """Every use of an objective's name with its place."""
    for i, route in enumerate(file.routes):
        yield from ((("routes", i, "objectives", n), name) for n, name in enumerate(route.objectives))
    for i, tenant in enumerate(file.tenants):
        for key, names in (("enforce", tenant.enforce), ("allow", tenant.allow), ("deny", tenant.deny)):
            yield from ((("tenants", i, key, n), name) for n, name in enumerate(names or ()))


def load_keys(path: Path | str) -> dict[str, KeyEntry]:
    """Read a keys file: a list of {sha256, alias, team}; the result is by sha256 in lower case."""
    data, source = read(Path(path))
    if not isinstance(data, list):
        raise ConfigError(f"{source.name}:1: must be a list of {{sha256: ..., alias: ..., team: ...}}")
    try:
        entries = TypeAdapter(tuple[KeyEntry, ...]).validate_python(data)
    except ValidationError as error:
        _refuse_plain_key(error, source)
        raise explain(error, source, KeyEntry) from None
    return _by_hash(entries, source)


def _refuse_plain_key(error: ValidationError, source: Source) -> None:
    for detail in error.errors(include_url=False, include_input=False):
        if detail["loc"][-1] == "sha256" and detail["type"] == "string_pattern_mismatch":
            raise ConfigError(
                f"{source.at(*detail['loc'])}: sha256 must be 64 hexadecimal digits: the hash of the key, not the key"
            )


def _by_hash(entries: tuple[KeyEntry, ...], source: Source) -> dict[str, KeyEntry]:
    found: dict[str, KeyEntry] = {}
    for i, entry in enumerate(entries):
        digest = entry.sha256.lower()
        if digest in found:
            raise ConfigError(f"{source.at(i)}: the same key stands twice in this file; keep one entry")
        found[digest] = entry
    return found


def find_policies(litellm_file: Path | str) -> Path:
    """The policies file that a LiteLLM YAML registers with our guardrail."""
    data, source = read(Path(litellm_file))
    entries = data.get("guardrails") if isinstance(data, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        params = entry.get("litellm_params") if isinstance(entry, dict) else None
        if isinstance(params, dict) and params.get("guardrail") == GUARDRAIL:
            return policies_path(str(params.get("policies") or "policies.yaml"), source.folder)
    raise ConfigError(
        f"{source.name}: no guardrail {GUARDRAIL} under guardrails:; register it with "
        f"litellm_params: {{guardrail: {GUARDRAIL}, mode: post_call, default_on: true, policies: policies.yaml}}"
    )


def policies_path(setting: str, folder: Path) -> Path:
    """Where the policies are: the environment's word, else `setting` counted from the LiteLLM file's folder."""
    return folder / Path(_env(_POLICIES) or setting).expanduser()


def engine_at(file: PolicyFile) -> str:
    """The engine's address: the environment's word, else the file's."""
    override = _env(_ENGINE)
    if override is None:
        return file.aligner.engine
    try:
        return engine_address(override)
    except ValueError as error:
        raise ConfigError(f"{_ENGINE}: {error}") from None


def aligner_model(file: PolicyFile) -> str | Path:
    """The aligner as written: "embedded" or a hub id as text, a folder as a path counted from the file."""
    model = file.aligner.model
    return file.source.resolve(model) if model.startswith((".", "/", "~")) else model


def keys_path(file: PolicyFile | None = None) -> Path | None:
    """The keys file: the environment's word, else that of `file` or of the policies file the environment names."""
    override = _env(_KEYS)
    if override is not None:
        return Path(override).expanduser()
    policies = _env(_POLICIES)
    if file is None and policies is not None:
        file = load(Path(policies).expanduser())
    return file.source.resolve(file.keys) if file is not None and file.keys else None


def home() -> Path:
    """The folder of caches and weights."""
    override = _env(_HOME)
    return Path(override).expanduser() if override else Path.home() / ".cache" / "aligner-proxy"


def cache_dir(file: PolicyFile) -> Path:
    """The folder of the correction cache."""
    return file.source.resolve(file.cache.dir) if file.cache.dir else home() / "corrections"


def default_socket() -> Path:
    """The engine's socket of this user and home, in a folder that only this user can enter."""
    folder = home() / "run"
    if len(os.fsencode(folder / "engine.sock")) > _SOCKET_BYTES:
        tag = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"aligner-proxy-{os.getuid()}-{tag}"
    _private(folder)
    return folder / "engine.sock"


def _private(folder: Path) -> None:
    """Make `folder` ours alone. A link or a stranger's folder could hand our answers to somebody else."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError(f"cannot make {folder}: {error.strerror}; set {_HOME} to a folder of your own") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(f"{folder} belongs to somebody else; remove it or set {_HOME} to a folder of your own")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def _env(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def schema() -> dict[str, Any]:
    """The JSON schema of policies.yaml, as editors complete by it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **PolicyFile.model_json_schema()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
