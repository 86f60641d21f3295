"""How does a 4-bit layer use a CPU that multiplies bf16 matrices in tiles (AMX)? By numbers unpacked to bf16.

There the product of many rows takes a tenth of what the 4-bit kernel needs for it, and one of a few rows about as long.
A small model's weights are unpacked once and kept beside the packed ones. A larger model's are unpacked each time, one
layer after the other into the same piece of memory, where there are rows enough to pay for that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
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
    size = 2 * weights
    if not there() or size > KEPT:
        return 0
    left = memory.available()
    return size if left is None or 4 * size <= left else 0


def quicken(layers: list[Any]) -> None:
    """Let the 4-bit layers of one model multiply many rows in tiles. Their weights are packed for the CPU's kernel."""
    counts = [layer.in_features * layer.out_features for layer in layers]
    if kept(sum(counts)):
        for layer in layers:
            layer.forward = _choose(layer, MANY_KEPT, _keeping(layer))
        return
    room = torch.empty(max(counts), dtype=torch.bfloat16)
    for layer in layers:
        layer.forward = _choose(layer, MANY, _unpacking(layer, room))


def _keeping(layer: Any) -> Product:
    """Numbers unpacked once, in the order in which torch's library wants them: `linear` would order them each time."""
    multiply = torch.ops.mkldnn._linear_pointwise
    shape = layer.weight.quant_state.shape
    known = torch.ops.mkldnn._reorder_linear_weight(_numbers(layer, torch.empty(shape, dtype=torch.bfloat16)), FEW)
    return lambda rows: multiply(rows, known, None, "none", [], "")


def _unpacking(layer: Any, room: Tensor) -> Product:
    rows, width = layer.weight.quant_state.shape
    place = room[: rows * width].view(rows, width)
    return lambda x: nn.functional.linear(x, _numbers(layer, place))


def _choose(layer: Any, least: int, many: Product) -> Product:
    """The layer's own way for fewer rows than this, the other one for more of them."""
    few, width = layer.forward, layer.in_features

    def product(x: Tensor) -> Tensor:
        if x.numel() < least * width:
            return few(x)  # type: ignore[no-any-return]
        rows = x.to(torch.bfloat16).reshape(-1, width)
        return many(rounded(rows))[: len(rows)].view(*x.shape[:-1], -1).to(x.dtype)

    return product


def rounded(rows: Tensor) -> Tensor:
    """Rows (..., count, width) and zeros behind them, so that there is a round number of rows.

    torch's library compiles a product for every number of rows and keeps what it compiled: 0.8 GB of a small model
    whose steps are of all lengths up to 256. So there are few such numbers.
    """
    count = rows.shape[-2]
    more = 0 if count <= 8 else -count % (16 if count <= 64 else 64)
    return nn.functional.pad(rows, (0, 0, 0, more)) if more else rows


def turned(rows: Tensor, weights: Tensor) -> Tensor:
    """Rows times weights, both (..., count, width), as weights times rows: where tiles are, some are quicker so."""
    return (weights @ rows.transpose(-1, -2)).transpose(-1, -2)


def logits(output: nn.Module, states: Tensor) -> Tensor:
    """What the output layer says of (rows, width). Few rows come last there, and are two at least: in half the time."""
    weight = output.weight
    if weight.dtype is not torch.bfloat16 or weight.is_cuda or not there():
        return output(states)  # type: ignore[no-any-return]
    if len(states) > FEW:
        return output(rounded(states))[: len(states)]  # type: ignore[no-any-return]
    return turned(states.expand(2, -1) if len(states) == 1 else states, weight)[: len(states)]


def _numbers(layer: Any, out: Tensor) -> Tensor:
    state = layer.weight.quant_state
    return unpack(layer.weight.data, state.absmax, state.blocksize, out)


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
