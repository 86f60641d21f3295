"""Meal's Preference-Weight-Net in torch, as it is trained; plugins/aligner_proxy_systems/meal serves it in numpy.

The net scores texts, not places, so it takes any number of objectives in any order. Source: Meta-Aligner (Meal),
arXiv 2604.24178, of which only the abstract was at hand; the form of the net is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligner_proxy.engine.model.detector import choose_layers


class TorchWeightNet(nn.Module):
    """Scores how well each objective's text fits a prompt, by the likeness of their projections (nats).

    Mean and deviation of the training texts are taken off first, since the states of a language model all point much
    the same way.
    """

    layers: Tensor
    centre_prompt: Tensor
    centre_text: Tensor
    spread_prompt: Tensor
    spread_text: Tensor

    def __init__(self, hidden_size: int, layers: Sequence[int], width: int = 48) -> None:
        super().__init__()
        size = len(layers) * hidden_size
        self.register_buffer("layers", torch.tensor(list(layers)))
        self.register_buffer("centre_prompt", torch.zeros(size))
        self.register_buffer("centre_text", torch.zeros(size))
        self.register_buffer("spread_prompt", torch.ones(1))
        self.register_buffer("spread_text", torch.ones(1))
        self.prompt = nn.Linear(size, width)
        self.text = nn.Linear(size, width)
        self.scale = width**-0.5

    @classmethod
    def from_config(cls, config: Any, width: int = 48) -> TorchWeightNet:
        """A new net for a model with this transformers config."""
        return cls(config.hidden_size, choose_layers(config), width)

    def forward(self, prompts: Tensor, texts: Tensor) -> Tensor:
        """Log-weights [prompts, texts] for rows [prompts, size] and [texts, size] of the engine's hidden states."""
        queries = self.prompt((prompts - self.centre_prompt) / self.spread_prompt)
        keys = self.text((texts - self.centre_text) / self.spread_text)
        return F.log_softmax(queries @ keys.T * self.scale, dim=-1)

    def centre(self, prompts: Tensor, texts: Tensor) -> None:
        """Store mean and deviation of the training texts."""
        for rows, centre, spread in (
            (prompts, self.centre_prompt, self.spread_prompt),
            (texts, self.centre_text, self.spread_text),
        ):
            centre.copy_(rows.mean(0))
            spread.fill_(float((rows - centre).std()))

    def save(self, path: Path) -> None:
        """Write the net as safetensors, its projections in half precision."""
        state = {n: t.half() if t.is_floating_point() else t for n, t in self.state_dict().items()}
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, str(path))

    @classmethod
    def load(cls, path: Path) -> TorchWeightNet:
        """Read a saved net, whose sizes follow from its tensors. Raises KeyError where a tensor is missing."""
        state = load_file(str(path))
        layers = state["layers"].tolist()
        width, size = state["prompt.weight"].shape
        net = cls(size // len(layers), layers, width)
        net.load_state_dict(state)
        return net.eval()
