"""The hidden states that detector heads read: outputs of some layers, stored for every slot (token) of the KV cache
while a prompt is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aligner_proxy.engine.model.detector import DetectorHead, Taps


class TappedStates:
    """Stores the layers' outputs that any of the heads reads; nothing is stored if there are no heads."""

    def __init__(self, model: Any, heads: Sequence[DetectorHead | None], slots: int) -> None:
        all_layers = {layer for head in heads if head for layer in head.layers.tolist()}
        self.layers = sorted(all_layers)  # numbers of the layers that any head reads, ascending
        self.tensor: Tensor | None = None
        """States [slots, layers + 1, hidden size]; the last are those after the final norm."""
        if self.layers:
            self._taps = Taps(model.base_model, self.layers)
            shape = (slots, len(self.layers) + 1, model.config.hidden_size)
            self.tensor = torch.empty(shape, dtype=model.dtype, device=model.device)
        self._layers_of_head: list[list[int]] = []
        """For each head, the indices of its layers among the stored ones; the final norm's output is last."""
        for head in heads:
            head_layers = head.layers.tolist() if head else []
            self._layers_of_head.append([*(self.layers.index(layer) for layer in head_layers), -1] if head else [])

    def keep(self, slots: Tensor, hidden: Tensor) -> None:
        """Store the states of the last pass at these slots; `hidden` are those after the final norm."""
        if self.tensor is not None:
            self.tensor.index_copy_(0, slots, self._taps.take(hidden[None])[0])

    def read(self, slots: Tensor, head: int) -> Tensor:
        """Return the states of these slots, [tokens, layers + 1, size], at the layers that head number `head` reads."""
        assert self.tensor is not None
        return self.tensor[slots][:, self._layers_of_head[head]]
