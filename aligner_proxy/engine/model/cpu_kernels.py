"""Faster products of 4-bit layers on a CPU, through private symbols of bitsandbytes and torch. A packed weight has 4
bits; an unpacked one has bf16 or fp32. With untested versions of the libraries, all layers are left unchanged.

bitsandbytes' layer takes some 20 microseconds to reach its kernel, twice as long as the kernel takes for one token of a
small model. With 210 layers this is a sixth of a forward pass. So the kernel is called directly, with the same packed
weights and thus the same results.

A CPU that multiplies bf16 matrices in tiles (AMX) needs a tenth of the 4-bit kernel's time for many rows, and about the
same time for few. On such a CPU the weights are unpacked to bf16: those of a small model once, those of a larger model
at each use, one layer after the other into the same memory, if there are enough rows to be worth it.

The kernel needs AVX-512 with bf16. On other CPUs bitsandbytes unpacks a layer at every use, and torch takes four times
as long for bf16 products as for fp32 ones. There an engine computes in fp32, and the weights are unpacked once if there
is memory for it.
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
"""Most bytes of unpacked weights that a model retains beside the kernel."""
MIN_UNPACKED_ROWS = 64
"""Fewest input rows for which tiles are worth it if a layer is unpacked at each use."""
MIN_KEPT_ROWS = 10
"""Fewest input rows for which tiles are worth it if the unpacked weights are retained."""
MAX_TRANSPOSED_ROWS = 16
"""Up to so many input rows, the output layer computes the transposed product."""
_ROWS_PACKED_TOGETHER = 32
"""Rows of weights that the 4-bit kernel packs together: half of them in the low halves of bytes (nibbles), the other
half in the high halves."""
_KERNEL_NAME = "gemv_4bit_inference_cpu_nf4_bf16"
"""The 4-bit kernel; in spite of its name (gemv) it takes any number of rows."""
_KERNEL_ARGUMENTS = *(3 * [ctypes.c_int64]), *(4 * [ctypes.c_void_p]), *(3 * [ctypes.c_int64])
"""Types of: input rows, weight rows, width; inputs, weights, scales, result; block size, width, weight rows again."""
_UNPACKING_NAME = "cdequantize_blockwise_cpu_nf4_bf16"
"""The function that unpacks 4-bit weights, block by block."""

Product = Callable[[Tensor], Tensor]
"""Is called with rows [..., inputs] and returns their product with a layer's weights, [..., outputs]."""


@cache
def check_versions() -> bool:
    """Whether the installed libraries have tested versions; if not, this is logged once."""
    untested = [
        f"{name} {version(name)}"
        for name, tested_version in TESTED_VERSIONS.items()
        if not version(name).startswith(f"{tested_version}.")
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
    """Return how many bytes of unpacked copies a model with so many 4-bit weights will retain; 0 if none."""
    if not check_versions():
        return 0
    if not has_kernel():
        fp32_bytes = 4 * weight_count
        return fp32_bytes if _fits_into_memory(fp32_bytes) else 0
    bf16_bytes = 2 * weight_count
    return bf16_bytes if has_amx() and bf16_bytes <= MAX_KEPT_BYTES and _fits_into_memory(bf16_bytes) else 0


def _fits_into_memory(copy_bytes: int) -> bool:
    """Whether copies take at most a quarter of the available memory; true if this memory is unknown."""
    free_bytes = memory.measure_free_bytes()
    return free_bytes is None or 4 * copy_bytes <= free_bytes


def install(model: nn.Module) -> int:
    """Let the 4-bit layers of a model on a CPU compute as fast as they can; return how many layers were changed."""
    layers = [layer for layer in model.modules() if _can_replace(layer)]
    if not layers or not check_versions():
        return 0
    return _install_kernels(model, layers) if has_kernel() else _keep_plain_weights(layers)


@torch.inference_mode()
def _keep_plain_weights(layers: list[Any]) -> int:
    """Unpack the weights of all layers to fp32 if memory allows; return how many layers now use unpacked weights."""
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
    """Return the product in fp32 with the layer's weights, which bitsandbytes unpacks here, once."""
    from bitsandbytes.functional import dequantize_4bit

    weights = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()

    def multiply_in_fp32(inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs.float(), weights).to(inputs.dtype)

    return multiply_in_fp32


def _install_kernels(model: nn.Module, layers: list[Any]) -> int:
    """Let layers call the 4-bit kernel directly, except those whose results would differ; return how many now do."""
    direct_layers = [layer for layer in layers if _install_kernel(layer)]
    if direct_layers:
        _unmap_file(model, layers)
    if direct_layers and has_amx():
        _use_tiles(direct_layers)
    return len(direct_layers)


@torch.no_grad()
def _unmap_file(model: nn.Module, layers: list[Any]) -> None:
    """Copy all tensors that are still views of the mapped model file, which would keep the whole file in memory.

    That is half a gigabyte for a model of 1.1B. `layers` are those whose weights were packed.
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
    # glibc retains the scattered heap memory that packing used temporarily: 120 MB for a model of 1.1B
    return_free_memory = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if return_free_memory:
        return_free_memory(0)


def _can_replace(layer: Any) -> bool:
    """Whether a layer's product can be replaced: the layer is 4-bit, on a CPU, computes in bf16 and has no bias."""
    if type(layer).__name__ != "Linear4bit" or layer.bias is not None:
        return False
    return layer.weight.device.type == "cpu" and layer.compute_dtype is torch.bfloat16


@torch.inference_mode()
def _install_kernel(layer: Any) -> bool:
    """Replace the layer's `forward` by the direct kernel call if results are equal; return whether it was replaced."""
    sample = torch.linspace(-1, 1, 3 * layer.in_features, dtype=torch.bfloat16).view(1, 3, layer.in_features)
    # first, because the layer packs its weights at its first forward pass
    expected = layer(sample)
    call_kernel = _make_kernel_call(layer)
    if call_kernel is None or not torch.equal(call_kernel(sample), expected):
        return False
    layer.forward = call_kernel
    return True


def _make_kernel_call(layer: Any) -> Product | None:
    """Return a function that runs the kernel on this layer's weights, or None if they are not packed for the kernel."""
    from bitsandbytes.cextension import lib

    state = layer.weight.quant_state
    kernel = getattr(lib, _KERNEL_NAME)
    is_packed = getattr(state, "packing_format_for_cpu", False) and state.quant_type == "nf4" and not state.nested
    if not is_packed or state.absmax.dtype is not torch.bfloat16:
        return None
    kernel.argtypes = _KERNEL_ARGUMENTS
    outputs, width = state.shape
    weights = layer.weight.data
    scales = state.absmax
    block_size = state.blocksize
    addresses = weights.data_ptr(), scales.data_ptr()

    def call_kernel(inputs: Tensor) -> Tensor:
        # in nearly every call there is nothing to convert, and both methods return the tensor itself
        bf16_inputs = inputs.to(torch.bfloat16).contiguous()
        out = torch.empty((*inputs.shape[:-1], outputs), dtype=torch.bfloat16)
        row_count = bf16_inputs.numel() // width
        if row_count:  # the kernel divides by the number of rows
            inputs_address = bf16_inputs.data_ptr()
            kernel(row_count, outputs, width, inputs_address, *addresses, out.data_ptr(), block_size, width, outputs)
        return out.to(inputs.dtype)

    # the kernel reads from raw addresses, so these tensors must live as long as the function
    call_kernel.tensors = weights, scales  # type: ignore[attr-defined]
    return call_kernel


def _use_tiles(layers: list[Any]) -> None:
    """Let the layers of one model, whose weights are already packed for the kernel, multiply many rows in tiles."""
    weight_counts = [layer.in_features * layer.out_features for layer in layers]
    keeps_copy = count_copy_bytes(sum(weight_counts)) > 0
    if keeps_copy:
        for layer in layers:
            layer.forward = _choose_by_rows(layer, MIN_KEPT_ROWS, _keep_weights(layer))
        return
    # one layer is used after the other, so they share the memory for the largest layer
    shared_memory = torch.empty(max(weight_counts), dtype=torch.bfloat16)
    for layer in layers:
        layer.forward = _choose_by_rows(layer, MIN_UNPACKED_ROWS, _unpack_weights(layer, shared_memory))


def _keep_weights(layer: Any) -> Product:
    """Return the product with weights that are unpacked and reordered once; `linear` would reorder at each use."""
    multiply = torch.ops.mkldnn._linear_pointwise
    unpacked = _unpack_layer(layer, torch.empty(layer.weight.quant_state.shape, dtype=torch.bfloat16))
    reordered = torch.ops.mkldnn._reorder_linear_weight(unpacked, MAX_TRANSPOSED_ROWS)
    return lambda rows: multiply(rows, reordered, None, "none", [], "")


def _unpack_weights(layer: Any, shared_memory: Tensor) -> Product:
    """Return the product with the layer's weights, which are unpacked at each use into memory that all layers share."""
    outputs, width = layer.weight.quant_state.shape
    unpacked = shared_memory[: outputs * width].view(outputs, width)
    return lambda inputs: nn.functional.linear(inputs, _unpack_layer(layer, unpacked))


def _choose_by_rows(layer: Any, min_rows: int, multiply_many: Product) -> Product:
    """Return a product that uses `multiply_many` from `min_rows` rows on, else the layer's current `forward`."""
    multiply_few = layer.forward
    width = layer.in_features

    def multiply(inputs: Tensor) -> Tensor:
        if inputs.numel() < min_rows * width:
            return multiply_few(inputs)  # type: ignore[no-any-return]
        rows = inputs.to(torch.bfloat16).reshape(-1, width)
        return multiply_many(pad_rows(rows))[: len(rows)].view(*inputs.shape[:-1], -1).to(inputs.dtype)

    return multiply


def _unpack_layer(layer: Any, out: Tensor) -> Tensor:
    """Unpack the layer's weights into `out`, and return it."""
    state = layer.weight.quant_state
    return unpack(layer.weight.data, state.absmax, state.blocksize, out)


def unpack(packed: Tensor, scales: Tensor, block_size: int, out: Tensor) -> Tensor:
    """Unpack weights that were packed for the 4-bit kernel into `out`: bf16 of shape (rows, width).

    `packed` (rows, width / 2) holds groups of 32 rows: half of the rows in the low nibbles, half in the high nibbles,
    with even and odd columns side by side. `scales` (width / block_size, rows) has a factor for each block of a row.
    """
    from bitsandbytes.cextension import lib

    rows, width = out.shape
    groups = rows // _ROWS_PACKED_TOGETHER
    half_group = _ROWS_PACKED_TOGETHER // 2
    grouped = packed.view(groups, width // 2, half_group, 2).permute(0, 3, 2, 1).contiguous()
    even_columns = grouped[:, 0]
    odd_columns = grouped[:, 1]
    # the unpacking function wants two neighbouring columns of one row in one byte, the even one in the high nibble
    row_pairs = torch.empty((groups, 2, half_group, width // 2), dtype=torch.uint8)
    row_pairs[:, 0] = (even_columns << 4) | (odd_columns & 15)
    row_pairs[:, 1] = (even_columns & 240) | (odd_columns >> 4)
    factors = scales.t().float().contiguous()
    addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (row_pairs, factors, out)]
    sizes = [ctypes.c_longlong(size) for size in (block_size, rows, width)]
    getattr(lib, _UNPACKING_NAME)(*addresses, *sizes)
    return out


def pad_rows(rows: Tensor) -> Tensor:
    """Return the rows (..., count, width) with zero rows appended, so that their number is round.

    torch's library retains compiled code for every number of rows: 0.8 GB for a small model, up to 256 rows.
    """
    count = rows.shape[-2]
    # up to 8 rows there are few variants anyway
    if count <= 8:
        return rows
    multiple = 16 if count <= 64 else 64
    padding = -count % multiple
    return nn.functional.pad(rows, (0, 0, 0, padding)) if padding else rows


def multiply_transposed(rows: Tensor, weights: Tensor) -> Tensor:
    """Return each row times each row of weights, computed as weights times rows: faster for some shapes in tiles."""
    return (weights @ rows.transpose(-1, -2)).transpose(-1, -2)


def compute_logits(output: nn.Module, states: Tensor) -> Tensor:
    """Return the logits (rows, tokens of the vocabulary) that the output layer computes from states (rows, width)."""
    weight = output.weight
    if weight.dtype is not torch.bfloat16 or weight.is_cuda or not has_amx():
        return output(states)  # type: ignore[no-any-return]
    if len(states) > MAX_TRANSPOSED_ROWS:
        return output(pad_rows(states))[: len(states)]  # type: ignore[no-any-return]
    # a transposed product of at least two rows takes half the time
    at_least_two = states.expand(2, -1) if len(states) == 1 else states
    return multiply_transposed(at_least_two, weight)[: len(states)]
