"""How much does each objective weigh for this prompt? Meal's Preference-Weight-Net over a frozen encoder.

The encoder is the aligner itself: the mean of a text's hidden states at some layers. The net scores texts, not places,
so it takes any number of objectives in any order. Source: Meta-Aligner (Meal), arXiv 2604.24178, of which only the
abstract was at hand; the form of the net is ours.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligner_proxy.engine.detector import layers_of, made_for

_MOST_TEXTS = 1024
MOST_TOKENS = 256
"""Of a longer text the first and the last half of so many tokens are read."""


class WeightNet(nn.Module):
    """Scores (nats) of objective texts for a prompt: how alike the two are after a projection of each.

    `centre_*` and `spread_*` are mean and deviation of the training texts: the states of a language model all point
    much the same way, and what differs is small beside that.
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
    def over(cls, config: Any, width: int = 48) -> WeightNet:
        """A new net for a model of this transformers config."""
        return cls(config.hidden_size, layers_of(config), width)

    def fits(self, config: Any) -> bool:
        """Whether it was made for a model of this width that has all the layers it reads."""
        return made_for(config, self.prompt.in_features, self.layers)

    def forward(self, prompts: Tensor, texts: Tensor) -> Tensor:
        """[prompts, size] and [texts, size] (rows of `represent`) to log-weights [prompts, texts]."""
        asked = self.prompt((prompts - self.centre_prompt) / self.spread_prompt)
        told = self.text((texts - self.centre_text) / self.spread_text)
        return F.log_softmax(asked @ told.T * self.scale, dim=-1)

    def centre(self, prompts: Tensor, texts: Tensor) -> None:
        """Remember mean and deviation of the training texts."""
        for rows, centre, spread in (
            (prompts, self.centre_prompt, self.spread_prompt),
            (texts, self.centre_text, self.spread_text),
        ):
            centre.copy_(rows.mean(0))
            spread.fill_(float((rows - centre).std()))

    def save(self, path: Path) -> None:
        """Write it as safetensors, the projections in half precision."""
        state = {n: t.half() if t.is_floating_point() else t for n, t in self.state_dict().items()}
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, str(path))

    @classmethod
    def load(cls, path: Path) -> WeightNet:
        """Read a saved net; its sizes are those of the stored tensors. Raises KeyError where one is missing."""
        state = load_file(str(path))
        layers, (width, size) = state["layers"].tolist(), state["prompt.weight"].shape
        net = cls(size // len(layers), layers, width)
        net.load_state_dict(state)
        return net.eval()


def represent(states: Sequence[Tensor]) -> Tensor:
    """A text's row [size] from its states [tokens, hidden] at each layer: means, normalised layer by layer, in fp32."""
    means = torch.stack([layer.float().mean(0) for layer in states])
    return F.layer_norm(means, means.shape[-1:]).flatten()


def shortened(ids: list[int]) -> list[int]:
    """What is read of a long text: its beginning and its end, where a wish usually stands."""
    half = MOST_TOKENS // 2
    return ids if len(ids) <= MOST_TOKENS else ids[:half] + ids[-half:]


@torch.no_grad()
def encode(model: Any, texts: Sequence[list[int]], layers: Sequence[int]) -> Tensor:
    """Rows [texts, size] of texts as tokens; `model` is the causal language model, which stays as it is."""
    read = [shortened(ids) for ids in texts]
    longest = max(map(len, read))
    # What is put behind a text to make it as long as the others is not seen by it: the model is causal.
    ids = torch.tensor([one + [0] * (longest - len(one)) for one in read], device=model.device)
    states = model.base_model(ids, output_hidden_states=True, use_cache=False).hidden_states
    # The first of the hidden states is the embedding, so layer i puts out number i + 1.
    kept = [states[layer + 1] for layer in layers]
    return torch.stack([represent([layer[i, : len(one)] for layer in kept]) for i, one in enumerate(read)])


Tokens = Callable[[str], list[int]]
Encode = Callable[[Sequence[list[int]]], Tensor]
"""Texts as tokens to their rows [texts, size]."""


class Weigher:
    """A net as it is served. Objective texts are few and come again, so their rows are remembered."""

    def __init__(self, net: WeightNet) -> None:
        self._net = net.float()
        self._texts: OrderedDict[str, Tensor] = OrderedDict()

    @property
    def layers(self) -> list[int]:
        """The layers of the encoder that it reads."""
        found: list[int] = self._net.layers.tolist()
        return found

    @torch.inference_mode()
    def weights(self, prompt: str, objectives: Sequence[str], tokens: Tokens, encode: Encode) -> tuple[float, ...]:
        """What each objective weighs for this prompt; sums to 1. Nothing of a prompt is kept."""
        new = [text for text in dict.fromkeys(objectives) if text not in self._texts]
        rows = encode([tokens(text) for text in (prompt, *new)]).float().cpu()
        texts = dict(zip(new, rows[1:], strict=True))
        self._texts.update(texts)
        told = torch.stack([self._known(text) for text in objectives])
        while len(self._texts) > _MOST_TEXTS:
            self._texts.popitem(last=False)
        found: list[float] = self._net(rows[:1], told).exp()[0].tolist()
        return tuple(found)

    def _known(self, text: str) -> Tensor:
        self._texts.move_to_end(text)
        return self._texts[text]
