"""What fits a GPU and what a correction would cost there, in lines that `pull` and `doctor` print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aligner_proxy.engine.weights import floors, memory
from aligner_proxy.engine.weights.floors import ANSWER_TOKENS, PROMPT_TOKENS, CostRange
from aligner_proxy.engine.weights.memory import ModelSize
from aligner_proxy.errors import WeightsError

_DRIVER = 0.5 * 2**30
"""Bytes of a card that the driver takes for each process."""


def suggest_fix(missing: str) -> str:
    """How to fix what the engine's own kernels lack; `missing` is its name in `engine/model/acceleration.py`."""
    if "triton" in missing:
        return "pip install triton"
    if "compiled" in missing:
        return "install a C compiler and Python's headers (Debian: apt install gcc libc6-dev python3-dev)"
    return "nothing to install: the library's kernels give the same corrections, but slower"


def describe_fit(
    card: Mapping[str, Any], about: Mapping[str, Any], quantization: str, *, has_head: bool, has_kernels: bool
) -> list[str]:
    """Say in lines what fits an otherwise empty GPU and, for a known one with our kernels, what a correction costs.

    `card` is the probe's report on the GPU, `about` its report on the aligner. Empty if the aligner's sizes are not
    known. Raises `WeightsError` for an aligner that does not fit, or whose config cannot be read.
    """
    if "error" in about:
        raise WeightsError(about["error"])
    if about["sizes"] is None:
        return []
    sizes = ModelSize(**about["sizes"])
    may_copy = has_kernels and about["obstacle"] is None and quantization == "nf4"
    head_states = about["head_states"] if has_head else 0
    place = f"{card['name']} ({card['memory_gb']:g} GB)"
    try:
        free_bytes = card["memory_gb"] * 2**30 - _DRIVER
        plan = memory.plan_gpu(sizes, quantization, 2, head_states, free_bytes, copies=may_copy)
    except WeightsError as error:
        raise WeightsError(f"does not fit {place}: {error}") from None
    weights_gb = sizes.count_weight_bytes(quantization, 2) / 2**30
    parts = [f"{weights_gb:.1f} GB of weights", f"{plan.cache_tokens:,} tokens of KV cache"]
    if may_copy:
        copy = "a bf16 copy" if plan.has_copy else "no room for a bf16 copy"
        parts.append(f"{copy} of the weights, with which prompts are read faster")
    lines = [f"on {place}: {', '.join(parts)}"]
    rates = floors.find_card(card["name"])
    if may_copy and rates is not None:
        nothing_flagged, all_written = floors.estimate_costs(sizes, rates)
        lines.append(
            f"an estimate, not measured here: correcting an answer of {ANSWER_TOKENS} tokens after a prompt of "
            f"{PROMPT_TOKENS} takes {_describe_range(nothing_flagged)} where nothing is flagged, "
            f"and {_describe_range(all_written)} where all is written"
        )
    return lines


def _describe_range(costs: CostRange) -> str:
    """The expected milliseconds, with the least possible ones in brackets."""
    expected, floor = (f"{float(f'{ms:.2g}'):,g}" for ms in (costs.expected_ms, costs.floor_ms))
    return f"about {expected} ms (floor {floor})"
