"""LoRA adapters over one base model: each row (token) of a step goes through the adapter of its own sequence.

The base is in memory once and unchanged, 4-bit or not. A hook on each linear layer adds an adapter's part to the rows
of the sequences that use it. The adapter library has mixed batches, too, but needs one sequence per batch row, and our
steps have one row only. An adapter with more than plain low-rank weights is refused, so that nothing is dropped.
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
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from aligner_proxy.engine.weights.manifest import ADAPTER, ADAPTER_WEIGHTS
from aligner_proxy.errors import WeightsError

_TENSOR_NAME = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<half>[AB])\.weight")
"""Name of a tensor in a saved adapter: the linear layer, and A (down) or B (up)."""
_ALLOWED_SETTINGS: Mapping[str, tuple[object, ...]] = {
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
"""Allowed values of settings, if present; with other values, an adapter is more than low-rank weights."""


@dataclass(frozen=True, slots=True)
class LoraDelta:
    """The low-rank part of a layer: inputs go through `down` [rank, in], then `up` [out, rank], scale included."""

    down: Tensor
    up: Tensor

    def compute_addition(self, inputs: Tensor) -> Tensor:
        """Return what is added to the layer's output for these inputs [..., in]."""
        return ((inputs.to(self.down.dtype) @ self.down.T) @ self.up.T).to(inputs.dtype)


Adapter = Mapping[str, LoraDelta]
"""The low-rank parts of an adapter by the name of their linear layer in the model."""


def read_adapter(folder: Path) -> Adapter:
    """Return the weights, in fp32, of an adapter folder as the training library saves it. Raises `WeightsError`."""
    try:
        config = json.loads((folder / ADAPTER).read_bytes())
        tensors = load_file(str(folder / ADAPTER_WEIGHTS))
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(f"{folder}: the adapter cannot be read ({type(error).__name__}); export it again") from error
    for name, allowed_values in _ALLOWED_SETTINGS.items():
        if name in config and config[name] not in allowed_values:
            raise WeightsError(
                f"{folder / ADAPTER}: {name} is {config[name]!r}, which cannot be applied beside other adapters; "
                "serve this aligner from an engine of its own"
            )
    return _pair_tensors(folder, tensors, _compute_scale(config))


def _compute_scale(config: Mapping[str, Any]) -> float:
    """Return the factor of the low-rank part: alpha by the rank, or by the rank's root for rank-stabilised LoRA."""
    divisor = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    return float(config["lora_alpha"] / divisor)


def _pair_tensors(folder: Path, tensors: Mapping[str, Tensor], scale: float) -> Adapter:
    """Return each layer's two tensors as one `LoraDelta`; raises `WeightsError` for other or missing tensors."""
    # by layer, then "A" (down) or "B" (up)
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _TENSOR_NAME.fullmatch(key)
        if match is None:
            raise WeightsError(f"{folder}: {key} is no low-rank weight of a linear layer; export the adapter again")
        halves.setdefault(match["layer"], {})[match["half"]] = tensor.float()
    incomplete_layer = next((layer for layer, both in halves.items() if len(both) < 2), None)
    if incomplete_layer is not None:
        raise WeightsError(f"{folder}: half of the adapter of {incomplete_layer} is missing; export the adapter again")
    return {layer: LoraDelta(both["A"], both["B"] * scale) for layer, both in halves.items()}


class Adapters:
    """Adapters hooked onto one model. Adapter number 0 is the model without adapter; the given ones count from 1."""

    def __init__(self, model: nn.Module, adapters: Sequence[Adapter], dtype: torch.dtype, device: torch.device) -> None:
        # the rows of the current pass as (adapter number, first row, last row excluded); empty between passes
        self._adapter_rows: list[tuple[int, int, int]] = []
        # by layer, then by number of the adapter
        deltas_by_layer: dict[str, dict[int, LoraDelta]] = {}
        for number, adapter in enumerate(adapters, start=1):
            for layer, delta in adapter.items():
                loaded_delta = LoraDelta(delta.down.to(device, dtype), delta.up.to(device, dtype))
                deltas_by_layer.setdefault(layer, {})[number] = loaded_delta
        for layer, deltas in deltas_by_layer.items():
            module = _find_layer(model, layer, deltas.values())
            module.register_forward_hook(partial(self._add_deltas, deltas))

    @contextmanager
    def assign_rows(self, row_counts: Iterable[tuple[int, int]]) -> Iterator[None]:
        """Set the adapters of one forward pass, as (adapter number, number of rows) in the order of the rows."""
        first = 0
        for number, group in groupby(row_counts, key=itemgetter(0)):
            stop = first + sum(count for _, count in group)
            # rows of number 0 use the model as it is
            if number:
                self._adapter_rows.append((number, first, stop))
            first = stop
        try:
            yield
        finally:
            self._adapter_rows.clear()

    def _add_deltas(
        self, deltas: Mapping[int, LoraDelta], _module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor
    ) -> None:
        """Add the adapters' parts to the output of one layer, in place. Torch calls this hook after the layer."""
        for number, first, stop in self._adapter_rows:
            if number in deltas:
                out[..., first:stop, :] += deltas[number].compute_addition(inputs[0][..., first:stop, :])


def _find_layer(model: nn.Module, layer: str, deltas: Iterable[LoraDelta]) -> nn.Module:
    """Return the linear layer of this name; raises `WeightsError` if it does not exist or a delta has other sizes."""
    try:
        module: Any = model.get_submodule(layer)
    except AttributeError:
        raise WeightsError(f"the base model has no layer {layer}; the adapter is for another base") from None
    # only layers before the final norm have "layers" in their path; later ones compute only some rows of a step
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
