"""`python -m bench.stalls`: does anything stall the gateway's event loop under hostile clients?

LiteLLM runs without and with the guardrail, one after the other, with a scripted upstream and a scripted engine
(`[--streams 64] [--seconds 60]`). Another process sends the requests (`bench.hostile`). This one requests liveness
every tenth of a second, whether or not earlier requests were answered. It prints the times, their ratio, when first
events came, and the stalls of the loop by owner of the line; the gateway's watchdog runs in both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from aligner_proxy.observability import logs, stalls
from bench.hostile import HELD, KEY, RELEASED
from tests.e2e.clients import MASTER_KEY
from tests.e2e.deployment import Deployment, Proxy, proxy
from tests.e2e.processes import IMPORTABLE, EngineProcess, Process, free_port

P99_S = 0.05
RATIO = 1.5
LONGEST_S = 0.5
FIRST_S = 10.0
"""The limits. Liveness p99: P99_S, or RATIO times LiteLLM's if that is more. Our longest stall: LONGEST_S. First event
of a stream of two million characters: FIRST_S."""
_EVERY_S = 0.1
_LAST_S = 60.0
"""Longest wait for the last liveness requests after all other requests have ended."""
_PLACES = 12
_OPEN_AI = {"model": "openai/up", "api_base": "{upstream}/v1", "api_key": "none"}
_STALL = "event loop blocked: "


@dataclass(frozen=True, slots=True)
class ProxyFigures:
    """Figures of one proxy: seconds of liveness requests, stalls of its loop, and what the clients got."""

    asked: int
    p50: float
    p99: float
    longest: float
    stalls: dict[str, dict[str, float]]
    """By owner: number of stalls, number longer than half a second, the longest, and total seconds."""
    places: list[dict[str, Any]]
    """Where the loop stalled, longest first."""
    memory_mb: float
    first_event_alone: float
    clients: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table, with JSON as the last line; return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m bench.stalls", description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--chars", type=int, default=100_000, help="of each of the streams")
    parser.add_argument("--seconds", type=float, default=60, help="of load on each proxy")
    parser.add_argument("--only", choices=["litellm", "gateway"], help="measure one proxy; no ratio then")
    parser.add_argument("--out", type=Path, help="folder for stalls.json and stalls.svg")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, _run_servers(Path(name)) as (upstream, engine):
        for which in [options.only] if options.only else ["litellm", "gateway"]:
            started = _prepare_proxy(Path(name), which, upstream, engine)
            results[which] = asdict(_measure_proxy(started, options))
            print(format_table(which, results[which]), flush=True)
    results |= {"streams": options.streams, "chars": options.chars, "seconds": options.seconds}
    results["missed"] = list_misses(results)
    if options.out:
        from bench import gateway, plots

        gateway.dump(results, options.out, "stalls")
        plots.draw_stalls(results, options.out / "stalls.svg")
    print(json.dumps(results))
    return int(bool(results["missed"]))


@contextlib.contextmanager
def _run_servers(folder: Path) -> Iterator[tuple[str, EngineProcess]]:
    """Start the upstream and an engine that reads along; yield the upstream's address and the engine."""
    port = free_port()
    socket = folder / "engine.sock"
    upstream = Process([sys.executable, "-m", "bench.upstream", str(port)], folder / "upstream.log", IMPORTABLE)
    reader = [sys.executable, "-m", "bench.fakes", "reader", str(socket)]
    engine = EngineProcess(Process(reader, folder / "engine.log", IMPORTABLE), socket, folder / "engine.calls")
    with contextlib.ExitStack() as stack:
        upstream.start()
        stack.callback(upstream.stop)
        upstream.wait_for(f"http://127.0.0.1:{port}/health")
        engine.start()
        stack.callback(engine.process.stop)
        yield f"http://127.0.0.1:{port}", engine


def _prepare_proxy(folder: Path, which: str, upstream: str, engine: EngineProcess) -> Proxy:
    """Prepare one of the two proxies; every answer is judged, including JSON, so that nothing is spared."""
    settings = {"on_skip": "judge"}
    declared = Deployment().model(HELD, _OPEN_AI).model(RELEASED, _OPEN_AI)
    declared.route(HELD, stream="hold", **settings).route(RELEASED, stream="sentence", **settings)
    prepared = proxy(declared, folder / which, folder, upstream, engine, guarded=which == "gateway")
    prepared.process.env[stalls.EVERY_STALL] = "1"
    if which != "gateway":
        prepared.process.env["LITELLM_WORKER_STARTUP_HOOKS"] = "bench.stalls:watch"
    return prepared


async def watch() -> None:
    """Run the same watchdog in LiteLLM alone, which calls this when its worker starts."""
    logs.configure_own_logging("json")
    stalls.LoopWatchdog().watch()


def _measure_proxy(started: Proxy, options: argparse.Namespace) -> ProxyFigures:
    started.process.start()
    try:
        started.wait()
        return asyncio.run(_measure_under_load(started, options))
    finally:
        started.process.stop()


async def _measure_under_load(started: Proxy, options: argparse.Namespace) -> ProxyFigures:
    """Measure a proxy's liveness while its clients send requests."""
    hostile_options = [
        started.address,
        f"--streams={options.streams}",
        f"--chars={options.chars}",
        f"--seconds={options.seconds}",
    ]
    command = [sys.executable, "-m", "bench.hostile", *hostile_options]
    load = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, env={**os.environ, **IMPORTABLE, KEY: MASTER_KEY}, limit=1 << 24
    )
    assert load.stdout is not None
    alone = json.loads(await load.stdout.readline())["first_event_alone"]
    start_count = len(_read_stalls(started.log))  # earlier stalls belong to the start
    rest = asyncio.create_task(load.communicate())
    waits = await _probe_liveness(started.address, rest)
    clients = json.loads(rest.result()[0])
    lines = _read_stalls(started.log)[start_count:]
    waits.sort()
    child = started.process.child
    return ProxyFigures(
        asked=len(waits),
        p50=round(waits[len(waits) // 2], 4),
        p99=round(waits[int(len(waits) * 0.99)], 4),
        longest=round(waits[-1], 4),
        stalls=group_by_owner(lines),
        places=group_by_place(lines),
        memory_mb=_peak_mb(child.pid) if child else 0.0,
        first_event_alone=alone,
        clients=clients,
    )


async def _probe_liveness(address: str, until: asyncio.Task[Any]) -> list[float]:
    """Seconds of each liveness request from its due time; unanswered ones count with the time waited so far."""
    limits = httpx.Limits(max_connections=None)
    looks: list[tuple[float, asyncio.Task[float]]] = []
    async with httpx.AsyncClient(base_url=address, timeout=None, trust_env=False, limits=limits) as client:
        while not until.done():
            looks.append((time.perf_counter(), asyncio.create_task(_time_liveness(client))))
            await asyncio.sleep(_EVERY_S)
        tasks = [task for _, task in looks]
        _, open_ = await asyncio.wait(tasks, timeout=_LAST_S)
        waits = [time.perf_counter() - began if task in open_ else task.result() for began, task in looks]
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)
    return waits


async def _time_liveness(client: httpx.AsyncClient) -> float:
    """Seconds until a proxy answers the liveness request; retries refused connections."""
    began = time.perf_counter()
    while True:
        try:
            await client.get("/health/liveliness")
            return time.perf_counter() - began
        except httpx.TransportError:
            await asyncio.sleep(_EVERY_S)


def _read_stalls(log: Path) -> list[dict[str, Any]]:
    """The stalls that a watchdog logged."""
    lines = [line for line in log.read_text().splitlines() if _STALL in line]
    return [json.loads(json.loads(line)["message"].removeprefix(_STALL)) for line in lines]


def group_by_owner(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Group stalls by the owner of the line in which the loop was."""
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for line in lines:
        seconds[line["owner"]].append(line["ms"] / 1000)
    return {
        owner: {
            "count": len(each),
            "long": sum(one > LONGEST_S for one in each),
            "longest_s": max(each),
            "seconds": round(sum(each), 3),
        }
        for owner, each in sorted(seconds.items())
    }


def group_by_place(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Group stalls by place, longest first; names the place of another thread if that held the interpreter."""
    places: defaultdict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        beside = f" (beside {' '.join(line['other_thread'])})" if "other_thread" in line else ""
        places[line["owner"], " ".join(line["place"]) + beside].append(line)
    rows = [
        {
            "owner": owner,
            "place": place,
            "count": len(each),
            "longest_ms": max(line["ms"] for line in each),
            "computed_ms": max(line.get("computed_ms", 0) for line in each),
            "queued_ms": max(line.get("queued_ms", 0) for line in each),
        }
        for (owner, place), each in places.items()
    ]
    return sorted(rows, key=lambda row: -row["longest_ms"])[:_PLACES]


def list_misses(results: Mapping[str, Any]) -> list[str]:
    """The limits that were exceeded."""
    if "gateway" not in results:
        return []
    ours = results["gateway"]
    missing = []
    alone = results.get("litellm", {"p99": 0.0})["p99"]
    if ours["p99"] > max(P99_S, RATIO * alone):
        missing.append(f"liveness p99 {ours['p99']} s, LiteLLM alone {alone} s")
    mine = ours["stalls"].get("aligner")
    if mine and mine["long"]:
        missing.append(f"{mine['long']:.0f} stalls of ours over {LONGEST_S} s, the longest {mine['longest_s']} s")
    if ours["first_event_alone"] > FIRST_S:
        missing.append(f"first event of two million characters after {ours['first_event_alone']} s")
    return missing


def format_table(which: str, one: Mapping[str, Any]) -> str:
    """The figures of one proxy as a table."""
    lines = [
        f"{which}: liveness p50 {one['p50']} s, p99 {one['p99']} s, longest {one['longest']} s ({one['asked']} looks); "
        f"first event of two million characters alone {one['first_event_alone']} s; at most {one['memory_mb']:.0f} MB",
        "| stalls in code of | count | over 0.5 s | longest, s | in all, s |",
        "|---|---|---|---|---|",
    ]
    for owner, row in one["stalls"].items():
        lines.append(f"| {owner} | {row['count']} | {row['long']} | {row['longest_s']} | {row['seconds']} |")
    for row in one["places"]:
        lines.append(f"  {row['longest_ms']} ms at most, {row['count']} times, {row['owner']}: {row['place']}")
    lines += ["| clients | got | first event p50, s | longest, s |", "|---|---|---|---|"]
    for name, row in one["clients"].items():
        statuses = ", ".join(f"{count} {status}" for status, count in row["statuses"].items())
        lines.append(f"| {name} | {statuses} | {row.get('first_p50', '')} | {row.get('first_longest', '')} |")
    return "\n".join(lines)


def _peak_mb(pid: int) -> float:
    """Peak memory of a process, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
