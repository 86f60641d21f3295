"""Soak with hostile clients (`python -m bench.soak --hostile 100`): does the gateway's memory stay within its limits?

The complete gateway runs with a small limit on what its streams may hold and another on what a LiteLLM process may use,
under nothing but hostile clients (`bench.hostile`). Its memory is sampled throughout. At the end, without requests, the
resources that it holds are compared with those before.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import httpx

from aligner_proxy.engine.server import sessions
from aligner_proxy.gateway import malloc_trim
from bench import gateway, soak
from bench.gateway import MeasuringClient
from bench.hostile import ATTACKS, Attack, Crowd
from bench.load_generator import saturate
from bench.resources import ResourceCount, ResourceSampler, count_descriptors

MAX_MB = 128
STREAM_MB = 8
WORKER_MB = 1024
"""Limit of one LiteLLM process; beyond it, another process replaces it."""
SPARE_MB = 64
"""Tolerated excess, since a limit can be passed between two samples and while a process ends."""
ATTACKS_OF_SOAK = (
    *ATTACKS,
    Attack("stream", "insulting 100000"),
    Attack("released", "insulting 100000", "released"),
    Attack("slow", "insulting 400000", reads="slow"),
    Attack("ordinary", "bad"),
)
_HELD = re.compile(r"^aligner_stream_held_bytes (\S+)", re.MULTILINE)
_SHED = re.compile(r"^aligner_streams_shed_total\{[^}]*\} (\S+)", re.MULTILINE)
_LOOK_S = 1.0
QUIET_S = 2 * malloc_trim.EVERY_S + 10
"""Longer than freed memory takes to be returned to the system."""
_LAST = Attack("last", "good", stream=False)
_REFUSED = ("429", "503", "413", "400")


def make_policies(model: str) -> dict[str, Any]:
    """The policies of a gateway with small limits."""
    return {
        "aligner": {"model": model},
        "streams": {"max_mb": MAX_MB, "stream_mb": STREAM_MB},
        "routes": list(soak.ROUTES),
    }


class Siege:
    """One run of the siege."""

    def __init__(self, running: gateway.RunningGateway, minutes: float, clients: int) -> None:
        self.running = running
        self.seconds = minutes * 60
        self.clients = clients
        self.sampler = ResourceSampler(running.serve.pid, running.folder)
        self.held_mb: list[float] = []
        self.liveness: list[float] = []
        self._shed_count = 0.0
        self._http = httpx.AsyncClient(
            base_url=running.address, timeout=60, trust_env=False, headers={"authorization": f"Bearer {running.key}"}
        )

    async def run(self) -> dict[str, Any]:
        """Run it; return everything observed, including what was wrong."""
        client = MeasuringClient(self.running)
        await saturate(lambda number: client.ask(f"bad number {number}"), 4, min(20.0, self.seconds / 6))
        await client.http.aclose()
        before = await self._count_idle_resources()
        descriptors_before = count_descriptors(self.running.serve.pid)
        self.sampler.began = time.monotonic()
        looking = asyncio.gather(self.sampler.collect(), self._probe())
        crowd = Crowd(self.running.address, self.running.key)
        clients = await crowd.run_mixed(self.clients, self.seconds, ATTACKS_OF_SOAK)
        await crowd.http.aclose()
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        after = await self._count_idle_resources()
        freed_s = await self._wait_until_freed()
        at_last = await self.sampler.take()
        after = replace(after, blocks=at_last.blocks, sequences=at_last.sequences)
        with contextlib.suppress(httpx.HTTPError):
            await self._read_metrics()
        await self._http.aclose()
        waits = sorted(self.liveness)
        return {
            **summarise(self.sampler.counts, before, after, self.held_mb),
            "seconds": self.seconds,
            "hostile": self.clients,
            "refused": count_refused(clients),
            "shed": self._shed_count,
            "freed_s": freed_s,
            "liveness_p99_s": round(waits[int(len(waits) * 0.99)], 3) if waits else None,
            "descriptors": {"before": descriptors_before, "after": count_descriptors(self.running.serve.pid)},
            "clients": clients,
            "counts": [asdict(one) for one in self.sampler.counts],
        }

    async def _probe(self) -> None:
        """Request liveness and metrics in a loop, waiting for each answer."""
        while True:
            began = time.perf_counter()
            with contextlib.suppress(httpx.HTTPError):
                await self._http.get("/health/liveliness")
                self.liveness.append(time.perf_counter() - began)
                await self._read_metrics()
            await asyncio.sleep(_LOOK_S)

    async def _read_metrics(self) -> None:
        page = (await self._http.get("/metrics/")).text
        self.held_mb += [float(value) / 2**20 for value in _HELD.findall(page)]
        self._shed_count = sum(map(float, _SHED.findall(page)))

    async def _wait_until_freed(self) -> float:
        """Seconds until the engine holds nothing; it keeps the sessions of a process that ended for a while."""
        began = time.monotonic()
        for _ in range(int(sessions.IDLE_S / _LOOK_S)):
            if not (await self.sampler.take()).sequences:
                break
            await asyncio.sleep(_LOOK_S)
        return round(time.monotonic() - began, 1)

    async def _count_idle_resources(self) -> ResourceCount:
        """Resources held without requests; sends one request first, since pools close expired connections only then."""
        await asyncio.sleep(QUIET_S)
        with contextlib.suppress(httpx.HTTPError):
            await self._http.post("/v1/chat/completions", json=_LAST.body(0))
        await asyncio.sleep(_LOOK_S)
        return await self.sampler.take()


def count_refused(clients: dict[str, Any]) -> int:
    """Number of requests that the gateway refused, of all kinds."""
    statuses = [(status, number) for row in clients.values() for status, number in row["statuses"].items()]
    return sum(number for status, number in statuses if status.split()[0] in _REFUSED)


def summarise(
    counts: Sequence[ResourceCount], before: ResourceCount, after: ResourceCount, held_mb: Sequence[float]
) -> dict[str, Any]:
    """Summarise memory and remaining resources, and list what is wrong."""
    most = max((one.worker_mb for one in counts), default=before.worker_mb)
    # While one process replaces another, both count, so growth is judged by the largest process only.
    wrong = [fault for fault in soak.list_faults(counts, before, after) if not fault.startswith("gateway_mb grew")]
    if most > WORKER_MB + SPARE_MB:
        wrong.append(f"worker_mb: {most:.0f} at most, {WORKER_MB} were allowed")
    most_held = max(held_mb, default=0.0)
    # Each stream may pass the limit by one piece, because the limit is checked after a piece arrived.
    if most_held > MAX_MB + STREAM_MB:
        wrong.append(f"streams held {most_held:.0f} MB, {MAX_MB} were allowed")
    return {
        "gateway_mb_before": before.gateway_mb,
        "gateway_mb_most": max((one.gateway_mb for one in counts), default=before.gateway_mb),
        "worker_mb_allowed": WORKER_MB,
        "worker_mb_most": most,
        "gateway_mb_after": after.gateway_mb,
        "streams_mb_allowed": MAX_MB,
        "streams_mb_held_most": round(most_held, 1),
        "tasks": [before.tasks, after.tasks],
        "gateway_fds": [before.gateway_fds, after.gateway_fds],
        "wrong": wrong,
    }
