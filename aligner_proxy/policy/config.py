"""Loader of policies.yaml and the keys file, and the only reader of the environment.

ALIGNER_PROXY_ENGINE (engine address), ALIGNER_PROXY_KEYS (keys file), ALIGNER_PROXY_HOME (cache and weights folder)
and ALIGNER_PROXY_POLICIES (policies file) each go before what the file says; ALIGNER_PROXY_SOCKET is where the engine
`local` listens, ALIGNER_PROXY_LOG how log lines look, OTEL_EXPORTER_OTLP_ENDPOINT where the engine's traces go,
ALIGNER_PROXY_PLUGINS=off leaves the plugins of others out, and `aligner.engine.key_env` may name one more. It decides
nothing about a request.
`python -m aligner_proxy.policy.config > configs/policies.schema.json` writes the JSON schema of the policies file.

Routes and tenants that an earlier one hides are reported. That check is sound, not complete: what is reported can never
match; a hidden entry whose pattern is too clever (with [brackets], say) may go unreported.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.engine_schema import Backend, engine_address
from aligner_proxy.policy.plugin_keys import NO_DECLARATIONS, Declarations, Renamed, in_todays_words
from aligner_proxy.policy.schema import (
    Aligner,
    CacheSettings,
    KeyEntry,
    PolicyFile,
    Settings,
    corrector_names,
    file_model,
    kind_of,
    listed,
    selector_of,
)
from aligner_proxy.policy.yaml_file import KeyPath, Source, explain, nearest, parse, read, short
from aligner_proxy.types import DEFAULT_ALIGNER, Objective

__all__ = [
    "LOG",
    "LOG_FORMS",
    "Aligner",
    "CacheSettings",
    "PolicyFile",
    "aligner_adapters",
    "aligner_model",
    "audit_file",
    "audit_key",
    "builtin_objectives",
    "cache_dir",
    "default_socket",
    "engine_at",
    "engine_key",
    "engine_override",
    "engine_socket",
    "home",
    "keys_path",
    "load",
    "loads",
    "log_form",
    "objectives",
    "policies_in_environment",
    "policies_path",
    "schema",
    "third_party_plugins",
    "traced",
]


_ENGINE = "ALIGNER_PROXY_ENGINE"
_SOCKET = "ALIGNER_PROXY_SOCKET"
_KEYS = "ALIGNER_PROXY_KEYS"
_HOME = "ALIGNER_PROXY_HOME"
_POLICIES = "ALIGNER_PROXY_POLICIES"
_PLUGINS = "ALIGNER_PROXY_PLUGINS"
LOG = "ALIGNER_PROXY_LOG"
LOG_FORMS = ("text", "json")
# sockaddr_un holds 104 bytes on macOS and 108 on Linux, the closing zero included.
_SOCKET_BYTES = 103
_KEY_BYTES = 32


Declare = Callable[[bool], Declarations]
"""What installed plugins declare; given whether those of third parties count."""
_Patterns = tuple[str | None, ...]


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


def _nothing_declared(third_party: bool) -> Declarations:
    return NO_DECLARATIONS


def load(path: Path | str, declare: Declare = _nothing_declared) -> PolicyFile:
    """Read and check a policies file; every refusal names file, line and fix."""
    return _checked(*read(Path(path)), declare)


def loads(text: str, path: Path, declare: Declare = _nothing_declared) -> PolicyFile:
    """The same for the text of a file that does not stand at `path` yet."""
    return _checked(*parse(text, path), declare)


def _checked(data: Any, source: Source, declare: Declare) -> PolicyFile:
    if not isinstance(data, dict):
        raise ConfigError(f"{source.name}:1: must be a block of keys; {nearest('', PolicyFile.model_fields)}")
    declarations = declare(third_party_plugins() and _third_party_in(data))
    data, source, renames = _in_todays_words(data, source, declarations)
    model = file_model(declarations)
    try:
        unplaced = model.model_validate(data)
    except ValidationError as error:
        raise explain(error, source, model) from None
    file = unplaced.placed(source, declarations, ())
    file = unplaced.placed(source, declarations, (*renames, *_missing(file)))
    _check_names(file)
    _check_aligners(file)
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


def _third_party_in(data: Mapping[str, Any]) -> bool:
    """Whether the file lets plugins of third parties in; read before the file is checked, since they add keys to it."""
    plugins = data.get("plugins")
    return not (isinstance(plugins, Mapping) and plugins.get("third_party") is False)


def _in_todays_words(
    data: dict[str, Any], source: Source, declarations: Declarations
) -> tuple[dict[str, Any], Source, list[str]]:
    """The file with today's names of keys and values, where each stands, and a warning for each old one."""
    data, lines, warnings = dict(data), dict(source.lines), list[str]()

    def today(block: object, place: KeyPath) -> object:
        if not isinstance(block, Mapping):
            return block
        renamed, changes = in_todays_words(block, declarations.renamed)
        for change in changes:
            warnings.append(_renamed(source, place, change))
            old = (*place, change.key)
            new = (*place, change.new_key)
            lines.update({(*new, *path[len(old) :]): n for path, n in source.lines.items() if path[: len(old)] == old})
        return renamed

    data |= {name: today(data[name], (name,)) for name in ("defaults",) if name in data}
    for name in ("routes", "tenants"):
        if isinstance(data.get(name), list):
            data[name] = [today(block, (name, n)) for n, block in enumerate(data[name])]
    return data, replace(source, lines=lines), warnings


def _renamed(source: Source, place: KeyPath, change: Renamed) -> str:
    where = source.at(*place, change.key)
    return f"{where}: write {change.new} in place of {change.old}, which is accepted until 1.0"


def _missing(file: PolicyFile) -> Iterator[str]:
    """A warning for each line that has no effect because the plugin that it needs is not installed."""
    keys = file.declarations.missing_keys
    selectors = file.declarations.missing_selectors
    for path, block in file.blocks():
        for key in (key for key in keys if getattr(block, key, None) is not None):
            yield _needs(file.source.at(*path, key), key, keys[key])
        selector = selector_of(block)
        if selector is not None and selector.word in selectors:
            word = f"objectives: {selector.word}"
            yield _needs(file.source.at(*path, "objectives"), word, selectors[selector.word])
    correctors = file.declarations.missing_correctors
    for name, path in corrector_names(file).items():
        kind = kind_of(name, file.plugins.correctors.get(name, {}))
        if kind in correctors:
            yield _needs(file.source.at(*path), f"corrector {short(name)}", correctors[kind])


def _needs(place: str, what: str, owner: str) -> str:
    return f"{place}: {what} needs the plugin distribution {owner}, which is not installed; pip install {owner}"


def _check_names(file: PolicyFile) -> None:
    known = objectives(file)
    for path, name in _named(file):
        if name not in known and not (name == "*" and path[-2] == "allow"):
            place = file.source.at(*path)
            raise ConfigError(f"{place}: unknown objective {short(name)}; {nearest(name, known)}")


def _check_aligners(file: PolicyFile) -> None:
    """Names of aligners must be those of this file, unless the engine is somebody else's, who knows its own."""
    known = (DEFAULT_ALIGNER, *file.aligner.adapters)
    layers: list[tuple[KeyPath, Settings]] = [(("defaults",), file.defaults)]
    layers += [(("routes", i), route) for i, route in enumerate(file.routes)]
    layers += [(("tenants", i), tenant) for i, tenant in enumerate(file.tenants)]
    for path, layer in layers:
        name = layer.aligner
        if name is not None and name not in known and engine_at(file).local:
            place = file.source.at(*path, "aligner")
            raise ConfigError(f"{place}: unknown aligner {short(name)}; {nearest(name, known)}")


def _named(file: PolicyFile) -> Iterator[tuple[KeyPath, str]]:
    """Every use of an objective's name with its place."""
    for i, route in enumerate(file.routes):
        yield from ((("routes", i, *key), name) for name, key in listed(route, ()))
    for i, tenant in enumerate(file.tenants):
        for key, names in (("enforce", tenant.enforce), ("allow", tenant.allow), ("deny", tenant.deny)):
            yield from ((("tenants", i, key, n), name) for n, name in enumerate(names or ()))


def policies_path(setting: str, folder: Path) -> Path:
    """Where the policies are: the environment's word, else `setting` counted from the LiteLLM file's folder."""
    return folder / Path(_env(_POLICIES) or setting).expanduser()


def policies_in_environment() -> Path | None:
    """The policies file that the environment names."""
    named = _env(_POLICIES)
    return Path(named).expanduser() if named else None


def engine_at(file: PolicyFile) -> Backend:
    """The engine: the environment's word (one address), else the file's."""
    override = _env(_ENGINE)
    if override is None:
        return file.aligner.engine
    try:
        return Backend(at=(engine_address(override),))
    except ValueError as error:
        raise ConfigError(f"{_ENGINE}: {error}") from None


def engine_key(backend: Backend) -> str | None:
    """The key of a completions server, from the variable that the file names."""
    if backend.key_env is None:
        return None
    key = _env(backend.key_env)
    if key is None:
        raise ConfigError(f"aligner.engine.key_env names {backend.key_env}, but that variable is not set")
    return key


def engine_socket() -> Path:
    """Where `local` listens: the environment's word (`serve` says it), else this user's default socket."""
    override = _env(_SOCKET)
    return Path(override).expanduser() if override else default_socket()


def engine_override() -> str | None:
    """The engine's address, where the environment says one."""
    return _env(_ENGINE)


def aligner_model(file: PolicyFile) -> str | Path:
    """The aligner as written: "embedded" or a hub id as text, a folder as a path counted from the file."""
    return _model(file, file.aligner.model)


def aligner_adapters(file: PolicyFile) -> dict[str, str | Path]:
    """The aligners over the same base by name, each written as `aligner_model` is."""
    return {name: _model(file, model) for name, model in file.aligner.adapters.items()}


def _model(file: PolicyFile, model: str) -> str | Path:
    return file.source.resolve(model) if model.startswith((".", "/", "~")) else model


def keys_path(file: PolicyFile | None = None) -> Path | None:
    """The keys file: the one that the environment names, else that of `file` or of the environment's policies file."""
    override = _env(_KEYS)
    if override is not None:
        return Path(override).expanduser()
    policies = policies_in_environment()
    if file is None and policies is not None:
        file = load(policies)
    return file.source.resolve(file.keys) if file is not None and file.keys else None


def home() -> Path:
    """The folder of caches and weights."""
    override = _env(_HOME)
    return Path(override).expanduser() if override else Path.home() / ".cache" / "aligner-proxy"


def cache_dir(file: PolicyFile) -> Path:
    """The folder of the correction cache."""
    return file.source.resolve(file.cache.dir) if file.cache.dir else home() / "corrections"


def third_party_plugins(file: PolicyFile | None = None) -> bool:
    """Whether plugins of others are loaded: only where neither environment nor file switches them off."""
    switch = (_env(_PLUGINS) or "on").lower()
    if switch not in ("on", "off"):
        raise ConfigError(f"{_PLUGINS} must be on or off")
    return switch == "on" and (file is None or file.plugins.third_party)


def audit_file(file: PolicyFile) -> Path:
    """Where the audit store lies."""
    return file.source.resolve(file.audit.file) if file.audit.file else home() / "audit.db"


def audit_key(file: PolicyFile) -> bytes | None:
    """The key of the audit store; None where it is not encrypted. A message never holds any of it."""
    name = file.audit.key_env
    if name is None:
        return None
    try:
        key = base64.b64decode(_env(name) or "", validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        place = file.source.at("audit", "key_env")
        raise ConfigError(
            f"{place}: audit.key_env: {name} must hold {_KEY_BYTES} bytes in base64; make one: openssl rand -base64 32"
        )
    return key


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


def log_form() -> str | None:
    """How log lines are to look, where the environment says so."""
    form = _env(LOG)
    if form is not None and form not in LOG_FORMS:
        raise ConfigError(f"{LOG}={short(form)} is neither of {', '.join(LOG_FORMS)}")
    return form


def traced() -> bool:
    """Whether the environment says, in OpenTelemetry's own words, where traces go."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or _env("OTEL_TRACES_EXPORTER") == "none"
    places = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return not off and any(_env(name) for name in places)


def _env(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def schema(declarations: Declarations = NO_DECLARATIONS) -> dict[str, Any]:
    """The JSON schema of policies.yaml, as editors complete by it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **file_model(declarations).model_json_schema()}


def refuse_unreachable(file: PolicyFile) -> None:
    """Raise for the first route or tenant that an earlier one hides, naming both lines."""
    _check(file, "routes", [(route.match.model, route.match.tag) for route in file.routes], always=(True, False))
    _check(file, "tenants", [(one.match.team, one.match.key) for one in file.tenants], always=(False, False))


def _check(file: PolicyFile, key: str, entries: Sequence[_Patterns], always: tuple[bool, ...]) -> None:
    for j, later in enumerate(entries):
        for i, earlier in enumerate(entries[:j]):
            if all(_hides(a, b, there) for a, b, there in zip(earlier, later, always, strict=True)):
                raise ConfigError(
                    f"{file.source.at(key, j)}: {key}[{j}] can never match: {key}[{i}] ({file.source.at(key, i)}) "
                    "matches everything it matches; put the narrower one first, or remove one"
                )


def _hides(earlier: str | None, later: str | None, always: bool) -> bool:
    """Whether `earlier` accepts whatever `later` accepts; `always`: every request has this property."""
    if earlier is None:
        return True
    if later is None:
        return always and earlier.strip("*") == ""
    return earlier == later or covers(earlier, later)


@lru_cache(maxsize=4096)
def covers(wide: str, narrow: str) -> bool:
    """Whether the glob `wide` accepts every text that the glob `narrow` accepts (never a false yes)."""
    if "[" in wide or "[" in narrow:
        return wide == narrow or (bool(wide) and wide.strip("*") == "")
    # One row per character of `wide`: fits[j] says that what was read of it covers the first j characters of `narrow`.
    fits = [True] + [False] * len(narrow)
    for mark in wide:
        if mark == "*":
            first = fits.index(True) if True in fits else len(fits)
            fits = [j >= first for j in range(len(fits))]
        else:
            steps = [fits[j] and narrow[j] != "*" and mark in ("?", narrow[j]) for j in range(len(narrow))]
            fits = [False, *steps]
    return fits[-1]
