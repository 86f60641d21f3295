"""Kernels of 4-bit layers on a CPU, reached through private symbols of bitsandbytes and torch.

bitsandbytes' layer takes some 20 microseconds to reach its kernel, twice as long as the kernel takes for one token of a
small model. With 210 layers this is a sixth of a forward pass. So the kernel is called directly, with the same packed
weights and thus the same results. A layer whose results would not be exactly the same is left unchanged, and so is
everything on a GPU.

A CPU that multiplies bf16 matrices in tiles (AMX) needs a tenth of the 4-bit kernel's time for many rows, and about the
same time for few. On such a CPU the weights are unpacked to bf16. A small model is unpacked once and holds both forms.
A larger model is unpacked at each use, one layer after the other into the same memory, if there are enough rows to be
worth it.

The kernel needs AVX-512 with bf16. On other CPUs bitsandbytes unpacks a layer at every use, and torch takes four times
as long for bf16 products as for fp32 ones. There an engine computes in fp32, and the weights are unpacked once if there
is memory for it.

`check_versions` is the only switch: with untested versions of the libraries, all layers are left unchanged.
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

TESTED_VERSIONS = {"bitsandbytes": "0.50", "torch": "2.13"}
"""Versions with which the private symbols used here were tested."""
MAX_KEPT_BYTES = 256 * 2**20
"""Most bytes of unpacked weights that a model retains beside the kernel; it also retains at most a quarter of the
available memory."""
MIN_UNPACKED_ROWS = 64
"""Fewest rows for which tiles are worth it if a layer is unpacked at each use."""
MIN_KEPT_ROWS = 10
"""Fewest rows for which tiles are worth it if the unpacked weights are retained."""
MAX_TRANSPOSED_ROWS = 16
"""Up to this many rows, the output layer computes the transposed product (`multiply_transposed`), which is faster."""
_LANES = 32
"""Rows of weights that the 4-bit kernel packs together: half of them in the low halves of bytes (nibbles), the other
half in the high ones."""
_MULTIPLY = "gemv_4bit_inference_cpu_nf4_bf16"
"""The 4-bit kernel; in spite of its name (gemv) it takes any number of rows."""
_MULTIPLY_TAKES = *(3 * [ctypes.c_int64]), *(4 * [ctypes.c_void_p]), *(3 * [ctypes.c_int64])
"""Arguments: rows of x, rows of the weights, width; x, weights, scales, result; block size, width and rows again."""
_DEQUANTISE = "cdequantize_blockwise_cpu_nf4_bf16"
"""The function that unpacks 4-bit weights, block by block."""

Product = Callable[[Tensor], Tensor]
"""Is given rows [..., inputs] and returns their product with a layer's weights, [..., outputs]."""


@cache
def check_versions() -> bool:
    """Whether the installed libraries have tested versions; if not, log that once."""
    untested = [
        f"{name} {version(name)}"
        for name, tried_version in TESTED_VERSIONS.items()
        if not version(name).startswith(f"{tried_version}.")
    ]
    if untested:
        log.warning("CPU kernels not used: untested with %s; corrections are the same, but slower", ", ".join(untested))
    return not untested


@cache
def has_amx() -> bool:
    """Whether this CPU multiplies bf16 matrices in tiles."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


@cache
def has_kernel() -> bool:
    """Whether this CPU has the instructions of the 4-bit kernel."""
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())  # type: ignore[no-untyped-call]


def count_copy_bytes(weight_count: int) -> int:
    """Bytes that a model with `weight_count` 4-bit weights needs for unpacked copies; 0 if it will retain none."""
    if not check_versions():
        return 0
    if not has_kernel():
        return _fit_into_memory(4 * weight_count)
    # bf16: two bytes per weight
    size = 2 * weight_count
    return _fit_into_memory(size) if has_amx() and size <= MAX_KEPT_BYTES else 0


def _fit_into_memory(size: int) -> int:
    """The size of unpacked copies; 0 if they would take more than a quarter of the available memory."""
    free_bytes = memory.measure_free_bytes()
    return size if free_bytes is None or 4 * size <= free_bytes else 0


def install(model: nn.Module) -> int:
    """Let the 4-bit layers of a model on a CPU compute as fast as they can; return how many layers were changed."""
    layers = [layer for layer in model.modules() if _can_replace(layer)]
    if not layers or not check_versions():
        return 0
    return _install_kernels(model, layers) if has_kernel() else _keep_plain_weights(layers)


@torch.inference_mode()
def _keep_plain_weights(layers: list[Any]) -> int:
    """Unpack the weights of all layers to fp32 if there is memory for it; return how many layers now use them."""
    keeps_copy = count_copy_bytes(sum(layer.in_features * layer.out_features for layer in layers)) > 0
    if not keeps_copy:
        # the layers unpack their weights at every use, and need not compute in bf16 either
        for layer in layers:
            layer.compute_dtype = torch.float32
        return 0
    for layer in layers:
        layer.forward = _make_plain_product(layer)
    return len(layers)


def _make_plain_product(layer: Any) -> Product:
    """A product in fp32 with weights that bitsandbytes unpacks once."""
    from bitsandbytes.functional import dequantize_4bit

    weights = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()

    def product(x: Tensor) -> Tensor:
        """The product of `x` with the layer's weights, in the type of `x`."""
        return nn.functional.linear(x.float(), weights).to(x.dtype)

    return product


def _install_kernels(model: nn.Module, layers: list[Any]) -> int:
    """Let layers call the 4-bit kernel directly; return how many now do."""
    direct_layers = [layer for layer in layers if _install_kernel(layer)]
    if direct_layers:
        _unmap_file(model, layers)
    if direct_layers and has_amx():
        _use_tiles(direct_layers)
    return len(direct_layers)


@torch.no_grad()
def _unmap_file(model: nn.Module, layers: list[Any]) -> None:
    """Copy all tensors that are still views of the mapped model file, so that the file is unmapped.

    A single tensor in the file keeps the whole file mapped. The original weights, which are not read again after
    packing, then stay in memory: half a gigabyte for a model of 1.1B.
    """
    packed_ids = {id(layer.weight) for layer in layers}
    for parameter in model.parameters():
        if id(parameter) not in packed_ids:
            parameter.data = parameter.data.clone()
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.clone()  # replacing only `data` would keep the tensor that it is a view of
    for layer in layers:
        layer.weight.quant_state.code = layer.weight.quant_state.code.clone()
    # glibc retains the scattered heap memory that packing used temporarily: 120 MB for a model of 1.1B.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _can_replace(layer: Any) -> bool:
    """Whether a layer's product can be replaced: it is 4-bit, on a CPU, computes in bf16 and has no bias."""
    if type(layer).__name__ != "Linear4bit" or layer.bias is not None:
        return False
    return layer.weight.device.type == "cpu" and layer.compute_dtype is torch.bfloat16


@torch.inference_mode()
def _install_kernel(layer: Any) -> bool:
    """Replace the layer's `forward` by the direct kernel call if results are equal; return whether it was replaced.

    The sample call comes first, because the layer packs its weights at its first forward pass.
    """
    sample = torch.linspace(-1, 1, 3 * layer.in_features, dtype=torch.bfloat16).view(1, 3, layer.in_features)
    expected = layer(sample)
    call = _make_kernel_call(layer)
    if call is None or not torch.equal(call(sample), expected):
        return False
    layer.forward = call
    return True


def _make_kernel_call(layer: Any) -> Product | None:
    """A function that runs the kernel on this layer's weights, or None if they are not packed for it."""
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
    addresses = weights.data_ptr(), scales.data_ptr()

    def call(x: Tensor) -> Tensor:
        """The product of `x` with the layer's weights, in the type of `x`."""
        # In nearly every call there is nothing to convert, and both return their argument.
        inputs = x.to(torch.bfloat16).contiguous()
        out = torch.empty((*x.shape[:-1], rows), dtype=torch.bfloat16)
        if count := inputs.numel() // width:  # the kernel divides by the number of rows
            kernel(count, rows, width, inputs.data_ptr(), *addresses, out.data_ptr(), block, width, rows)
        return out.to(x.dtype)

    # The kernel reads from raw addresses, so these tensors must live as long as the function.
    call.tensors = weights, scales  # type: ignore[attr-defined]
    return call


def _use_tiles(layers: list[Any]) -> None:
    """Let the layers of one model, whose weights are already packed for the kernel, multiply many rows in tiles.

    Weights of a small model are unpacked once and kept, those of a large one are unpacked at each use.
    """
    weight_counts = [layer.in_features * layer.out_features for layer in layers]
    keeps_copy = count_copy_bytes(sum(weight_counts)) > 0
    if keeps_copy:
        for layer in layers:
            layer.forward = _choose_by_rows(layer, MIN_KEPT_ROWS, _keep_weights(layer))
        return
    # one layer is used after the other, so they share the memory of the largest
    room = torch.empty(max(weight_counts), dtype=torch.bfloat16)
    for layer in layers:
        layer.forward = _choose_by_rows(layer, MIN_UNPACKED_ROWS, _unpack_weights(layer, room))


def _keep_weights(layer: Any) -> Product:
    """A product with weights that are unpacked once and reordered for torch's library; `linear` reorders each time."""
    multiply = torch.ops.mkldnn._linear_pointwise
    shape = layer.weight.quant_state.shape
    reordered = torch.ops.mkldnn._reorder_linear_weight(
        _unpack_layer(layer, torch.empty(shape, dtype=torch.bfloat16)), MAX_TRANSPOSED_ROWS
    )
    return lambda rows: multiply(rows, reordered, None, "none", [], "")


def _unpack_weights(layer: Any, room: Tensor) -> Product:
    """A product with weights that are unpacked at each use, into the memory `room` that all layers share."""
    rows, width = layer.weight.quant_state.shape
    place = room[: rows * width].view(rows, width)
    return lambda x: nn.functional.linear(x, _unpack_layer(layer, place))


def _choose_by_rows(layer: Any, least_rows: int, multiply_many: Product) -> Product:
    """A product that uses the layer's current `forward` for fewer than `least_rows` rows, else `multiply_many`."""
    multiply_few = layer.forward
    width = layer.in_features

    def product(x: Tensor) -> Tensor:
        if x.numel() < least_rows * width:
            return multiply_few(x)  # type: ignore[no-any-return]
        rows = x.to(torch.bfloat16).reshape(-1, width)
        return multiply_many(pad_rows(rows))[: len(rows)].view(*x.shape[:-1], -1).to(x.dtype)

    return product


def _unpack_layer(layer: Any, out: Tensor) -> Tensor:
    """The layer's weights, unpacked into `out`."""
    state = layer.weight.quant_state
    return unpack(layer.weight.data, state.absmax, state.blocksize, out)


def unpack(packed: Tensor, scales: Tensor, block: int, out: Tensor) -> Tensor:
    """Unpack weights that were packed for the 4-bit kernel into `out`: bf16 of shape (rows, width).

    `packed` (rows, width / 2) holds groups of 32 rows: half of the rows in the low nibbles, half in the high ones, with
    even and odd columns side by side. `scales` (width / block, rows) is one factor for each block of a row.
    """
    from bitsandbytes.cextension import lib

    rows, width = out.shape
    lanes = packed.view(rows // _LANES, width // 2, _LANES // 2, 2).permute(0, 3, 2, 1).contiguous()
    even = lanes[:, 0]
    odd = lanes[:, 1]
    plain = torch.empty((rows // _LANES, 2, _LANES // 2, width // 2), dtype=torch.uint8)
    # the unpacking kernel wants two neighbouring columns of one row in one byte, the even one in the high nibble
    plain[:, 0] = (even << 4) | (odd & 15)
    plain[:, 1] = (even & 240) | (odd >> 4)
    factors = scales.t().float().contiguous()
    places = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (plain, factors, out)]
    getattr(lib, _DEQUANTISE)(*places, *map(ctypes.c_longlong, (block, rows, width)))
    return out


def pad_rows(rows: Tensor) -> Tensor:
    """The rows (..., count, width) with zero rows appended, so that their number is round.

    torch's library compiles a product for every number of rows and retains the code: 0.8 GB for a small model whose
    steps have all lengths up to 256. Round numbers limit this to few variants.
    """
    count = rows.shape[-2]
    # up to 8 rows there are few variants anyway
    if count <= 8:
        return rows
    multiple = 16 if count <= 64 else 64
    padding = -count % multiple
    return nn.functional.pad(rows, (0, 0, 0, padding)) if padding else rows


def multiply_transposed(rows: Tensor, weights: Tensor) -> Tensor:
    """Each row times each row of weights, computed as weights times rows: faster for some shapes in tiles."""
    return (weights @ rows.transpose(-1, -2)).transpose(-1, -2)


def compute_logits(output: nn.Module, states: Tensor) -> Tensor:
    """The logits (rows, words) that the output layer computes from states (rows, width).

    On a CPU with tiles, few rows are computed as a transposed product of at least two rows, which halves the time.
    """
    weight = output.weight
    if weight.dtype is not torch.bfloat16 or weight.is_cuda or not has_amx():
        return output(states)  # type: ignore[no-any-return]
    if len(states) > MAX_TRANSPOSED_ROWS:
        return output(pad_rows(states))[: len(states)]  # type: ignore[no-any-return]
    at_least_two = states.expand(2, -1) if len(states) == 1 else states
    return multiply_transposed(at_least_two, weight)[: len(states)]
