"""Registry of the bench's parts: one file for each, and the figures that each contributes to the last line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Part = Callable[[argparse.Namespace], dict[str, Any]]


def _run_gateway(options: argparse.Namespace) -> dict[str, Any]:
    from bench import latency

    return latency.run(options.requests)


def _run_alone(options: argparse.Namespace) -> dict[str, Any]:
    from bench import speed

    return speed.run(options.model, options.answers, options.rounds)


def _run_together(options: argparse.Namespace) -> dict[str, Any]:
    from bench import concurrent, peers

    with peers.run_peers(options.model) as (ways, missing):
        return concurrent.run(options.model, options.rounds, ways) | missing


def _run_overlap(options: argparse.Namespace) -> dict[str, Any]:
    from bench import overlap

    return overlap.run(options.model, options.rounds, options.data)


def _run_taught(options: argparse.Namespace) -> dict[str, Any]:
    from bench import taught_heads

    return taught_heads.run(options.model, options.rounds)


def _run_memory(_: argparse.Namespace) -> dict[str, Any]:
    from bench import memory

    return memory.run()


# Each part is imported when it runs: the gateway's part needs no torch, and unselected parts should cost nothing.
PARTS: dict[str, Part] = {
    "gateway": _run_gateway,
    "alone": _run_alone,
    "together": _run_together,
    "overlap": _run_overlap,
    "taught": _run_taught,
    "memory": _run_memory,
}

KEYS: dict[str, tuple[str, ...]] = {
    "gateway": ("untouched_p50_ratio", "cached_p50_ratio"),
    "alone": (
        *("speedup_0", "speedup_0_verify", "speedup_5", "speedup_20", "speedup_100", "vs_lookup_min_0_20"),
        *("forwards_0", "forwards_0_verify", "forwards_5", "forwards_20"),
    ),
    "together": ("throughput16_vs_transformers_cb", "throughput16_vs_llama_cpp", "throughput16_vs_vllm"),
    "overlap": ("overlap_delay_ratio",),
    "taught": ("taught_head_ratio", "taught_heads_4_ratio", "taught_head_noise"),
    "memory": ("peak_rss_mb",),
}
"""Figures of the last line by part; null if the part could not be measured, next to its error."""
