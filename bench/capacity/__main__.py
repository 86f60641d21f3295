"""`python -m bench.capacity OUT`: simulates how many engines a load needs, after a comparison with a real run.

The real run is `python -m bench.load --rates 0.4 0.8 1.6` on the machine where `measured.json` was measured. The
simulation gets the same arrivals, with answers drawn anew twenty times. A number of engines is enough if the 99th
percentile of the time that corrections add is at most 2 s and at most one in a hundred answers passes uncorrected. More
than eight engines are simulated as eight with their share of the load.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.capacity.simulation import Found, Measured, simulate
from bench.load_generator import times

HERE = Path(__file__).parent
AGAIN = 20
ONE_BY_ONE = 100
IDLE_S = 10.0
RATES = (10, 100, 1000)
HITS = (0.0, 0.3, 0.6)
P99_S = 2.0
MAX_FAILED = 0.01
GROUP = 8
SECONDS = 120.0
LOADS = (0.8, 1.6, 2.4, 3.2, 4.0, 4.4, 4.8, 5.2, 5.6)


def at(values: Sequence[float], percentile: int) -> float:
    """A percentile, computed as in `bench.load`."""
    return statistics.quantiles(values, n=100, method="inclusive")[percentile - 1]


def with_gateway(measured: Measured, alone_ms: float) -> Measured:
    """Add the time that a correction takes outside its engine.

    That is the median of good answers one by one, minus the simulated median.
    """
    due = [IDLE_S * number for number in range(ONE_BY_ONE)]
    simulated = at(simulate(measured, due, bad=0.0).added, 50)
    return replace(measured, gateway_s=max(0.0, alone_ms / 1000 - simulated))


def compared(measured: Measured, real: dict[str, Any]) -> list[dict[str, Any]]:
    """Simulated and real figures at each rate of the real run."""
    rows = []
    for number, row in enumerate(real["rows"]):
        due = times(row["rate"], real["seconds"], seed=number)
        runs = [simulate(measured, due, seed=seed) for seed in range(AGAIN)]
        simulated = {
            "added_p50_ms": statistics.mean(at(run.added, 50) for run in runs) * 1000,
            "added_p95_ms": statistics.mean(at(run.added, 95) for run in runs) * 1000,
            "per_second": statistics.mean(len(run.added) / max(run.last, real["seconds"]) for run in runs),
        }
        for name, value in simulated.items():
            off = value / row[name] - 1
            rows.append({"rate": row["rate"], "what": name, "real": row[name], "sim": round(value, 3), "off": off})
    return rows


def tried(measured: Measured, rate: float, engines: int, hits: float, seed: int) -> Found:
    """Simulate a load on `engines` engines; at most `GROUP` of them are simulated, with their share of the load."""
    group = min(engines, GROUP)
    due = times(rate * group / engines, SECONDS, seed)
    return simulate(measured, due, engines=group, hits=hits, seed=seed)


def enough(found: Found) -> bool:
    """Whether the engines were enough for the load."""
    total = len(found.added) + found.failed
    return found.failed <= MAX_FAILED * total and at(found.added, 99) <= P99_S


def needed(measured: Measured, rate: float, hits: float, seed: int) -> tuple[int, Found]:
    """The least number of engines that is enough, found by bisection, and the result with it."""
    low, high = 0, max(1, math.ceil(rate))
    while not enough(tried(measured, rate, high, hits, seed)):
        low, high = high, high * 2
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        if enough(tried(measured, rate, middle, hits, seed)):
            high = middle
        else:
            low = middle
    return high, tried(measured, rate, high, hits, seed)


def main() -> int:
    """Print the tables for docs/reference/capacity.md and draw its figure."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("out", type=Path, help="the folder for capacity.svg and capacity.json")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    real = json.loads((HERE / "real.json").read_text())
    measured = with_gateway(Measured.read(HERE / "measured.json"), real["alone_p50_ms"])
    told: dict[str, Any] = {"seed": asked.seed, "gateway_s": measured.gateway_s}
    told["compared"] = compared(measured, real)
    for row in told["compared"]:
        print(f"| {row['rate']} | {row['what']} | {row['real']} | {row['sim']:.4g} | {row['off']:+.0%} |")
    told["curve"] = [_load(measured, load, asked.seed) for load in LOADS]
    for row in told["curve"]:
        print(f"| {row['rate']} | {row['p50_s']:.2f} | {row['p99_s']:.2f} | {row['failed']:.1%} |")
    told["needed"] = []
    for rate in RATES:
        for hits in HITS:
            engines, found = needed(measured, rate, hits, asked.seed)
            p50, p99 = at(found.added, 50), at(found.added, 99)
            told["needed"].append({"rate": rate, "hits": hits, "engines": engines, "p50_s": p50, "p99_s": p99})
            print(f"| {rate:,} | {hits:.0%} | {engines} | {p50:.2f} | {p99:.2f} |", flush=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "capacity.json").write_text(json.dumps(told, indent=1) + "\n")
    _draw(told, asked.out / "capacity.svg")
    return 0


def _load(measured: Measured, rate: float, seed: int) -> dict[str, float]:
    """Figures of eight engines at this rate of requests per second and engine."""
    found = tried(measured, rate * GROUP, GROUP, 0.0, seed)
    failed = found.failed / (len(found.added) + found.failed)
    return {"rate": rate, "p50_s": at(found.added, 50), "p99_s": at(found.added, 99), "failed": failed}


def _draw(told: dict[str, Any], file: Path) -> None:
    # Imported here, because the tests simulate without drawing.
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.4))
    rows = told["curve"]
    for name, label in (("p50_s", "median"), ("p99_s", "99th percentile")):
        left.plot([row["rate"] for row in rows], [row[name] for row in rows], marker="o", label=label)
    left.set_xlabel("requests a second and engine")
    left.set_ylabel("seconds added")
    left.legend()
    for hits in HITS:
        mine = [row for row in told["needed"] if row["hits"] == hits]
        right.plot(
            [row["rate"] for row in mine], [row["engines"] for row in mine], marker="o", label=f"{hits:.0%} hits"
        )
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("requests a second")
    right.set_ylabel("engines")
    right.legend()
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
