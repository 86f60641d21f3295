"""Kernels of 4-bit layers on a CPU, reached through private symbols of bitsandbytes and torch.

bitsandbytes' layer takes some 20 microseconds to get to its kernel, twice what the kernel then takes for one token of a
small model; with 210 layers that is a sixth of a forward. So the kernel is called directly: the packed weights and thus
the results are the same. A layer whose results are not exactly the same stays as it is, as does everything on a GPU.

A CPU that multiplies bf16 matrices in tiles (AMX) needs a tenth of the 4-bit kernel's time for many rows, and about as
long for a few. There the numbers are unpacked to bf16: of a small model once, kept beside the packed ones; of a larger
model each time, one layer after the other into the same piece of memory, where there are rows enough to pay for that.

`check_versions` is the one switch: with versions of the libraries that this was not seen with, layers stay as they are.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from aligner_proxy.engine.weights import memory

log = logging.getLogger(__name__)

SEEN_WITH = {"bitsandbytes": "0.50", "torch": "2.13"}
"""Versions whose private symbols are known to be what is called here."""
KEPT = 256 * 2**20
"""Bytes of unpacked weights at most that a model keeps; nor does it keep more than a quarter of the memory there is."""
MANY = 64
"""Rows from which on tiles are worth it where a layer is unpacked each time."""
MANY_KEPT = 10
"""The same where its numbers are kept."""
FEW = 16
"""Rows up to which the output layer takes them last."""
_LANES = 32
"""Rows of weights that the 4-bit kernel packs together: half of them in low nibbles, the other half in high ones."""
_MULTIPLY = "gemv_4bit_inference_cpu_nf4_bf16"
"""In spite of its name it takes any number of rows."""
_MULTIPLY_TAKES = *(3 * [ctypes.c_int64]), *(4 * [ctypes.c_void_p]), *(3 * [ctypes.c_int64])
"""Rows of x, of the weights, their width; x, weights, scales, result; block, width and rows again."""
_DEQUANTISE = "cdequantize_blockwise_cpu_nf4_bf16"

Product = Callable[[Tensor], Tensor]


@cache
def check_versions() -> bool:
    """The switch: whether the installed libraries are of versions that this was seen with. Else it is logged once."""
    others = [
        f"{name} {version(name)}"
        for name, tried_version in SEEN_WITH.items()
        if not version(name).startswith(f"{tried_version}.")
    ]
    if others:
        log.warning("CPU kernels not used: not tried with %s; corrections are the same, but slower", ", ".join(others))
    return not others


@cache
def has_tiles() -> bool:
    """Whether this CPU multiplies bf16 matrices in tiles."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def kept_bytes(weights: int) -> int:
    """Bytes that a model with so many weights in 4 bits takes for keeping them unpacked as well."""
    size = 2 * weights
    if not (check_versions() and has_tiles()) or size > KEPT:
        return 0
    free_bytes = memory.available()
    return size if free_bytes is None or 4 * size <= free_bytes else 0


def install(model: nn.Module) -> int:
    """Let every 4-bit layer of a bf16 model on a CPU call its kernel directly; how many now do."""
    layers = [layer for layer in model.modules() if _suits(layer)]
    if not layers or not check_versions():
        return 0
    done = [layer for layer in layers if _install_kernel(layer)]
    if done:
        _leave_file(model, layers)
    if done and has_tiles():
        _use_tiles(done)
    return len(done)


@torch.no_grad()
def _leave_file(model: nn.Module, layers: list[Any]) -> None:
    """Give what was not packed memory of its own, too: the model's file is then mapped no more.

    One tensor that still lies in the file keeps all of it mapped, and with it, resident, the weights that were packed
    out of it and that are not read again: half a gigabyte of a model of 1.1B.
    """
    own = {id(layer.weight) for layer in layers}
    for parameter in model.parameters():
        if id(parameter) not in own:
            parameter.data = parameter.data.clone()
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.clone()  # a buffer keeps what it is a view of, whatever its data
    for layer in layers:
        layer.weight.quant_state.code = layer.weight.quant_state.code.clone()
    # What packing took in passing lies scattered in the heap, where glibc keeps it: 120 MB of a model of 1.1B.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _suits(layer: Any) -> bool:
    if type(layer).__name__ != "Linear4bit" or layer.bias is not None:
        return False
    return layer.weight.device.type == "cpu" and layer.compute_dtype is torch.bfloat16


@torch.inference_mode()
def _install_kernel(layer: Any) -> bool:
    """The layer packs its weights at its first forward."""
    sample = torch.linspace(-1, 1, 3 * layer.in_features, dtype=torch.bfloat16).view(1, 3, layer.in_features)
    before = layer(sample)
    call = _call(layer)
    if call is None or not torch.equal(call(sample), before):
        return False
    layer.forward = call
    return True


def _call(layer: Any) -> Product | None:
    """The kernel over this layer's weights, or None where these are not packed for it."""
    from bitsandbytes.cextension import lib

    state = layer.weight.quant_state
    kernel = getattr(lib, _MULTIPLY)
    packed = getattr(state, "packing_format_for_cpu", False) and state.quant_type == "nf4" and not state.nested
    if not packed or state.absmax.dtype is not torch.bfloat16:
        return None
    kernel.argtypes = _MULTIPLY_TAKES
    rows, width = state.shape
    weights = layer.weight.data
    scales = state.absmax
    block = state.blocksize
    fixed = weights.data_ptr(), scales.data_ptr()

    def call(x: Tensor) -> Tensor:
        # Both give back what they were given where nothing is to be done, as in nearly every call.
        inputs = x.to(torch.bfloat16).contiguous()
        out = torch.empty((*x.shape[:-1], rows), dtype=torch.bfloat16)
        if count := inputs.numel() // width:  # the kernel divides by the number of rows
            kernel(count, rows, width, inputs.data_ptr(), *fixed, out.data_ptr(), block, width, rows)
        return out.to(x.dtype)

    # The kernel reads from addresses: what stands there must live as long as the call does.
    call.tensors = weights, scales  # type: ignore[attr-defined]
    return call


def _use_tiles(layers: list[Any]) -> None:
    """Let the layers of one model, whose weights are packed for the kernel, multiply many rows in tiles."""
    counts = [layer.in_features * layer.out_features for layer in layers]
    if kept_bytes(sum(counts)):
        for layer in layers:
            layer.forward = _by_rows(layer, MANY_KEPT, _keep_weights(layer))
        return
    room = torch.empty(max(counts), dtype=torch.bfloat16)
    for layer in layers:
        layer.forward = _by_rows(layer, MANY, _unpack_weights(layer, room))


def _keep_weights(layer: Any) -> Product:
    """Numbers unpacked once, in the order in which torch's library wants them: `linear` would order them each time."""
    multiply = torch.ops.mkldnn._linear_pointwise
    shape = layer.weight.quant_state.shape
    reordered = torch.ops.mkldnn._reorder_linear_weight(_numbers(layer, torch.empty(shape, dtype=torch.bfloat16)), FEW)
    return lambda rows: multiply(rows, reordered, None, "none", [], "")


def _unpack_weights(layer: Any, room: Tensor) -> Product:
    rows, width = layer.weight.quant_state.shape
    place = room[: rows * width].view(rows, width)
    return lambda x: nn.functional.linear(x, _numbers(layer, place))


def _by_rows(layer: Any, least: int, many: Product) -> Product:
    """The layer's own way for fewer rows than this, the other one for more of them."""
    few = layer.forward
    width = layer.in_features

    def product(x: Tensor) -> Tensor:
        if x.numel() < least * width:
            return few(x)  # type: ignore[no-any-return]
        rows = x.to(torch.bfloat16).reshape(-1, width)
        return many(pad_rows(rows))[: len(rows)].view(*x.shape[:-1], -1).to(x.dtype)

    return product


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
    even = lanes[:, 0]
    odd = lanes[:, 1]
    plain = torch.empty((rows // _LANES, 2, _LANES // 2, width // 2), dtype=torch.uint8)
    plain[:, 0] = (even << 4) | (odd & 15)
    plain[:, 1] = (even & 240) | (odd >> 4)
    factors = scales.t().float().contiguous()
    places = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (plain, factors, out)]
    getattr(lib, _DEQUANTISE)(*places, *map(ctypes.c_longlong, (block, rows, width)))
    return out


def pad_rows(rows: Tensor) -> Tensor:
    """Rows (..., count, width) and zeros behind them, so that there is a round number of rows.

    torch's library compiles a product for every number of rows and keeps what it compiled: 0.8 GB of a small model
    whose steps are of all lengths up to 256. So there are few such numbers.
    """
    count = rows.shape[-2]
    more = 0 if count <= 8 else -count % (16 if count <= 64 else 64)
    return nn.functional.pad(rows, (0, 0, 0, more)) if more else rows


def product_turned(rows: Tensor, weights: Tensor) -> Tensor:
    """Rows times weights, both (..., count, width), as weights times rows: where tiles are, some are quicker so."""
    return (weights @ rows.transpose(-1, -2)).transpose(-1, -2)


def logits(output: nn.Module, states: Tensor) -> Tensor:
    """The output layer's logits of states (rows, width); few rows come last there, two at least: in half the time."""
    weight = output.weight
    if weight.dtype is not torch.bfloat16 or weight.is_cuda or not has_tiles():
        return output(states)  # type: ignore[no-any-return]
    if len(states) > FEW:
        return output(pad_rows(states))[: len(states)]  # type: ignore[no-any-return]
    return product_turned(states.expand(2, -1) if len(states) == 1 else states, weight)[: len(states)]
