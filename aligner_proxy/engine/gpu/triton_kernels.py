"""The kernels of a forward pass in Triton. A row is one token of the step. A product comes in parts that are still to
be added up, [parts, rows, width]. A program computes one row, or one head or some columns of a row. Arguments are
pointers to tensors, or numbers; those in capitals are constants of the compiled kernel.

The public functions implement the operations of `Kernels` (stack.py), which describes their arguments. Attention is in
triton_attention.py, the products with 4-bit weights are in triton_products.py. Every kernel rounds where the library's
modules round. Sums are added in a fixed order, so the same input always gives the same bits.
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

_LOGITS_AT_ONCE = 4096
"""Logits that `choose` reads at once."""


@triton.jit
def _add_parts(parts, offsets, part_stride, PARTS: tl.constexpr, mask):
    """Return the sum in fp32 of a product's PARTS parts at the `offsets` in each; a part has `part_stride` numbers."""
    total = tl.load(parts + offsets, mask=mask, other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        total += tl.load(parts + part * part_stride + offsets, mask=mask, other=0.0).to(tl.float32)
    return total


@triton.jit
def _normalise(
    residual, parts, weight, out, width, part_stride, epsilon, PARTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Add `parts` to one row of `residual`, in place, and write the row to `out`, normalised and scaled by `weight`.

    `residual` and `out` are [rows, width], `parts` [PARTS, rows, width]. WIDTH is `width` rounded up to a power of two;
    columns beyond `width` are masked.
    """
    row = tl.program_id(0)
    columns = tl.arange(0, WIDTH)
    mask = columns < width
    offsets = row * width + columns
    sums = tl.load(residual + offsets, mask=mask, other=0.0)
    dtype = sums.dtype
    if PARTS > 0:
        product = _add_parts(parts, offsets, part_stride, PARTS, mask).to(dtype)
        sums = (sums.to(tl.float32) + product.to(tl.float32)).to(dtype)
        tl.store(residual + offsets, sums, mask=mask)
    sums_in_fp32 = sums.to(tl.float32)
    normed = sums_in_fp32 * tl.rsqrt(tl.sum(sums_in_fp32 * sums_in_fp32, 0) / width + epsilon)
    factors = tl.load(weight + columns, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + offsets, (normed.to(dtype).to(tl.float32) * factors).to(dtype), mask=mask)


@triton.jit
def _normalise_head(low, high, weight, half_columns, dtype: tl.constexpr, SIZE: tl.constexpr, epsilon):
    """Return both halves [SIZE / 2] of a head, divided by the head's root mean square and scaled by `weight` [SIZE].

    `half_columns` are the numbers 0 to SIZE / 2 - 1; `dtype` is the type to which the library rounds.
    """
    factor = tl.rsqrt((tl.sum(low * low, 0) + tl.sum(high * high, 0)) / SIZE + epsilon)
    low = (low * factor).to(dtype).to(tl.float32) * tl.load(weight + half_columns).to(tl.float32)
    high = (high * factor).to(dtype).to(tl.float32) * tl.load(weight + SIZE // 2 + half_columns).to(tl.float32)
    return low.to(dtype).to(tl.float32), high.to(dtype).to(tl.float32)


@triton.jit
def _rotate_and_put(
    parts, bias, query_norm, key_norm, cos, sin, places, slots, queries, keys, values, part_stride, head_stride,
    epsilon, HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, SIZE: tl.constexpr, PARTS: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_NORMS: tl.constexpr,
):  # fmt: skip
    """Turn one head of one row by the row's position, and write it: a query to `queries`, a key or value to its slot.

    `parts` [PARTS, rows, HEADS + 2 * KEY_HEADS, SIZE] hold the heads of queries, then those of keys, then those of
    values, which are not turned. Number i of a head and number i + SIZE / 2 are turned together, so a head is read as
    two halves. `cos` and `sin` are [positions, SIZE / 2], `queries` [rows, HEADS, SIZE], `keys` and `values`
    [KEY_HEADS, slots, SIZE]. `places` and `slots` [rows] are the position of each row in its sequence and its slot.
    """
    row = tl.program_id(0)
    head = tl.program_id(1)
    half_columns = tl.arange(0, SIZE // 2)
    dtype: tl.constexpr = queries.dtype.element_ty
    columns = head * SIZE + half_columns
    offsets = row * (HEADS + 2 * KEY_HEADS) * SIZE + columns
    mask = half_columns < SIZE // 2
    low = _add_parts(parts, offsets, part_stride, PARTS, mask)
    high = _add_parts(parts, offsets + SIZE // 2, part_stride, PARTS, mask)
    if HAS_BIAS:
        low += tl.load(bias + columns).to(tl.float32)
        high += tl.load(bias + columns + SIZE // 2).to(tl.float32)
    low = low.to(dtype).to(tl.float32)
    high = high.to(dtype).to(tl.float32)
    slot = tl.load(slots + row).to(tl.int64)
    if head >= HEADS + KEY_HEADS:
        target = values + (head - HEADS - KEY_HEADS).to(tl.int64) * head_stride + slot * SIZE + half_columns
        tl.store(target, low.to(dtype))
        tl.store(target + SIZE // 2, high.to(dtype))
        return
    if HAS_NORMS:
        if head < HEADS:
            low, high = _normalise_head(low, high, query_norm, half_columns, dtype, SIZE, epsilon)
        else:
            low, high = _normalise_head(low, high, key_norm, half_columns, dtype, SIZE, epsilon)
    angle_offsets = tl.load(places + row) * (SIZE // 2) + half_columns
    cosines = tl.load(cos + angle_offsets)
    sines = tl.load(sin + angle_offsets)
    turned_low = (low * cosines - high * sines).to(dtype)
    turned_high = (high * cosines + low * sines).to(dtype)
    if head < HEADS:
        target = queries + row * HEADS * SIZE + columns
    else:
        target = keys + (head - HEADS).to(tl.int64) * head_stride + slot * SIZE + half_columns
    tl.store(target, turned_low)
    tl.store(target + SIZE // 2, turned_high)


@triton.jit
def _gate(parts, out, width, part_stride, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """Write to `out` the SiLU of the first half of a product's row, times its second half, in COLUMNS columns.

    `parts` are [PARTS, rows, 2 * width], `out` [rows, width].
    """
    row = tl.program_id(0)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = columns < width
    dtype: tl.constexpr = out.dtype.element_ty
    offsets = row * 2 * width + columns
    first_half = _add_parts(parts, offsets, part_stride, PARTS, mask).to(dtype).to(tl.float32)
    second_half = _add_parts(parts, offsets + width, part_stride, PARTS, mask).to(dtype).to(tl.float32)
    activation = (first_half / (1.0 + tl.exp(-first_half))).to(dtype).to(tl.float32)
    tl.store(out + row * width + columns, (activation * second_half).to(dtype), mask=mask)


@triton.jit
def _put_states(hidden, slots, states, width, slot_stride, WIDTH: tl.constexpr):
    """Copy one row of `hidden` [rows, width] to `states`, at the row's slot, `slot_stride` numbers from the next."""
    row = tl.program_id(0)
    columns = tl.arange(0, WIDTH)
    mask = columns < width
    slot = tl.load(slots + row).to(tl.int64)
    row_states = tl.load(hidden + row * width + columns, mask=mask)
    tl.store(states + slot * slot_stride + columns, row_states, mask=mask)


@triton.jit
def _choose(logits, favoured, caution, out, width, COLUMNS: tl.constexpr):
    """Write to `out` the token that is chosen for one row: the best by `logits`, or the favoured one of `favoured`.

    `logits` are [rows, width], of which COLUMNS are read at once; the others are [rows]. The favoured token is kept
    unless the best one's logit is higher by more than `caution`. A negative number means that no token is favoured.
    """
    row = tl.program_id(0)
    columns = tl.arange(0, COLUMNS)
    best_logit = tl.full((), float("-inf"), tl.float32)
    best_token = tl.full((), 0, tl.int32)
    for first in tl.range(0, width, COLUMNS):
        block = tl.load(logits + row * width + first + columns, mask=first + columns < width, other=float("-inf"))
        block = block.to(tl.float32)
        block_best = tl.max(block, 0)
        # of equal logits the first counts, within a block and between blocks
        place = tl.min(tl.where(block == block_best, columns, COLUMNS), 0)
        best_token = tl.where(block_best > best_logit, first + place, best_token)
        best_logit = tl.maximum(best_logit, block_best)
    favoured_token = tl.load(favoured + row)
    favoured_logit = tl.load(logits + row * width + tl.maximum(favoured_token, 0)).to(tl.float32)
    is_kept = (favoured_token >= 0) & (favoured_logit + tl.load(caution + row) >= best_logit)
    tl.store(out + row, tl.where(is_kept, favoured_token, best_token))


def normalise(
    residual: Tensor, parts: Tensor | None, weight: Tensor, epsilon: float, out: Tensor | None = None
) -> Tensor:
    """Add a product's `parts` to `residual`, in place; return the sums, normalised and scaled by `weight`."""
    rows, width = residual.shape
    out = torch.empty_like(residual) if out is None else out
    part_count = 0 if parts is None else len(parts)
    # the kernel is given a pointer even if there are no parts, and then does not read it
    parts_or_placeholder = residual if parts is None else parts
    warps = 8 if width >= 2048 else 4
    _normalise[rows,](
        residual, parts_or_placeholder, weight, out, width, rows * width, epsilon, PARTS=part_count,
        WIDTH=triton.next_power_of_2(width), num_warps=warps,
    )  # fmt: skip
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
    """Rotate queries and keys by their positions, store keys and values in the cache, and return the queries."""
    key_heads, _, size = keys.shape
    part_count, rows, width = parts.shape
    heads = width // size - 2 * key_heads
    queries = torch.empty((rows, heads, size), dtype=dtype, device=parts.device)
    cosines, sines = turns
    # a kernel without bias or norms is given `parts` as a placeholder, which it does not read in their place
    bias_or_placeholder = parts if bias is None else bias
    query_norm, key_norm, epsilon = norms or (parts, parts, 0.0)
    _rotate_and_put[rows, heads + 2 * key_heads](
        parts, bias_or_placeholder, query_norm, key_norm, cosines, sines, step.places, step.slots, queries, keys,
        values, rows * width, keys.stride(0), epsilon, HEADS=heads, KEY_HEADS=key_heads, SIZE=size, PARTS=part_count,
        HAS_BIAS=bias is not None, HAS_NORMS=norms is not None, num_warps=1,
    )  # fmt: skip
    return queries


def gate(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """Return SiLU of a product's first half, times its second half, in `dtype`."""
    part_count, rows, width = parts.shape
    out_width = width // 2
    out = torch.empty((rows, out_width), dtype=dtype, device=parts.device)
    columns = 512
    grid = (rows, triton.cdiv(out_width, columns))
    _gate[grid](parts, out, out_width, rows * width, PARTS=part_count, COLUMNS=columns, num_warps=4)
    return out


def put_states(states: Tensor, index: int, step: StepView, hidden: Tensor) -> None:
    """Copy the hidden states [rows, width] of a layer to `states` at [slot, index]."""
    rows, width = hidden.shape
    layer_states = states[:, index]
    _put_states[rows,](
        hidden, step.slots, layer_states, width, states.stride(0), WIDTH=triton.next_power_of_2(width), num_warps=4
    )


def choose(logits: Tensor, choice: ChoiceInput) -> Tensor:
    """Return the token chosen for each row of `logits`: the best, or the favoured one."""
    rows, width = logits.shape
    tokens = torch.empty(rows, dtype=torch.int32, device=logits.device)
    _choose[rows,](logits, choice.favoured, choice.caution, tokens, width, COLUMNS=_LOGITS_AT_ONCE, num_warps=8)
    return tokens
