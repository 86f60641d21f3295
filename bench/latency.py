"""What the gateway adds to LiteLLM: the same requests with and without the guardrail, in the same run.

Upstream and engine answer at once, so the aligner's own time is excluded. The proxies run next to each other and take
turns. The ratio is the result, since milliseconds depend on the machine. One of two identical processes may be 4 %
slower for its whole life (memory placement, hashing of dictionaries). So there are several of each kind, and their
median processes are compared. How much LiteLLM's own processes differ is the error of the ratio.

That difference between processes is as large as the effect itself. So one more process gets each request three times:
without a guardrail, with one that does nothing (`bench.idle_guardrail`), and with ours. The idle one shows what LiteLLM
takes to call any guardrail, which nothing of ours can save. The cost of having a guardrail loaded is in all three, so
these requests do not measure it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml

from demo.processes import free_port, run_process, wait_for

_TURNS = 8
"""Not more, because a process that has waited starts with cold caches."""
_WARM = 40
"""Warm-up pairs, which do not count."""
_PROCESSES = 3
"""Number of processes of each kind."""
GUARDRAIL: dict[str, Any] = {
    "guardrail_name": "aligner",
    "litellm_params": {
        "guardrail": "aligner_proxy.guardrail.AlignerGuardrail",
        "mode": "post_call",
        "default_on": True,
        "policies": "policies.yaml",
    },
}


@dataclass(frozen=True, slots=True)
class LatencyCase:
    """One kind of request: its model, whether every question is new, and the expected status."""

    name: str
    model: str
    fresh: bool
    status: str
    paired: bool
    """Whether the added time is so short that only pairs can measure it."""


CASES = (
    LatencyCase("untouched", "plain", fresh=True, status="skipped", paired=True),
    LatencyCase("cached", "up", fresh=False, status="corrected", paired=True),
    LatencyCase("corrected", "up", fresh=True, status="corrected", paired=False),
)
KINDS: dict[str, list[dict[str, Any]]] = {"litellm": [], "gateway": [GUARDRAIL]}
"""The guardrails of each kind of proxy, by name."""
_PAIRED = "paired"
_ON_REQUEST = [
    GUARDRAIL | {"litellm_params": GUARDRAIL["litellm_params"] | {"default_on": False}},
    {
        "guardrail_name": "idle",
        "litellm_params": {"guardrail": "bench.idle_guardrail.IdleGuardrail", "mode": "post_call", "default_on": False},
    },
]
_WAYS: Mapping[str, tuple[str, ...]] = {"litellm": (), "idle": ("idle",), "gateway": ("aligner",)}
"""The guardrails that the requests of a process ask for, in turn."""


class Proxy:
    """A running LiteLLM proxy with its kind, and a client with a connection pool."""

    def __init__(self, kind: str, port: int, key: str) -> None:
        self.kind = kind
        limits = httpx.Limits(max_connections=64)
        headers = {"authorization": f"Bearer {key}"}
        base = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=base, headers=headers, timeout=60, trust_env=False, limits=limits)

    def ask(self, model: str, number: int, guardrails: Sequence[str] = ()) -> tuple[float, str]:
        """Send one request, with these guardrails; return milliseconds and the aligner's status."""
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": f"Question {number}"}]}
        if guardrails:
            body["guardrails"] = guardrails
        began = time.perf_counter()
        got = self.http.post("/v1/chat/completions", json=body).raise_for_status()
        return (time.perf_counter() - began) * 1000, got.headers.get("x-aligner-status", "none")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Median and 95th percentile with and without the guardrail, one at a time and eight at a time."""
    requests: int = options.requests
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shared = _start_servers(stack, folder)
        kinds = [*_PROCESSES * list(KINDS), _PAIRED]
        # all of them start at the same time
        started = [_start_proxy(stack, folder, kind, *shared) for kind in kinds]
        for _, wait_until_ready in started:
            wait_until_ready()
        *proxies, one = [proxy for proxy, _ in started]
        numbers = itertools.count(1)
        counts = {1: requests, 8: requests // 2}
        rows = [
            _time_row(proxies, numbers, counts[many], many, case) for many, case in itertools.product(counts, CASES)
        ]
        pairs = {case.name: _time_pairs(one, numbers, 2 * requests, case) for case in CASES if case.paired}
    alone = {row["case"]: row for row in rows if row["together"] == 1}
    ratios = {f"{name}_p50_ratio": alone[name]["ratio_p50"] for name in ("untouched", "cached", "corrected")}
    apart = statistics.median(row["litellm_apart"] for row in alone.values())
    paired = {f"{name}_paired_ratio": figures["ratio_p50"] for name, figures in pairs.items()}
    paired |= {f"{name}_beside_idle_ratio": figures["beside_idle"]["ratio_p50"] for name, figures in pairs.items()}
    figures = {"rows": rows, "pairs": pairs, **ratios, **paired, "litellm_processes_apart": apart}
    return {"n": requests, "processes": _PROCESSES, **figures}


def _time_row(
    proxies: Sequence[Proxy], numbers: itertools.count[int], requests: int, together: int, case: LatencyCase
) -> dict[str, Any]:
    """Time one kind of request on all proxies, in turns; raises RuntimeError on an unexpected status."""
    times: dict[Proxy, list[float]] = {proxy: [] for proxy in proxies}
    order = [*proxies]
    with ThreadPoolExecutor(together) as pool:
        for turn in range(-1, _TURNS):  # the first turn warms up; taking turns evens out changes of the machine
            for proxy in order:
                expected = case.status if proxy.kind == "gateway" else "none"
                batch = [next(numbers) if case.fresh else 0 for _ in range(max(together, requests // _TURNS))]
                done = list(pool.map(partial(proxy.ask, case.model), batch))
                if any(status != expected for _, status in done):
                    raise RuntimeError(f"{proxy.kind} answered with status {done[0][1]}, expected {expected}")
                times[proxy] += [ms for ms, _ in done] if turn >= 0 else []
            order = [*order[1:], order[0]]  # rotate the order, so that nobody is always first
    return {"case": case.name, "together": together, **_summarise_times(times)}


def _time_pairs(proxy: Proxy, numbers: itertools.count[int], count: int, case: LatencyCase) -> dict[str, Any]:
    """Medians of each way, and what ours adds to each of the others, in ms and as a ratio."""
    times: dict[str, list[float]] = {way: [] for way in _WAYS}
    ways = [*_WAYS]
    for turn in range(-_WARM, count):
        number = next(numbers) if case.fresh else 0
        for way in ways:
            ms, status = proxy.ask(case.model, number, _WAYS[way])
            expected = case.status if way == "gateway" else "none"
            if status != expected:
                raise RuntimeError(f"{way} answered with status {status}, expected {expected}")
            if turn >= 0:
                times[way].append(ms)
        ways = [*ways[1:], ways[0]]  # rotate the order, so that nobody is always first
    medians = {f"{way}_ms": round(statistics.median(values), 3) for way, values in times.items()}
    return {
        "pairs": count,
        **medians,
        **_compare_pairs(times["litellm"], times["gateway"]),
        "beside_idle": _compare_pairs(times["idle"], times["gateway"]),
        "idle_alone": _compare_pairs(times["litellm"], times["idle"]),
    }


def _compare_pairs(before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    """The median difference within a pair in ms with its 95 % interval, and the ratio of the medians.

    The binomial distribution gives the ranks of the ordered differences that bound their median.
    """
    apart = sorted(late - early for early, late in zip(before, after, strict=True))
    spread = int(0.98 * len(apart) ** 0.5)
    figures = {
        "apart_ms": statistics.median(apart),
        "apart_low_ms": apart[len(apart) // 2 - spread],
        "apart_high_ms": apart[len(apart) // 2 + spread],
        "ratio_p50": statistics.median(after) / statistics.median(before),
    }
    return {name: round(figure, 3) for name, figure in figures.items()}


def _summarise_times(times: Mapping[Proxy, list[float]]) -> dict[str, Any]:
    """The median process of each kind, difference and ratio, and LiteLLM's slowest process over its fastest."""
    figures = {}
    for kind in KINDS:
        own = [values for proxy, values in times.items() if proxy.kind == kind]
        figures[kind] = {
            f"p{at}_ms": round(statistics.median(_find_percentile(values, at) for values in own), 2) for at in (50, 95)
        }
    apart = sorted(_find_percentile(values, 50) for proxy, values in times.items() if proxy.kind == "litellm")
    ours, theirs = (figures[kind]["p50_ms"] for kind in ("gateway", "litellm"))
    ratios = {"added_p50_ms": round(ours - theirs, 2), "ratio_p50": round(ours / theirs, 3)}
    return {**figures, **ratios, "litellm_apart": round(apart[-1] / apart[0], 3)}


def _find_percentile(values: list[float], percentile: int) -> float:
    return statistics.quantiles(values, n=100)[percentile - 1]


def _start_servers(stack: ExitStack, folder: Path) -> tuple[int, str, dict[str, str]]:
    """Start upstream and engine; return the upstream's port, the proxies' key and their environment."""
    up = free_port()
    key = f"sk-{secrets.token_hex(24)}"
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
    stack.enter_context(run_process(["bench.fakes", "upstream", str(up)], folder / "upstream.log", env))
    stack.enter_context(run_process(["bench.fakes", "engine", str(socket)], folder / "engine.log", env))
    routes = [{"match": {"model": "plain"}, "mode": "off"}, {"match": {}, "objectives": ["harmless"]}]
    (folder / "policies.yaml").write_text(yaml.safe_dump({"routes": routes}))
    return up, key, env


def _start_proxy(
    stack: ExitStack, folder: Path, kind: str, up: int, key: str, env: dict[str, str]
) -> tuple[Proxy, Callable[[], None]]:
    """Start a proxy; return it with a function that waits until it answers."""
    model = {"model": "openai/up", "api_base": f"http://127.0.0.1:{up}/v1", "api_key": "none"}
    settings: dict[str, Any] = {
        "model_list": [{"model_name": name, "litellm_params": model} for name in ("up", "plain")],
        "general_settings": {"master_key": key},
    }
    if guardrails := _ON_REQUEST if kind == _PAIRED else KINDS[kind]:
        settings["guardrails"] = guardrails
    port = free_port()
    file = folder / f"{kind}-{port}.yaml"
    log = folder / f"{kind}-{port}.log"
    file.write_text(yaml.safe_dump(settings))
    options = ["--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    child = stack.enter_context(run_process(["bench.litellm_alone", *options], log, env))
    ready = partial(wait_for, f"http://127.0.0.1:{port}/health/readiness", child, log, lambda _: None)
    return Proxy(kind, port, key), ready
