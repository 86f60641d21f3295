"""Weights in 4 bits, ordered for our product on a GPU; the format on disk stays that of bitsandbytes.

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

    def select(self, first: int, last: int) -> PackedWeights:
        """The weights of some output columns, both ends being multiples of 64; shares their memory."""
        tiles = slice(first // TILE, last // TILE)
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
    parts = [_pack_layer(layer.weight) for layer in layers]
    words, scales = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    book = layers[0].weight.quant_state.code.float()
    coarse_book = book.to(torch.bfloat16)
    # little-endian: the low byte of each value comes first
    bytes_of_values = coarse_book.view(torch.uint8).view(16, 2).T.contiguous()
    return PackedWeights(words, scales, book, coarse_book, bytes_of_values.view(torch.int32).view(8, 1).repeat(1, 8))


def _pack_layer(weight: Any) -> tuple[Tensor, Tensor]:
    """The words and the scales of one layer's quantised weight, in the shapes of `PackedWeights`."""
    from bitsandbytes.functional import dequantize_blockwise

    state = weight.quant_state
    outputs, inputs = state.shape
    scales = state.absmax
    if state.nested:
        scales = dequantize_blockwise(state.absmax, state.state2) + state.offset
    # two weights are in a byte, the first in its high half
    pairs = weight.data.view(torch.uint8).view(outputs, inputs // 2)
    numbers = torch.stack([pairs >> 4, pairs & 15], dim=-1).view(outputs, inputs)
    tiled = scales.float().view(outputs // TILE, TILE, inputs // TILE).transpose(1, 2).contiguous()
    return order_words(numbers), tiled


def order_words(numbers: Tensor) -> Tensor:
    """Pack 4-bit numbers [outputs, inputs], one in each byte, into words [outputs / 64, inputs / 64, 64, 8].

    The numbers 2 j and 2 j + 1 of word i are those of inputs 16 j + 2 i and 16 j + 2 i + 1 of the tile.
    """
    outputs, inputs = numbers.shape
    tiles = numbers.view(outputs // TILE, TILE, inputs // TILE, TILE // 16, _PER_WORD, 2).permute(0, 2, 1, 4, 3, 5)
    flat = tiles.reshape(outputs // TILE, inputs // TILE, TILE, _PER_WORD, _PER_WORD)
    words = torch.zeros(flat.shape[:-1], dtype=torch.int32, device=numbers.device)
    for place in range(_PER_WORD):
        words |= flat[..., place].int() << (4 * place)
    return words
