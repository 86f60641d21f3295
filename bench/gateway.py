"""A complete gateway as an operator runs it (`serve` with the aligner and N workers), and a client that measures it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from aligner_proxy.policy import config
from bench.latency import GUARDRAIL
from demo.processes import free_port, run_process, wait_for

MODELS = ("up", "released", "shadowed")
"""Model names, all of the same upstream, so that a policy can have a route for each."""
_COMMENT = re.compile(r"^: aligner status=(\S+)(?: reason=(\S+))?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A running gateway."""

    address: str
    key: str
    folder: Path
    serve: subprocess.Popen[bytes]
    log: Path
    keys: Mapping[str, str] = field(default_factory=dict)
    """The keys of its tenants, by alias."""


@dataclass(frozen=True, slots=True)
class RequestResult:
    """Result of one request; `added_ms` is the added time that the gateway reports (whole responses only)."""

    code: int
    status: str = "-"
    reason: str | None = None
    added_ms: float | None = None
    whole: bool = True
    """Whether a stream reached its end."""

    @property
    def done(self) -> bool:
        """Whether the answer got its verdict."""
        return self.status in ("corrected", "unchanged")


@contextlib.contextmanager
def run_gateway(
    folder: Path,
    *,
    workers: int,
    policies: Mapping[str, Any],
    env: Mapping[str, str] | None = None,
    tenants: Sequence[str] = (),
    metrics: bool = False,
    options: Sequence[str] = (),
) -> Iterator[RunningGateway]:
    """Run an upstream, an engine and `workers` LiteLLM processes within the block, with a key for each tenant.

    `options` are further options of `serve`.
    """
    up = free_port()
    port = free_port()
    key = f"sk-{secrets.token_hex(24)}"
    model = {"model": "openai/up", "api_base": f"http://127.0.0.1:{up}/v1", "api_key": "none"}
    settings: dict[str, Any] = {
        "model_list": [{"model_name": name, "litellm_params": model} for name in MODELS],
        "general_settings": {"master_key": key},
        "litellm_settings": {"num_retries": 0},
        "router_settings": {"disable_cooldowns": True},
        "guardrails": [GUARDRAIL],
    }
    if metrics:
        settings["litellm_settings"] = {"num_retries": 0, "callbacks": ["prometheus"]}
    keys = {alias: f"key-{secrets.token_hex(16)}" for alias in tenants}
    if keys:
        settings["general_settings"] = {"master_key": key, "custom_auth": "aligner_proxy.auth.user_api_key_auth"}
        entries = [{"sha256": hashlib.sha256(one.encode()).hexdigest(), "alias": alias} for alias, one in keys.items()]
        (folder / "keys.yaml").write_text(yaml.safe_dump(entries))
        env = {**(env or {}), "ALIGNER_PROXY_KEYS": str(folder / "keys.yaml")}
    (folder / "litellm.yaml").write_text(yaml.safe_dump(settings))
    (folder / "policies.yaml").write_text(yaml.safe_dump(dict(policies)))
    _share_weights(folder / "home")
    ours = {"ALIGNER_PROXY_HOME": str(folder / "home"), "LITELLM_LOG": "ERROR", "NO_PROXY": "*"}
    environment = {**os.environ, **ours, **(env or {})}
    command = ["aligner_proxy", "serve", "--config", str(folder / "litellm.yaml"), "--port", str(port)]
    log = folder / "serve.log"
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(run_process(["bench.upstream", str(up)], folder / "upstream.log", environment))
        serve = stack.enter_context(run_process([*command, "--workers", str(workers), *options], log, environment))
        wait_for(f"http://127.0.0.1:{up}/health", upstream, folder / "upstream.log", lambda _: None)
        wait_for(f"http://127.0.0.1:{port}/health/readiness", serve, log, lambda _: None)
        yield RunningGateway(f"http://127.0.0.1:{port}", key, folder, serve, log, keys)


def _share_weights(home: Path) -> None:
    """Make a run folder that shares the weights prepared earlier."""
    home.mkdir()
    models = config.home_folder() / "models"
    models.mkdir(parents=True, exist_ok=True)
    (home / "models").symlink_to(models)


class MeasuringClient:
    """Client of one gateway, with an unlimited number of connections."""

    def __init__(self, gateway: RunningGateway, key: str | None = None) -> None:
        # Close idle connections before LiteLLM does (5 s); else a request is now and then lost on one.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=2)
        headers = {"authorization": f"Bearer {key or gateway.key}"}
        self.http = httpx.AsyncClient(
            base_url=gateway.address, headers=headers, timeout=120, trust_env=False, limits=limits
        )

    async def ask(self, question: str, *, stream: bool = False, model: str = MODELS[0]) -> RequestResult:
        """Send one request and read it to its end; a lost connection has the code 0."""
        body = {"model": model, "messages": [{"role": "user", "content": question}], "stream": stream}
        try:
            got = await self.http.post("/v1/chat/completions", json=body)
        except httpx.TransportError as error:
            return RequestResult(0, reason=type(error).__name__, whole=False)
        if stream and got.status_code == httpx.codes.OK:
            comment = _COMMENT.search(got.text)
            whole = got.text.rstrip().endswith("data: [DONE]")
            return RequestResult(
                got.status_code, comment[1] if comment else "-", comment[2] if comment else None, whole=whole
            )
        headers = got.headers
        added = float(headers["x-aligner-ms"]) if "x-aligner-ms" in headers else None
        return RequestResult(
            got.status_code, headers.get("x-aligner-status", "-"), headers.get("x-aligner-reason"), added
        )


def dump(results: Mapping[str, Any], folder: Path, name: str) -> None:
    """Write all measurements as JSON next to their figure."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(dict(results), indent=1) + "\n")
