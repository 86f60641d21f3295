"""Floors of corrections on a GPU: the time that reading weights and computing must take, and what to expect.

    costs = estimate_costs(sizes, rates)       # costs.nothing_flagged, costs.all_written

Nothing is measured here, and nothing loaded. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from aligner_proxy.engine.weights import memory
from aligner_proxy.engine.weights.memory import ModelSize

PROMPT_TOKENS = 512
ANSWER_TOKENS = 256
"""Of the correction whose time is estimated."""


@dataclass(frozen=True, slots=True)
class GpuRates:
    """What a card reads from its memory, in bytes a second, and computes in bf16, in operations a second."""

    bandwidth: float
    arithmetic: float


_CARDS = {
    "RTX 3060": GpuRates(0.36e12, 25.6e12),
    "RTX 4090": GpuRates(1.008e12, 165e12),
    "A100-SXM4-80GB": GpuRates(2.0e12, 312e12),
    "A100 80GB PCIe": GpuRates(2.0e12, 312e12),
    "NVIDIA L4": GpuRates(0.3e12, 121e12),
    "H100 80GB HBM3": GpuRates(2.96e12, 787e12),
    "NVIDIA H200": GpuRates(4.3e12, 790e12),
}
"""By the end of the name that torch reports, so that an RTX 3060 Ti, an L40 or a part of a card does not match. The
rates of H100 and H200 are measured, the others are from data sheets."""


@dataclass(frozen=True, slots=True)
class CostRange:
    """The floor of a time, and what to expect, in milliseconds."""

    floor_ms: float
    expected_ms: float


class CorrectionCosts(NamedTuple):
    """The times of correcting an answer of `ANSWER_TOKENS` tokens after a prompt of `PROMPT_TOKENS`."""

    nothing_flagged: CostRange
    """All is read once."""
    all_written: CostRange
    """The whole answer is rewritten, token by token."""


def find_card(name: str) -> GpuRates | None:
    """The rates of the card with this name; None if they are not known."""
    return next((rates for end, rates in _CARDS.items() if name.endswith(end)), None)


def estimate_forward(sizes: ModelSize, rates: GpuRates, rows: int, context: int) -> CostRange:
    """The time of one forward of an NF4 model over `rows` tokens, the last of which is token `context`."""
    head = sizes.vocabulary * sizes.hidden
    bytes_read = sizes.linear * memory.NF4_BITS / 8 + 2 * head + context * sizes.count_token_bytes(2, 0)
    # a token attends to those before it, half of the rows on average
    attended = rows * (context - rows / 2)
    operations = 2 * sizes.linear * rows + 4 * sizes.heads * sizes.head_size * sizes.layers * attended + 2 * head
    floor_ms = 1000 * max(bytes_read / rates.bandwidth, operations / rates.arithmetic)
    # ratios as measured on an H100 at 1.1B and 7B: single tokens are bound by the decoding of NF4, and every layer has
    # kernels that start one after the other
    expected_ms = floor_ms * 2.3 + 0.02 * sizes.layers if rows == 1 else floor_ms * 1.3 + 0.08 * sizes.layers
    return CostRange(floor_ms, expected_ms)


def estimate_costs(sizes: ModelSize, rates: GpuRates) -> CorrectionCosts:
    """Estimate the times of correcting an answer by an NF4 model with our kernels."""
    all_tokens = PROMPT_TOKENS + ANSWER_TOKENS
    nothing_flagged = estimate_forward(sizes, rates, all_tokens, all_tokens)
    prompt = estimate_forward(sizes, rates, PROMPT_TOKENS, PROMPT_TOKENS)
    # while the answer is written, the context holds half of it on average
    token = estimate_forward(sizes, rates, 1, PROMPT_TOKENS + ANSWER_TOKENS // 2)
    all_written = CostRange(
        prompt.floor_ms + ANSWER_TOKENS * token.floor_ms,
        prompt.expected_ms + ANSWER_TOKENS * token.expected_ms,
    )
    return CorrectionCosts(nothing_flagged, all_written)
