"""Registry of the bench's parts: one module for each, and the figures that each contributes to the last line."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

Part = Callable[[argparse.Namespace], dict[str, Any]]


def _run_module(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Import a module of the bench and run it: the gateway's part needs no torch, and unselected parts cost nothing."""
    run: Part = importlib.import_module(f"bench.{name}").run
    return run(options)


PARTS: dict[str, Part] = {
    "gateway": partial(_run_module, "latency"),
    "alone": partial(_run_module, "speed"),
    "together": partial(_run_module, "peers"),
    "overlap": partial(_run_module, "overlap"),
    "taught": partial(_run_module, "taught_heads"),
    "memory": partial(_run_module, "memory"),
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
