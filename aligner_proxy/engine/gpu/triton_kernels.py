"""The kernels of a forward pass in Triton; `Kernels` (stack.py) says what each one computes.

Here are those that work on rows one by one: a program computes one row (one token of the step), or one head or some
columns of it. Attention is in triton_attention.py, the products with 4-bit weights are in triton_products.py.

Every kernel rounds where the library's modules round. Sums are added in a fixed order, so the same input always gives
the same bits. `exact` computes products in fp32 instead of on the tensor cores' 16-bit inputs;
Triton's interpreter needs it for bf16, too.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aligner_proxy.engine.gpu.step import ChoiceInput, StepView
from aligner_proxy.engine.gpu.triton_attention import attend as attend
from aligner_proxy.engine.gpu.triton_products import multiply as multiply
from aligner_proxy.engine.gpu.triton_products import unpack as unpack

_CHOICE_BLOCK = 4096
"""Logits that `choose` reads at once."""


@triton.jit
def _add_parts(parts, at, stride, PARTS: tl.constexpr, mask):
    """The sum in fp32 of the parts of a product at the offsets `at`; each part has `stride` numbers."""
    total = tl.load(parts + at, mask=mask, other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        total += tl.load(parts + part * stride + at, mask=mask, other=0.0).to(tl.float32)
    return total


@triton.jit
def _normalise(
    residual, parts, weight, out, width, part_stride, epsilon, PARTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One row of `Kernels.normalise`: `residual` and `out` [rows, width], `parts` [PARTS, rows, width].

    WIDTH is `width` rounded up to a power of two; columns beyond `width` are masked.
    """
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    at = row * width + column
    total = tl.load(residual + at, mask=inside, other=0.0)
    dtype = total.dtype
    if PARTS > 0:
        added = _add_parts(parts, at, part_stride, PARTS, inside).to(dtype)
        total = (total.to(tl.float32) + added.to(tl.float32)).to(dtype)
        tl.store(residual + at, total, mask=inside)
    wide = total.to(tl.float32)
    normed = wide * tl.rsqrt(tl.sum(wide * wide, 0) / width + epsilon)
    factor = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, (normed.to(dtype).to(tl.float32) * factor).to(dtype), mask=inside)


@triton.jit
def _normalise_head(low, high, weight, half, dtype: tl.constexpr, SIZE: tl.constexpr, epsilon):
    """Both halves [SIZE / 2] of a head, divided by the root mean square of the head and scaled by `weight` [SIZE].

    `half` are the numbers 0 to SIZE / 2 - 1.
    """
    share = tl.rsqrt((tl.sum(low * low, 0) + tl.sum(high * high, 0)) / SIZE + epsilon)
    low = (low * share).to(dtype).to(tl.float32) * tl.load(weight + half).to(tl.float32)
    high = (high * share).to(dtype).to(tl.float32) * tl.load(weight + SIZE // 2 + half).to(tl.float32)
    return low.to(dtype).to(tl.float32), high.to(dtype).to(tl.float32)


@triton.jit
def _rotate_and_put(
    parts, bias, query_norm, key_norm, cos, sin, places, slots, queries, keys, values, part_stride, head_stride,
    epsilon, HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, SIZE: tl.constexpr, PARTS: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_NORMS: tl.constexpr,
):  # fmt: skip
    """One head of one row of `Kernels.rotate_and_put`.

    `parts` [PARTS, rows, HEADS + 2 * KEY_HEADS, SIZE] hold the heads of queries, then those of keys, then those of
    values. Number i of a head and number i + SIZE / 2 are turned together, so a head is read as two halves. `cos` and
    `sin` are [positions, SIZE / 2], `queries` [rows, HEADS, SIZE], `keys` and `values` [KEY_HEADS, slots, SIZE].
    """
    row = tl.program_id(0)
    head = tl.program_id(1)
    half = tl.arange(0, SIZE // 2)
    dtype: tl.constexpr = queries.dtype.element_ty
    column = head * SIZE + half
    at = row * (HEADS + 2 * KEY_HEADS) * SIZE + column
    inside = half < SIZE // 2
    low = _add_parts(parts, at, part_stride, PARTS, inside)
    high = _add_parts(parts, at + SIZE // 2, part_stride, PARTS, inside)
    if HAS_BIAS:
        low += tl.load(bias + column).to(tl.float32)
        high += tl.load(bias + column + SIZE // 2).to(tl.float32)
    low = low.to(dtype).to(tl.float32)
    high = high.to(dtype).to(tl.float32)
    slot = tl.load(slots + row).to(tl.int64)
    if head >= HEADS + KEY_HEADS:
        to = values + (head - HEADS - KEY_HEADS).to(tl.int64) * head_stride + slot * SIZE + half
        tl.store(to, low.to(dtype))
        tl.store(to + SIZE // 2, high.to(dtype))
        return
    if HAS_NORMS:
        if head < HEADS:
            low, high = _normalise_head(low, high, query_norm, half, dtype, SIZE, epsilon)
        else:
            low, high = _normalise_head(low, high, key_norm, half, dtype, SIZE, epsilon)
    turn = tl.load(places + row) * (SIZE // 2) + half
    cosine = tl.load(cos + turn)
    sine = tl.load(sin + turn)
    turned_low = (low * cosine - high * sine).to(dtype)
    turned_high = (high * cosine + low * sine).to(dtype)
    if head < HEADS:
        to = queries + row * HEADS * SIZE + column
    else:
        to = keys + (head - HEADS).to(tl.int64) * head_stride + slot * SIZE + half
    tl.store(to, turned_low)
    tl.store(to + SIZE // 2, turned_high)


@triton.jit
def _gate(parts, out, width, part_stride, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """COLUMNS columns of one row of `Kernels.gate`: `parts` [PARTS, rows, 2 * width], `out` [rows, width]."""
    row = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    dtype: tl.constexpr = out.dtype.element_ty
    at = row * 2 * width + column
    first = _add_parts(parts, at, part_stride, PARTS, inside).to(dtype).to(tl.float32)
    second = _add_parts(parts, at + width, part_stride, PARTS, inside).to(dtype).to(tl.float32)
    activation = (first / (1.0 + tl.exp(-first))).to(dtype).to(tl.float32)
    tl.store(out + row * width + column, (activation * second).to(dtype), mask=inside)


@triton.jit
def _put_states(hidden, slots, states, width, slot_stride, WIDTH: tl.constexpr):
    """One row of `Kernels.put_states`: `hidden` [rows, width] to `states` at the row's slot."""
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    slot = tl.load(slots + row).to(tl.int64)
    tl.store(states + slot * slot_stride + column, tl.load(hidden + row * width + column, mask=inside), mask=inside)


@triton.jit
def _choose(logits, favoured, caution, out, width, COLUMNS: tl.constexpr):
    """One row of `Kernels.choose`: `logits` [rows, width], of which COLUMNS are read at once."""
    row = tl.program_id(0)
    column = tl.arange(0, COLUMNS)
    best = tl.full((), float("-inf"), tl.float32)
    token = tl.full((), 0, tl.int32)
    for first in tl.range(0, width, COLUMNS):
        block = tl.load(logits + row * width + first + column, mask=first + column < width, other=float("-inf"))
        block = block.to(tl.float32)
        top = tl.max(block, 0)
        # of equal logits the first counts, within a block and between blocks
        place = tl.min(tl.where(block == top, column, COLUMNS), 0)
        token = tl.where(top > best, first + place, token)
        best = tl.maximum(best, top)
    favourite = tl.load(favoured + row)
    liked = tl.load(logits + row * width + tl.maximum(favourite, 0)).to(tl.float32)
    keeps = (favourite >= 0) & (liked + tl.load(caution + row) >= best)
    tl.store(out + row, tl.where(keeps, favourite, token))


def _next_power(number: int) -> int:
    return int(triton.next_power_of_2(number))


def normalise(
    residual: Tensor, parts: Tensor | None, weight: Tensor, epsilon: float, out: Tensor | None = None
) -> Tensor:
    """See `Kernels.normalise`."""
    rows, width = residual.shape
    out = torch.empty_like(residual) if out is None else out
    part_count = 0 if parts is None else len(parts)
    summands = residual if parts is None else parts
    warps = 8 if width >= 2048 else 4
    _normalise[rows,](
        residual, summands, weight, out, width, rows * width, epsilon, part_count, _next_power(width), num_warps=warps
    )
    return out


def rotate_and_put(
    parts: Tensor,
    bias: Tensor | None,
    norms: tuple[Tensor, Tensor, float] | None,
    turns: tuple[Tensor, Tensor],
    step: StepView,
    keys: Tensor,
    values: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """See `Kernels.rotate_and_put`."""
    key_heads, _, size = keys.shape
    count, rows, width = parts.shape
    heads = width // size - 2 * key_heads
    queries = torch.empty((rows, heads, size), dtype=dtype, device=parts.device)
    query_norm, key_norm, epsilon = norms or (parts, parts, 0.0)
    _rotate_and_put[rows, heads + 2 * key_heads](
        parts, parts if bias is None else bias, query_norm, key_norm, *turns, step.places, step.slots, queries, keys,
        values, rows * width, keys.stride(0), epsilon, heads, key_heads, size, count, bias is not None,
        norms is not None, num_warps=1,
    )  # fmt: skip
    return queries


def gate(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """See `Kernels.gate`."""
    count, rows, width = parts.shape
    out = torch.empty((rows, width // 2), dtype=dtype, device=parts.device)
    columns = 512
    grid = (rows, triton.cdiv(width // 2, columns))
    _gate[grid](parts, out, width // 2, rows * width, count, columns, num_warps=4)
    return out


def put_states(states: Tensor, index: int, step: StepView, hidden: Tensor) -> None:
    """See `Kernels.put_states`."""
    rows, width = hidden.shape
    _put_states[rows,](hidden, step.slots, states[:, index], width, states.stride(0), _next_power(width), num_warps=4)


def choose(logits: Tensor, choice: ChoiceInput) -> Tensor:
    """See `Kernels.choose`."""
    rows, width = logits.shape
    out = torch.empty(rows, dtype=torch.int32, device=logits.device)
    _choose[rows,](logits, choice.favoured, choice.caution, out, width, _CHOICE_BLOCK, num_warps=8)
    return out
