"""Attention in Triton, with the softmax computed block by block of keys. A program computes a tile: QUERIES rows
(tokens) of one sequence, each with the GROUP query heads that read the same key head. These are the ROWS lanes of the
tile, of which the last may be unused. A head has SIZE numbers.

With 5 rows and GROUP 3 a tile of 16 has

    lane    0  1  2   3  4  5   ...  12 13 14   15
    row     0  0  0   1  1  1         4  4  4   unused
    head    0  1  2   0  1  2         0  1  2

The program goes over the sequence's keys, KEYS at a time, and finds each key in the block of the KV cache that holds
it. If there are too few tiles to keep a GPU busy, SPLITS programs share the context of each tile; the last of them to
finish adds up what all have written.

Arguments of `_attend`: `queries` and `out` [rows, HEADS, SIZE]; `keys` and `values` [key heads, slots, SIZE]. Of the
step's input (step.py): `query_blocks` [blocks, 2] as (sequence, first row), `starts`, `lengths`, and `table`
[sequences, blocks of a sequence], whose rows are `table_stride` numbers apart. `split_sums` and `split_weights` are
described in `_add_splits`. `arrivals` [blocks, key heads] count the programs that are done with a tile.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from aligner_proxy.engine.gpu.step import NO_SEQUENCE, StepView
from aligner_proxy.engine.scheduling.blocks import BLOCK

_KEYS = 64
"""Keys that attention reads at once."""
_KEYS_IN_FP32 = 32
"""Keys that it reads at once where products are computed in fp32, whose numbers take twice the room."""
_NO_SEQUENCE: tl.constexpr = tl.constexpr(NO_SEQUENCE)


@triton.jit
def _multiply_tiles(first, second, EXACT: tl.constexpr):
    """Return the matrix product of two tiles in fp32; EXACT says whether its inputs are multiplied in fp32, too."""
    if EXACT:
        return tl.dot(first.to(tl.float32), second.to(tl.float32), input_precision="ieee")
    return tl.dot(first, second)


@triton.jit
def _weigh_keys(scores, best, total):
    """Compute one step of a softmax over blocks of keys, for each lane of a tile.

    `scores` [ROWS, KEYS] are those of this block. `best` and `total` [ROWS] are the highest score of the blocks before,
    and their sum of exp(score - best). Returns the weights of this block's keys, the factor by which earlier sums are
    rescaled to the new highest score, the new highest score, and the new sum.
    """
    new_best = tl.maximum(best, tl.max(scores, 1))
    # a lane that sees none of the keys so far has no highest score yet
    finite_best = tl.where(new_best == float("-inf"), 0.0, new_best)
    key_weights = tl.exp(scores - finite_best[:, None])
    rescaling = tl.exp(best - finite_best)
    return key_weights, rescaling, new_best, total * rescaling + tl.sum(key_weights, 1)


@triton.jit
def _count_arrival(arrival):
    """Count in `arrival` that this program has written its split; return how many programs were counted before."""
    # all threads must have written before the program is counted
    tl.debug_barrier()
    return tl.atomic_add(arrival, 1)


@triton.jit
def _add_splits(
    split_sums, split_weights, head_places, mask, columns,
    SIZE: tl.constexpr, ROWS: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Return the attention [ROWS, SIZE] of a tile, added up from what the SPLITS programs have written.

    `split_sums` [rows, heads, SPLITS, SIZE] are sums of weighted values, `split_weights` [rows, heads, SPLITS, 2] the
    highest score and the sum of weights of each. `head_places` [ROWS] are the index, among all rows and heads, of each
    lane's head, and `mask` says which lanes are used. `columns` are the numbers 0 to SIZE - 1.
    """
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, SIZE), tl.float32)
    for split in tl.range(SPLITS):
        places = head_places * SPLITS + split
        # ".cg" reads from the cache that all processors share, because other processors may have written the splits
        next_best = tl.load(split_weights + 2 * places, mask=mask, other=0.0, cache_modifier=".cg")
        next_total = tl.load(split_weights + 2 * places + 1, mask=mask, other=0.0, cache_modifier=".cg")
        sum_pointers = split_sums + places[:, None] * SIZE + columns[None, :]
        next_sums = tl.load(sum_pointers, mask=mask[:, None], other=0.0, cache_modifier=".cg")
        new_best = tl.maximum(best, next_best)
        finite_best = tl.where(new_best == float("-inf"), 0.0, new_best)
        # both sums are rescaled to the new highest score
        rescaling = tl.exp(best - finite_best)
        next_rescaling = tl.exp(next_best - finite_best)
        total = total * rescaling + next_total * next_rescaling
        sums = sums * rescaling[:, None] + next_sums * next_rescaling[:, None]
        best = new_best
    return sums / tl.where(mask, total, 1.0)[:, None]


@triton.jit
def _attend(
    queries, keys, values, query_blocks, starts, lengths, table, out, split_sums, split_weights, arrivals, scale,
    table_stride, head_stride,
    GROUP: tl.constexpr, SIZE: tl.constexpr, QUERIES: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    SPLITS: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Compute one tile of `out` over one of SPLITS parts of its context. The module describes the arguments."""
    block = tl.program_id(0)
    key_head = tl.program_id(1)
    split = tl.program_id(2)
    sequence = tl.load(query_blocks + 2 * block)
    if sequence == _NO_SEQUENCE:
        return
    first_row = tl.load(query_blocks + 2 * block + 1)
    stop_row = tl.load(starts + sequence + 1)
    length = tl.load(lengths + sequence)
    lane = tl.arange(0, ROWS)
    row = first_row + lane // GROUP
    head = key_head * GROUP + lane % GROUP
    # the last rows of a sequence are its newest tokens
    row_position = length - stop_row + row
    mask = (row < stop_row) & (lane < QUERIES * GROUP)
    columns = tl.arange(0, SIZE)
    query = tl.load(queries + (row * HEADS + head)[:, None] * SIZE + columns[None, :], mask=mask[:, None], other=0.0)
    # the queries of this tile see no key after its last row
    visible_stop = length - stop_row + tl.minimum(first_row + QUERIES, stop_row)
    keys_per_split = tl.cdiv(tl.cdiv(visible_stop, SPLITS), KEYS) * KEYS
    first_key = split * keys_per_split
    stop_key = tl.minimum(visible_stop, first_key + keys_per_split)
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, SIZE), tl.float32)
    head_offset = key_head.to(tl.int64) * head_stride
    for block_start in tl.range(first_key, stop_key, KEYS):
        positions = block_start + tl.arange(0, KEYS)
        exists = positions < stop_key
        first_slots = tl.load(table + sequence * table_stride + positions // BLOCK, mask=exists, other=0) * BLOCK
        offsets = head_offset + (first_slots + positions % BLOCK).to(tl.int64) * SIZE
        key = tl.load(keys + offsets[None, :] + columns[:, None], mask=exists[None, :], other=0.0)
        value = tl.load(values + offsets[:, None] + columns[None, :], mask=exists[:, None], other=0.0)
        visible = exists[None, :] & (positions[None, :] <= row_position[:, None])
        scores = tl.where(visible, _multiply_tiles(query, key, EXACT) * scale, float("-inf"))
        key_weights, rescaling, best, total = _weigh_keys(scores, best, total)
        sums = sums * rescaling[:, None] + _multiply_tiles(key_weights.to(value.dtype), value, EXACT)
    head_places = row * HEADS + head
    target = out + head_places[:, None] * SIZE + columns[None, :]
    if SPLITS == 1:
        tl.store(target, (sums / tl.where(mask, total, 1.0)[:, None]).to(out.dtype.element_ty), mask=mask[:, None])
        return
    places = head_places * SPLITS + split
    tl.store(split_sums + places[:, None] * SIZE + columns[None, :], sums, mask=mask[:, None])
    tl.store(split_weights + 2 * places, best, mask=mask)
    tl.store(split_weights + 2 * places + 1, total, mask=mask)
    # the program that arrives last adds all splits, always in the same order
    arrival = arrivals + block * tl.num_programs(1) + key_head
    if _count_arrival(arrival) == SPLITS - 1:
        attended = _add_splits(split_sums, split_weights, head_places, mask, columns, SIZE, ROWS, SPLITS)
        tl.store(target, attended.to(out.dtype.element_ty), mask=mask[:, None])
        tl.store(arrival, 0)  # for the next launch


def attend(queries: Tensor, keys: Tensor, values: Tensor, step: StepView, scale: float) -> Tensor:
    """Return the attention of `queries` as `Kernels.attend` describes it; padding rows hold anything."""
    rows, heads, size = queries.shape
    key_heads = len(keys)
    tiling = step.tiling
    splits = tiling.splits
    out = torch.empty((rows, heads * size), dtype=queries.dtype, device=queries.device)
    # without splits the kernel does not touch these, so `out` is a placeholder
    split_sums = split_weights = arrivals = out
    if splits > 1:
        split_sums = torch.empty((rows, heads, splits, size), dtype=torch.float32, device=queries.device)
        split_weights = torch.empty((rows, heads, splits, 2), dtype=torch.float32, device=queries.device)
        arrivals = _make_counters(tiling.blocks * key_heads, queries.device)
    exact = queries.dtype == torch.float32 or triton.knobs.runtime.interpret
    _attend[tiling.blocks, key_heads, splits](
        queries, keys, values, step.query_blocks, step.starts, step.lengths, step.table, out, split_sums,
        split_weights, arrivals, scale, step.table.stride(0), keys.stride(0), GROUP=heads // key_heads, SIZE=size,
        QUERIES=tiling.queries, ROWS=tiling.tile, KEYS=_KEYS_IN_FP32 if exact else _KEYS, SPLITS=splits, HEADS=heads,
        BLOCK=BLOCK, EXACT=exact, num_warps=4,
    )  # fmt: skip
    return out


@cache
def _make_counters(count: int, device: torch.device) -> Tensor:
    """Return counters that are 0 between launches. They are made in the run before a recording, never during it."""
    return torch.zeros(count, dtype=torch.int32, device=device)
