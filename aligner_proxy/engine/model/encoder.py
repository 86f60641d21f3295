"""Rows of hidden states that represent whole texts: means over a text's tokens at some layers of the aligner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_TOKENS = 256
"""Most tokens that are read of a text; of a longer one, the first and the last half of this number."""


def compute_row(states: Sequence[Tensor]) -> Tensor:
    """A text's row [size] from its states [tokens, hidden] at each layer: means, normalised per layer, in fp32."""
    means = torch.stack([layer.float().mean(0) for layer in states])
    return F.layer_norm(means, means.shape[-1:]).flatten()


def shorten_ids(ids: list[int]) -> list[int]:
    """Cut a text's tokens to those that are read: of a long text its beginning and end, where a request usually is."""
    half = MAX_TOKENS // 2
    return ids if len(ids) <= MAX_TOKENS else ids[:half] + ids[-half:]


@torch.no_grad()
def encode(model: Any, texts: Sequence[list[int]], layers: Sequence[int]) -> Tensor:
    """Return rows [texts, layers * hidden] of tokenised texts; `model` is the causal language model, left unchanged."""
    read_ids = [shorten_ids(ids) for ids in texts]
    longest = max(map(len, read_ids))
    # Padding comes after a text, so in a causal model it cannot affect the text's states.
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in read_ids], device=model.device)
    states = model.base_model(ids, output_hidden_states=True, use_cache=False).hidden_states
    # Entry 0 of the hidden states is the embedding, so the output of layer i is entry i + 1.
    layer_states = [states[layer + 1] for layer in layers]
    return torch.stack(
        [compute_row([layer[i, : len(text)] for layer in layer_states]) for i, text in enumerate(read_ids)]
    )
