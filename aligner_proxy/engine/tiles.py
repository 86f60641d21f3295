"""How does a 4-bit layer use a CPU that multiplies bf16 matrices in tiles (AMX)? By numbers unpacked to bf16.

There the product of many rows takes a tenth of what the 4-bit kernel needs for it, and one of a few rows about as long.
A small model's weights are unpacked once and kept beside the packed ones. A larger model's are unpacked each time, one
layer after the other into the same piece of memory, where there are rows enough to pay for that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from aligner_proxy.engine import memory

KEPT = 256 * 2**20
"""Bytes of unpacked weights at most that a model keeps; nor does it keep more than a quarter of the memory there is."""
MANY, MANY_KEPT = 64, 10
"""Rows from which on it is worth it, where a layer is unpacked each time and where its numbers are kept."""
FEW = 16
"""Rows up to which the output layer takes them last."""
_KERNEL = "cdequantize_blockwise_cpu_nf4_bf16"
_COUNT, _PLACE = ctypes.c_longlong, ctypes.c_void_p
_LANES = 32
"""Rows of weights that the 4-bit kernel packs together: half of them in low nibbles, the other half in high ones."""

Product = Callable[[Tensor], Tensor]


@cache
def there() -> bool:
    """Whether this CPU has such tiles."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def kept(weights: int) -> int:
    """Bytes that a model with so many weights in 4 bits takes for keeping them unpacked as well."""
    size, left = 2 * weights, memory.available()
    fits = size <= KEPT and (left is None or 4 * size <= left)
    return size if there() and fits else 0


class Tiles:
    """Products of the 4-bit layers of one model whose weights are packed for the CPU's kernel."""

    def __init__(self, layers: list[Any]) -> None:
        counts = [layer.in_features * layer.out_features for layer in layers]
        self._keeps = bool(kept(sum(counts)))
        self._room = torch.empty(0 if self._keeps else max(counts, default=0), dtype=torch.bfloat16)

    def product(self, layer: Any, few: Product) -> Product:
        """The product of (..., width) with this layer's weights: `few` for a few rows, in tiles for more of them."""
        state = layer.weight.quant_state
        rows, width = state.shape
        fill = partial(unpack, layer.weight.data, state.absmax, state.blocksize)
        if self._keeps:
            # In the order in which torch's library wants them; `linear` would order them anew each time.
            ordered, multiply = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
            known = ordered(fill(torch.empty((rows, width), dtype=torch.bfloat16)), MANY_KEPT)
            return _choose(few, MANY_KEPT * width, lambda x: multiply(x, known, None, "none", [], ""))
        room = self._room[: rows * width].view(rows, width)
        return _choose(few, MANY * width, lambda x: nn.functional.linear(x, fill(room)))


def _choose(few: Product, size: int, many: Product) -> Product:
    return lambda x: few(x) if x.numel() < size else many(x.to(torch.bfloat16)).to(x.dtype)


def logits(output: nn.Module, states: Tensor) -> Tensor:
    """What the output layer says of (rows, width). Few rows come last there, and are two at least: in half the time."""
    weight = output.weight
    if len(states) > FEW or weight.dtype is not torch.bfloat16 or weight.is_cuda or not there():
        return output(states)  # type: ignore[no-any-return]
    pair = states.expand(2, -1) if len(states) == 1 else states
    return (weight @ pair.t()).t()[: len(states)]


def unpack(packed: Tensor, scales: Tensor, block: int, out: Tensor) -> Tensor:
    """Numbers of weights that were packed for the 4-bit kernel, written to `out`: bf16 of shape (rows, width).

    `packed` (rows, width / 2) holds, of every 32 rows, the low nibbles' even and odd column side by side and the high
    nibbles' likewise; `scales` (width / block, rows) is one factor for each block of a row.
    """
    from bitsandbytes.cextension import lib

    rows, width = out.shape
    lanes = packed.view(rows // _LANES, width // 2, _LANES // 2, 2).permute(0, 3, 2, 1).contiguous()
    even, odd = lanes[:, 0], lanes[:, 1]
    plain = torch.empty((rows // _LANES, 2, _LANES // 2, width // 2), dtype=torch.uint8)
    plain[:, 0] = (even << 4) | (odd & 15)
    plain[:, 1] = (even & 240) | (odd >> 4)
    factors = scales.t().float().contiguous()
    places = [_PLACE(tensor.data_ptr()) for tensor in (plain, factors, out)]
    getattr(lib, _KERNEL)(*places, *map(_COUNT, (block, rows, width)))
    return out
