"""Rows of hidden states that represent whole texts: means over a text's tokens at some layers of the aligner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_TOKENS = 256
"""Most tokens that are read of a text; of a longer text, half as many are read at either end."""


def compute_row(states: Sequence[Tensor]) -> Tensor:
    """Return a text's row [layers * hidden] in fp32: the mean of its tokens' states at each layer, normalised.

    `states` are the text's hidden states [tokens, hidden], one tensor per layer.
    """
    means = torch.stack([layer_states.float().mean(0) for layer_states in states])
    return F.layer_norm(means, means.shape[-1:]).flatten()


def shorten_ids(ids: list[int]) -> list[int]:
    """Cut a text's tokens to those that are read: of a long text its beginning and end, where a request usually is."""
    half = MAX_TOKENS // 2
    return ids if len(ids) <= MAX_TOKENS else ids[:half] + ids[-half:]


@torch.no_grad()
def encode(model: Any, texts: Sequence[list[int]], layers: Sequence[int]) -> Tensor:
    """Return rows [texts, layers * hidden] of texts, given as token ids; `layers` are counted from 0.

    `model` is the causal language model, which is left unchanged.
    """
    read_ids = [shorten_ids(ids) for ids in texts]
    longest = max(map(len, read_ids))
    # padding comes after a text, so in a causal model it cannot affect the text's states
    padded_ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in read_ids], device=model.device)
    states = model.base_model(padded_ids, output_hidden_states=True, use_cache=False).hidden_states
    # entry 0 of the hidden states is the embedding, so the output of layer i is entry i + 1
    states_by_layer = [states[layer + 1] for layer in layers]
    rows: list[Tensor] = []
    for index, ids in enumerate(read_ids):
        rows.append(compute_row([layer_states[index, : len(ids)] for layer_states in states_by_layer]))
    return torch.stack(rows)
