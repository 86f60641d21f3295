"""Products with 4-bit weights in Triton. A program computes a tile of the product, 64 outputs for ROWS rows (tokens),
over one part of the inputs. Eight 4-bit numbers are in one word; a "book" has the value of each 4-bit number. Names in
capitals are constants of the compiled kernel.

The program goes over the inputs 64 at a time, which is one tile of weights (nf4.py) with one scale for each output:

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
"""The divisions, by the number of rows of a tile."""
_STAGES = 3
"""Blocks of inputs that are on their way while one is multiplied."""


@triton.jit
def _decode(words, book):
    """Return the weights in `words` [outputs, 8] as four operands [outputs, 16] of the tensor cores, in bf16.

    A word holds eight 4-bit numbers, two for each operand; `book` [16] has the value of each number.
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
    """Return assembly that decodes the word $8 to eight bf16 values ($0 to $7) by byte permutations.

    The tables of the values' low bytes are in $9 to $12, those of their high bytes in $13 to $16. `prmt` picks four
    bytes out of eight by the low three bits of each 4-bit number, once from the lower and once from the upper half of
    the 16 values. The number's fourth bit chooses between both (the register `half`).
    """
    lines = [
        ".reg .b32 pick, half, low, high, one, other;",
        "and.b32 pick, $8, 0x77777777;",
        "and.b32 half, $8, 0x88888888;",
        "shr.b32 half, half, 1;",
        "or.b32 half, half, 0x32103210;",
    ]
    for first_value in (0, 4):
        # `low` and `high` are the low and the high bytes of four values
        for register, table in (("low", 9), ("high", 13)):
            lines += [
                f"prmt.b32 one, ${table}, ${table + 1}, pick;",
                f"prmt.b32 other, ${table + 2}, ${table + 3}, pick;",
                f"prmt.b32 {register}, one, other, half;",
            ]
        lines += [
            "prmt.b32 one, low, high, 0x5140;",
            f"mov.b32 {{${first_value}, ${first_value + 1}}}, one;",
            "prmt.b32 one, low, high, 0x7362;",
            f"mov.b32 {{${first_value + 2}, ${first_value + 3}}}, one;",
        ]
        if first_value == 0:
            # on to the next four numbers of the word
            lines += ["shr.b32 pick, pick, 16;", "shr.b32 half, half, 16;"]
    return "{ " + " ".join(lines) + " }"


PERMUTATIONS: tl.constexpr = tl.constexpr(_write_permutations())
_REGISTERS: tl.constexpr = tl.constexpr(",".join(["=h"] * 8 + ["r"] * 9))
"""The operands of `PERMUTATIONS`: eight results of 16 bits and nine inputs of 32 bits."""


@triton.jit
def _decode_quickly(words, t0, t1, t2, t3, t4, t5, t6, t7):
    """Return what `_decode` returns, by byte permutations; `t0` to `t7` are the rows of `PackedWeights.byte_tables`.

    Each word of `words` holds eight weights of 4 bits, which are returned in four tensors, two neighbours in each.
    """
    outputs: tl.constexpr = words.shape[0]
    pairs: tl.constexpr = 2 * words.shape[1]
    a, b, c, d, e, f, g, h = tl.inline_asm_elementwise(
        PERMUTATIONS, _REGISTERS, [words, t0, t1, t2, t3, t4, t5, t6, t7],
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
    """Compute one tile of the product: TILE (64) outputs for ROWS rows, over one part of the inputs.

    `inputs` are [rows, width], `out` [parts, rows, outputs]; `words`, `scales`, `book` and `tables` are as in
    `PackedWeights`. A part has `blocks_of_part` blocks of TILE inputs; the last part may have fewer. QUICK says
    whether weights are decoded by byte permutations, EXACT whether operands are multiplied in fp32. In the code, t0 to
    t7 are the rows of `tables`, w0 to w3 the operands of a block's weights, and x0 to x3 those of its inputs.
    """
    tile = tl.program_id(0)
    part = tl.program_id(2)
    blocks = width // TILE
    first_block = part * blocks_of_part
    stop_block = tl.minimum(blocks, first_block + blocks_of_part)
    tile_outputs = tl.arange(0, TILE)
    tile_words = tl.arange(0, TILE // 8)
    operand_inputs = tl.arange(0, 16)
    tile_rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    mask = tile_rows[None, :] < rows
    sums = tl.zeros((TILE, ROWS), tl.float32)
    tile_offset = tile.to(tl.int64) * blocks * TILE
    # Each thread loads the tables from its own copy, so that the compiler keeps them in the registers of this thread.
    # Values that it knows to be the same for all threads it keeps elsewhere, and moves them each time.
    t0 = tl.load(tables + 0 + tile_words)[None, :]
    t1 = tl.load(tables + 8 + tile_words)[None, :]
    t2 = tl.load(tables + 16 + tile_words)[None, :]
    t3 = tl.load(tables + 24 + tile_words)[None, :]
    t4 = tl.load(tables + 32 + tile_words)[None, :]
    t5 = tl.load(tables + 40 + tile_words)[None, :]
    t6 = tl.load(tables + 48 + tile_words)[None, :]
    t7 = tl.load(tables + 56 + tile_words)[None, :]
    for block in tl.range(first_block, stop_block, num_stages=STAGES):
        places = tile_offset + block * TILE + tile_outputs
        packed = tl.load(words + places[:, None] * (TILE // 8) + tile_words[None, :])
        scale = tl.load(scales + places)
        if QUICK:
            w0, w1, w2, w3 = _decode_quickly(packed, t0, t1, t2, t3, t4, t5, t6, t7)
        else:
            w0, w1, w2, w3 = _decode(packed, book)
        pointers = inputs + tile_rows[None, :] * width + block * TILE + operand_inputs[:, None]
        x0 = tl.load(pointers, mask=mask, other=0.0)
        x1 = tl.load(pointers + 16, mask=mask, other=0.0)
        x2 = tl.load(pointers + 32, mask=mask, other=0.0)
        x3 = tl.load(pointers + 48, mask=mask, other=0.0)
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
    target = out + (part * rows + tile_rows[None, :]) * outputs + (tile * TILE + tile_outputs)[:, None]
    tl.store(target, sums, mask=mask)


@triton.jit
def _unpack(words, scales, book, out, width, TILE: tl.constexpr):
    """Write one tile of the unpacked weights, TILE outputs by TILE inputs, as bf16 to `out` [outputs, width].

    `words`, `scales` and `book` are as in `PackedWeights`; `width` is the number of inputs.
    """
    tile = tl.program_id(0)
    block = tl.program_id(1)
    tile_outputs = tl.arange(0, TILE)
    tile_inputs = tl.arange(0, TILE)
    tile_offset = (tile.to(tl.int64) * (width // TILE) + block) * TILE
    # number 2 j + s of word i is input 16 j + 2 i + s
    word_index = (tile_inputs % 16) // 2
    shift = ((tile_inputs // 16) * 2 + tile_inputs % 2) * 4
    packed = tl.load(words + (tile_offset + tile_outputs)[:, None] * (TILE // 8) + word_index[None, :])
    value = tl.load(book + ((packed >> shift[None, :]) & 15)).to(tl.float32)
    scale = tl.load(scales + tile_offset + tile_outputs)
    target = out + (tile * TILE + tile_outputs).to(tl.int64)[:, None] * width + block * TILE + tile_inputs[None, :]
    tl.store(target, (value * scale[:, None]).to(tl.bfloat16))


def _find_tile_rows(rows: int) -> int:
    """Return how many rows a tile of a product has, a key of `DIVISIONS`: 8 for 5 `rows`, 64 for 40, 128 for 500."""
    return min(max(DIVISIONS), max(min(DIVISIONS), int(triton.next_power_of_2(rows))))


def count_parts(packed: PackedWeights, rows: int) -> int:
    """Return into how many parts a product's inputs are divided, so that enough programs keep a GPU busy."""
    tile_rows = _find_tile_rows(rows)
    division = DIVISIONS[tile_rows]
    tiles = len(packed.words) * triton.cdiv(rows, tile_rows)
    blocks = packed.words.shape[1]
    max_parts = max(1, min(division.parts, division.programs // tiles, blocks // 2))
    blocks_of_part = triton.cdiv(blocks, max_parts)
    # fewer parts of this length may hold all blocks, and none of them is empty
    return int(triton.cdiv(blocks, blocks_of_part))


def multiply(rows: Tensor, packed: PackedWeights) -> Tensor:
    """Return the product as `Kernels.multiply` describes it; it has several parts if it has few tiles."""
    row_count, width = rows.shape
    part_count = count_parts(packed, row_count)
    blocks_of_part = triton.cdiv(packed.words.shape[1], part_count)
    tile_rows = _find_tile_rows(row_count)
    out = torch.empty((part_count, row_count, packed.outputs), dtype=torch.float32, device=rows.device)
    grid = (len(packed.words), triton.cdiv(row_count, tile_rows), part_count)
    # Triton's interpreter, with which tests run kernels on a CPU, cannot run the assembly, and needs fp32 for products
    # of bf16, too
    exact = triton.knobs.runtime.interpret
    _multiply[grid](
        rows, packed.words, packed.scales, packed.coarse_book, packed.byte_tables, out, row_count, packed.outputs,
        width, blocks_of_part, ROWS=tile_rows, TILE=TILE, STAGES=_STAGES, QUICK=not exact, EXACT=exact,
        num_warps=DIVISIONS[tile_rows].warps,
    )  # fmt: skip
    return out


def unpack(packed: PackedWeights) -> Tensor:
    """Return the 4-bit weights as a matrix [outputs, inputs] in bf16."""
    out = torch.empty((packed.outputs, packed.inputs), dtype=torch.bfloat16, device=packed.words.device)
    grid = packed.words.shape[:2]  # one program for each tile
    _unpack[grid](packed.words, packed.scales, packed.book, out, packed.inputs, TILE=TILE, num_warps=4)
    return out
