"""Does anything stall the gateway's event loop? Liveness under many long streams, beside LiteLLM alone under the same.

`python -m bench.stalls [--streams 64] [--chars 100000]`: a scripted upstream and a scripted engine, LiteLLM with the
guardrail and without, one after the other. A process of its own reads the streams; this one asks for liveness all the
while and prints the times, their ratio, when first events came, and what the gateway's own watchdog counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.clients import MASTER_KEY
from tests.e2e.deployment import Deployment, proxy
from tests.e2e.processes import IMPORTABLE, Process, free_port, scripted_engine

_EVERY_S = 0.02
_OPEN_AI = {"model": "openai/up", "api_base": "{upstream}/v1", "api_key": "none"}
_STALLS = "aligner_loop_stall_seconds"


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds that liveness took, and that the first events of the streams took."""

    p50: float
    p99: float
    longest: float
    first_p50: float
    first_longest: float
    failed: int
    stalls: float
    long_stalls: float
    """Of more than half a second, as the gateway's watchdog counted them."""
    memory_mb: float
    places: list[str]
    """Lines of the watchdog, longest stalls first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--chars", type=int, default=100_000)
    parser.add_argument("--stream", choices=["hold", "sentence"], default="hold")
    parser.add_argument("--load", metavar="ADDRESS", help="read the streams of this gateway; prints JSON")
    given = parser.parse_args(arguments)
    if given.load:
        print(json.dumps(asyncio.run(_read(given.load, given.streams, given.chars))))
        return 0
    with tempfile.TemporaryDirectory() as folder, _surroundings(Path(folder)) as (upstream, engine):
        found: dict[str, Any] = {}
        for guarded in (False, True):
            name = "gateway" if guarded else "litellm"
            place = Path(folder) / name
            declared = Deployment().model("up", _OPEN_AI).route("up", stream=given.stream)
            found[name] = asdict(_measured(declared, place, upstream, engine, guarded, given.streams, given.chars))
            print(name, json.dumps(found[name], indent=1), flush=True)
    ratio = found["gateway"]["p99"] / found["litellm"]["p99"]
    print(json.dumps(found | {"liveness_p99_ratio": round(ratio, 3), "streams": given.streams, "chars": given.chars}))
    return 0


@contextlib.contextmanager
def _surroundings(folder: Path) -> Iterator[tuple[str, Any]]:
    """The upstream's address, and the engine."""
    port = free_port()
    upstream = Process([sys.executable, "-m", "bench.upstream", str(port)], folder / "upstream.log", IMPORTABLE)
    engine = scripted_engine(folder, "engine")
    with contextlib.ExitStack() as stack:
        upstream.start()
        stack.callback(upstream.stop)
        upstream.wait_for(f"http://127.0.0.1:{port}/health")
        engine.start()
        stack.callback(engine.process.stop)
        yield f"http://127.0.0.1:{port}", engine


def _measured(
    declared: Deployment, folder: Path, upstream: str, engine: Any, guarded: bool, streams: int, chars: int
) -> Measured:
    """Liveness of one proxy while its streams are read."""
    started = proxy(declared, folder, folder.parent, upstream, engine, guarded)
    started.process.start()
    try:
        started.wait()
        asked = ["--load", started.address, "--streams", str(streams), "--chars", str(chars)]
        command = [sys.executable, "-m", "bench.stalls", *asked]
        with httpx.Client(base_url=started.address, timeout=60, trust_env=False) as client:
            client.get("/health/liveliness")
            environment = {**os.environ, **IMPORTABLE}
            with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as load:
                waits = _probed(client, load)
                told = json.loads(load.communicate()[0])
            counted = _stalls(client) if guarded else (0.0, 0.0)
        child = started.process.child
        memory = _peak_mb(child.pid) if child else 0.0
    finally:
        started.process.stop()
    waits.sort()
    return Measured(
        p50=statistics.median(waits),
        p99=waits[int(len(waits) * 0.99)],
        longest=waits[-1],
        first_p50=statistics.median(told["first"]),
        first_longest=max(told["first"]),
        failed=told["failed"],
        stalls=counted[0],
        long_stalls=counted[1],
        memory_mb=memory,
        places=_places(started.log),
    )


def _places(log: Path) -> list[str]:
    """Where the loop stood in the longest stalls that the gateway wrote down."""
    told = [json.loads(line) for line in log.read_text().splitlines() if "aligner_loop_stall" in line]
    lines = [json.loads(one["message"].split(": ", 1)[1]) for one in told]
    lines.sort(key=lambda line: -line["ms"])
    return [f"{line['ms']} ms {' '.join(line['place'])}" for line in lines[:10]]


def _probed(client: httpx.Client, load: subprocess.Popen[bytes]) -> list[float]:
    """Seconds of each look at liveness until the load is over."""
    waits = []
    while load.poll() is None:
        began = time.perf_counter()
        client.get("/health/liveliness")
        waits.append(time.perf_counter() - began)
        time.sleep(_EVERY_S)
    return waits


def _stalls(client: httpx.Client) -> tuple[float, float]:
    """How many stalls the watchdog counted, and how many of more than half a second."""
    page = client.get("/metrics/", headers={"authorization": f"Bearer {MASTER_KEY}"}).text
    values = dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith(_STALLS))
    count = float(values[f"{_STALLS}_count"])
    return count, count - float(values[f'{_STALLS}_bucket{{le="0.5"}}'])


def _peak_mb(pid: int) -> float:
    """The most memory that a process had."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


async def _read(address: str, streams: int, chars: int) -> dict[str, Any]:
    """Read so many long streams at once: when their first events came, and how many failed."""
    headers = {"authorization": f"Bearer {MASTER_KEY}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=address, headers=headers, timeout=600, trust_env=False, limits=limits
    ) as client:
        told = await asyncio.gather(*(_first(client, f"long {chars} number {n}") for n in range(streams)))
    return {"first": [first for first, _ in told], "failed": sum(not whole for _, whole in told)}


async def _first(client: httpx.AsyncClient, question: str) -> tuple[float, bool]:
    """Seconds to the first event of a stream, and whether it came to its end."""
    body = {"model": "up", "messages": [{"role": "user", "content": question}], "stream": True}
    began = time.perf_counter()
    first = None
    end = b""
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for piece in response.aiter_raw():
            if first is None and b"data:" in piece:
                first = time.perf_counter() - began
            end = (end + piece)[-64:]
    return first or time.perf_counter() - began, end.rstrip().endswith(b"data: [DONE]")


if __name__ == "__main__":
    sys.exit(main())
