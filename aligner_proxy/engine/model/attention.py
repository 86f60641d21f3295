"""Attention of many sequences that go through the model in one pass and share blocks of the KV cache.

All tokens of a step form one row, so that each linear layer computes one large product:

    [a5 a6 | b0 b1 b2 b3 | c9]      new tokens of three sequences; a0 to a4 and c0 to c8 are in the cache

Only attention separates the sequences: it writes the new keys and values to their slots, gathers those of each
sequence, and attends. Short feeds (decoding) are padded into one joint product. Long feeds (reading a prompt) are
attended to one by one.

In fp32 and on a GPU, torch's own kernel is used. On a CPU in bf16 that kernel is two to seven times slower than two
matrix products and a softmax (one query over 600 tokens: 0.48 against 0.12 ms), so there these are used. Their library
compiles code for every new shape of a product and retains it. So contexts and queries are padded there, to limit the
number of shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from aligner_proxy.engine.model import cpu_kernels

IMPLEMENTATION = "blocks"
SHORT_FEED = 32
"""Longest feed, in tokens, that is attended to together with others; longer ones would need much padding."""
_CONTEXT_MULTIPLE = 64
"""Contexts are padded to multiples of this. Unpadded, each new length cost a tenth of a forward pass, and 150 MB."""
_MAX_SCORES = 1 << 20
"""Most scores computed at once, 4 MB; more do not fit the processor's cache and take twice the time."""
_MAX_QUERIES = 64
"""Most queries computed together, so that queries of a causal prompt skip most keys that they may not see."""


@dataclass(frozen=True, slots=True)
class AttentionRow:
    """One sequence's part of a step: its new tokens are those from `start` to `stop`; `context` has all its slots."""

    start: int
    stop: int
    context: Tensor

    @property
    def new_count(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that are attended to together: indices of their queries [rows, new] and slots [rows, context]."""

    queries: Tensor
    slots: Tensor
    mask: Tensor | None
    """[rows, 1, new, context], True where a query may see a key; None for one plain causal prompt."""
    shared: int
    """Number of the first context tokens that need no mask, because all queries may see them."""


class KVStore:
    """Keys and values of every slot: [layers, heads, slots, head size]. Memory is only touched when used."""

    def __init__(self, config: Any, slots: int, dtype: torch.dtype, device: torch.device) -> None:
        heads = config.num_key_value_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, heads, slots, size)
        self.uses_products = dtype == torch.bfloat16 and device.type == "cpu"
        """Whether attention uses our own matrix products instead of torch's kernel."""
        self._keys = torch.empty(shape, dtype=dtype, device=device)
        self._values = torch.empty(shape, dtype=dtype, device=device)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        return self._keys, self._values

    def put(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write keys and values [heads, tokens, head size] of one layer to `slots`."""
        self._keys[layer].index_copy_(1, slots, keys)
        self._values[layer].index_copy_(1, slots, values)

    def get(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values at [rows, context] slots, as [rows, heads, context, head size]."""
        shape = (-1, *slots.shape, self._keys.shape[-1])
        gathered = (store[layer].index_select(1, slots.flatten()).view(shape) for store in (self._keys, self._values))
        keys, values = (tensor.transpose(0, 1) for tensor in gathered)
        return keys, values


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """The data that attention needs for one step."""

    store: KVStore
    slots: Tensor
    groups: tuple[RowGroup, ...]
    is_single: bool
    """True if the step has only one sequence, so that its tokens need no regrouping."""


def plan_attention(store: KVStore, slots: Tensor, rows: Sequence[AttentionRow]) -> AttentionPlan:
    """Return the plan of one step's attention; `slots` are those of its new tokens, in the order of the row."""
    short = [row for row in rows if row.new_count <= SHORT_FEED]
    long = [row for row in rows if row.new_count > SHORT_FEED]
    multiple = _CONTEXT_MULTIPLE if store.uses_products else 1
    groups = [_joint_group(short, multiple)] if short else []
    return AttentionPlan(store, slots, (*groups, *(_single_group(row, multiple) for row in long)), len(rows) == 1)


def _single_group(row: AttentionRow, multiple: int) -> RowGroup:
    """The group of one long row, with its context padded to a multiple of `multiple` slots."""
    queries = torch.arange(row.start, row.stop, device=row.context.device)[None]
    slots = _pad_context(row.context, multiple)
    # nothing was cached before and nothing is padded, so the mask is the usual causal one
    is_causal = row.new_count == len(slots)
    mask = None if is_causal else _make_mask([row], row.new_count, len(slots))
    return RowGroup(queries, slots[None], mask, len(row.context) - row.new_count)


def _joint_group(rows: Sequence[AttentionRow], multiple: int) -> RowGroup:
    """Group short rows, padded to equal length. Padding repeats a row's last token, and its output is discarded."""
    new_count = max(row.new_count for row in rows)
    longest = max(len(row.context) for row in rows)
    device = rows[0].context.device
    queries = [torch.arange(row.start, row.start + new_count, device=device).clamp(max=row.stop - 1) for row in rows]
    slots = torch.stack([_pad_context(row.context, multiple, longest) for row in rows])
    return RowGroup(
        torch.stack(queries),
        slots,
        _make_mask(rows, new_count, slots.shape[1]),
        # with several rows the contexts differ in length, so the mask covers all keys
        longest - new_count if len(rows) == 1 else 0,
    )


def _pad_context(context: Tensor, multiple: int, least: int = 0) -> Tensor:
    """The context, padded to a multiple of `multiple` slots, at least `least`, by repeating its last slot.

    Other slots could hold NaN or infinity, and 0 * NaN is not 0.
    """
    # rounded up to the next multiple
    length = -(-max(least, len(context)) // multiple) * multiple
    return torch.cat([context, context[-1:].expand(length - len(context))]) if length > len(context) else context


def _make_mask(rows: Sequence[AttentionRow], new_count: int, context_length: int) -> Tensor:
    """The mask [rows, 1, new, context]: a query may see the keys up to its own position in its sequence."""
    device = rows[0].context.device
    new_indices = torch.arange(new_count, device=device)
    key_positions = torch.arange(context_length, device=device)
    # a row with fewer new tokens than `new_count` is padded with its last one
    query_positions = torch.stack(
        [(len(row.context) - row.new_count + new_indices).clamp(max=len(row.context) - 1) for row in rows]
    )
    return (key_positions <= query_positions[..., None])[:, None]


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    *,
    plan: AttentionPlan,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer over all sequences of a step, from [1, heads, tokens, size] to [1, tokens, heads, size].

    Writes the new keys and values to the KV store first.
    """
    layer = module.layer_idx
    scale = settings.get("scaling")
    plan.store.put(layer, plan.slots, key[0], value[0])
    attend_group = _attend_by_products if plan.store.uses_products else _attend_by_kernel
    # the tokens of a single sequence are in order, so nothing has to be gathered and put back
    if plan.is_single:
        group = plan.groups[0]
        return attend_group(query, *plan.store.get(layer, group.slots), group, scale).transpose(1, 2), None
    tokens = query[0].transpose(0, 1)
    out = torch.empty_like(tokens)
    for group in plan.groups:
        attended = attend_group(
            tokens[group.queries].transpose(1, 2), *plan.store.get(layer, group.slots), group, scale
        )
        # Padding repeats its row's last query, so writing its output to the same position changes nothing.
        out[group.queries] = attended.transpose(1, 2)
    return out[None], None


def _attend_by_kernel(queries: Tensor, keys: Tensor, values: Tensor, group: RowGroup, scale: float | None) -> Tensor:
    """Attention by torch's kernel: queries [rows, heads, new, size] over keys [rows, key heads, context, size]."""
    repeat = queries.shape[1] // keys.shape[1]
    keys = keys.repeat_interleave(repeat, dim=1)
    values = values.repeat_interleave(repeat, dim=1)
    causal = group.mask is None
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=group.mask, is_causal=causal, scale=scale)


def _attend_by_products(queries: Tensor, keys: Tensor, values: Tensor, group: RowGroup, scale: float | None) -> Tensor:
    """Attention of the same shapes, by products in the tensors' type and a softmax in fp32, some queries at a time."""
    (rows, heads, new_count, size), (key_heads, context) = queries.shape, keys.shape[1:3]
    mask = group.mask
    shared = group.shared
    if mask is None:
        mask = torch.ones(1, 1, new_count, context, dtype=torch.bool).tril()
    forbidden = ~mask[:, :, None, :, shared:]
    scaled = queries * (size**-0.5 if scale is None else scale)
    query_limit = max(1, min(_MAX_QUERIES, _MAX_SCORES // (rows * heads * context)))
    outputs = []
    for first in range(0, new_count, query_limit):
        last = min(first + query_limit, new_count)
        # Queries of one sequence see no keys after the last query; of several, the longest context counts.
        key_count = min(context, -(-(shared + last) // _CONTEXT_MULTIPLE) * _CONTEXT_MULTIPLE) if rows == 1 else context
        chunk = scaled[:, :, first:last].reshape(rows, key_heads, -1, size)
        row_count = chunk.shape[2]
        scores = _multiply(cpu_kernels.pad_rows(chunk), keys[:, :, :key_count])
        later = scores[:, :, :row_count].view(rows, key_heads, -1, last - first, key_count)[..., shared:]
        # `later` is a view of the scores, without the keys that every query may see; masking it changes the scores
        later.masked_fill_(forbidden[..., first:last, : key_count - shared], -torch.inf)
        attended = (scores.softmax(dim=-1) @ values[:, :, :key_count])[:, :, :row_count]
        outputs.append(attended.reshape(rows, heads, last - first, size))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _multiply(queries: Tensor, keys: Tensor) -> Tensor:
    """The products of all queries with all keys.

    For several sequences on a CPU with tiles (AMX), the transposed product takes a third of the time.
    """
    if len(keys) > 1 and cpu_kernels.has_amx():
        return cpu_kernels.multiply_transposed(queries, keys).contiguous()
    return queries @ keys.transpose(-1, -2)


AttentionInterface.register(IMPLEMENTATION, attend)
