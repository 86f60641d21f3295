"""`python -m bench.neighbours`: how much one tenant's corrections slow down next to another tenant's very long answers.

The complete gateway runs with the served aligner and a scripted upstream. One client of the first tenant repeatedly
requests answers with a defect, in turns alone and next to clients of the second tenant. That tenant's answers, streamed
and whole, have the greatest allowed length. The figure is the time that a correction added, as the gateway reports it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import gateway
from bench.gateway import MeasuringClient, RequestResult
from bench.hostile import Attack, Crowd

RATIO = 1.5
"""Largest allowed ratio of the median correction times, next to the other tenant over alone."""
TENANTS = ("small", "large")
_LONG = (
    Attack("stream", "insulting 100000"),
    Attack("released", "insulting 100000", gateway.MODELS[1]),
    Attack("whole", "insulting 23000", stream=False),
)
_ROUTE = {"match": {}, "objectives": ["harmless"], "deadline_s": 30}
POLICIES = {
    "cache": {"enabled": False},
    "defaults": {"exact_times": True},
    "routes": [{**_ROUTE, "match": {"model": gateway.MODELS[1]}, "stream": "sentence"}, _ROUTE],
    "tenants": [{"match": {"key": name}, "name": name} for name in TENANTS],
}
_WARM_S = 10.0
_BEGUN_S = 3.0
_REST_S = 5.0


async def _ask_repeatedly(client: MeasuringClient, seconds: float, tag: str) -> list[RequestResult]:
    """Request answers with a defect, one after the other, for `seconds`."""
    until = time.perf_counter() + seconds
    answers: list[RequestResult] = []
    while time.perf_counter() < until:
        answers.append(await client.ask(f"bad {tag} {len(answers)}"))
    return answers


async def measure(running: gateway.RunningGateway, options: argparse.Namespace) -> dict[str, Any]:
    """Run rounds of both situations in turn."""
    client = MeasuringClient(running, key=running.keys["small"])
    alone: list[RequestResult] = []
    beside: list[RequestResult] = []
    long: Counter[str] = Counter()
    await _ask_repeatedly(client, _WARM_S, "warm")
    for number in range(options.rounds):
        alone += await _ask_repeatedly(client, options.seconds, f"alone {number}")
        crowd = Crowd(running.address, running.keys["large"])
        busy = asyncio.create_task(crowd.run_mixed(options.clients, _BEGUN_S + 2 * options.seconds, _LONG))
        await asyncio.sleep(_BEGUN_S)
        beside += await _ask_repeatedly(client, 2 * options.seconds, f"beside {number}")
        for kind, row in (await busy).items():
            long.update({f"{kind} {status}": count for status, count in row["statuses"].items()})
        await crowd.http.aclose()
        await asyncio.sleep(_REST_S)
    await client.http.aclose()
    return summarise(alone, beside) | {"clients": options.clients, "long_answers": dict(long)}


def summarise(alone: Sequence[RequestResult], beside: Sequence[RequestResult]) -> dict[str, Any]:
    """The figures of both situations, and the ratio of their medians."""
    rows = {"alone": _make_row(alone), "beside": _make_row(beside)}
    few = rows["alone"]["added_p50_ms"]
    more = rows["beside"]["added_p50_ms"]
    ratio = round(more / few, 3) if few and more else None
    missed = [f"{name}: {row['failed']} failed" for name, row in rows.items() if row["failed"]]
    if ratio is None or ratio > RATIO:
        missed.append(
            f"a correction takes {ratio} times as long beside the other tenant, at most {RATIO} were asked for"
        )
    return {"rows": rows, "ratio_p50": ratio, "missed": missed}


def _make_row(answers: Sequence[RequestResult]) -> dict[str, Any]:
    added = [one.added_ms for one in answers if one.done and one.added_ms is not None]
    cuts = statistics.quantiles(added, n=20, method="inclusive") if len(added) > 1 else []
    return {
        "asked": len(answers),
        "corrected": sum(one.status == "corrected" for one in answers),
        "failed": sum(not one.done for one in answers),
        "added_p50_ms": round(statistics.median(added), 1) if added else None,
        "added_p95_ms": round(cuts[-1], 1) if cuts else None,
    }


def format_table(results: Mapping[str, Any]) -> str:
    """The table for the docs."""
    lines = ["| | asked | corrected | failed | added p50, ms | p95, ms |", "|---|---|---|---|---|---|"]
    for name, row in results["rows"].items():
        lines.append(f"| {name} | {' | '.join(str(value) for value in row.values())} |")
    return "\n".join([*lines, f"ratio of the medians: {results['ratio_p50']}"])


def main() -> int:
    """Measure and print a table, with JSON as the last line; return 1 if the ratio is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m bench.neighbours", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15, help="of each round alone, and twice as long beside")
    parser.add_argument("--clients", type=int, default=8, help="of the tenant with long answers")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--out", type=Path, help="folder for neighbours.json")
    options = parser.parse_args()
    policies = {**POLICIES, "aligner": {"model": options.model}}
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway.run_gateway(Path(folder), workers=1, policies=policies, tenants=TENANTS) as running,
    ):
        results = asyncio.run(measure(running, options))
    if options.out:
        gateway.dump(results, options.out, "neighbours")
    print(format_table(results))
    print(json.dumps(results))
    return int(bool(results["missed"]))


if __name__ == "__main__":
    sys.exit(main())
