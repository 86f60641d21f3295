"""What fits a GPU and what a correction would cost there, in lines that `pull` and `doctor` print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aligner_proxy.engine.weights import floors, memory
from aligner_proxy.engine.weights.floors import ANSWER_TOKENS, PROMPT_TOKENS, CostRange
from aligner_proxy.engine.weights.memory import ModelSize
from aligner_proxy.errors import WeightsError

_DRIVER_BYTES = 0.5 * 2**30
"""Bytes of a card that the driver takes for each process."""
_BF16_BYTES = 2
"""Bytes of a number that is not quantised."""


def suggest_fix(missing_part: str) -> str:
    """Return how to install what the engine's own kernels lack, as `acceleration.find_missing_part` names it."""
    if "triton" in missing_part:
        return "pip install triton"
    if "compiled" in missing_part:
        return "install a C compiler and Python's headers (Debian: apt install gcc libc6-dev python3-dev)"
    return "nothing to install: the library's kernels give the same corrections, but slower"


def describe_fit(
    card: Mapping[str, Any], aligner: Mapping[str, Any], quantization: str, *, has_head: bool, has_kernels: bool
) -> list[str]:
    """Return lines that say what fits an otherwise empty GPU and, for known cards, what a correction costs.

    `card` is the probe's report on the GPU, and `aligner` its report on the aligner. Empty if the aligner's sizes are
    not known. Raises `WeightsError` for an aligner that does not fit, or whose config cannot be read.
    """
    if "error" in aligner:
        raise WeightsError(aligner["error"])
    if aligner["sizes"] is None:
        return []
    sizes = ModelSize(**aligner["sizes"])
    # Only the engine's own kernels use a bf16 copy of 4-bit weights.
    may_copy = has_kernels and aligner["obstacle"] is None and quantization == "nf4"
    head_states = aligner["head_states"] if has_head else 0
    place = f"{card['name']} ({card['memory_gb']:g} GB)"
    try:
        free_bytes = card["memory_gb"] * 2**30 - _DRIVER_BYTES
        plan = memory.plan_gpu(sizes, quantization, _BF16_BYTES, head_states, free_bytes, copies=may_copy)
    except WeightsError as error:
        raise WeightsError(f"does not fit {place}: {error}") from None
    weights_gb = sizes.count_weight_bytes(quantization, _BF16_BYTES) / 2**30
    parts = [f"{weights_gb:.1f} GB of weights", f"{plan.cache_tokens:,} tokens of KV cache"]
    if may_copy:
        copy_text = "a bf16 copy" if plan.has_copy else "no room for a bf16 copy"
        parts.append(f"{copy_text} of the weights, with which prompts are read faster")
    lines = [f"on {place}: {', '.join(parts)}"]
    card_rates = floors.find_card(card["name"])
    if may_copy and card_rates is not None:
        nothing_flagged, all_written = floors.estimate_costs(sizes, card_rates)
        lines.append(
            f"an estimate, not measured here: correcting an answer of {ANSWER_TOKENS} tokens after a prompt of "
            f"{PROMPT_TOKENS} takes {_describe_range(nothing_flagged)} where nothing is flagged, "
            f"and {_describe_range(all_written)} where all is written"
        )
    return lines


def _describe_range(costs: CostRange) -> str:
    """The expected milliseconds, with the least possible ones in brackets, both with two significant digits."""
    expected_ms = float(f"{costs.expected_ms:.2g}")
    floor_ms = float(f"{costs.floor_ms:.2g}")
    return f"about {expected_ms:,g} ms (floor {floor_ms:,g})"
