"""Frozen encoder of prompts and objective texts: rows for the net, each text read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aligner_proxy.engine.model.encoder import encode
from aligner_proxy.engine.model.tokenizer import PromptTokenizer

from .net import TorchWeightNet

_TOGETHER = 24


class Encoder:
    """Reads texts with a frozen causal language model, and remembers the rows of each text."""

    def __init__(self, model: Any, tokenizer: PromptTokenizer, layers: Sequence[int]) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._layers = tuple(layers)
        self._cached_rows: dict[str, Tensor] = {}

    def rows(self, texts: Sequence[str]) -> Tensor:
        """The rows [texts, size] of these texts."""
        new_texts = sorted({text for text in texts if text not in self._cached_rows}, key=len)
        for start in range(0, len(new_texts), _TOGETHER):
            batch = new_texts[start : start + _TOGETHER]
            rows = encode(self._model, [self._tokenizer.encode_prompt(text).ids for text in batch], self._layers)
            self._cached_rows.update(zip(batch, rows, strict=True))
        return torch.stack([self._cached_rows[text] for text in texts])

    def weigh(self, net: TorchWeightNet, prompts: Sequence[str], texts: Sequence[str]) -> Tensor:
        """The weights [prompts, texts] of a net, in the net's precision."""
        dtype = net.prompt.weight.dtype
        weights: Tensor = net(self.rows(prompts).to(dtype), self.rows(texts).to(dtype)).exp()
        return weights


def uniform_weights(prompts: Sequence[str], texts: Sequence[str]) -> Tensor:
    """Equal weights for all objectives."""
    return torch.full((len(prompts), len(texts)), 1.0 / len(texts))
