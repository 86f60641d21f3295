"""Configuration of the hosts of the test bed: LiteLLM's file, policies, keys, and HAProxy's file as it is deployed."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.clients import MASTER_KEY
from tests.fleet import load, texts

HAPROXY = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"
GATEWAY_PORT = 4000
ENGINE_PORT = 8100
UPSTREAM_PORT = 8000
REDIS_PORT = 6379
DATABASE_PORT = 5432
REDIS_KEY = base64.b64encode(bytes(range(32))).decode()
REMEMBERED_S = 1800.0
"""How long corrections are remembered: less than a clock may be wrong."""
SHARED = "shared"
"""The audit store is the PostgreSQL of all gateways, and entries go there behind the answers."""
REQUIRED = "required"
"""No answer is delivered before its entry is there."""
FILED = "filed"
"""Each gateway has an audit store of its own, a file beside its cache."""
_AUDIT: dict[str, dict[str, Any]] = {
    SHARED: {"enabled": True, "database_env": "FLEET_AUDIT"},
    REQUIRED: {"enabled": True, "database_env": "FLEET_AUDIT", "required": True},
    FILED: {"enabled": True},
}


def litellm(upstream: str) -> str:
    """LiteLLM's file: one model for each policy and way of delivery."""
    params = {"model": "openai/up", "api_base": f"http://{upstream}:{UPSTREAM_PORT}/v1", "api_key": "none"}
    guardrail = {"guardrail": "aligner_proxy.guardrail.AlignerGuardrail", "mode": "post_call", "default_on": True}
    models = [load.model(policy, mode) for policy in load.POLICIES for mode in load.MODES]
    return yaml.safe_dump(
        {
            "model_list": [{"model_name": name, "litellm_params": params} for name in models],
            "general_settings": {
                "master_key": MASTER_KEY,
                "custom_auth": "aligner_proxy.auth.user_api_key_auth",
            },
            "litellm_settings": {"num_retries": 0, "callbacks": ["prometheus"]},
            "router_settings": {"disable_cooldowns": True},
            "guardrails": [{"guardrail_name": "aligner", "litellm_params": {**guardrail, "policies": "policies.yaml"}}],
        }
    )


def policies(engines: Sequence[str], audit: str) -> str:
    """The policies file: a route for each policy and way of delivery."""
    routes: list[dict[str, Any]] = []
    for policy in load.POLICIES:
        for mode in load.MODES:
            name = load.model(policy, mode)
            stream = {} if mode == "whole" else {"stream": mode}
            routes.append(
                {"match": {"model": name}, "name": name, "objectives": ["kind"], "on_error": policy, **stream}
            )
    return yaml.safe_dump(
        {
            "aligner": {"engine": [f"http://{engine}:{ENGINE_PORT}" for engine in engines]},
            "objectives": {"kind": "Kindness: the response should never insult the reader"},
            "defaults": {"deadline_s": load.DEADLINE_S},
            "cache": {"redis_env": "FLEET_REDIS", "key_env": "FLEET_REDIS_KEY", "ttl_s": REMEMBERED_S},
            "audit": _AUDIT[audit],
            "routes": routes,
            "tenants": [{"match": {"team": tenant}, "name": tenant} for tenant in texts.TENANTS],
        }
    )


def keys() -> str:
    """The keys file: a key for each tenant."""
    return yaml.safe_dump(
        [
            {"sha256": hashlib.sha256(load.key(tenant).encode()).hexdigest(), "alias": tenant, "team": tenant}
            for tenant in texts.TENANTS
        ]
    )


def environment(folder: Path, home: Path, redis: str, database: str) -> dict[str, str]:
    """What a gateway finds in its environment."""
    return {
        **{f"LITELLM_LOCAL_{name}": "True" for name in ("MODEL_COST_MAP", "BLOG_POSTS", "POLICY_TEMPLATES")},
        "ALIGNER_PROXY_HOME": str(home),
        "ALIGNER_PROXY_KEYS": str(folder / "keys.yaml"),
        "ALIGNER_PROXY_LOG": "json",
        "FLEET_REDIS": f"redis://{redis}:{REDIS_PORT}/0",
        "FLEET_REDIS_KEY": REDIS_KEY,
        "FLEET_AUDIT": f"postgresql://aligner@{database}:{DATABASE_PORT}/postgres",
        "NO_PROXY": "*",
        "OMP_NUM_THREADS": "1",
    }


def haproxy(gateways: Mapping[str, str], console: Path) -> str:
    """The balancer's file as it is deployed, with addresses for names, and a socket that tells its state."""
    text = HAPROXY.read_text(encoding="utf-8")
    # Names are Docker's business, and there is none here.
    text = re.sub(r"^resolvers docker\n(?: .*\n)+", "", text, flags=re.MULTILINE)
    text = text.replace(" resolvers docker init-addr libc,none", "")
    for name, address in gateways.items():
        text = text.replace(f" {name}:{GATEWAY_PORT}", f" {address}:{GATEWAY_PORT}")
    return text.replace("global\n", f"global\n    stats socket {console} mode 600 level user\n", 1)
