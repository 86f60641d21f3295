"""Meal's Preference-Weight-Net as it is served: numpy alone, so that the gateway's process needs no torch.

It is trained by models/systems/meal (in torch); `python -m models.systems.meal.ship` puts its weights here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

WEIGHTS = Path(__file__).parent / "meal.safetensors"
Row = npt.NDArray[np.float32]


class WeightNet:
    """Weights of objectives for a prompt: how alike the two are after a projection of each.

    `layers` are those of the aligner whose hidden states it reads, `size` is how many numbers a text has then.
    """

    def __init__(self, tensors: dict[str, npt.NDArray[Any]]) -> None:
        self.layers: tuple[int, ...] = tuple(int(layer) for layer in tensors["layers"])
        self._tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items() if name != "layers"}
        width, self.size = self._tensors["prompt.weight"].shape
        self._scale = np.float32(width**-0.5)

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> WeightNet:
        """Read a net; raises KeyError, OSError or `SafetensorError` where the file is none."""
        return cls(load_file(str(path)))

    def weights(self, prompt: Row, texts: Sequence[Row]) -> tuple[float, ...]:
        """What each text (a row [size] of hidden states) weighs for a prompt; they sum to 1."""
        query = self._projected("prompt", prompt[None])
        keys = self._projected("text", np.stack(texts))
        scores = (query @ keys.T)[0] * self._scale
        shares = np.exp(scores - scores.max())
        return tuple(float(share) for share in shares / shares.sum())

    def _projected(self, side: str, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """[rows, width]: centred by the training texts' mean and deviation, then through the side's linear layer."""
        named = self._tensors
        centred: npt.NDArray[np.float32] = (rows - named[f"centre_{side}"]) / named[f"spread_{side}"]
        projected = centred @ named[f"{side}.weight"].T + named[f"{side}.bias"]
        return projected.astype(np.float32)
