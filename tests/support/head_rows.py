"""Rows of invented cases, from which detector heads of a tiny model learn."""

from __future__ import annotations

import torch

from models.data.labelled_replies import FINE, HARMLESS, UNKNOWN
from models.train.head_rows import HeadRows
from models.train.labelled_cases import LabelledCase

LAYERS = (0, 1)
HIDDEN = 8
SEGMENTS = 3


def rows(name: str, count: int, seed: int, *, against: int | None = None, whole: bool = False) -> HeadRows:
    """Cases of three segments under one objective; in every second one the middle segment points along one axis."""
    draw = torch.Generator().manual_seed(seed)
    objective = torch.randn(HIDDEN * len(LAYERS), generator=torch.Generator().manual_seed(7))
    segments = torch.randn(count * SEGMENTS, HIDDEN * (len(LAYERS) + 1), generator=draw)
    cases = []
    for number in range(count):
        bad = number % 2 == 0
        if bad:
            segments[number * SEGMENTS + 1, 0] += 8
        label = UNKNOWN if against is None or (whole and bad) else against if bad else FINE
        other = UNKNOWN if against is None or (whole and bad) else FINE
        cases.append(
            LabelledCase(
                f"{name}{number}", name, "q", "a", (HARMLESS,), ((other,), (label,), (other,)), (whole and bad,)
            )
        )
    return HeadRows(
        tuple(cases),
        segments.half(),
        objective.repeat(count, 1).half(),
        torch.zeros(count, segments.shape[1]).half(),
        tuple(range(0, count * SEGMENTS + 1, SEGMENTS)),
        tuple(range(count + 1)),
    )
