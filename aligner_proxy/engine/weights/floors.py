"""Floors of the time that corrections take on a GPU: what reading the weights and computing must take. Each comes with
the time to expect. Nothing is measured or loaded here. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from aligner_proxy.engine.weights import memory
from aligner_proxy.engine.weights.memory import ModelSize

PROMPT_TOKENS = 512
ANSWER_TOKENS = 256
"""Tokens of prompt and answer in the correction whose time is estimated."""


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
"""The rates of a card, by the end of the name that torch reports, so that an RTX 3060 Ti, an L40 or a part of a card
does not match. The rates of H100 and H200 were measured, the others are from data sheets."""


@dataclass(frozen=True, slots=True)
class CostRange:
    """The floor of a time, and what to expect, in milliseconds."""

    floor_ms: float
    expected_ms: float


class CorrectionCosts(NamedTuple):
    """The times of correcting an answer of `ANSWER_TOKENS` tokens after a prompt of `PROMPT_TOKENS`."""

    nothing_flagged: CostRange
    """The time if no segment is flagged, so that prompt and answer are read once."""
    all_written: CostRange
    """The time if the whole answer is rewritten, token by token."""


def find_card(name: str) -> GpuRates | None:
    """Return the rates of the card that torch calls `name`; None if they are not known."""
    return next((rates for name_end, rates in _CARDS.items() if name.endswith(name_end)), None)


def estimate_forward(sizes: ModelSize, rates: GpuRates, rows: int, context: int) -> CostRange:
    """Estimate the time of a forward pass of an NF4 model over the last `rows` of a sequence of `context` tokens."""
    output_numbers = sizes.vocabulary * sizes.hidden  # of the output layer, which is in bf16
    weight_bytes = sizes.linear * memory.NF4_BITS / 8 + 2 * output_numbers
    bytes_read = weight_bytes + context * sizes.count_token_bytes(2, 0)
    # a token attends to the tokens before it, which are half of the rows on average
    attended_tokens = rows * (context - rows / 2)
    attention_operations = 4 * sizes.heads * sizes.head_size * sizes.layers * attended_tokens
    operations = 2 * sizes.linear * rows + attention_operations + 2 * output_numbers
    floor_ms = 1000 * max(bytes_read / rates.bandwidth, operations / rates.arithmetic)
    # factors as measured on an H100 at 1.1B and 7B: single tokens are bound by the decoding of NF4, and every layer has
    # kernels that start one after the other
    if rows == 1:
        return CostRange(floor_ms, expected_ms=floor_ms * 2.3 + 0.02 * sizes.layers)
    return CostRange(floor_ms, expected_ms=floor_ms * 1.3 + 0.08 * sizes.layers)


def estimate_costs(sizes: ModelSize, rates: GpuRates) -> CorrectionCosts:
    """Estimate the times of correcting an answer by an NF4 model with our kernels."""
    all_tokens = PROMPT_TOKENS + ANSWER_TOKENS
    nothing_flagged = estimate_forward(sizes, rates, all_tokens, all_tokens)
    prompt_pass = estimate_forward(sizes, rates, PROMPT_TOKENS, PROMPT_TOKENS)
    # while the answer is written, the context holds half of the answer on average
    token_pass = estimate_forward(sizes, rates, 1, PROMPT_TOKENS + ANSWER_TOKENS // 2)
    all_written = CostRange(
        prompt_pass.floor_ms + ANSWER_TOKENS * token_pass.floor_ms,
        prompt_pass.expected_ms + ANSWER_TOKENS * token_pass.expected_ms,
    )
    return CorrectionCosts(nothing_flagged, all_written)
