"""The kernels of a forward pass (`Kernels` in stack.py) in plain torch: what those in Triton are compared with.

They obey the same rule as kernels that are recorded: nothing is read back to the host, and no shape depends on data.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aligner_proxy.engine.gpu.nf4 import TILE, PackedWeights
from aligner_proxy.engine.gpu.step import ChoiceInput, StepView
from aligner_proxy.engine.scheduling.blocks import BLOCK

_PER_WORD = 8
"""Weights in a word of 32 bits."""


def add_parts(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum [rows, width] of the parts of a product, in `dtype`."""
    total = parts[0].float()
    for part in parts[1:]:
        total = total + part.float()
    return total.to(dtype)


def normalise(
    residual: Tensor, parts: Tensor | None, weight: Tensor, epsilon: float, out: Tensor | None = None
) -> Tensor:
    """See `Kernels`."""
    if parts is not None:
        residual += add_parts(parts, residual.dtype)
    wide = residual.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    result = weight * normed.to(residual.dtype)
    return result if out is None else out.copy_(result)


def normalise_heads(heads: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """The root-mean-square norm of every head of [rows, heads, size], in fp32, with the rounding of the library."""
    normed = heads.float() * torch.rsqrt(heads.float().pow(2).mean(-1, keepdim=True) + epsilon)
    return (weight * normed.to(heads.dtype)).float()


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
    """See `Kernels`."""
    joined = add_parts(parts, torch.float32)
    if bias is not None:
        joined = joined + bias.float()
    key_heads, _, size = keys.shape
    heads = joined.to(dtype).view(len(joined), -1, size)
    queries = heads[:, : -2 * key_heads]
    new_keys = heads[:, -2 * key_heads : -key_heads]
    new_values = heads[:, -key_heads:]
    heads_in_fp32 = [queries.float(), new_keys.float()]
    if norms is not None:
        query_norm, key_norm, epsilon = norms
        heads_in_fp32 = [normalise_heads(queries, query_norm, epsilon), normalise_heads(new_keys, key_norm, epsilon)]
    cos, sin = (turn.index_select(0, step.places)[:, None] for turn in turns)
    rotated = []
    for tensor in heads_in_fp32:
        low, high = tensor.chunk(2, dim=-1)
        rotated.append(torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1).to(dtype))
    slots = step.slots.long()
    keys.index_copy_(1, slots, rotated[1].transpose(0, 1))
    values.index_copy_(1, slots, new_values.transpose(0, 1))
    return rotated[0]


def attend(queries: Tensor, keys: Tensor, values: Tensor, step: StepView, scale: float) -> Tensor:
    """See `Kernels`; padding gives NaN."""
    rows, heads, _ = queries.shape
    sequence_of_row = torch.searchsorted(
        step.starts[1:], torch.arange(rows, device=queries.device, dtype=torch.int32), right=True
    )
    sequence_of_row = sequence_of_row.clamp(max=len(step.lengths) - 1)
    slots = (step.table[sequence_of_row, :, None] * BLOCK + torch.arange(BLOCK, device=queries.device)).flatten(1)
    place = torch.arange(slots.shape[1], device=queries.device)
    visible = (place <= step.places[:, None]) & (place < step.lengths[sequence_of_row][:, None])
    repeat = heads // len(keys)
    # [rows, key heads, context, size]; slots that nobody may see can hold anything, so they are cleared
    gathered_keys, gathered_values = (
        torch.where(visible[:, None, :, None], store[:, slots].transpose(0, 1).float(), 0.0) for store in (keys, values)
    )
    grouped = queries.float().view(rows, len(keys), repeat, -1)
    scores = (grouped @ gathered_keys.transpose(-1, -2) * scale).masked_fill(~visible[:, None, None], -torch.inf)
    attended = scores.softmax(dim=-1) @ gathered_values
    return attended.to(queries.dtype).reshape(rows, -1)


def gate(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """See `Kernels`."""
    first, second = add_parts(parts, dtype).chunk(2, dim=-1)
    return F.silu(first.float()).to(dtype) * second


def multiply(rows: Tensor, packed: PackedWeights) -> Tensor:
    """See `Kernels`; in one part."""
    return F.linear(rows.float(), unpack(packed).float())[None]


def put_states(states: Tensor, index: int, step: StepView, hidden: Tensor) -> None:
    """See `Kernels`."""
    states[:, index].index_copy_(0, step.slots.long(), hidden)


def choose(logits: Tensor, choice: ChoiceInput) -> Tensor:
    """See `Kernels`."""
    best, tokens = logits.float().max(dim=-1)
    favoured = choice.favoured.clamp(min=0)
    margin = logits.float().gather(1, favoured.long()[:, None])[:, 0] + choice.caution
    keeps_favourite = (choice.favoured >= 0) & (margin >= best)
    return torch.where(keeps_favourite, favoured, tokens.int())


def order_numbers(words: Tensor) -> Tensor:
    """Unpack words to 4-bit numbers [outputs, inputs], one in each byte: the inverse of `order_words`."""
    rows, columns = words.shape[:2]
    flat = torch.stack([(words >> (4 * place)) & 15 for place in range(_PER_WORD)], dim=-1)
    tiles = flat.view(rows, columns, TILE, _PER_WORD, TILE // 16, 2).permute(0, 2, 1, 4, 3, 5)
    return tiles.reshape(rows * TILE, columns * TILE).to(torch.uint8)


def unpack(packed: PackedWeights) -> Tensor:
    """See `Kernels`."""
    values = packed.book[order_numbers(packed.words).int()]
    scales = packed.scales.transpose(1, 2).reshape(packed.outputs, -1).repeat_interleave(TILE, dim=1)
    return (values * scales).to(torch.bfloat16)
