"""Rows of hidden states that represent whole texts: means over a text's tokens at some layers of the aligner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aligner_proxy.engine.model.detector import normalise_states

MAX_TOKENS = 256
"""Most tokens that are read of a text; of a longer text, half as many are read at either end."""


def shorten_ids(ids: list[int]) -> list[int]:
    """Cut a text's tokens to those that are read: of a long text its beginning and end, where a request usually is."""
    half = MAX_TOKENS // 2
    return ids if len(ids) <= MAX_TOKENS else ids[:half] + ids[-half:]


@torch.no_grad()
def encode(model: Any, texts: Sequence[list[int]], layers: Sequence[int]) -> Tensor:
    """Return rows [texts, layers * hidden] in fp32 of texts, given as token ids: the normalised means of states."""
    read_ids = [shorten_ids(ids) for ids in texts]
    longest = max(map(len, read_ids))
    # padding comes after a text, so in a causal model it cannot affect the text's states
    padded_ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in read_ids], device=model.device)
    states = model.base_model(padded_ids, output_hidden_states=True, use_cache=False).hidden_states
    # entry 0 of the hidden states is the embedding, so the output of layer i is entry i + 1
    states_by_layer = [states[layer + 1] for layer in layers]
    means: list[Tensor] = []
    for index, ids in enumerate(read_ids):
        means.append(torch.stack([layer_states[index, : len(ids)].float().mean(0) for layer_states in states_by_layer]))
    return normalise_states(torch.stack(means))
