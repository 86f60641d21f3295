"""Teaching space: further coordinates of rows, in which the heads of objectives are fitted to a few examples.

A row is the numbers that the detector head reads of a segment. A head that is fitted to rows learns the subject of its
examples as much as their fault. An aligner may come with a space, as a part of its detector head: coordinates that were
learned from objectives of many kinds (`models/experiments/teaching_space.py`), in which sentences against an objective
are alike, and sentences that only have its subject are not. Without one, heads are fitted to rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from aligner_proxy.errors import InvalidOutput

PROJECTION = "teaching_projection"
NUMBERS = "teaching_numbers"
"""The names of the two tensors, in the detector head and in the bytes."""
NO_SPACE_NUMBERS = (1.0, 0.0)
"""`row_factor` and `threshold` where no space was learned."""


@dataclass(frozen=True, slots=True)
class TeachingSpace:
    """Coordinates for rows, and the threshold of heads that are fitted in them."""

    projection: Tensor
    """[coordinates, width of a row]: the learned coordinates; [0, width] if there are none."""
    row_factor: float = 1.0
    """Factor of the standardised numbers of a row, which are coordinates, too."""
    threshold: float | None = None
    """Score above which a head of any objective flags a segment, in nats; None if no space was learned."""

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that are stored, by name: the projection in 16 bits, and the numbers."""
        numbers = torch.tensor([self.row_factor, self.threshold or 0.0])
        return {PROJECTION: self.projection.detach().cpu().to(torch.float16).contiguous(), NUMBERS: numbers}

    def to_bytes(self) -> bytes:
        """Serialise the space; empty if nothing was learned."""
        return save(self.to_tensors()) if len(self.projection) else b""

    @classmethod
    def from_tensors(cls, projection: Tensor, numbers: Tensor) -> TeachingSpace:
        """Return the space that `to_tensors` stored."""
        row_factor, threshold = numbers.tolist()
        return cls(projection.float(), row_factor, threshold if len(projection) else None)

    @classmethod
    def from_bytes(cls, data: bytes, width: int) -> TeachingSpace:
        """Parse the output of `to_bytes`, for rows of `width` numbers. Raises `InvalidOutput` for anything else."""
        if not data:
            return cls(torch.zeros(0, width))
        try:
            tensors = load(data)
            space = cls.from_tensors(tensors[PROJECTION], tensors[NUMBERS])
        except (SafetensorError, KeyError, ValueError) as error:
            raise InvalidOutput(
                f"the engine sent something that is no teaching space ({type(error).__name__})"
            ) from None
        if space.projection.shape[1:] != (width,):
            received = "x".join(map(str, space.projection.shape))
            raise InvalidOutput(f"the engine sent a teaching space of {received} numbers for rows of {width}")
        return space
