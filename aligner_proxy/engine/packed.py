"""How does a 4-bit layer reach its CPU kernel without what is wrapped around it? By calling the kernel itself.

bitsandbytes' layer takes some 20 microseconds to get to its kernel, twice what the kernel then takes for one token of a
small model; with 210 layers that is a sixth of a forward. The kernel, the packed weights and thus the results are the
same; a layer whose results are not exactly the same stays as it is, as does everything on a GPU. Many rows go another
way where the CPU has a quicker one (`tiles.py`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from aligner_proxy.engine import tiles

_KERNEL = "gemv_4bit_inference_cpu_nf4_bf16"
"""In spite of its name it takes any number of rows (bitsandbytes 0.50)."""
_COUNT, _PLACE = ctypes.c_int64, ctypes.c_void_p
_TAKES = *(3 * [_COUNT]), *(4 * [_PLACE]), *(3 * [_COUNT])
"""Rows of x, of the weights, their width; x, weights, scales, result; block, width and rows again."""


def shorten(model: nn.Module) -> int:
    """Let every 4-bit layer of a bf16 model on a CPU call its kernel; how many now do."""
    layers = [layer for layer in model.modules() if _suits(layer)]
    done = [layer for layer in layers if _shortened(layer)]
    if done:
        _leave_file(model, layers)
    if done and tiles.there():
        tiles.quicken(done)
    return len(done)


@torch.no_grad()
def _leave_file(model: nn.Module, layers: list[Any]) -> None:
    """Give what was not packed memory of its own, too: the model's file is then mapped no more.

    One tensor that still lies in the file keeps all of it mapped, and with it, resident, the weights that were packed
    out of it and that nobody reads again: half a gigabyte of a model of 1.1B.
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
def _shortened(layer: Any) -> bool:
    """The layer packs its weights at its first forward."""
    sample = torch.linspace(-1, 1, 3 * layer.in_features, dtype=torch.bfloat16).view(1, 3, layer.in_features)
    before = layer(sample)
    call = _call(layer)
    if call is None or not torch.equal(call(sample), before):
        return False
    layer.forward = call
    return True


def _call(layer: Any) -> Callable[[Tensor], Tensor] | None:
    """The kernel over this layer's weights, or None where these are not packed for it."""
    from bitsandbytes.cextension import lib

    state, kernel = layer.weight.quant_state, getattr(lib, _KERNEL)
    packed = getattr(state, "packing_format_for_cpu", False) and state.quant_type == "nf4" and not state.nested
    if not packed or state.absmax.dtype is not torch.bfloat16:
        return None
    kernel.argtypes = _TAKES
    rows, width = state.shape
    weights, scales, block = layer.weight.data, state.absmax, state.blocksize
    fixed = weights.data_ptr(), scales.data_ptr()

    def call(x: Tensor) -> Tensor:
        # Both give back what they were given where nothing is to be done, as in nearly every call.
        given = x.to(torch.bfloat16).contiguous()
        out = torch.empty((*x.shape[:-1], rows), dtype=torch.bfloat16)
        if count := given.numel() // width:  # the kernel divides by the number of rows
            kernel(count, rows, width, given.data_ptr(), *fixed, out.data_ptr(), block, width, rows)
        return out.to(x.dtype)

    # The kernel reads from addresses: what stands there must live as long as the call does.
    call.held = weights, scales  # type: ignore[attr-defined]
    return call
