"""Attention in Triton: `Kernels.attend`, with the softmax computed block by block of keys.

A program computes one query block of one key head: QUERIES rows (tokens) of one sequence, each with the GROUP query
heads that read the same keys. Together they are the ROWS rows of a tile, of which the last may be unused. With 5 rows
and GROUP 3 a tile of 16 has

    lane    0  1  2   3  4  5   ...  12 13 14   15
    row     0  0  0   1  1  1         4  4  4   unused
    head    0  1  2   0  1  2         0  1  2

The program goes over the sequence's keys, KEYS at a time, and finds each in the block of the KV cache that holds it. If
there are too few tiles to keep a GPU busy, SPLITS programs share the context of each tile; the last of them to finish
adds up what all have written.

Arguments of `_attend`: `queries` and `out` [rows, HEADS, SIZE]; `keys` and `values` [key heads, slots, SIZE]. Of the
step's input (step.py): `query_blocks` [blocks, 2] as (sequence, first row), `starts`, `lengths`, and `table`
[sequences, blocks of a sequence], whose rows are `table_stride` numbers apart. `parts` and `weights` are described in
`_add_splits`. `arrivals` [blocks, key heads] count the programs that are done with a tile.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from aligner_proxy.engine.gpu.step import NO_SEQUENCE, StepView
from aligner_proxy.engine.gpu.triton_interpreter import is_interpreted
from aligner_proxy.engine.scheduling.blocks import BLOCK

_KEYS = 64
"""Keys that attention reads at once."""
_KEYS_IN_FP32 = 32
"""The same where products are computed in fp32, whose numbers take twice the room."""
_EMPTY: tl.constexpr = tl.constexpr(NO_SEQUENCE)


@triton.jit
def _multiply_tiles(first, second, EXACT: tl.constexpr):
    """The product of two tiles, in fp32; with EXACT, its inputs are not rounded either."""
    if EXACT:
        return tl.dot(first.to(tl.float32), second.to(tl.float32), input_precision="ieee")
    return tl.dot(first, second)


@triton.jit
def _weigh(scores, best, total):
    """One step of a softmax over blocks of keys, for each row of a tile.

    `scores` [ROWS, KEYS] are those of this block. `best` and `total` [ROWS] are the highest score so far, and the sum
    of exp(score - best) so far. Returns the weights of this block's keys, the factor that moves earlier sums to the new
    highest score, the new highest score, and the new sum.
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
    """Attention [ROWS, SIZE] of a tile, added up from what the SPLITS programs have written.

    `parts` [rows, heads, SPLITS, SIZE] are sums of weighted values, `weights` [rows, heads, SPLITS, 2] the highest
    score and the sum of weights of each. `place_of_head` [ROWS] says which row and head a lane of the tile is, `inside`
    if it is used, `number` are the numbers 0 to SIZE - 1 of a head.
    """
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
    """One tile over one of SPLITS parts of its context: a query block, with the GROUP heads of one key head."""
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
    # the keys that the queries of this block see: none after its last row
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


def attend(queries: Tensor, keys: Tensor, values: Tensor, step: StepView, scale: float) -> Tensor:
    """See `Kernels.attend`; padding rows hold anything."""
    rows, heads, size = queries.shape
    tiling = step.tiling
    splits = tiling.splits
    out = torch.empty((rows, heads * size), dtype=queries.dtype, device=queries.device)
    # without splits the kernel does not touch these, so any tensor will do
    parts = weights = arrivals = out
    if splits > 1:
        parts = torch.empty((rows, heads, splits, size), dtype=torch.float32, device=queries.device)
        weights = torch.empty((rows, heads, splits, 2), dtype=torch.float32, device=queries.device)
        arrivals = _make_counters(tiling.blocks * len(keys), queries.device)
    exact = queries.dtype == torch.float32 or is_interpreted()
    _attend[tiling.blocks, len(keys), splits](
        queries, keys, values, step.query_blocks, step.starts, step.lengths, step.table, out, parts, weights, arrivals,
        scale, step.table.stride(0), keys.stride(0), heads // len(keys), size, tiling.queries, tiling.tile,
        _KEYS_IN_FP32 if exact else _KEYS, splits, heads, BLOCK, exact, num_warps=4,
    )  # fmt: skip
    return out


@cache
def _make_counters(count: int, device: torch.device) -> Tensor:
    """Counters that are 0 between launches. They are made in the run that precedes a recording, never during it."""
    return torch.zeros(count, dtype=torch.int32, device=device)
