"""Registry of the bench's parts: one file for each, and the figures that each contributes to the last line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Part = Callable[[argparse.Namespace], dict[str, Any]]


def _gateway(asked: argparse.Namespace) -> dict[str, Any]:
    from bench import latency

    return latency.run(asked.requests)


def _alone(asked: argparse.Namespace) -> dict[str, Any]:
    from bench import speed

    return speed.run(asked.model, asked.answers, asked.rounds)


def _together(asked: argparse.Namespace) -> dict[str, Any]:
    from bench import concurrent, peers

    with peers.running(asked.model) as (ways, missing):
        return concurrent.run(asked.model, asked.rounds, ways) | missing


def _overlap(asked: argparse.Namespace) -> dict[str, Any]:
    from bench import overlap

    return overlap.run(asked.model, asked.rounds, asked.data)


def _taught(asked: argparse.Namespace) -> dict[str, Any]:
    from bench import taught_heads

    return taught_heads.run(asked.model, asked.rounds)


def _memory(_: argparse.Namespace) -> dict[str, Any]:
    from bench import memory

    return memory.run()


# Each part is imported when it runs: the gateway's part needs no torch, and unselected parts should cost nothing.
PARTS: dict[str, Part] = {
    "gateway": _gateway,
    "alone": _alone,
    "together": _together,
    "overlap": _overlap,
    "taught": _taught,
    "memory": _memory,
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
