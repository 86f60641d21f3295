"""What the gateway adds to LiteLLM: the same requests to LiteLLM with the guardrail and without, in the same run.

Upstream and engine answer at once, so the aligner's own time is not in it. Both proxies run side by side and are asked
in turns; the ratio matters, the milliseconds belong to the machine.
"""

from __future__ import annotations

import itertools
import os
import secrets
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import yaml

from demo.processes import free_port, process, wait_for

_GUARDRAIL = {
    "guardrail_name": "aligner",
    "litellm_params": {
        "guardrail": "aligner_proxy.guardrail.AlignerGuardrail",
        "mode": "post_call",
        "default_on": True,
        "policies": "policies.yaml",
    },
}


class Proxy:
    """A running LiteLLM and one pooled client for it."""

    def __init__(self, port: int, key: str) -> None:
        limits = httpx.Limits(max_connections=64)
        headers = {"authorization": f"Bearer {key}"}
        base = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=base, headers=headers, timeout=60, trust_env=False, limits=limits)

    def ask(self, number: int) -> tuple[float, str]:
        """Milliseconds of one request, and what became of it."""
        body = {"model": "up", "messages": [{"role": "user", "content": f"Question {number}"}]}
        began = time.perf_counter()
        got = self.http.post("/v1/chat/completions", json=body).raise_for_status()
        return (time.perf_counter() - began) * 1000, got.headers.get("x-aligner-status", "none")


def run(requests: int) -> dict[str, Any]:
    """Median and 95th percentile with and without the guardrail, one at a time and eight at a time."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain, guarded = _start(stack, folder)
        numbers = itertools.count()
        rows = [_row(plain, guarded, numbers, requests, together) for together in (1, 8)]
        return {"n": requests, "rows": rows}


def _row(plain: Proxy, guarded: Proxy, numbers: itertools.count[int], requests: int, together: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {"litellm": [], "gateway": []}
    both = (("litellm", plain, "none"), ("gateway", guarded, "corrected"))
    with ThreadPoolExecutor(together) as pool:
        for turn in range(-1, 10):  # the first turn warms up; turns take away what the machine does meanwhile
            for name, proxy, expected in both:
                batch = [next(numbers) for _ in range(max(together, requests // 10))]
                done = list(pool.map(proxy.ask, batch))
                if any(status != expected for _, status in done):
                    raise RuntimeError(f"{name} answered with status {done[0][1]}, expected {expected}")
                times[name] += [ms for ms, _ in done] if turn >= 0 else []
    found = {name: {"p50_ms": _at(values, 50), "p95_ms": _at(values, 95)} for name, values in times.items()}
    added = round(found["gateway"]["p50_ms"] - found["litellm"]["p50_ms"], 2)
    ratio = round(found["gateway"]["p50_ms"] / found["litellm"]["p50_ms"], 3)
    return {"together": together, **found, "added_p50_ms": added, "ratio_p50": ratio}


def _at(values: list[float], percentile: int) -> float:
    return round(statistics.quantiles(values, n=100)[percentile - 1], 2)


def _start(stack: ExitStack, folder: Path) -> tuple[Proxy, Proxy]:
    up, key = free_port(), f"sk-{secrets.token_hex(24)}"
    socket = folder / "engine.sock"
    env = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOCAL_BLOG_POSTS": "True",
        "LITELLM_LOCAL_POLICY_TEMPLATES": "true",
        "LITELLM_LOG": "ERROR",
        "ALIGNER_PROXY_ENGINE": f"unix:{socket}",
        "ALIGNER_PROXY_HOME": str(folder),
    }
    stack.enter_context(process(["bench.fakes", "upstream", str(up)], folder / "upstream.log", env))
    stack.enter_context(process(["bench.fakes", "engine", str(socket)], folder / "engine.log", env))
    (folder / "policies.yaml").write_text(yaml.safe_dump({"routes": [{"match": {}, "objectives": ["harmless"]}]}))
    return _proxy(stack, folder, up, key, env, guarded=False), _proxy(stack, folder, up, key, env, guarded=True)


def _proxy(stack: ExitStack, folder: Path, up: int, key: str, env: dict[str, str], *, guarded: bool) -> Proxy:
    model = {"model": "openai/up", "api_base": f"http://127.0.0.1:{up}/v1", "api_key": "none"}
    settings: dict[str, Any] = {
        "model_list": [{"model_name": "up", "litellm_params": model}],
        "general_settings": {"master_key": key},
    }
    if guarded:
        settings["guardrails"] = [_GUARDRAIL]
    name = "gateway" if guarded else "litellm"
    file, log, port = folder / f"{name}.yaml", folder / f"{name}.log", free_port()
    file.write_text(yaml.safe_dump(settings))
    options = ["--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    child = stack.enter_context(process(["bench.litellm_alone", *options], log, env))
    wait_for(f"http://127.0.0.1:{port}/health/readiness", child, log, lambda _: None)
    return Proxy(port, key)
