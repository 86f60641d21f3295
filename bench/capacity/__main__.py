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

from bench.capacity.simulation import EngineMeasurements, SimulationResult, simulate
from bench.load_generator import draw_times

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


def find_percentile(values: Sequence[float], percentile: int) -> float:
    """A percentile, computed as in `bench.load`."""
    return statistics.quantiles(values, n=100, method="inclusive")[percentile - 1]


def add_gateway_time(measured: EngineMeasurements, alone_ms: float) -> EngineMeasurements:
    """Add the time that a correction takes outside its engine.

    That is the median of good answers one by one, minus the simulated median.
    """
    due = [IDLE_S * number for number in range(ONE_BY_ONE)]
    simulated = find_percentile(simulate(measured, due, bad=0.0).added, 50)
    return replace(measured, gateway_s=max(0.0, alone_ms / 1000 - simulated))


def compare_rates(measured: EngineMeasurements, real: dict[str, Any]) -> list[dict[str, Any]]:
    """Simulated and real figures at each rate of the real run."""
    rows = []
    for number, row in enumerate(real["rows"]):
        due = draw_times(row["rate"], real["seconds"], seed=number)
        runs = [simulate(measured, due, seed=seed) for seed in range(AGAIN)]
        simulated = {
            "added_p50_ms": statistics.mean(find_percentile(run.added, 50) for run in runs) * 1000,
            "added_p95_ms": statistics.mean(find_percentile(run.added, 95) for run in runs) * 1000,
            "per_second": statistics.mean(len(run.added) / max(run.last, real["seconds"]) for run in runs),
        }
        for name, value in simulated.items():
            off = value / row[name] - 1
            rows.append({"rate": row["rate"], "what": name, "real": row[name], "sim": round(value, 3), "off": off})
    return rows


def simulate_load(measured: EngineMeasurements, rate: float, engines: int, hits: float, seed: int) -> SimulationResult:
    """Simulate a load on `engines` engines; at most `GROUP` of them are simulated, with their share of the load."""
    group = min(engines, GROUP)
    due = draw_times(rate * group / engines, SECONDS, seed)
    return simulate(measured, due, engines=group, hits=hits, seed=seed)


def is_enough(result: SimulationResult) -> bool:
    """Whether the engines were enough for the load."""
    total = len(result.added) + result.failed
    return result.failed <= MAX_FAILED * total and find_percentile(result.added, 99) <= P99_S


def find_needed_engines(
    measured: EngineMeasurements, rate: float, hits: float, seed: int
) -> tuple[int, SimulationResult]:
    """The least number of engines that is enough, found by bisection, and the result with it."""
    low, high = 0, max(1, math.ceil(rate))
    while not is_enough(simulate_load(measured, rate, high, hits, seed)):
        low, high = high, high * 2
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        if is_enough(simulate_load(measured, rate, middle, hits, seed)):
            high = middle
        else:
            low = middle
    return high, simulate_load(measured, rate, high, hits, seed)


def main() -> int:
    """Print the tables for docs/reference/capacity.md and draw its figure."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("out", type=Path, help="the folder for capacity.svg and capacity.json")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    real = json.loads((HERE / "real.json").read_text())
    measured = add_gateway_time(EngineMeasurements.read(HERE / "measured.json"), real["alone_p50_ms"])
    report: dict[str, Any] = {"seed": options.seed, "gateway_s": measured.gateway_s}
    report["compared"] = compare_rates(measured, real)
    for row in report["compared"]:
        print(f"| {row['rate']} | {row['what']} | {row['real']} | {row['sim']:.4g} | {row['off']:+.0%} |")
    report["curve"] = [_measure_load(measured, load, options.seed) for load in LOADS]
    for row in report["curve"]:
        print(f"| {row['rate']} | {row['p50_s']:.2f} | {row['p99_s']:.2f} | {row['failed']:.1%} |")
    report["needed"] = []
    for rate in RATES:
        for hits in HITS:
            engines, result = find_needed_engines(measured, rate, hits, options.seed)
            p50, p99 = find_percentile(result.added, 50), find_percentile(result.added, 99)
            report["needed"].append({"rate": rate, "hits": hits, "engines": engines, "p50_s": p50, "p99_s": p99})
            print(f"| {rate:,} | {hits:.0%} | {engines} | {p50:.2f} | {p99:.2f} |", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "capacity.json").write_text(json.dumps(report, indent=1) + "\n")
    _draw(report, options.out / "capacity.svg")
    return 0


def _measure_load(measured: EngineMeasurements, rate: float, seed: int) -> dict[str, float]:
    """Figures of eight engines at this rate of requests per second and engine."""
    result = simulate_load(measured, rate * GROUP, GROUP, 0.0, seed)
    failed = result.failed / (len(result.added) + result.failed)
    return {
        "rate": rate,
        "p50_s": find_percentile(result.added, 50),
        "p99_s": find_percentile(result.added, 99),
        "failed": failed,
    }


def _draw(report: dict[str, Any], file: Path) -> None:
    # Imported here, because the tests simulate without drawing.
    from matplotlib import pyplot

    figure, (delay_axis, engine_axis) = pyplot.subplots(1, 2, figsize=(8, 3.4))
    rows = report["curve"]
    for name, label in (("p50_s", "median"), ("p99_s", "99th percentile")):
        delay_axis.plot([row["rate"] for row in rows], [row[name] for row in rows], marker="o", label=label)
    delay_axis.set_xlabel("requests a second and engine")
    delay_axis.set_ylabel("seconds added")
    delay_axis.legend()
    for hits in HITS:
        mine = [row for row in report["needed"] if row["hits"] == hits]
        engine_axis.plot(
            [row["rate"] for row in mine], [row["engines"] for row in mine], marker="o", label=f"{hits:.0%} hits"
        )
    engine_axis.set_xscale("log")
    engine_axis.set_yscale("log")
    engine_axis.set_xlabel("requests a second")
    engine_axis.set_ylabel("engines")
    engine_axis.legend()
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
