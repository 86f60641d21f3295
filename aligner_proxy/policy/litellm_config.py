"""Reader of a LiteLLM YAML: the policies file it registers, its models, and the endpoints that no guardrail covers.

LiteLLM runs post-call guardrails on its own endpoints, but not on pass-through routes, WebSockets and file downloads.
docs/guides/operations.md has the whole list; this module reports the endpoints that a config opens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.config import policies_path
from aligner_proxy.policy.yaml_file import KeyPath, YamlSource, read_yaml

GUARDRAIL = "aligner_proxy.guardrail.AlignerGuardrail"
_LITELLM_KEYS = frozenset({"model_list", "guardrails", "litellm_settings", "general_settings", "router_settings"})
# If the variable OPENAI_API_KEY is set (or that of another provider here), every client of the gateway can call that
# provider through LiteLLM's pass-through routes.
_PROVIDERS = ("anthropic", "azure", "cohere", "gemini", "mistral", "openai", "openrouter")
_UNCORRECTED_SECTIONS = {
    "files_settings": "files and batches: the output of a batch is a file",
    "finetune_settings": "fine-tuning and batches: the output of a batch is a file",
    "assistant_settings": "the Assistants API",
    "agents": "agents (A2A)",
    "agent_list": "agents (A2A)",
}
MASTER_KEY = "LITELLM_MASTER_KEY"
_BLOCK_PATHS = (
    *(("general_settings",), ("litellm_settings",), ("router_settings",), ("environment_variables",)),
    ("router_settings", "model_group_alias"),
)
"""Key paths whose values must be blocks of keys, if they are there."""
REFERENCE = "os.environ/"
"""Beginning of a value that LiteLLM takes from an environment variable."""
_PERMIT_WEAK = "dangerously_permit_weak_or_unset_master_key"
_KEY_CHECKS = ("custom_auth", "database_url", "enable_jwt_auth", "enable_oauth2_auth", "enable_oauth2_proxy_auth")
"""Settings by which LiteLLM knows further keys."""
_SHORTEST_KEY = 12
"""Least characters of a master key."""
_NEW_KEY = f'{MASTER_KEY}="sk-$(openssl rand -hex 32)"'
_NOT_CORRECTED = "answers given there are not corrected"


def find_policies(litellm_file: Path | str) -> Path:
    """Path of the policies file that a LiteLLM YAML names for our guardrail; raises `ConfigError` if it names none."""
    data, source = read_yaml(Path(litellm_file))
    _refuse_wrong_sections(data, source)
    for _, _, params in find_entries(data if isinstance(data, dict) else {}):
        return policies_path(str(params.get("policies") or "policies.yaml"), source.folder)
    raise ConfigError(
        f"{source.name}: no guardrail {GUARDRAIL} under guardrails:; register it with "
        f"litellm_params: {{guardrail: {GUARDRAIL}, mode: post_call, default_on: true, policies: policies.yaml}}"
    )


def find_entries(data: Mapping[str, Any]) -> Iterator[tuple[int, object, Mapping[str, Any]]]:
    """Yield the index under `guardrails`, the name and the settings of each entry of our guardrail."""
    for index, entry in enumerate(list_or_empty(data.get("guardrails"))):
        params = entry.get("litellm_params") if isinstance(entry, Mapping) else None
        if isinstance(params, Mapping) and params.get("guardrail") == GUARDRAIL:
            yield index, entry.get("guardrail_name"), params


def _refuse_wrong_sections(data: object, source: YamlSource) -> None:
    """Raise `ConfigError` if a section that must be a block of keys is anything else, because LiteLLM would fail."""
    for path in _BLOCK_PATHS:
        value = data
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, Mapping):
            raise ConfigError(f"{source.place_of(*path)}: {'.'.join(path)} must be a block of keys")


def resolve_policies_file(file: Path) -> Path:
    """The path of the policies file: `file` itself or, if this is a LiteLLM YAML, the file that it registers."""
    data, _ = read_yaml(file)
    return find_policies(file) if is_litellm(data) else file


def is_litellm(data: object) -> bool:
    """Whether this is the content of a LiteLLM YAML."""
    return isinstance(data, dict) and not _LITELLM_KEYS.isdisjoint(data)


def model_groups(litellm: Mapping[str, Any]) -> tuple[str, ...]:
    """Every model name that a client can send: the model groups of a LiteLLM file, then their aliases."""
    entries = litellm.get("model_list") or []
    groups = [str(entry["model_name"]) for entry in entries if isinstance(entry, dict) and "model_name" in entry]
    aliases = (litellm.get("router_settings") or {}).get("model_group_alias") or {}
    return (*groups, *aliases)


def resolve_model(litellm: Mapping[str, Any], model: str) -> tuple[str, tuple[str, ...]]:
    """Return the model name to match routes with and, if it is an alias, the model group behind it (else nothing).

    `model` is the name that the client sent. The id of a deployment is replaced by the name of its model group.
    """
    for entry in list_or_empty(litellm.get("model_list")):
        info = entry.get("model_info") if isinstance(entry, dict) else None
        if isinstance(info, dict) and info.get("id") == model and "model_name" in entry:
            return str(entry["model_name"]), ()
    aliases = (litellm.get("router_settings") or {}).get("model_group_alias") or {}
    target = aliases.get(model)
    group = target.get("model") if isinstance(target, dict) else target
    groups = (group,) if isinstance(group, str) else ()
    return model, groups


def has_models_in_database(litellm: Mapping[str, Any]) -> bool:
    """Whether LiteLLM also has models in its database, so that the YAML does not list all models."""
    settings = litellm.get("general_settings")
    return isinstance(settings, Mapping) and settings.get("store_model_in_db") is True


def master_key(litellm: Mapping[str, Any]) -> str:
    """The master key as LiteLLM finds it: in its file, in the environment or in `.env`; empty if there is none."""
    settings = litellm.get("general_settings") or {}
    setting = str(settings.get("master_key") or f"{REFERENCE}{MASTER_KEY}")
    if not setting.startswith(REFERENCE):
        return setting
    name = setting.removeprefix(REFERENCE)
    from dotenv import dotenv_values  # comes with LiteLLM, which reads .env itself

    return os.environ.get(name) or dotenv_values(".env").get(name) or ""


def check_class_is_ours(litellm_file: Path) -> None:
    """Raise `ConfigError` if our package is beside the LiteLLM YAML, because LiteLLM would load a second copy."""
    copy_folder = litellm_file.parent / "aligner_proxy"
    if (copy_folder / "guardrail.py").exists():
        raise ConfigError(
            f"{litellm_file} is next to {copy_folder.name}/, so LiteLLM would load a second copy of the guardrail from "
            f"there; move the file into a folder of its own, for example {litellm_file.parent / 'configs'}"
        )


def check_master_key(litellm_file: Path) -> None:
    """Raise `ConfigError` for a missing or easy to guess master key, seconds before LiteLLM itself would report it."""
    data, source = read_yaml(litellm_file)
    settings = data.get("general_settings") or {}
    # An included file may set the key.
    if "include" in data or _permits_weak_key(settings):
        return
    key = master_key(data)
    place = source.place_of("general_settings", "master_key")
    if not key:
        raise ConfigError(
            f"{place}: no master key, so anybody could use the gateway; set general_settings.master_key: "
            f"os.environ/{MASTER_KEY} and in the environment {_NEW_KEY}"
        )
    # sk-1234 is the example in LiteLLM's documentation.
    if key == "sk-1234" or len(key) < _SHORTEST_KEY:
        raise ConfigError(f"{place}: the master key is too easy to guess; make one with {_NEW_KEY}")


def find_start_faults(litellm_file: Path) -> Iterator[str]:
    """Yield a message for each reason why a gateway would not start with this LiteLLM file."""
    data, _ = read_yaml(litellm_file)
    checks = [check_class_is_ours]
    names_key = bool((data.get("general_settings") or {}).get("master_key"))
    key_is_unset = names_key and not master_key(data)
    if not key_is_unset:  # `find_unset_variables` reports variables that are not set
        checks.append(check_master_key)
    for check in checks:
        try:
            check(litellm_file)
        except ConfigError as error:
            yield str(error)


def _permits_weak_key(settings: dict[str, Any]) -> bool:
    """Whether the operator told LiteLLM, in the file or the environment, to accept a weak master key."""
    by_environment = os.environ.get(f"LITELLM_{_PERMIT_WEAK.upper()}", "").lower() == "true"
    return by_environment or settings.get(_PERMIT_WEAK) is True


_API_KEY_VARIABLES = {provider: f"{provider.upper()}_API_KEY" for provider in _PROVIDERS}
"""Provider -> the environment variable of its key, which opens LiteLLM's pass-through routes to it."""


def needs_key_check(data: Mapping[str, Any]) -> bool:
    """Whether LiteLLM has no database or other check that knows clients' keys, so that the gateway must check them.

    False, too, if the operator permits a weak master key, or includes other files, which may have such settings.
    """
    settings = data.get("general_settings") or {}
    may_be_open = "include" in data or _permits_weak_key(settings)
    litellm_checks_keys = os.environ.get("DATABASE_URL") or any(settings.get(name) for name in _KEY_CHECKS)
    return not may_be_open and not litellm_checks_keys


def find_unset_variables(data: Mapping[str, Any], source: YamlSource) -> list[str]:
    """Return a warning for each variable that a LiteLLM YAML refers to and that is not set."""
    from dotenv import dotenv_values  # comes with LiteLLM, which reads .env itself

    variables = {**dotenv_values(".env"), **(data.get("environment_variables") or {}), **os.environ}
    path_by_name = {name: path for path, name in _find_references(data) if not variables.get(name)}
    return [
        f"{source.place_of(*path)}: the variable {name} is not set; export it before the gateway starts"
        for name, path in path_by_name.items()
    ]


def _find_references(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Yield the key path and NAME of each text `os.environ/NAME` in a value, which is at `path` in the file."""
    if isinstance(value, str) and value.startswith(REFERENCE):
        yield path, value.removeprefix(REFERENCE)
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _find_references(child, (*path, key))
    if isinstance(value, list):
        for index, child in enumerate(value):
            yield from _find_references(child, (*path, index))


def find_uncovered(data: Mapping[str, Any], source: YamlSource) -> list[str]:
    """Return a warning for each setting of a LiteLLM YAML that lets answers through uncorrected."""
    # Some sections open endpoints without correction, such as batches.
    gaps: list[tuple[KeyPath, str]] = [
        ((name,), f"{endpoints}; {_NOT_CORRECTED}")
        for name, endpoints in _UNCORRECTED_SECTIONS.items()
        if data.get(name)
    ]
    gaps += [*_find_pass_through_gaps(data), *_find_environment_gaps(data)]
    for index, entry in enumerate(list_or_empty(data.get("model_list"))):
        if isinstance(entry, dict):
            for path_in_entry, message in _find_model_gaps(entry):
                gaps.append((("model_list", index, *path_in_entry), message))
    return [f"{source.place_of(*path)}: {message}" for path, message in gaps]


def _find_pass_through_gaps(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Yield key path and message for each pass-through route."""
    settings = data.get("general_settings")
    endpoints = settings.get("pass_through_endpoints") if isinstance(settings, dict) else None
    for index, entry in enumerate(list_or_empty(endpoints)):
        url_path = entry.get("path") if isinstance(entry, dict) else None
        is_guarded = isinstance(entry, dict) and entry.get("guardrails")
        limit = "of its answers only whole JSON bodies are corrected, no streams" if is_guarded else _NOT_CORRECTED
        yield ("general_settings", "pass_through_endpoints", index), f"pass-through route {url_path}; {limit}"


def _find_model_gaps(entry: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Yield key path (inside the entry) and message for each setting of a model that leaves answers uncorrected."""
    params = entry.get("litellm_params") or {}
    info = entry.get("model_info") or {}
    if not isinstance(params, dict) or not isinstance(info, dict):
        return
    name = entry.get("model_name")
    model = str(params.get("model") or "")
    if params.get("use_in_pass_through"):
        yield ("litellm_params", "use_in_pass_through"), f"{name} serves pass-through routes; {_NOT_CORRECTED}"
    if info.get("mode") == "realtime" or "realtime" in model:
        yield ("litellm_params", "model"), f"{name} is a realtime model; what it says is not corrected"
    if info.get("mode") == "batch":
        yield ("model_info", "mode"), f"{name} serves batches; {_NOT_CORRECTED}"
    for provider, variable in _API_KEY_VARIABLES.items():
        if params.get("api_key") == f"os.environ/{variable}":
            yield ("litellm_params", "api_key"), _open_route_text(provider)
        # Without a key in the entry LiteLLM takes the provider's variable.
        elif not params.get("api_key") and model.partition("/")[0] == provider:
            yield ("litellm_params", "model"), _open_route_text(provider)


def _find_environment_gaps(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Yield key path and message for each provider's API key that the file puts into the environment."""
    variables = data.get("environment_variables")
    for provider, variable in _API_KEY_VARIABLES.items():
        if isinstance(variables, dict) and variables.get(variable):
            yield ("environment_variables", variable), _open_route_text(provider)


def _open_route_text(provider: str) -> str:
    """The message, with a fix, for a provider whose API key in the environment opens LiteLLM's pass-through routes."""
    effect = f"with {_API_KEY_VARIABLES[provider]} LiteLLM's pass-through routes /{provider}/... work for every key"
    return f"{effect}; {_NOT_CORRECTED}. Give the variable another name"


def list_or_empty(value: object) -> list[Any]:
    """The value if it is a list, else an empty list."""
    return value if isinstance(value, list) else []
