"""LoRA adapters over one base: each row of a step goes through the adapter of its own sequence.

The base is in memory once and unchanged, 4-bit or not. A hook on each linear layer adds an adapter's part to the rows
of the sequences that use it. The adapter library has mixed batches, too, but needs one sequence per batch row, and our
steps have one row only. If an adapter contains more than plain low-rank weights, it is refused with the name of the
setting, so that nothing is silently dropped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from aligner_proxy.engine.weights.manifest import ADAPTER, ADAPTER_WEIGHTS
from aligner_proxy.errors import WeightsError

_KEY = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<half>[AB])\.weight")
"""Name of a tensor in a saved adapter: the linear layer, and A (down) or B (up)."""
_PLAIN: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "lora_bias": (False, None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None,),
    "alora_invocation_tokens": (None,),
    "alpha_pattern": ({}, None),
    "rank_pattern": ({}, None),
}
"""Allowed values of these configuration keys, if present; with others, an adapter is more than low-rank weights."""


@dataclass(frozen=True, slots=True)
class LoraDelta:
    """The low-rank part of one layer: x goes through `down` [rank, in] and then `up` [out, rank], scale included."""

    down: Tensor
    up: Tensor

    def compute_addition(self, x: Tensor) -> Tensor:
        """The tensor to add to the layer's output for input `x`."""
        return ((x.to(self.down.dtype) @ self.down.T) @ self.up.T).to(x.dtype)


Adapter = Mapping[str, LoraDelta]
"""The low-rank parts of an adapter by the name of their linear layer in the model."""


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter folder, as the training library saves it, in fp32. Raises `WeightsError` naming the problem."""
    try:
        config = json.loads((folder / ADAPTER).read_bytes())
        tensors = load_file(str(folder / ADAPTER_WEIGHTS))
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(f"{folder}: the adapter cannot be read ({type(error).__name__}); export it again") from error
    for name, allowed in _PLAIN.items():
        if name in config and config[name] not in allowed:
            raise WeightsError(
                f"{folder / ADAPTER}: {name} is {config[name]!r}, which cannot be applied beside other adapters; "
                "serve this aligner from an engine of its own"
            )
    return _pair_tensors(folder, tensors, _compute_scale(config))


def _compute_scale(config: Mapping[str, Any]) -> float:
    """The factor of the low-rank part: alpha by the rank, or by its root for rank-stabilised LoRA."""
    rank = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    return float(config["lora_alpha"] / rank)


def _pair_tensors(folder: Path, tensors: Mapping[str, Tensor], scale: float) -> Adapter:
    """Return each layer's two halves as one `LoraDelta`; raises `WeightsError` for other tensors and lone halves."""
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise WeightsError(f"{folder}: {key} is no low-rank weight of a linear layer; export the adapter again")
        halves.setdefault(match["layer"], {})[match["half"]] = tensor.float()
    lone_layer = next((layer for layer, both in halves.items() if len(both) < 2), None)
    if lone_layer is not None:
        raise WeightsError(f"{folder}: half of the adapter of {lone_layer} is missing; export the adapter again")
    return {layer: LoraDelta(both["A"], both["B"] * scale) for layer, both in halves.items()}


class Adapters:
    """Adapters hooked onto one model. Number 0 is the model without adapter; the given adapters count from 1."""

    def __init__(self, model: nn.Module, adapters: Sequence[Adapter], dtype: torch.dtype, device: torch.device) -> None:
        # of the current pass: (adapter, first row, last row excluded); empty between passes
        self._rows: list[tuple[int, int, int]] = []
        deltas_by_layer: dict[str, dict[int, LoraDelta]] = {}
        for number, adapter in enumerate(adapters, start=1):
            for layer, delta in adapter.items():
                placed = LoraDelta(delta.down.to(device, dtype), delta.up.to(device, dtype))
                deltas_by_layer.setdefault(layer, {})[number] = placed
        for layer, deltas in deltas_by_layer.items():
            _find_layer(model, layer, deltas.values()).register_forward_hook(partial(self._add_parts, deltas))

    @contextmanager
    def assign_rows(self, rows: Iterable[tuple[int, int]]) -> Iterator[None]:
        """Set the adapters of one forward pass, as (adapter, number of rows) in the order of the rows."""
        first = 0
        for number, group in groupby(rows, key=lambda row: row[0]):
            last = first + sum(count for _, count in group)
            # rows of number 0 use the model as it is
            if number:
                self._rows.append((number, first, last))
            first = last
        try:
            yield
        finally:
            self._rows.clear()

    def _add_parts(
        self, deltas: Mapping[int, LoraDelta], _module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor
    ) -> None:
        """Hook of one layer: add the adapters' parts to its output, in place (the output belongs to this layer)."""
        for number, first, last in self._rows:
            if number in deltas:
                out[..., first:last, :] += deltas[number].compute_addition(inputs[0][..., first:last, :])


def _find_layer(model: nn.Module, layer: str, deltas: Iterable[LoraDelta]) -> nn.Module:
    """Return the linear layer of this name; raises `WeightsError` if it does not exist or a delta has other sizes.

    An adapter over a layer after the final norm is refused, because such a layer sees only few rows of a step.
    """
    try:
        module: Any = model.get_submodule(layer)
    except AttributeError:
        raise WeightsError(f"the base model has no layer {layer}; the adapter is for another base") from None
    # only layers of the stack have "layers" in their path
    if not hasattr(module, "in_features") or "layers" not in layer.split("."):
        raise WeightsError(
            f"the adapter changes {layer}; an adapter served with others may change only layers of the stack"
        )
    for delta in deltas:
        shape = (delta.down.shape[1], delta.up.shape[0])
        if shape != (module.in_features, module.out_features):
            raise WeightsError(
                f"the adapter's {layer} has sizes {shape}, unlike the base model's; it is for another base"
            )
    return module  # type: ignore[no-any-return]
