"""The kernels of a forward pass in Triton; `plain_kernels.py` says what each one computes.

Every kernel rounds where the library's modules round. Sums are added in a fixed order, so the same input always gives
the same bits. `exact` computes products in fp32 instead of on the tensor cores' 16-bit inputs;
Triton's interpreter needs it for bf16, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aligner_proxy.engine.gpu.nf4 import TILE, PackedWeights
from aligner_proxy.engine.gpu.step import NO_SEQUENCE, ChoiceInput, StepView
from aligner_proxy.engine.scheduling.blocks import BLOCK

_KEYS = 64
"""Keys that attention reads at once."""
_CHOICE_BLOCK = 4096
"""Logits that `choose` reads at once."""


@dataclass(frozen=True, slots=True)
class ProductDivision:
    """How a product is divided for a tile of some rows, as timed on an H100 (docs/lab/2026-11-26-gpu-engine.md).

    `warps` compute a tile: few need fewer instructions for a weight, but more registers. The inputs are divided into at
    most `parts`, so that there are up to `programs`. Sums of many parts keep the next kernel busy.
    """

    warps: int
    parts: int
    programs: int


DIVISIONS = {
    8: ProductDivision(2, 8, 1408),
    16: ProductDivision(2, 8, 1408),
    32: ProductDivision(4, 8, 1024),
    64: ProductDivision(4, 8, 1024),
    128: ProductDivision(4, 4, 1024),
}
"""By the rows of a tile."""
_STAGES = 3
"""Blocks of inputs that are on their way while one is multiplied."""
_EMPTY: tl.constexpr = tl.constexpr(NO_SEQUENCE)


def is_interpreted() -> bool:
    """Whether Triton interprets the kernels on the CPU, as in tests."""
    return bool(triton.knobs.runtime.interpret)


@triton.jit
def _add_parts(parts, at, stride, PARTS: tl.constexpr, mask):
    """The sum in fp32 of the parts at offset `at`; each part begins `stride` numbers after the one before it."""
    total = tl.load(parts + at, mask=mask, other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        total += tl.load(parts + part * stride + at, mask=mask, other=0.0).to(tl.float32)
    return total


@triton.jit
def _normalise(
    residual, parts, weight, out, width, part_stride, epsilon, PARTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One row of `plain_kernels.normalise`."""
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
    """Both halves of a head, divided by their root mean square and scaled."""
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
    """One head of one row of `plain_kernels.rotate_and_put`; heads of queries come first, then of keys and values."""
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
def _multiply_tiles(first, second, EXACT: tl.constexpr):
    """The product of two tiles, in fp32."""
    if EXACT:
        return tl.dot(first.to(tl.float32), second.to(tl.float32), input_precision="ieee")
    return tl.dot(first, second)


@triton.jit
def _weigh(scores, best, total):
    """One step of a softmax over blocks of keys, given the highest score and the sum of weights before this block.

    Returns the weights of this block's keys, the factor for earlier sums, the new highest score, and the new sum.
    """
    top = tl.maximum(best, tl.max(scores, 1))
    # a row that sees none of the keys so far has no maximum yet
    level = tl.where(top == float("-inf"), 0.0, top)
    share = tl.exp(scores - level[:, None])
    shrink = tl.exp(best - level)
    return share, shrink, top, total * shrink + tl.sum(share, 1)


@triton.jit
def _count_arrival(arrival):
    """Count that this program has written its part; return how many had before."""
    # all of it must be written before it is counted
    tl.debug_barrier()
    return tl.atomic_add(arrival, 1)


@triton.jit
def _add_splits(
    parts, weights, place_of_head, inside, number, SIZE: tl.constexpr, ROWS: tl.constexpr, SPLITS: tl.constexpr
):
    """Attention [rows, size] from its parts, each with its highest score and the sum of its weights."""
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, SIZE), tl.float32)
    for split in tl.range(SPLITS):
        place_of_part = place_of_head * SPLITS + split
        # from the cache that all processors share, where the others have written them
        part_best = tl.load(weights + 2 * place_of_part, mask=inside, other=0.0, cache_modifier=".cg")
        part_total = tl.load(weights + 2 * place_of_part + 1, mask=inside, other=0.0, cache_modifier=".cg")
        spot = parts + place_of_part[:, None] * SIZE + number[None, :]
        part_sums = tl.load(spot, mask=inside[:, None], other=0.0, cache_modifier=".cg")
        top = tl.maximum(best, part_best)
        level = tl.where(top == float("-inf"), 0.0, top)
        shrink = tl.exp(best - level)
        part_shrink = tl.exp(part_best - level)
        total = total * shrink + part_total * part_shrink
        sums = sums * shrink[:, None] + part_sums * part_shrink[:, None]
        best = top
    return sums / tl.where(inside, total, 1.0)[:, None]


@triton.jit
def _attend(
    queries, keys, values, query_blocks, starts, lengths, table, out, parts, weights, arrivals, scale, table_stride,
    head_stride,
    GROUP: tl.constexpr, SIZE: tl.constexpr, QUERIES: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    SPLITS: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """One query block and key head: QUERIES rows with the GROUP heads that share the keys, over one of SPLITS parts."""
    block = tl.program_id(0)
    key_head = tl.program_id(1)
    split = tl.program_id(2)
    sequence = tl.load(query_blocks + 2 * block)
    if sequence == _EMPTY:
        return
    first = tl.load(query_blocks + 2 * block + 1)
    end = tl.load(starts + sequence + 1)
    length = tl.load(lengths + sequence)
    lane = tl.arange(0, ROWS)
    row = first + lane // GROUP
    head = key_head * GROUP + lane % GROUP
    # the last rows of a sequence are its newest tokens
    place = length - end + row
    inside = (row < end) & (lane < QUERIES * GROUP)
    number = tl.arange(0, SIZE)
    query = tl.load(queries + (row * HEADS + head)[:, None] * SIZE + number[None, :], mask=inside[:, None], other=0.0)
    # no query of this block sees a key after its last row
    reach = length - end + tl.minimum(first + QUERIES, end)
    share_of_keys = tl.cdiv(tl.cdiv(reach, SPLITS), KEYS) * KEYS
    low = split * share_of_keys
    high = tl.minimum(reach, low + share_of_keys)
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, SIZE), tl.float32)
    base = key_head.to(tl.int64) * head_stride
    for at in tl.range(low, high, KEYS):
        position = at + tl.arange(0, KEYS)
        exists = position < high
        slot = tl.load(table + sequence * table_stride + position // BLOCK, mask=exists, other=0) * BLOCK
        offset = base + (slot + position % BLOCK).to(tl.int64) * SIZE
        key = tl.load(keys + offset[None, :] + number[:, None], mask=exists[None, :], other=0.0)
        value = tl.load(values + offset[:, None] + number[None, :], mask=exists[:, None], other=0.0)
        visible = exists[None, :] & (position[None, :] <= place[:, None])
        scores = tl.where(visible, _multiply_tiles(query, key, EXACT) * scale, float("-inf"))
        share, shrink, best, total = _weigh(scores, best, total)
        sums = sums * shrink[:, None] + _multiply_tiles(share.to(value.dtype), value, EXACT)
    place_of_head = row * HEADS + head
    to = out + place_of_head[:, None] * SIZE + number[None, :]
    if SPLITS == 1:
        tl.store(to, (sums / tl.where(inside, total, 1.0)[:, None]).to(out.dtype.element_ty), mask=inside[:, None])
        return
    place_of_part = place_of_head * SPLITS + split
    tl.store(parts + place_of_part[:, None] * SIZE + number[None, :], sums, mask=inside[:, None])
    tl.store(weights + 2 * place_of_part, best, mask=inside)
    tl.store(weights + 2 * place_of_part + 1, total, mask=inside)
    # the last to arrive adds all parts, in their order whoever is last
    arrival = arrivals + block * tl.num_programs(1) + key_head
    if _count_arrival(arrival) == SPLITS - 1:
        attended = _add_splits(parts, weights, place_of_head, inside, number, SIZE, ROWS, SPLITS)
        tl.store(to, attended.to(out.dtype.element_ty), mask=inside[:, None])
        # for the next launch
        tl.store(arrival, 0)


@triton.jit
def _gate(parts, out, width, part_stride, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """Some columns of one row of `plain_kernels.gate`."""
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
def _decode(words, book):
    """The weights of words [outputs, 8] as four operands [outputs, 16], in bf16."""
    outputs: tl.constexpr = words.shape[0]
    pairs: tl.constexpr = 2 * words.shape[1]
    first = tl.join(tl.load(book + (words & 15)), tl.load(book + ((words >> 4) & 15)))
    second = tl.join(tl.load(book + ((words >> 8) & 15)), tl.load(book + ((words >> 12) & 15)))
    third = tl.join(tl.load(book + ((words >> 16) & 15)), tl.load(book + ((words >> 20) & 15)))
    fourth = tl.join(tl.load(book + ((words >> 24) & 15)), tl.load(book + ((words >> 28) & 15)))
    return (
        first.reshape(outputs, pairs),
        second.reshape(outputs, pairs),
        third.reshape(outputs, pairs),
        fourth.reshape(outputs, pairs),
    )


def _write_permutations() -> str:
    """Assembly that decodes a word ($8) to eight bf16 values by byte permutations, from tables in $9 to $16.

    `prmt` picks four bytes of eight by the low three bits of each 4-bit selector, so the low and the high half of the
    book are looked up, and the selectors' fourth bits choose between both. Low and high bytes are separate tables.
    """
    lines = [
        ".reg .b32 pick, half, low, high, one, other;",
        "and.b32 pick, $8, 0x77777777;",
        "and.b32 half, $8, 0x88888888;",
        "shr.b32 half, half, 1;",
        "or.b32 half, half, 0x32103210;",
    ]
    for group in (0, 4):
        for name, first in (("low", 9), ("high", 13)):
            lines += [
                f"prmt.b32 one, ${first}, ${first + 1}, pick;",
                f"prmt.b32 other, ${first + 2}, ${first + 3}, pick;",
                f"prmt.b32 {name}, one, other, half;",
            ]
        lines += [
            "prmt.b32 one, low, high, 0x5140;",
            f"mov.b32 {{${group}, ${group + 1}}}, one;",
            "prmt.b32 one, low, high, 0x7362;",
            f"mov.b32 {{${group + 2}, ${group + 3}}}, one;",
        ]
        lines += ["shr.b32 pick, pick, 16;", "shr.b32 half, half, 16;"] if group == 0 else []
    return "{ " + " ".join(lines) + " }"


PERMUTATIONS: tl.constexpr = tl.constexpr(_write_permutations())
_CONSTRAINTS: tl.constexpr = tl.constexpr(",".join(["=h"] * 8 + ["r"] * 9))


@triton.jit
def _decode_quickly(words, t0, t1, t2, t3, t4, t5, t6, t7):
    """`_decode` by byte permutations, with the tables of `PackedWeights.byte_tables` in registers."""
    outputs: tl.constexpr = words.shape[0]
    pairs: tl.constexpr = 2 * words.shape[1]
    a, b, c, d, e, f, g, h = tl.inline_asm_elementwise(
        PERMUTATIONS, _CONSTRAINTS, [words, t0, t1, t2, t3, t4, t5, t6, t7],
        dtype=(tl.bfloat16,) * 8, is_pure=True, pack=1,
    )  # fmt: skip
    return (
        tl.join(a, b).reshape(outputs, pairs),
        tl.join(c, d).reshape(outputs, pairs),
        tl.join(e, f).reshape(outputs, pairs),
        tl.join(g, h).reshape(outputs, pairs),
    )


@triton.jit
def _multiply(
    inputs, words, scales, book, tables, out, rows, outputs, width, blocks_of_part,
    ROWS: tl.constexpr, TILE: tl.constexpr, STAGES: tl.constexpr, QUICK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """One tile of 64 outputs for ROWS rows, over one part of the inputs."""
    tile = tl.program_id(0)
    part = tl.program_id(2)
    blocks = width // TILE
    first = part * blocks_of_part
    last = tl.minimum(blocks, first + blocks_of_part)
    output = tl.arange(0, TILE)
    word = tl.arange(0, TILE // 8)
    number = tl.arange(0, 16)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    inside = row[None, :] < rows
    sums = tl.zeros((TILE, ROWS), tl.float32)
    base = tile.to(tl.int64) * blocks * TILE
    # Loaded by each thread from a place of its own: the compiler then keeps them in registers of that thread. What it
    # knows to be the same for all it keeps elsewhere, and moves it each time.
    t0 = tl.load(tables + 0 + word)[None, :]
    t1 = tl.load(tables + 8 + word)[None, :]
    t2 = tl.load(tables + 16 + word)[None, :]
    t3 = tl.load(tables + 24 + word)[None, :]
    t4 = tl.load(tables + 32 + word)[None, :]
    t5 = tl.load(tables + 40 + word)[None, :]
    t6 = tl.load(tables + 48 + word)[None, :]
    t7 = tl.load(tables + 56 + word)[None, :]
    for block in tl.range(first, last, num_stages=STAGES):
        at = base + block * TILE + output
        packed = tl.load(words + at[:, None] * (TILE // 8) + word[None, :])
        scale = tl.load(scales + at)
        if QUICK:
            w0, w1, w2, w3 = _decode_quickly(packed, t0, t1, t2, t3, t4, t5, t6, t7)
        else:
            w0, w1, w2, w3 = _decode(packed, book)
        at = inputs + row[None, :] * width + block * TILE + number[:, None]
        x0 = tl.load(at, mask=inside, other=0.0)
        x1 = tl.load(at + 16, mask=inside, other=0.0)
        x2 = tl.load(at + 32, mask=inside, other=0.0)
        x3 = tl.load(at + 48, mask=inside, other=0.0)
        if EXACT:
            product = tl.dot(w0.to(tl.float32), x0.to(tl.float32), input_precision="ieee")
            product = tl.dot(w1.to(tl.float32), x1.to(tl.float32), product, input_precision="ieee")
            product = tl.dot(w2.to(tl.float32), x2.to(tl.float32), product, input_precision="ieee")
            product = tl.dot(w3.to(tl.float32), x3.to(tl.float32), product, input_precision="ieee")
        else:
            product = tl.dot(w0, x0)
            product = tl.dot(w1, x1, product)
            product = tl.dot(w2, x2, product)
            product = tl.dot(w3, x3, product)
        sums += product * scale[:, None]
    to = out + (part * rows + row[None, :]) * outputs + (tile * TILE + output)[:, None]
    tl.store(to, sums, mask=inside)


@triton.jit
def _unpack(words, scales, book, out, width, TILE: tl.constexpr):
    """One tile of `nf4.unpack`, as bf16 in the order of the matrix."""
    tile = tl.program_id(0)
    block = tl.program_id(1)
    output = tl.arange(0, TILE)
    column = tl.arange(0, TILE)
    base = (tile.to(tl.int64) * (width // TILE) + block) * TILE
    # number 2 j + s of word i is input 16 j + 2 i + s
    word = (column % 16) // 2
    shift = ((column // 16) * 2 + column % 2) * 4
    packed = tl.load(words + (base + output)[:, None] * (TILE // 8) + word[None, :])
    value = tl.load(book + ((packed >> shift[None, :]) & 15)).to(tl.float32)
    scale = tl.load(scales + base + output)
    to = out + (tile * TILE + output).to(tl.int64)[:, None] * width + block * TILE + column[None, :]
    tl.store(to, (value * scale[:, None]).to(tl.bfloat16))


@triton.jit
def _put_states(hidden, slots, states, width, slot_stride, WIDTH: tl.constexpr):
    """One row of `plain_kernels.put_states`."""
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    slot = tl.load(slots + row).to(tl.int64)
    tl.store(states + slot * slot_stride + column, tl.load(hidden + row * width + column, mask=inside), mask=inside)


@triton.jit
def _choose(logits, favoured, caution, out, width, COLUMNS: tl.constexpr):
    """One row of `plain_kernels.choose`."""
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
    """See `plain_kernels.normalise`."""
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
    """See `plain_kernels.rotate_and_put`."""
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


def attend(queries: Tensor, keys: Tensor, values: Tensor, step: StepView, scale: float) -> Tensor:
    """See `plain_kernels.attend`; padding rows hold anything."""
    rows, heads, size = queries.shape
    tiling = step.tiling
    splits = tiling.splits
    out = torch.empty((rows, heads * size), dtype=queries.dtype, device=queries.device)
    parts = weights = arrivals = out
    if splits > 1:
        parts = torch.empty((rows, heads, splits, size), dtype=torch.float32, device=queries.device)
        weights = torch.empty((rows, heads, splits, 2), dtype=torch.float32, device=queries.device)
        arrivals = _make_counters(tiling.blocks * len(keys), queries.device)
    exact = queries.dtype == torch.float32 or is_interpreted()
    _attend[tiling.blocks, len(keys), splits](
        queries, keys, values, step.query_blocks, step.starts, step.lengths, step.table, out, parts, weights, arrivals,
        scale, step.table.stride(0), keys.stride(0), heads // len(keys), size, tiling.queries, tiling.tile,
        32 if exact else _KEYS, splits, heads, BLOCK, exact, num_warps=4,
    )  # fmt: skip
    return out


@cache
def _make_counters(count: int, device: torch.device) -> Tensor:
    """Counters that are 0 between launches. They are made in the run that precedes a recording, never during it."""
    return torch.zeros(count, dtype=torch.int32, device=device)


def gate(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """See `plain_kernels.gate`."""
    count, rows, width = parts.shape
    out = torch.empty((rows, width // 2), dtype=dtype, device=parts.device)
    columns = 512
    grid = (rows, triton.cdiv(width // 2, columns))
    _gate[grid](parts, out, width // 2, rows * width, count, columns, num_warps=4)
    return out


def _find_tile(rows: int) -> int:
    """The number of rows of a product's tile: a power of two, for which there is a division."""
    return min(max(DIVISIONS), max(min(DIVISIONS), _next_power(rows)))


def count_parts(packed: PackedWeights, rows: int) -> int:
    """The number of parts of a product, so that there are enough programs to keep a GPU busy."""
    tile_rows = _find_tile(rows)
    division = DIVISIONS[tile_rows]
    tiles = len(packed.words) * triton.cdiv(rows, tile_rows)
    blocks = packed.words.shape[1]
    most = max(1, min(division.parts, division.programs // tiles, blocks // 2))
    # parts of equal length, so that none is empty
    return int(triton.cdiv(blocks, triton.cdiv(blocks, most)))


def multiply(rows: Tensor, packed: PackedWeights) -> Tensor:
    """See `plain_kernels.multiply`; in several parts where a product has few tiles."""
    count, width = rows.shape
    parts = count_parts(packed, count)
    tile_rows = _find_tile(count)
    out = torch.empty((parts, count, packed.outputs), dtype=torch.float32, device=rows.device)
    grid = (len(packed.words), triton.cdiv(count, tile_rows), parts)
    exact = is_interpreted()
    _multiply[grid](
        rows, packed.words, packed.scales, packed.coarse_book, packed.byte_tables, out, count, packed.outputs, width,
        triton.cdiv(packed.words.shape[1], parts), tile_rows, TILE, _STAGES, not exact, exact,
        num_warps=DIVISIONS[tile_rows].warps,
    )  # fmt: skip
    return out


def unpack(packed: PackedWeights) -> Tensor:
    """See `nf4.unpack`."""
    out = torch.empty((packed.outputs, packed.inputs), dtype=torch.bfloat16, device=packed.words.device)
    _unpack[packed.words.shape[:2]](packed.words, packed.scales, packed.book, out, packed.inputs, TILE, num_warps=4)
    return out


def put_states(states: Tensor, index: int, step: StepView, hidden: Tensor) -> None:
    """See `plain_kernels.put_states`."""
    rows, width = hidden.shape
    _put_states[rows,](hidden, step.slots, states[:, index], width, states.stride(0), _next_power(width), num_warps=4)


def choose(logits: Tensor, choice: ChoiceInput) -> Tensor:
    """See `plain_kernels.choose`."""
    rows, width = logits.shape
    out = torch.empty(rows, dtype=torch.int32, device=logits.device)
    _choose[rows,](logits, choice.favoured, choice.caution, out, width, _CHOICE_BLOCK, num_warps=8)
    return out


KERNELS: dict[str, Any] = {
    name: kernel
    for name, kernel in list(globals().items())
    if isinstance(kernel, triton.runtime.jit.KernelInterface)
    and not name.startswith(("_add", "_count", "_multiply_tiles", "_weigh", "_normalise_head", "_decode"))
}
"""All kernels by name, for tests that compile them without a GPU."""
