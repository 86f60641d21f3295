"""Figures: one SVG for each part that has rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

WAYS = {
    "flagged": "ours, by default",
    "verified": "ours, all verified",
    "lookup": "prompt lookup",
    "generate": "generate",
}


def draw_parts(results: dict[str, Any], folder: Path) -> None:
    """Draw every part that was measured."""
    pyplot.rcParams["svg.hashsalt"] = "bench"
    if results.get("alone", {}).get("rows"):
        _draw_alone(results["alone"]["rows"], folder / "alone.svg")
    if results.get("together", {}).get("rows"):
        _draw_together(results["together"]["rows"], folder / "together.svg")
    if results.get("overlap", {}).get("rows"):
        _draw_overlap(results["overlap"]["rows"], folder / "overlap.svg")


def _draw_overlap(rows: list[dict[str, Any]], file: Path) -> None:
    """Plot the wait after the last token by the answer's length."""
    figure, axis = pyplot.subplots(figsize=(6.5, 3.2))
    for name, label in (("after_ms", "read when it has ended"), ("ahead_ms", "read along")):
        axis.plot([row["chars"] for row in rows], [row[name] for row in rows], "o", label=label)
    axis.set_xlabel("characters of the answer")
    axis.set_ylabel("ms after the last word")
    axis.set_ylim(bottom=0)
    axis.legend()
    _save(figure, file)


def draw_load(results: dict[str, Any], file: Path) -> None:
    """Plot the added latency by arrival rate, and below it the share of answers that pass uncorrected."""
    rows = results["rows"]
    rates = [row["rate"] for row in rows]
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(6.5, 5.2), sharex=True, height_ratios=(2, 1))
    for name, label in (("added_p50_ms", "median"), ("added_p95_ms", "95th percentile")):
        at = [(row["rate"], row[name] / 1000) for row in rows if row[name] is not None]
        above.plot(*zip(*at, strict=True), marker="o", label=label)
    above.set_yscale("log")
    above.set_ylabel("seconds added by a correction")
    below.plot(rates, [row["failed"] for row in rows], marker="o", color="tab:red")
    below.set_ylabel("share that passes")
    below.set_xlabel("requests a second (open loop)")
    for axis in (above, below):
        if results["knee_per_second"] is not None:
            axis.axvline(results["knee_per_second"], color="grey", linestyle="--", label="knee")
        axis.axvline(results["most_per_second"], color="grey", linestyle=":", label="most, closed loop")
    above.legend()
    _save(figure, file)


def draw_soak(results: dict[str, Any], file: Path) -> None:
    """Plot memory of gateway and engine, their file descriptors and tasks, and the blocks in use, over time."""
    counts = results["counts"]
    minutes = [one["at"] / 60 for one in counts]
    figure, axes = pyplot.subplots(3, 1, figsize=(6.5, 6.5), sharex=True)
    for axis, names, label in zip(
        axes,
        (("gateway_mb", "engine_mb"), ("gateway_fds", "engine_fds", "tasks"), ("blocks", "sequences")),
        ("resident memory, MB", "held", "engine, in use"),
        strict=True,
    ):
        for name in names:
            axis.plot(minutes, [one[name] for one in counts], label=name.replace("_mb", "").replace("_", " "), lw=0.9)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.legend(loc="upper right")
    axes[-1].set_xlabel("minutes")
    _save(figure, file)


def draw_stalls(results: dict[str, Any], file: Path) -> None:
    """Plot how long liveness checks took, and the longest stall of the event loop by owner of the line."""
    proxies = [name for name in ("litellm", "gateway") if name in results]
    figure, (time_axis, stall_axis) = pyplot.subplots(1, 2, figsize=(6.5, 3.2))
    for number, name in enumerate(proxies):
        at = [place + 0.4 * number for place in range(3)]
        time_axis.bar(at, [results[name][key] for key in ("p50", "p99", "longest")], width=0.4, label=name)
        owners = results[name]["stalls"]
        stall_axis.barh([f"{owner} ({name})" for owner in owners], [one["longest_s"] for one in owners.values()])
    time_axis.set_xticks([0.2, 1.2, 2.2], ["median", "99th\npercentile", "longest"])
    time_axis.set_yscale("log")
    time_axis.set_ylabel("seconds to liveness")
    time_axis.legend()
    stall_axis.set_xlabel("longest stall, seconds")
    _save(figure, file)


def _draw_alone(rows: list[dict[str, Any]], file: Path) -> None:
    """Plot seconds of one correction by edit rate, one line for each way; the band is from fastest to slowest."""
    figure, axis = pyplot.subplots(figsize=(6.5, 3.6))
    rates = sorted({row["rate"] for row in rows})
    for way, label in WAYS.items():
        mine = [row for row in rows if row["way"] == way]
        at = [rates.index(row["rate"]) for row in mine]
        line = axis.plot(at, [row["median_ms"] / 1000 for row in mine], marker="o", label=label)
        least, most = ([row[end] / 1000 for row in mine] for end in ("min_ms", "max_ms"))
        axis.fill_between(at, least, most, color=line[0].get_color(), alpha=0.15)
    axis.set_xticks(range(len(rates)), [f"{rate:.0%}" for rate in rates])
    axis.set_xlabel("share of the answer's tokens that the aligner changes")
    axis.set_ylabel("seconds for one correction")
    axis.set_yscale("log")
    axis.legend()
    _save(figure, file)


def _draw_together(rows: list[dict[str, Any]], file: Path) -> None:
    figure, axis = pyplot.subplots(figsize=(6.5, 0.6 + 0.5 * len(rows)))
    axis.barh([row["name"] for row in rows], [row["per_second"] for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("corrections a second, sixteen at a time")
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
