"""Corrections shared through Redis: the time that a look-up adds, and the hit rate of two gateways compared with one.

`python -m bench.shared_cache` starts its own redis-server and prints a table, then one JSON line. Both look-ups of a
pair (memory, Redis) get the same correction, one after the other in alternating order. A stream is 2,000 requests that
repeat as real requests do (few often, many once), eight at a time, through complete pipelines with a scripted engine;
two gateways take turns. A hit is a request for which the engine was not called.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Correction, Exchange, Objective, Policy, SegmentScore, Turn
from aligner_proxy_fleet.entries import EntryCodec
from aligner_proxy_fleet.leases import SharedEntries
from aligner_proxy_fleet.server import RedisServer
from aligner_proxy_fleet.shared_cache import SharedCache
from tests.support.redis_server import PROGRAM, redis_process
from tests.support.scripted import ScriptedEngine

_AT_ONCE = 8
_ENGINE_S = 0.02
_TTL_S = 600.0
_POLICY = Policy("bench", (Objective("kind", "Kind: never insult the reader"),), tenant="bench", deadline_s=20.0)
_KEY = bytes(range(32))
_SENTENCE = "The shop opens at nine and closes when the last customer has left. "


def open_cache(url: str, folder: Path, key: bytes | None = None) -> SharedCache:
    """The shared cache of one gateway."""
    entries = EntryCodec(key)
    there = SharedEntries(RedisServer(url, "REDIS_URL"), entries.prefix, _TTL_S)
    return SharedCache(folder, _TTL_S, 64, there, entries)


def make_correction(number: int) -> Correction:
    """A correction of about 2,000 characters."""
    text = f"Answer {number}. " + _SENTENCE * 28
    return Correction(text, tuple(SegmentScore(part, -3.0, False) for part in text.split(". ")), aligner="scripted")


async def time_look_ups(url: str, folder: Path, key: bytes | None, pairs: int) -> list[tuple[float, float]]:
    """For each pair, milliseconds of a look-up in memory and of the first one in Redis."""
    writer = open_cache(url, folder / "writer", key)
    reader = open_cache(url, folder / "reader", key)
    names = [f"{'sealed' if key else 'plain'}-{number}" for number in range(pairs)]
    for number, name in enumerate(names):
        await writer.put(name, make_correction(number))

    async def time_look_up(cache: SharedCache, name: str) -> float:
        began = time.perf_counter()
        entry = await cache.get(name, "scripted")
        took = (time.perf_counter() - began) * 1000
        assert entry is not None
        return took

    times = []
    for number, name in enumerate(names):
        if number % 2:
            far = await time_look_up(reader, name)
            near = await time_look_up(writer, name)
        else:
            near = await time_look_up(writer, name)
            far = await time_look_up(reader, name)
        times.append((near, far))
    await writer.aclose()
    await reader.aclose()
    return times


def make_requests(count: int) -> list[Exchange]:
    """One stream of requests; a question's frequency falls with its rank."""
    draw = random.Random(7)
    ranks = range(1, count + 1)
    drawn_ranks = draw.choices(ranks, weights=[1 / rank for rank in ranks], k=count)
    return [
        Exchange(f"call-{number}", 0, (Turn("user", f"Question {rank}?"),), f"You fool. It is {rank}. {_SENTENCE}")
        for number, rank in enumerate(drawn_ranks)
    ]


async def measure_hit_rate(caches: Sequence[CorrectionCache], stream: Sequence[Exchange]) -> float:
    """The share of a stream for which the engine was not called; the gateways take turns."""
    calls = 0

    class SlowEngine(ScriptedEngine):
        async def align(self, request: AlignRequest) -> Correction:
            nonlocal calls
            calls += 1
            await asyncio.sleep(_ENGINE_S)
            return await super().align(request)

    def remove_insult(request: AlignRequest) -> Correction:
        return Correction(request.answer.replace("You fool. ", ""))

    gateways = [Pipeline(SlowEngine(remove_insult), cache) for cache in caches]
    places = asyncio.Semaphore(_AT_ONCE)

    async def align_one(number: int, exchange: Exchange) -> None:
        async with places:
            outcome = await gateways[number % len(gateways)].align(exchange, _POLICY)
            assert outcome.edited is not None
            assert "fool" not in outcome.edited

    await asyncio.gather(*(align_one(number, exchange) for number, exchange in enumerate(stream)))
    for cache in caches:
        await cache.aclose()
    return 1 - calls / len(stream)


async def measure_all(pairs: int, count: int) -> dict[str, float]:
    """All figures."""
    figures: dict[str, float] = {}
    stream = make_requests(count)
    with tempfile.TemporaryDirectory() as root, redis_process(Path(root) / "redis") as redis:
        url = redis.url
        folder = Path(root)
        for form, key in (("plain", None), ("encrypted", _KEY)):
            times = await time_look_ups(url, folder / form, key, pairs)
            figures[f"memory_p50_ms_{form}"] = round(statistics.median(near for near, _ in times), 3)
            figures[f"redis_p50_ms_{form}"] = round(statistics.median(far for _, far in times), 3)
            added = sorted(far - near for near, far in times)
            figures[f"added_p50_ms_{form}"] = round(statistics.median(added), 3)
            figures[f"added_p99_ms_{form}"] = round(added[int(len(added) * 0.99)], 3)
        figures["hit_rate_one"] = await measure_hit_rate([CorrectionCache(folder / "one", _TTL_S, 64)], stream)
        two = [open_cache(url, folder / f"of-two-{number}") for number in range(2)]
        figures["hit_rate_two_shared"] = await measure_hit_rate(two, stream)
        apart = [CorrectionCache(folder / f"apart-{number}", _TTL_S, 64) for number in range(2)]
        figures["hit_rate_two_apart"] = await measure_hit_rate(apart, stream)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    if PROGRAM is None:
        raise SystemExit("this needs redis-server: apt-get install redis-server")
    figures = asyncio.run(measure_all(options.pairs, options.requests))
    for name, value in figures.items():
        print(f"{name:28} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
