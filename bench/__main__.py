"""`python -m bench [--only latency|throughput|overlap] [--requests N] [--rounds N] [--model M]`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from aligner_proxy import __version__
from aligner_proxy.errors import AlignerProxyError


def latency_table(found: dict[str, Any]) -> Table:
    """Added latency, for people."""
    table = Table("at a time", "LiteLLM p50 / p95 ms", "gateway p50 / p95 ms", "added p50 ms", "ratio")
    for row in found["rows"]:
        pairs = [f"{row[name]['p50_ms']} / {row[name]['p95_ms']}" for name in ("litellm", "gateway")]
        table.add_row(str(row["together"]), *pairs, str(row["added_p50_ms"]), str(row["ratio_p50"]))
    return table


def throughput_table(found: dict[str, Any]) -> Table:
    """Corrections a second, for people."""
    table = Table("", "corrections/s", "ms each", "forwards each")
    for row in found["rows"]:
        table.add_row(row["name"], str(row["per_second"]), str(row["ms"]), str(row["forwards"] or "-"))
    return table


def main() -> int:
    """Run what is asked for; a part that cannot run here is named, not left out silently."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--only", choices=["latency", "throughput", "overlap"])
    parser.add_argument("--requests", type=int, default=200, help="requests to each proxy, for each concurrency")
    parser.add_argument("--rounds", type=int, default=3, help="how often all answers are corrected")
    parser.add_argument("--model", default="embedded")
    asked = parser.parse_args()
    console = Console()
    found: dict[str, Any] = {"version": __version__, "machine": platform.machine(), "python": platform.python_version()}
    if asked.only in (None, "latency"):
        from bench import latency

        with console.status("latency: LiteLLM with the guardrail and without ..."):
            found["latency"] = latency.run(asked.requests)
        console.print(latency_table(found["latency"]))
    if asked.only in (None, "throughput"):
        from bench import throughput

        found["throughput"] = _tried(console, "throughput", lambda: throughput.run(asked.model, asked.rounds))
        if "rows" in found["throughput"]:
            console.print(throughput_table(found["throughput"]))
    if asked.only in (None, "overlap"):
        from bench import overlap

        found["overlap"] = _tried(console, "overlap", lambda: overlap.run(asked.model, asked.rounds))
        console.print({key: value for key, value in found["overlap"].items() if key != "aligner"})
    print(json.dumps(found))
    return int(any("error" in part for part in found.values() if isinstance(part, dict)))


def _tried(console: Console, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part, or why it could not be measured here."""
    try:
        with console.status(f"{name} ..."):
            return measure()
    except AlignerProxyError as error:
        console.print(f"{name} not measured: {error}", style="yellow", markup=False)
        return {"error": str(error)}


if __name__ == "__main__":
    sys.exit(main())
