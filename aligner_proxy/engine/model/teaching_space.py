"""Teaching space: the coordinates in which a head is fitted to a few examples, and the numbers of this fit.

An aligner may come with one, as a part of its detector head. It is learned from objectives of many kinds
(`models/experiments/teaching_space.py`), so that sentences against an objective lie near each other, and sentences that
only have its subject lie apart. Without one, the numbers of a row are the coordinates. A row is the numbers that the
detector head reads of a segment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from aligner_proxy.errors import InvalidOutput

PROJECTION = "teaching_projection"
NUMBERS = "teaching_numbers"
"""The names of the two tensors, in the detector head and in the bytes."""
_MIN_SPREAD = 1e-2
"""Smallest number by which a column of rows is divided, so that one that hardly varies is not blown up."""


class FitNumbers(NamedTuple):
    """The numbers of a fit (`aligner_proxy.teaching.fit`): floats, or tensors of one number while they are learned."""

    penalty: float | Tensor
    """Penalty of large weights."""
    share: float | Tensor
    """Share of the violating segments in the total weight."""
    allowed_weight: float | Tensor
    """Weight of a segment of an allowed example, relative to a neutral segment."""
    general_factor: float | Tensor
    """Factor with which the general head's score becomes one more coordinate."""
    scale: float | Tensor
    """Nats for each unit of the regression's output, which is between -1 (allowed) and 1 (violating)."""
    prior: float | Tensor
    """Factor with which the general head's score is added to the score."""
    bias: float | Tensor
    """Nats that are added to the score of a head of four examples."""
    bias_per_doubling: float | Tensor
    """Nats that are added for each doubling of the number of examples."""


DEFAULT_NUMBERS = FitNumbers(
    penalty=0.03,
    share=0.63,
    allowed_weight=5.0,
    general_factor=0.0,
    scale=2.8,
    prior=0.68,
    bias=-0.23,
    bias_per_doubling=-0.09,
)
"""The numbers for the rows themselves, learned from the same objectives with the rows of the embedded aligner."""


@dataclass(frozen=True, slots=True)
class TeachingSpace:
    """Coordinates for rows, and the numbers of the fit in these coordinates."""

    projection: Tensor | None
    """[coordinates, width of a row]; None if the rows themselves are the coordinates."""
    numbers: FitNumbers

    @property
    def is_learned(self) -> bool:
        """Whether it was learned for this aligner, so that 0 is a good threshold for its heads."""
        return self.projection is not None

    @property
    def width(self) -> int | None:
        """The width of the rows that it can project; None if it takes rows of any width."""
        return None if self.projection is None else self.projection.shape[1]

    def choose_projection(self, neutral_rows: Tensor) -> Tensor:
        """Return the projection [coordinates, width] for rows; `neutral_rows` [segments, width] are the neutral ones.

        Without a learned one, each number is divided by its spread over the neutral rows, and by the root of the width,
        so that one penalty fits aligners of any width.
        """
        if self.projection is not None:
            return self.projection.float()
        spread = neutral_rows.std(0).clamp(min=_MIN_SPREAD)
        return torch.diag(1 / (spread * math.sqrt(neutral_rows.shape[1])))

    def to_bytes(self) -> bytes:
        """Serialise the space; empty if it is the default one."""
        return b"" if self.projection is None else save(pack_space(self.projection, self.numbers))

    @classmethod
    def from_bytes(cls, data: bytes) -> TeachingSpace:
        """Parse the output of `to_bytes`. Raises `InvalidOutput` for anything else."""
        if not data:
            return DEFAULT_SPACE
        try:
            tensors = load(data)
            projection = tensors[PROJECTION]
            return cls(projection, FitNumbers(*tensors[NUMBERS].tolist()))
        except (SafetensorError, KeyError, TypeError) as error:
            raise InvalidOutput(f"this is no teaching space ({type(error).__name__})") from None


DEFAULT_SPACE = TeachingSpace(None, DEFAULT_NUMBERS)


def pack_space(projection: Tensor, numbers: FitNumbers) -> dict[str, Tensor]:
    """Return the tensors that are stored, by name: the projection in 16 bits, and the numbers."""
    stored_numbers = torch.tensor([float(number) for number in numbers])
    return {PROJECTION: projection.detach().cpu().to(torch.float16).contiguous(), NUMBERS: stored_numbers}
