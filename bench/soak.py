"""`python -m bench.soak --minutes 20`: leaks of a gateway in a long run under load and faults.

The complete gateway (`serve`, the served aligner, a scripted upstream) runs at half of its highest throughput in an
open loop. Answers are streamed and whole, good and bad, held, released by segments and in shadow mode, and all are
recorded for audit. Meanwhile upstreams fail and break off, clients disconnect, the engine hangs, the policies file
becomes invalid and valid again, bursts exceed the engine's slots, and once, in the first tenth, the engine is killed.
At the end, without requests, the resources in use are compared with those before. With `--hostile 100`, that many
hostile clients replace all of this (`bench.siege`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import gateway
from bench.gateway import MeasuringClient, RequestResult
from bench.load_generator import draw_times, drive, saturate
from bench.resources import TASKS_IN, ResourceCount, ResourceSampler, count_descriptors, list_processes

GROWTH = 1.05
"""Largest allowed ratio of a process's memory in the last quarter to that in the second quarter."""
# Tolerated increase at the end, for pools that were not full before and timers of libraries.
SPARE_TASKS = 5
SPARE_FDS = 10
CUT_OFF = " (cut off)"
AUDIT = "audit.db"
_LOOKED_AT = ("corrected", "unchanged", "failed", "shadow")
QUIET_S = 20.0
"""Longer than idle connections are kept."""
IDLE = {"AIOHTTP_KEEPALIVE_TIMEOUT": "10"}
"""LiteLLM keeps an idle connection to an upstream for 120 s, up to 500 of them: after the burst, one for each request
that was in flight. That is a pool and not a leak. Here it is emptied before the second count, so that a leak shows."""
_LOOK_S = 1.0
_HANG_S = 3.0
_BURST = 80
_WORDS = (*("good",) * 14, *("bad",) * 4, "fails", "dies")
_UP, _RELEASED, _SHADOWED = gateway.MODELS
_ROUTE = {"match": {}, "objectives": ["harmless"], "deadline_s": 10}
ROUTES = (
    {**_ROUTE, "match": {"model": _RELEASED}, "stream": "sentence"},
    {**_ROUTE, "match": {"model": _SHADOWED}, "mode": "shadow"},
    _ROUTE,
)
_MODELS = (*(_UP,) * 2, _RELEASED, _SHADOWED)
_LEAVES = 0.05


class Soak:
    """One run of the soak."""

    def __init__(self, running: gateway.RunningGateway, minutes: float) -> None:
        self.running = running
        self.seconds = minutes * 60
        self.client = MeasuringClient(running)
        self.draw = random.Random(1)
        self.sampler = ResourceSampler(running.serve.pid, running.folder)
        self.outcomes: Counter[str] = Counter()
        self.caused: Counter[str] = Counter()
        self._number = 0

    async def run(self) -> dict[str, Any]:
        """Run it; return everything observed, including what was wrong."""
        await saturate(self.ask, 2, 5)
        most = await saturate(self.ask, 16, min(60.0, self.seconds / 6), lambda result: result.done)
        before = await self.count_idle_resources()
        descriptors_before = count_descriptors(self.running.serve.pid)
        self.sampler.began = time.monotonic()
        self.outcomes.clear()
        looking = asyncio.create_task(self.sampler.collect())
        hurting = [asyncio.create_task(self.repeat_fault(*fault)) for fault in self.faults()]
        await drive(self.ask_any, draw_times(most / 2, self.seconds, seed=2))
        for task in (*hurting, looking):
            task.cancel()
        await asyncio.gather(*hurting, looking, return_exceptions=True)
        after = await self.count_idle_resources()
        descriptors_after = count_descriptors(self.running.serve.pid)
        await self.client.http.aclose()
        entry_count = count_entries(self.running.folder / AUDIT)
        return {
            "seconds": self.seconds,
            "most_per_second": round(most, 3),
            "told": dict(self.outcomes),
            "caused": dict(self.caused),
            "before": asdict(before),
            "after": asdict(after),
            "descriptors": {"before": descriptors_before, "after": descriptors_after},
            "audit_entries": entry_count,
            "wrong": list_faults(self.sampler.counts, before, after) + list_losses(self.outcomes, entry_count),
            "counts": [asdict(one) for one in self.sampler.counts],
        }

    def faults(self) -> list[tuple[str, float, Callable[[], Awaitable[None]]]]:
        """The faults: name, seconds between two, and the action."""
        return [
            ("engine hangs", max(45.0, self.seconds / 12), self.hang),
            ("policies break", max(20.0, self.seconds / 20), self.break_policies),
            ("too many at once", self.seconds * 0.3, self.burst),
            ("engine killed", self.seconds * 0.05, self.kill),
        ]

    async def repeat_fault(self, name: str, every: float, cause: Callable[[], Awaitable[None]]) -> None:
        """Cause a fault repeatedly, but kill the engine only once.

        Otherwise the engine's memory could not be followed.
        """
        while True:
            await asyncio.sleep(every)
            self.caused[name] += 1
            await cause()
            if cause == self.kill:
                return

    async def count_idle_resources(self) -> ResourceCount:
        """Resources held without requests; opens a new client afterwards."""
        await self.client.http.aclose()
        self.client = MeasuringClient(self.running)
        await asyncio.sleep(QUIET_S)
        return await self.sampler.take()

    async def ask(self, _: int = 0) -> RequestResult:
        """Request one whole answer; one in four has a defect."""
        self._number += 1
        return await self.client.ask(f"{'bad' if self._number % 4 == 0 else 'good'} number {self._number}")

    async def ask_any(self, _: int) -> None:
        """Send one request of any kind; some clients disconnect before they have their answer."""
        self._number += 1
        word = self.draw.choice(_WORDS)
        stream = self.draw.random() < 0.5
        model = self.draw.choice(_MODELS)
        asking = self.client.ask(f"{word} number {self._number}", stream=stream, model=model)
        if self.draw.random() < _LEAVES:
            try:
                await asyncio.wait_for(asking, self.draw.uniform(0.01, 1.0))
            except TimeoutError:
                self.caused["client leaves"] += 1
            return
        result = await asking
        cut = "" if result.whole else " (by its upstream)" if word == "dies" else CUT_OFF
        self.outcomes[f"{result.code} {result.status} {result.reason or ''}{cut}".rstrip()] += 1

    def find_engine_pid(self) -> int | None:
        """The engine's process id; None if there is none."""
        _, engines = list_processes(self.running.serve.pid)
        return engines[0].pid if engines else None

    async def hang(self) -> None:
        """Stop the engine's process for a while."""
        pid = self.find_engine_pid()
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(_HANG_S)
            os.kill(pid, signal.SIGCONT)

    async def kill(self) -> None:
        """Kill the engine, which `serve` restarts; then fill its slots once before memory is compared.

        The engine's cache has a fixed size, but each page of it becomes resident on first use. So a new engine grows
        with its fullest load so far, up to that size. Filling it early makes counts comparable, though not quite equal
        in a short run.
        """
        pid = self.find_engine_pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            while not (await self.ask()).done:  # noqa: ASYNC110 - ends with the run if the engine never comes back
                await asyncio.sleep(_LOOK_S)
            await self.burst()

    async def break_policies(self) -> None:
        """Write an unusable policies file, then restore the good one."""
        file = self.running.folder / "policies.yaml"
        good = file.read_text()
        try:
            file.write_text("routes: [\n")
            await asyncio.sleep(4)
        finally:
            file.write_text(good)

    async def burst(self) -> None:
        """Send more requests at once than the engine has slots."""
        for result in await asyncio.gather(*(self.ask() for _ in range(_BURST))):
            self.outcomes[f"{result.code} {result.status} {result.reason or ''}".rstrip()] += 1


def list_faults(counts: Sequence[ResourceCount], before: ResourceCount, after: ResourceCount) -> list[str]:
    """The violated rules: resources that grew or were not released."""
    faults = []
    quarter = len(counts) // 4
    for name in ("gateway_mb", "engine_mb"):
        early, late = (
            statistics.median(getattr(one, name) for one in part)
            for part in (counts[quarter : 2 * quarter], counts[-quarter:])
        )
        if late > early * GROWTH:
            faults.append(f"{name} grew from {early:.0f} to {late:.0f}")
    for name, spare in (("tasks", SPARE_TASKS), ("gateway_fds", SPARE_FDS), ("engine_fds", SPARE_FDS)):
        if getattr(after, name) > getattr(before, name) + spare:
            faults.append(f"{name}: {getattr(before, name)} before, {getattr(after, name)} after")
    for name in ("blocks", "sequences"):
        if getattr(after, name) != 0:
            faults.append(f"{name} held by nobody: {getattr(after, name)}")
    return faults


def list_losses(outcomes: Counter[str], entry_count: int) -> list[str]:
    """Answers that were missing or cut off although their upstream sent them whole, and missing audit entries."""
    losses = [f"{outcome}: {number}" for outcome, number in outcomes.items() if outcome.endswith(CUT_OFF)]
    # The store has more entries than counted here: those of clients that disconnected, and of earlier requests.
    looked_at = sum(number for outcome, number in outcomes.items() if outcome.split()[1] in _LOOKED_AT)
    return (
        losses
        if entry_count >= looked_at
        else [*losses, f"audit: {looked_at} answers were looked at, {entry_count} entries"]
    )


def count_entries(file: Path) -> int:
    """Number of answers recorded for audit."""
    with closing(sqlite3.connect(file)) as base:
        return int(base.execute("SELECT count(*) FROM entries").fetchone()[0])


def main() -> int:
    """Run, write soak.json and soak.svg, and print all but the samples; return 1 if something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--out", type=Path, help="folder for soak.json and soak.svg")
    parser.add_argument("--hostile", type=int, metavar="CLIENTS", help="so many hostile clients, and no faults")
    options = parser.parse_args()
    results = _run(options) | {"workers": options.workers}
    if options.out:
        from bench import plots

        name = "siege" if options.hostile else "soak"
        gateway.dump(results, options.out, name)
        plots.draw_soak(results, options.out / f"{name}.svg")
    print(json.dumps({key: value for key, value in results.items() if key != "counts"}))
    return int(bool(results["wrong"]))


def _run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the selected kind of soak."""
    from bench import siege

    audit = {"enabled": True, "file": AUDIT}
    ordinary = {"aligner": {"model": options.model}, "audit": audit, "routes": list(ROUTES)}
    policies = siege.make_policies(options.model) if options.hostile else ordinary
    hostile = bool(options.hostile)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {"LITELLM_WORKER_STARTUP_HOOKS": "bench.resources:tell_tasks", TASKS_IN: str(folder), **IDLE}
        serve_options = ["--worker-mb", str(siege.WORKER_MB)] if hostile else []
        started = gateway.run_gateway(
            folder, workers=options.workers, policies=policies, env=env, metrics=hostile, options=serve_options
        )
        with started as running:
            if options.hostile:
                return asyncio.run(siege.Siege(running, options.minutes, options.hostile).run())
            return asyncio.run(Soak(running, options.minutes).run())


if __name__ == "__main__":
    sys.exit(main())
