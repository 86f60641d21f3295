"""Loader of policies.yaml, and what follows from it: the objectives, the engine, folders, keys and addresses.

What the environment sets overrides the file (`environment.py`). `aligner.engine.key_env`, `audit.key_env`,
`audit.database_env`, `cache.redis_env` and `cache.key_env` may each name one more variable.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aligner_proxy import extras
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import environment, shares
from aligner_proxy.policy.engine_schema import Backend, engine_address
from aligner_proxy.policy.keys_file import KeyEntry, load_keys
from aligner_proxy.policy.plugin_checks import missing_plugin_warnings, replace_deprecated_names
from aligner_proxy.policy.plugin_keys import NO_DECLARATIONS, Declarations
from aligner_proxy.policy.plugin_schema import file_model
from aligner_proxy.policy.reachability import refuse_unreachable
from aligner_proxy.policy.schema import (
    PolicyFile,
    PolicySettings,
    Tenant,
    find_judges,
    find_outside_editor,
    route_objectives,
)
from aligner_proxy.policy.storage_schema import ServerAddress
from aligner_proxy.policy.yaml_file import (
    KeyPath,
    YamlSource,
    explain_errors,
    parse_yaml,
    quote_name,
    read_yaml,
    suggest_name,
)
from aligner_proxy.types import (
    DEFAULT_ALIGNER,
    EMBEDDED,
    LOCAL_EDITOR,
    IfNothingRemains,
    Judge,
    JudgeKind,
    Objective,
    Write,
)

# The longest path of a unix socket: sockaddr_un has 104 bytes on macOS and 108 on Linux, including the final zero.
_MAX_SOCKET_BYTES = 103
_LONGEST_SOCKET_NAME = "gateway-4194304-9999.sock"
"""The longest socket name that `serve` creates in this folder: it contains the process id and the generation number."""
_DATABASE_HEADER = b"SQLite format 3\0"
"""First bytes of every database of SQLite."""
_KEY_BYTES = 32
"""Length of an encryption key (AES-256)."""
_SECRET_CHARS = 16
"""Least length of a secret that signs reports."""
_COMMIT_SUFFIX = re.compile(r"@[0-9a-f]{40}$")
"""End of a Hugging Face id that names a commit: owner/name@commit."""

Declare = Callable[[bool], Declarations]
"""A function that returns what installed plugins declare; its argument says whether it asks third-party plugins."""


def _declare_nothing(third_party: bool) -> Declarations:
    """Return no declarations, for callers that ask no plugins."""
    return NO_DECLARATIONS


def load(path: Path | str, declare: Declare = _declare_nothing) -> PolicyFile:
    """Read and check a policies file with the keys that `declare` returns; raises `ConfigError` with a fix."""
    data, source = read_yaml(Path(path))
    return _parse_file(data, source, declare, with_files=True)


def parse(text: str, path: Path, declare: Declare = _declare_nothing, *, with_files: bool = True) -> PolicyFile:
    """Parse and check the text of a policies file that is not at `path` yet, or no longer is.

    `declare` returns the keys that installed plugins add to the file. With `with_files=False` the files that the text
    names are not read, because they may no longer exist.
    """
    data, source = parse_yaml(text, path)
    return _parse_file(data, source, declare, with_files=with_files)


def refuse_without_policies(file: PolicyFile) -> None:
    """Raise `ConfigError` if a file applies to no request, for example because it was emptied by accident."""
    if not (file.routes or file.tenants or file.defaults.model_fields_set):
        fault = "is empty" if file.source.is_empty else "has no defaults, routes or tenants"
        raise ConfigError(
            f"{file.source.name}: {fault}, so nothing would be enforced; restore it, or write defaults: {{mode: off}} "
            "if no answer is to be corrected"
        )


def _parse_file(data: Any, source: YamlSource, declare: Declare, *, with_files: bool) -> PolicyFile:
    """Validate the data of a policies file, and check what concerns several keys. Raises `ConfigError`; see `parse`."""
    if not isinstance(data, dict):
        raise ConfigError(f"{source.name}:1: must be a block of keys; {suggest_name('', PolicyFile.model_fields)}")
    if "model_list" in data or "litellm_settings" in data:
        raise ConfigError(f"{source.name}: is a file of LiteLLM; give the policies file that its guardrail names")
    declarations = declare(allows_third_party() and _file_allows_third_party(data))
    data, source, renames = replace_deprecated_names(data, source, declarations)
    model = file_model(declarations)
    try:
        parsed = model.model_validate(data)
    except ValidationError as error:
        raise explain_errors(error, source, model) from None
    # The source is attached twice, because the warnings need a file with its source to name their lines.
    file = parsed.with_source(source, declarations, ())
    warnings = (
        *renames,
        *missing_plugin_warnings(file),
        *_unpinned_warnings(file),
        *_setting_warnings(file),
    )
    file = parsed.with_source(source, declarations, warnings)
    _check_objectives(file)
    _check_aligners(file)
    _check_editors(file)
    refuse_unreachable(file)
    return file.with_file_texts() if with_files else file


@cache
def builtin_objectives() -> Mapping[str, Objective]:
    """The objectives of objectives.yaml, which every policies file can use, by name."""
    data, _ = read_yaml(Path(__file__).with_name("objectives.yaml"))
    return {name: Objective(name, text) for name, text in data.items()}


def objectives(file: PolicyFile, tenant: Tenant | None = None) -> dict[str, Objective]:
    """Return every objective by name. The file's override built-in ones, and the tenant's override both."""
    entries = dict(file.objectives) | (tenant.objectives if tenant else {})
    configured = {name: Objective(name, entry.text, judge=entry.judge) for name, entry in entries.items()}
    return {**builtin_objectives(), **configured}


def _file_allows_third_party(data: Mapping[str, Any]) -> bool:
    """Whether the file allows third-party plugins; asked before validation, because plugins add keys to the schema."""
    plugins = data.get("plugins")
    return not (isinstance(plugins, Mapping) and plugins.get("third_party") is False)


def _unpinned_warnings(file: PolicyFile) -> Iterator[str]:
    """Warn about each Hugging Face id without a commit; raises `ConfigError` if the file sets `require_revision`."""
    if not engine_backend(file).needs_local:
        return  # the engine is another server, which loads the weights itself
    aligner = file.aligner
    models: dict[KeyPath, str] = {("model",): aligner.model}
    models |= {("adapters", name): model for name, model in aligner.adapters.items()}
    models |= {("judges", name): model for name, model in aligner.judges.items()}
    for path, model in models.items():
        # Other values are the name of the embedded aligner, which has no slash, and paths, which begin like these.
        is_hub_id = "/" in model and not model.startswith((".", "/", "~"))
        if is_hub_id and not _COMMIT_SUFFIX.search(model):
            fix = f"write {model.partition('@')[0]}@COMMIT, its 40 hexadecimal digits (`aligner-proxy pull` prints it)"
            fault = f"{file.source.place_of('aligner', *path)}: {model} names no commit of the hub"
            if file.aligner.require_revision:
                raise ConfigError(f"{fault}, and aligner.require_revision asks for one; {fix}")
            yield f"{fault}, so its weights may change; {fix}"


def _setting_warnings(file: PolicyFile) -> Iterator[str]:
    """Warn about settings of an audit store that nobody switched on or off, and about a leftover `allow_less`."""
    if file.audit.model_fields_set and "enabled" not in file.audit.model_fields_set:
        yield f"{file.source.place_of('audit')}: audit is off; set enabled: true, or enabled: false to keep it so"
    if file.allow_less:
        yield f"{file.source.place_of('allow_less')}: allow_less applies to later changes, too; remove it afterwards"


def _check_objectives(file: PolicyFile) -> None:
    """Raise `ConfigError` for unknown objectives; a tenant may use its own, and `allow` may say "*" for all."""
    names_for_routes = objectives(file)
    for path, name in _objective_uses(file):
        # a path such as ("tenants", 0, "allow", 2)
        section, entry_index, *_ = path
        known_names = names_for_routes
        if section == "tenants":
            known_names = objectives(file, file.tenants[int(entry_index)])
        list_key = path[-2]
        stands_for_all = name == "*" and list_key == "allow"
        if name not in known_names and not stands_for_all:
            place = file.source.place_of(*path)
            raise ConfigError(f"{place}: unknown objective {quote_name(name)}; {suggest_name(name, known_names)}")


def _check_aligners(file: PolicyFile) -> None:
    """Raise `ConfigError` for unknown aligners, and for a shadow aligner without the audit store.

    The names of aligners on a remote engine are not checked here, because only that engine knows them.
    """
    known_names = (DEFAULT_ALIGNER, *file.aligner.adapters)
    for path, block in file.blocks():
        if engine_backend(file).needs_local:
            names = shares.aligner_names(block.aligner or ())
            uses: list[tuple[KeyPath, str]] = [((*path, "aligner", name), name) for name in names]
            if block.shadow_aligner is not None:
                uses.append(((*path, "shadow_aligner"), block.shadow_aligner))
            for name_path, name in uses:
                if name not in known_names:
                    place = file.source.place_of(*name_path)
                    hint = suggest_name(name, known_names)
                    raise ConfigError(f"{place}: unknown aligner {quote_name(name)}; {hint}")
        if block.shadow_aligner is not None and not file.audit.enabled:
            place = file.source.place_of(*path, "shadow_aligner")
            raise ConfigError(f"{place}: shadow_aligner needs the audit store; set audit: {{enabled: true}}")


def _check_classifiers(file: PolicyFile, judges: Iterable[tuple[Judge, KeyPath]]) -> None:
    """Raise `ConfigError` for a token classifier as judge that the engine on this machine does not have."""
    names = file.aligner.judges
    for judge, path in judges:
        if judge.kind is JudgeKind.TOKENS and judge.group not in names and engine_backend(file).needs_local:
            place = file.source.place_of(*path, "tokens")
            fix = suggest_name(judge.group, names) if names else "name its model there, as NAME: FOLDER"
            raise ConfigError(f"{place}: aligner.judges has no {quote_name(judge.group)}; {fix}")


def _check_editors(file: PolicyFile) -> None:
    """Raise `ConfigError` for `second_try` without an editor, and for editors and judges without a detector head.

    Editors and judges get only segments that a detector head flags or doubts. A server that only completes texts has
    no such head; its `scorer` is an engine that has one.
    """
    blocks = list(file.blocks())
    editor_path = find_outside_editor(blocks)
    engine = engine_backend(file)
    judges = find_judges([*blocks, *file.objective_entries()])
    _check_classifiers(file, judges)
    if engine.completes and engine.scorer is None:
        need = f"a detector head flags, and {engine} has none; set aligner.engine.scorer, or remove the line"
        if editor_path is not None:
            raise ConfigError(f"{file.source.place_of(*editor_path)}: editor: an editor replaces what {need}")
        if judges:
            _, judge_path = judges[0]
            raise ConfigError(f"{file.source.place_of(*judge_path)}: judge: a judge is asked about what {need}")
    _check_second_try(blocks, file.source)


_PlacedBlock = tuple[KeyPath, PolicySettings]
"""A block of settings, with its key path in the policies file."""


def _check_second_try(blocks: Sequence[_PlacedBlock], source: YamlSource) -> None:
    """Raise `ConfigError` if some request may get `if_nothing_remains: second_try` without an editor model.

    Tries every combination of defaults, one route or none, and one tenant or none; the later block wins.
    """
    defaults = [(path, block) for path, block in blocks if path[0] == "defaults"]
    routes = _unique_blocks((path, block) for path, block in blocks if path[0] == "routes")
    tenants = _unique_blocks((path, block) for path, block in blocks if path[0] == "tenants")
    for route, tenant in product([None, *routes], [None, *tenants]):
        layers = [*defaults, *(entry for entry in (route, tenant) if entry is not None)]
        reactions = [(path, block.if_nothing_remains) for path, block in layers if block.if_nothing_remains]
        editors = [LOCAL_EDITOR, *(block.editor for _, block in layers if block.editor)]
        if not reactions or editors[-1] != LOCAL_EDITOR:
            continue
        reaction_path, reaction = reactions[-1]
        if reaction is not IfNothingRemains.SECOND_TRY:
            continue
        other_paths = [path for path, _ in layers if path not in (reaction_path, ("defaults",))]
        other_places = "".join(f", together with {source.place_of(*path)}" for path in other_paths)
        place = source.place_of(*reaction_path, "if_nothing_remains")
        raise ConfigError(
            f"{place}: if_nothing_remains: second_try needs an editor model, and "
            f"none is set here{other_places}; add editor: upstream or editor: {{model: GROUP}}, or write decline"
        )


def _unique_blocks(blocks: Iterable[_PlacedBlock]) -> list[_PlacedBlock]:
    """The first of all blocks with equal `if_nothing_remains` and `editor`, without blocks that set neither."""
    first_blocks: dict[tuple[object, object], _PlacedBlock] = {}
    for path, block in blocks:
        settings = (block.if_nothing_remains, block.editor)
        if any(value is not None for value in settings):
            first_blocks.setdefault(settings, (path, block))
    return list(first_blocks.values())


def _objective_uses(file: PolicyFile) -> Iterator[tuple[KeyPath, str]]:
    """Yield the key path and the name of each objective that a route or tenant names."""
    for route_index, route in enumerate(file.routes):
        for name, path_in_route in route_objectives(route, ()):
            yield ("routes", route_index, *path_in_route), name
    for tenant_index, tenant in enumerate(file.tenants):
        for key, names in (("enforce", tenant.enforce), ("allow", tenant.allow), ("deny", tenant.deny)):
            for name_index, name in enumerate(names or ()):
                yield ("tenants", tenant_index, key, name_index), name


def policies_path(setting: str, folder: Path) -> Path:
    """Path of the policies file: from the environment, else `setting`, relative to the LiteLLM file's folder."""
    return folder / Path(environment.read_variable(environment.POLICIES) or setting).expanduser()


def policies_in_environment() -> Path | None:
    """Path of the policies file that the environment names; None if it names none."""
    return environment.read_path_variable(environment.POLICIES)


def engine_backend(file: PolicyFile) -> Backend:
    """The engine at the address in the environment, else that of the file; raises `ConfigError` for a wrong address."""
    override = engine_override()
    if override is None:
        return file.aligner.engine
    try:
        return Backend(at=(engine_address(override),))
    except ValueError as error:
        raise ConfigError(f"{environment.ENGINE}: {error}") from None


def default_write(file: PolicyFile, names: Iterable[str]) -> Write:
    """The default of `write` for these aligners: `never` (only remove) if one is the embedded one, else `free`."""
    if engine_backend(file).completes:
        return Write.FREE  # a completions server has its own model
    models = {DEFAULT_ALIGNER: file.aligner.model, **file.aligner.adapters}
    uses_embedded = any(models.get(name) == EMBEDDED for name in names)
    return Write.NEVER if uses_embedded else Write.FREE


def check_local_engine(file: PolicyFile) -> None:
    """Raise `ConfigError` if this file needs a local engine, and its packages or a folder for weights are missing."""
    if engine_backend(file).needs_local:
        place = file.source.place_of("aligner", "engine")
        extras.require_extra(extras.ENGINE, f"{place}: aligner.engine: local, an engine on this machine,")
        check_home()


def check_home() -> None:
    """Raise `ConfigError` for a home folder that this user cannot write to."""
    home = home_folder()
    if not can_write(home):
        raise ConfigError(f"cannot write to {home}; set {environment.HOME} to a folder of your own")


def hand_off_secret(name: str) -> bytes | None:
    """The secret for signing reports, from the variable called `name`; None if it is not set or too short."""
    secret = (environment.read_variable(name) or "").encode()
    return secret if len(secret) >= _SECRET_CHARS else None


def check_hand_offs(file: PolicyFile) -> None:
    """Raise `ConfigError` if the secret that signs reports to a route's webhook (`hand_off`) is missing or short."""
    for route_index, route in enumerate(file.routes):
        if route.hand_off is not None and hand_off_secret(route.hand_off.secret_env) is None:
            place = file.source.place_of("routes", route_index, "hand_off", "secret_env")
            raise ConfigError(
                f"{place}: hand_off.secret_env: {route.hand_off.secret_env} must hold a secret of at least "
                f"{_SECRET_CHARS} characters; make one: openssl rand -hex 32"
            )


def engine_key(backend: Backend) -> str | None:
    """The key in the variable that `key_env` names; None without `key_env`. Raises `ConfigError` if it is not set."""
    if backend.key_env is None:
        return None
    key = environment.read_variable(backend.key_env)
    if key is None:
        raise ConfigError(f"aligner.engine.key_env names {backend.key_env}, but that variable is not set")
    return key


def engine_socket() -> Path:
    """The socket of the engine `local`: from the environment (`serve` sets it), else the default for this user."""
    return environment.read_path_variable(environment.SOCKET) or default_socket()


def engine_override() -> str | None:
    """The engine address from the environment; None if it is not set."""
    return environment.read_variable(environment.ENGINE)


def aligner_model(file: PolicyFile) -> str | Path:
    """The aligner: "embedded" or a hub id as text, or a folder as a path (resolved relative to the file)."""
    return _resolve_model(file, file.aligner.model)


def aligner_adapters(file: PolicyFile) -> dict[str, str | Path]:
    """The other aligners on the same base by name; values are like those of `aligner_model`."""
    return {name: _resolve_model(file, model) for name, model in file.aligner.adapters.items()}


def aligner_judges(file: PolicyFile) -> dict[str, str | Path]:
    """The token classifiers beside the aligner by name; values are like those of `aligner_model`."""
    return {name: _resolve_model(file, model) for name, model in file.aligner.judges.items()}


def _resolve_model(file: PolicyFile, model: str) -> str | Path:
    """A path for text that begins like one ("./mine"), resolved relative to the file; other text unchanged."""
    return file.source.resolve(model) if model.startswith((".", "/", "~")) else model


def keys_path(file: PolicyFile | None = None) -> Path | None:
    """Path of the keys file: the one that the environment names, else the one that the policies file names, else None.

    Without `file`, the policies file that the environment names is read.
    """
    override = environment.read_path_variable(environment.KEYS)
    if override is not None:
        return override
    policies = policies_in_environment()
    if file is None and policies is not None:
        file = load(policies)
    if file is None or not file.keys:
        return None
    return file.source.resolve(file.keys)


def known_keys(file: PolicyFile) -> dict[str, KeyEntry]:
    """The entries of the keys file by sha256; empty if there is no such file. Raises `ConfigError` for a wrong one."""
    path = keys_path(file)
    return {} if path is None or not path.exists() else load_keys(path)


def home_folder() -> Path:
    """Folder of caches and weights: from the environment, else in the user's home. Raises `ConfigError` if none."""
    try:
        return environment.read_path_variable(environment.HOME) or Path.home() / ".cache" / "aligner-proxy"
    except RuntimeError:
        raise ConfigError(f"this user has no home folder; set {environment.HOME} to a folder of its own") from None


def can_write(path: Path) -> bool:
    """Whether this user could write `path` or the nearest existing folder above it; nothing is written."""
    absolute_path = path.absolute()
    nearest = next(place for place in (absolute_path, *absolute_path.parents) if os.path.exists(place))
    return os.access(nearest, os.W_OK) and (nearest == absolute_path or nearest.is_dir())


def cache_dir(file: PolicyFile) -> Path:
    """The folder of the correction cache: the file's, or one in the home folder."""
    return file.source.resolve(file.cache.dir) if file.cache.dir else home_folder() / "corrections"


def allows_third_party(file: PolicyFile | None = None) -> bool:
    """Whether third-party plugins are loaded; environment and file can each forbid it. Raises `ConfigError`."""
    switch = (environment.read_variable(environment.PLUGINS) or "on").lower()
    if switch not in ("on", "off"):
        raise ConfigError(f"{environment.PLUGINS} must be on or off")
    return switch == "on" and (file is None or file.plugins.third_party)


def audit_file(file: PolicyFile) -> Path:
    """The file of the audit store: the one named, or one in the home folder; raises `ConfigError` if it is no file."""
    if not file.audit.file:
        return home_folder() / "audit.db"
    path = file.source.resolve(file.audit.file)
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(
            f"{file.source.place_of('audit', 'file')}: audit.file: {path} is no file; name a file in a folder"
        )
    return path


def refuse_wrong_audit_file(file: PolicyFile) -> None:
    """Raise `ConfigError` if `audit.file` names a folder, a device, or a file that holds anything but a database.

    A process that has the store open must not call this, because closing the file here would release its locks.
    """
    if not (file.audit.enabled and file.audit.file):
        return
    path = audit_file(file)
    with contextlib.suppress(OSError), path.open("rb") as content:  # the file need not exist yet
        if content.read(len(_DATABASE_HEADER)) not in (b"", _DATABASE_HEADER):
            place = file.source.place_of("audit", "file")
            raise ConfigError(f"{place}: audit.file: {path} is no SQLite database; name another file")


def check_audit_file(file: PolicyFile) -> None:
    """Raise `ConfigError` if the audit file is no database or this user cannot write it: records would be lost."""
    if not file.audit.enabled or file.audit.database_env is not None:
        return
    refuse_wrong_audit_file(file)
    path = audit_file(file)
    if not can_write(path):
        fix = "name a file in a folder that this user can write to" if file.audit.file else f"set {environment.HOME}"
        raise ConfigError(f"{file.source.place_of('audit', 'file')}: audit.file: cannot write {path}; {fix}")


def encryption_key(file: PolicyFile, block: str) -> bytes | None:
    """The key, 32 bytes, in the variable that `key_env` of the block "audit" or "cache" names; None without `key_env`.

    Raises `ConfigError` for anything but 32 bytes in base64. The message never quotes the key.
    """
    name: str | None = getattr(file, block).key_env
    if name is None:
        return None
    text = environment.read_variable(name)
    try:
        key = base64.b64decode(text or "", validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        place = file.source.place_of(block, "key_env")
        raise ConfigError(
            f"{place}: {block}.key_env: {name} must hold {_KEY_BYTES} bytes in base64"
            f"{', and is not set' if text is None else ''}; make one: openssl rand -base64 32"
        )
    return key


def redis_address(file: PolicyFile) -> ServerAddress | None:
    """The address of the Redis that gateways share; None if there is none. Raises `ConfigError` for a wrong key."""
    name = file.cache.redis_env
    if name is None:
        return None
    url = environment.read_variable(name)
    setting = server_setting(file, "cache", "redis_env")
    return ServerAddress(setting, variable=name, url=url, key=encryption_key(file, "cache"))


def audit_database_address(file: PolicyFile) -> ServerAddress | None:
    """The address of the audit store's PostgreSQL database; None if the store is a file."""
    name = file.audit.database_env
    if name is None:
        return None
    return ServerAddress(server_setting(file, "audit", "database_env"), name, environment.read_variable(name))


def server_setting(file: PolicyFile, block: str, key: str) -> str:
    """The setting that names a server which hosts share, with its file and line, for error messages."""
    return f"{file.source.place_of(block, key)}: {block}.{key}"


def default_socket() -> Path:
    """The engine's default socket for this user and home; creates its folder with mode 0700."""
    folder = home_folder() / "run"
    if len(os.fsencode(folder / _LONGEST_SOCKET_NAME)) > _MAX_SOCKET_BYTES:
        # Such a path is too long for a socket, so use a short folder that is still particular to this user and home.
        home_digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"aligner-proxy-{os.getuid()}-{home_digest}"
    _make_private(folder)
    return folder / "engine.sock"


def _make_private(folder: Path) -> None:
    """Create `folder` with mode 0700; raises `ConfigError` for a link or another user's, where others could read."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise ConfigError(
            f"cannot make {folder}: {error.strerror}; set {environment.HOME} to a folder of your own"
        ) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ConfigError(
            f"{folder} belongs to another user; remove it or set {environment.HOME} to a folder of your own"
        )
    if status.st_mode & 0o077:
        folder.chmod(0o700)


def schema(declarations: Declarations = NO_DECLARATIONS) -> dict[str, Any]:
    """The JSON schema of policies.yaml, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **file_model(declarations).model_json_schema()}
