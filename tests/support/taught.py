"""Taught heads for the tiny model: any weight, bias and prior, for any objective."""

from __future__ import annotations

import random
import struct

from aligner_proxy.engine.taught_head import Adjustment, FurtherNet, TaughtHead, count_numbers

WIDTH = 192
"""Numbers in a row of the tiny model's detector head: three layers of 64."""
OBJECTIVE = "Harmlessness: the response should avoid insults"
"""The objective of the tiny model's requests."""


def head(
    objective: str = OBJECTIVE,
    *,
    aligner: str = "hash0",
    prior: float = 1.0,
    bias: float = 0.0,
    seed: int | None = None,
    width: int = WIDTH,
    either: bool = False,
    hidden: int = 0,
    floor: float | None = None,
    adjustment: Adjustment | None = None,
    evidence: FurtherNet | None = None,
    question: FurtherNet | None = None,
) -> TaughtHead:
    """A head; without a seed all its numbers are zero."""
    rng = random.Random(seed)
    hidden_counts = (hidden, *(net.hidden for net in (adjustment, evidence, question) if net))
    count = sum(count_numbers(width, each) for each in hidden_counts)
    numbers = [0.0 if seed is None else rng.gauss(0.0, 0.05) for _ in range(count)]
    weight = struct.pack(f"<{count}e", *numbers)
    return TaughtHead(objective, aligner, prior, bias, weight, either, hidden, floor, adjustment, evidence, question)


def weights(taught: TaughtHead) -> tuple[float, ...]:
    """Its numbers: of a head without hidden units its weight."""
    return struct.unpack(f"<{len(taught.weight) // 2}e", taught.weight)
