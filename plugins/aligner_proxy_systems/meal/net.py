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
"""The file of the net's weights."""
Row = npt.NDArray[np.float32]


class WeightNet:
    """Weighs objectives for a prompt by how similar the two are after a projection of each. A row is the numbers that
    represent a text: hidden states of the aligner. `layers` are the aligner's layers from which they come; `size` is
    the length of a row. `tensors` are the weights by name.
    """

    def __init__(self, tensors: dict[str, npt.NDArray[Any]]) -> None:
        self.layers: tuple[int, ...] = tuple(int(layer) for layer in tensors["layers"])
        self._tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items() if name != "layers"}
        width, self.size = self._tensors["prompt.weight"].shape
        # products of two vectors grow with their width, so the scores are scaled
        self._scale = np.float32(width**-0.5)

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> WeightNet:
        """Read a net; raises KeyError, OSError or `SafetensorError` if the file holds none."""
        return cls(load_file(str(path)))

    def weights(self, prompt: Row, texts: Sequence[Row]) -> tuple[float, ...]:
        """Return the weight of each text for a prompt, given the rows of all; the weights sum to 1."""
        projected_prompt = self._project_rows("prompt", prompt[None])
        projected_texts = self._project_rows("text", np.stack(texts))
        scores = (projected_prompt @ projected_texts.T)[0] * self._scale
        # a softmax; subtracting the maximum changes no weight, and exp() cannot overflow
        exponentials = np.exp(scores - scores.max())
        return tuple(float(weight) for weight in exponentials / exponentials.sum())

    def _project_rows(self, side: str, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Standardise rows by the training texts' mean and deviation, then apply a linear layer; return [rows, width].

        `side` says what the rows stand for: "prompt" or "text".
        """
        tensors = self._tensors
        standardised: npt.NDArray[np.float32] = (rows - tensors[f"centre_{side}"]) / tensors[f"spread_{side}"]
        projected = standardised @ tensors[f"{side}.weight"].T + tensors[f"{side}.bias"]
        return projected.astype(np.float32)
