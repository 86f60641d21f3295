"""Meal's Preference-Weight-Net for serving, in numpy, so that the gateway's process needs no torch.

models/systems/meal trains it in torch; `python -m models.systems.meal.ship` writes its weights here.
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
    """Weighs objectives for a prompt by how similar the two are after a projection of each.

    `layers` are the layers of the aligner whose hidden states it reads; `size` is the length of the row for one text.
    """

    def __init__(self, tensors: dict[str, npt.NDArray[Any]]) -> None:
        self.layers: tuple[int, ...] = tuple(int(layer) for layer in tensors["layers"])
        self._tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items() if name != "layers"}
        width, self.size = self._tensors["prompt.weight"].shape
        # Products of two vectors grow with their width; this keeps the scores comparable.
        self._scale = np.float32(width**-0.5)

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> WeightNet:
        """Read a net; raises KeyError, OSError or `SafetensorError` if the file is not one."""
        return cls(load_file(str(path)))

    def weights(self, prompt: Row, texts: Sequence[Row]) -> tuple[float, ...]:
        """Weight of each text for a prompt; all are rows [size] of hidden states, and the weights sum to 1."""
        query = self._project_rows("prompt", prompt[None])
        keys = self._project_rows("text", np.stack(texts))
        scores = (query @ keys.T)[0] * self._scale
        # The difference to the maximum gives the same shares, and exp() cannot overflow.
        shares = np.exp(scores - scores.max())
        return tuple(float(share) for share in shares / shares.sum())

    def _project_rows(self, side: str, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Standardise rows by the training texts' mean and deviation, then apply the side's linear layer.

        The result has the shape [rows, width].
        """
        tensors = self._tensors
        centred: npt.NDArray[np.float32] = (rows - tensors[f"centre_{side}"]) / tensors[f"spread_{side}"]
        projected = centred @ tensors[f"{side}.weight"].T + tensors[f"{side}.bias"]
        return projected.astype(np.float32)
