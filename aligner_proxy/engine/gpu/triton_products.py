"""Products with 4-bit weights in Triton: `Kernels.multiply` and `Kernels.unpack`.

A program computes a tile of the product, 64 outputs for ROWS rows of the input, over one part of the inputs. It goes
over the inputs 64 at a time, which is one tile of weights (nf4.py) with one scale for each output:

    words [64 outputs, 8]  -> four operands [64 outputs, 16 inputs] in bf16, decoded in registers
    x [16 inputs, ROWS]       four times, for inputs 0 to 15, 16 to 31, 32 to 47 and 48 to 63
    sums [64 outputs, ROWS]   += (product of all four) * scale [64 outputs]

The parts of the inputs are computed beside each other; the next kernel adds up their sums, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from aligner_proxy.engine.gpu.nf4 import TILE, PackedWeights
from aligner_proxy.engine.gpu.triton_interpreter import is_interpreted


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


@triton.jit
def _decode(words, book):
    """The weights of words [outputs, 8] as four operands [outputs, 16], in bf16.

    A word holds eight 4-bit numbers, 2 for each operand; `book` [16] has the value of each number.
    """
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
    """What `_decode` returns, by byte permutations; `t0` to `t7` are the rows of `PackedWeights.byte_tables`.

    Each word of `words` holds eight weights of 4 bits, which are returned in four tensors, two neighbours in each.
    """
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
    """One tile of the product: TILE (64) outputs for ROWS rows, over one part of the inputs.

    `inputs` [rows, width], `words`, `scales`, `book` and `tables` as in `PackedWeights`, `out` [parts, rows, outputs].
    A part has `blocks_of_part` blocks of TILE inputs; the last part may have fewer.
    """
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
    """One tile of `Kernels.unpack`: TILE outputs by TILE inputs, as bf16 to `out` [outputs, width]."""
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


def _find_tile(rows: int) -> int:
    """The number of rows of a product's tile, one of `DIVISIONS`: 5 rows -> 8, 40 -> 64, 500 -> 128."""
    return min(max(DIVISIONS), max(min(DIVISIONS), int(triton.next_power_of_2(rows))))


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
    """See `Kernels.multiply`; in several parts where a product has few tiles."""
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
    """See `Kernels.unpack`."""
    out = torch.empty((packed.outputs, packed.inputs), dtype=torch.bfloat16, device=packed.words.device)
    _unpack[packed.words.shape[:2]](packed.words, packed.scales, packed.book, out, packed.inputs, TILE, num_warps=4)
    return out
