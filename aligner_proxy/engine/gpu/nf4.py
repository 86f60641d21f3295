"""Weights in 4 bits (NF4), ordered for our product on a GPU; the format on disk stays that of bitsandbytes. A weight is
the value that its 4-bit number has in a book of 16 values, times the scale of its block.

A tile is 64 output columns by 64 inputs (one block of scales). A word holds eight weights of one output column; its
pairs of 4-bit numbers are the pairs of operands that a thread hands to the tensor cores, so nothing is moved between
threads. Scales are kept in fp32 (12 % more bytes than nested ones): the product is bound by decoding, not by bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TILE = 64
"""Output columns, and inputs, of one tile; also the number of weights that share a scale."""
_PER_WORD = 8
"""Weights in a word of 32 bits."""


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """A matrix [outputs, inputs]: `words` [outputs / 64, inputs / 64, 64, 8], `scales` [outputs / 64, inputs / 64, 64].

    `book` [16] are the values of the 4-bit numbers in fp32, and `coarse_book` these values in bf16, for tensor cores.
    `byte_tables` [8, 8] are the bytes of `coarse_book`, four in each row: first the low bytes, then the high ones.
    All columns are the same.
    """

    words: Tensor
    scales: Tensor
    book: Tensor
    coarse_book: Tensor
    byte_tables: Tensor

    @property
    def outputs(self) -> int:
        return len(self.words) * TILE

    @property
    def inputs(self) -> int:
        return self.words.shape[1] * TILE

    def select(self, first: int, stop: int) -> PackedWeights:
        """Return the weights of the outputs `first` to `stop`, excluded, both multiples of 64; shares the memory."""
        tiles = slice(first // TILE, stop // TILE)
        return PackedWeights(self.words[tiles], self.scales[tiles], self.book, self.coarse_book, self.byte_tables)


def can_pack(layer: Any) -> bool:
    """Whether `pack` accepts a layer: NF4 without bias, in blocks of `TILE` weights, both sizes multiples of `TILE`."""
    if type(layer).__name__ != "Linear4bit" or layer.bias is not None:
        return False
    state = layer.weight.quant_state
    # with packing_format_for_cpu, bitsandbytes has reordered the weights for its product on a CPU
    if state is None or getattr(state, "packing_format_for_cpu", False):
        return False
    has_whole_tiles = layer.out_features % TILE == 0 and layer.in_features % TILE == 0
    return bool(state.quant_type == "nf4" and state.blocksize == TILE and has_whole_tiles)


@torch.inference_mode()
def pack(layers: list[Any]) -> PackedWeights:
    """Pack the weights of quantised layers with the same inputs into one matrix, one layer below the other."""
    words_of_layers, scales_of_layers = zip(*(_pack_layer(layer.weight) for layer in layers), strict=True)
    book = layers[0].weight.quant_state.code.float()
    coarse_book = book.to(torch.bfloat16)
    # little-endian: the low byte of each value comes first
    low_and_high_bytes = coarse_book.view(torch.uint8).view(16, 2).T.contiguous()
    byte_tables = low_and_high_bytes.view(torch.int32).view(8, 1).repeat(1, 8)
    return PackedWeights(torch.cat(words_of_layers), torch.cat(scales_of_layers), book, coarse_book, byte_tables)


def _pack_layer(weight: Any) -> tuple[Tensor, Tensor]:
    """Return the words and the scales of one layer's quantised weight, in the shapes of `PackedWeights`."""
    from bitsandbytes.functional import dequantize_blockwise

    state = weight.quant_state
    outputs, inputs = state.shape
    scales = state.absmax
    if state.nested:
        # the scales are quantised, too
        scales = dequantize_blockwise(state.absmax, state.state2) + state.offset
    # two 4-bit numbers are in a byte, the first in its high half
    number_pairs = weight.data.view(torch.uint8).view(outputs, inputs // 2)
    numbers = torch.stack([number_pairs >> 4, number_pairs & 15], dim=-1).view(outputs, inputs)
    tiled_scales = scales.float().view(outputs // TILE, TILE, inputs // TILE).transpose(1, 2).contiguous()
    return order_words(numbers), tiled_scales


def order_words(numbers: Tensor) -> Tensor:
    """Pack 4-bit numbers [outputs, inputs], one in each byte, into words [outputs / 64, inputs / 64, 64, 8].

    The numbers 2 j and 2 j + 1 of word i are those of inputs 16 j + 2 i and 16 j + 2 i + 1 of the tile.
    """
    outputs, inputs = numbers.shape
    # [output tile, output, input tile, j, i, which of the two inputs] -> [output tile, input tile, output, i, j, which]
    split_numbers = numbers.view(outputs // TILE, TILE, inputs // TILE, TILE // 16, _PER_WORD, 2)
    tiles = split_numbers.permute(0, 2, 1, 4, 3, 5)
    numbers_of_words = tiles.reshape(outputs // TILE, inputs // TILE, TILE, _PER_WORD, _PER_WORD)
    words = torch.zeros(numbers_of_words.shape[:-1], dtype=torch.int32, device=numbers.device)
    for place in range(_PER_WORD):
        words |= numbers_of_words[..., place].int() << (4 * place)
    return words
