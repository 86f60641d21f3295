"""What does a LiteLLM YAML say that concerns us? Which policies it registers, and which models can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aligner_proxy.config import policies_path
from aligner_proxy.errors import ConfigError
from aligner_proxy.provenance import read

GUARDRAIL = "aligner_proxy.guardrail.AlignerGuardrail"
_KEYS = frozenset({"model_list", "guardrails", "litellm_settings", "general_settings", "router_settings"})


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


def policies_in(file: Path) -> Path:
    """The policies file: `file` itself, or the one that it registers if it is a LiteLLM YAML."""
    data, _ = read(file)
    return find_policies(file) if is_litellm(data) else file


def is_litellm(data: object) -> bool:
    """Whether this is what a LiteLLM YAML holds."""
    return isinstance(data, dict) and not _KEYS.isdisjoint(data)


def model_groups(litellm: Mapping[str, Any]) -> tuple[str, ...]:
    """Every name that a client can send to a LiteLLM of this file: its model groups and their aliases."""
    entries = litellm.get("model_list") or []
    aliases = (litellm.get("router_settings") or {}).get("model_group_alias") or {}
    return (*(str(e["model_name"]) for e in entries if isinstance(e, dict) and "model_name" in e), *aliases)
