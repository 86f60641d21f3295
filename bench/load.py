"""`python -m bench.load`: latency that a correction adds, by arrival rate up to and past saturation.

The complete gateway with its aligner runs in front of a scripted upstream that answers at once. Requests arrive in an
open loop; a share of the answers has a defect, so that text must be generated for them. First a closed loop measures
the highest throughput. Then rates around it run, the lowest first.

The knee is the highest rate up to which two things hold at every rate. The 95th percentile of the added time is at most
three times that at the lowest rate. At most one answer in a hundred passes uncorrected because a correction failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import gateway
from bench.gateway import MeasuringClient, RequestResult
from bench.load_generator import TimedRequest, draw_times, drive, saturate

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0)
"""Rates as shares of the highest throughput."""
TIMES_SLOWER = 3.0
MAX_FAILED = 0.01
_CLIENTS = 16
ALONE = 40
"""Number of good answers requested one after the other, to time corrections that wait for no other."""
IDLE_S = 0.3
"""Pause between them, so that the engine is as rested as at a low rate."""
_FIRST = 1000
"""Number of the first answer; it has as many digits as those at the rates."""


def find_knee(rows: Sequence[dict[str, Any]]) -> float | None:
    """The rate defined in the module docstring; None if even the lowest rate fails."""
    rate = None
    for row in rows:
        slow = row["added_p95_ms"] is None or row["added_p95_ms"] > TIMES_SLOWER * rows[0]["added_p95_ms"]
        if slow or row["failed"] > MAX_FAILED:
            break
        rate = row["rate"]
    return rate


def make_row(rate: float, seconds: float, arrived: Sequence[TimedRequest[RequestResult]]) -> dict[str, Any]:
    """The figures of one rate: added time, time that clients waited, and statuses."""
    done = [one for one in arrived if one.result.done]
    added = [one.result.added_ms for one in done if one.result.added_ms is not None]
    edited = [
        one.result.added_ms for one in done if one.result.status == "corrected" and one.result.added_ms is not None
    ]
    waited = [one.waited * 1000 for one in arrived]
    why = Counter(one.result.reason or str(one.result.code) for one in arrived if not one.result.done)
    last = max((one.end for one in arrived), default=seconds)
    return {
        "rate": round(rate, 3),
        "sent": len(arrived),
        "per_second": round(len(done) / max(last, seconds), 3),
        "added_p50_ms": _find_percentile(added, 50),
        "added_p95_ms": _find_percentile(added, 95),
        "edited_p50_ms": _find_percentile(edited, 50),
        "waited_p50_ms": _find_percentile(waited, 50),
        "waited_p95_ms": _find_percentile(waited, 95),
        "corrected": sum(one.result.status == "corrected" for one in done),
        "failed": round(1 - len(done) / len(arrived), 4) if arrived else 0.0,
        "why": dict(why),
    }


def _find_percentile(values: Sequence[float], percentile: int) -> float | None:
    if len(values) < 2:
        return round(values[0], 1) if values else None
    return round(statistics.quantiles(values, n=100, method="inclusive")[percentile - 1], 1)


async def measure(
    ask: Callable[[int], Awaitable[RequestResult]],
    options: argparse.Namespace,
    tell: Callable[[dict[str, Any]], None],
    ask_alone: Callable[[int], Awaitable[RequestResult]],
) -> dict[str, Any]:
    """Measure some answers with `ask_alone`, then each rate after the answers of the previous one are complete."""
    await saturate(ask, 2, 5)
    most = await saturate(ask, _CLIENTS, options.seconds, lambda result: result.done)
    unhurried = []
    for number in range(ALONE):
        await asyncio.sleep(IDLE_S)
        unhurried.append((await ask_alone(number)).added_ms)
    rows = []
    for number, rate in enumerate(options.rates or [share * most for share in SHARES]):
        due = draw_times(rate, options.seconds, seed=number)
        rows.append(make_row(rate, options.seconds, await drive(ask, due)))
        tell(rows[-1])
    return {
        "most_per_second": round(most, 3),
        "knee_per_second": find_knee(rows),
        "alone_p50_ms": _find_percentile([ms for ms in unhurried if ms is not None], 50),
        "rows": rows,
    }


async def _run(
    running: gateway.RunningGateway, options: argparse.Namespace, tell: Callable[[dict[str, Any]], None]
) -> Any:
    client, numbers = MeasuringClient(running), iter(range(10**9))

    async def ask(_: int) -> RequestResult:
        number = next(numbers)
        bad = int(number * options.bad) != int((number + 1) * options.bad)
        return await client.ask(f"{'bad' if bad else 'good'} number {number}")

    async def ask_alone(number: int) -> RequestResult:
        return await client.ask(f"good by itself {_FIRST + number}")

    try:
        return await measure(ask, options, tell, ask_alone)
    finally:
        await client.http.aclose()


def main() -> int:
    """Measure and print a table while running; write table and figure; the last line is a JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", help="requests a second; by default around saturation")
    parser.add_argument("--seconds", type=float, default=60, help="of each rate")
    parser.add_argument("--bad", type=float, default=0.25, help="share of answers with a defect")
    parser.add_argument("--deadline", type=float, default=5, help="deadline_s of the route")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--out", type=Path, help="folder for load.json, load.md and load.svg")
    options = parser.parse_args()
    route = {"match": {}, "objectives": ["harmless"], "deadline_s": options.deadline}
    policies = {
        "aligner": {"model": options.model},
        "cache": {"enabled": False},
        "defaults": {"exact_times": True},
        "routes": [route],
    }
    console = Console()
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway.run_gateway(Path(folder), workers=options.workers, policies=policies) as running,
    ):
        results = asyncio.run(_run(running, options, console.print))
    results |= {
        "seconds": options.seconds,
        "bad": options.bad,
        "deadline_s": options.deadline,
        "workers": options.workers,
    }
    if options.out:
        from bench import plots

        gateway.dump(results, options.out, "load")
        (options.out / "load.md").write_text(format_table(results))
        plots.draw_load(results, options.out / "load.svg")
    print(json.dumps({key: value for key, value in results.items() if key != "rows"}))
    return 0


def format_table(results: dict[str, Any]) -> str:
    """The table for the docs."""
    names = ("rate", "sent", "per_second", "added_p50_ms", "added_p95_ms", "edited_p50_ms", "waited_p95_ms", "failed")
    lines = [f"| {' | '.join((*names, 'why'))} |", "|" + "---|" * (len(names) + 1)]
    for one in results["rows"]:
        why = ", ".join(f"{count} {reason}" for reason, count in one["why"].items())
        lines.append(f"| {' | '.join(str(one[name]) for name in names)} | {why} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
