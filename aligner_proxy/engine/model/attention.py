"""Attention of many sequences that go through the model in one pass (a step) and share blocks of the KV cache. A slot
of the cache holds the keys and values of one token. The context of a sequence is the slots of all its tokens.

All tokens of a step form one row, so that each linear layer computes one large product:

    [a5 a6 | b0 b1 b2 b3 | c9]      new tokens of three sequences; a0 to a4 and c0 to c8 are in the cache

Only attention separates the sequences: it writes the new keys and values to their slots, gathers those of each
sequence, and attends. Short feeds (decoding) are padded into one joint product. Long feeds (reading a prompt) are
attended to one by one.

In fp32 and on a GPU, torch's own kernel is used. On a CPU in bf16 this kernel is two to seven times slower than two
matrix products and a softmax (one query over 600 tokens: 0.48 against 0.12 ms), so we use the products there. Torch
compiles code for every new shape of a product and retains it. So contexts and queries are padded, to limit the number
of shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from aligner_proxy.engine.model import cpu_kernels

IMPLEMENTATION = "blocks"
SHORT_FEED = 32
"""Longest feed, in tokens, that is attended to together with other feeds; a longer one would need much padding."""
_CONTEXT_MULTIPLE = 64
"""Contexts are padded to multiples of this. Unpadded, the new lengths cost a tenth of a forward pass, and 150 MB."""
_MAX_SCORES = 1 << 20
"""Most scores computed at once, 4 MB; more would exceed the processor's cache and take twice the time."""
_MAX_QUERIES = 64
"""Most queries computed together, so that queries of a causal prompt skip most keys that they may not see."""


@dataclass(frozen=True, slots=True)
class AttentionRow:
    """One sequence's part of a step: its new tokens are those from `start` to `stop`, excluded, of the step's tokens.

    `context` are the slots of all its tokens, the new ones last.
    """

    start: int
    stop: int
    context: Tensor

    @property
    def new_count(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows (sequences) that are attended to together."""

    queries: Tensor
    """[rows, new], the indices of the rows' new tokens among those of the step."""
    slots: Tensor
    """[rows, context], the slots of the rows' contexts, padded to equal length."""
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
        """Return keys and values of a layer at `slots` [rows, context], as [rows, heads, context, head size]."""
        _, heads, _, head_size = self._keys.shape
        shape = (heads, *slots.shape, head_size)
        flat_slots = slots.flatten()
        keys = self._keys[layer].index_select(1, flat_slots).view(shape)
        values = self._values[layer].index_select(1, flat_slots).view(shape)
        return keys.transpose(0, 1), values.transpose(0, 1)


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """The data that attention needs for one step."""

    store: KVStore
    slots: Tensor
    """The slots of the step's new tokens, in the order of the tokens."""
    groups: tuple[RowGroup, ...]
    is_single: bool
    """True if the step has only one sequence, so that its tokens need no regrouping."""


def plan_attention(store: KVStore, contexts: Sequence[Tensor], new_counts: Sequence[int]) -> AttentionPlan:
    """Return the plan of one step's attention; of the slots of each sequence (`contexts`), the last ones are new."""
    rows: list[AttentionRow] = []
    for context, new_count, stop in zip(contexts, new_counts, accumulate(new_counts), strict=True):
        rows.append(AttentionRow(stop - new_count, stop, context))
    slots = torch.cat([row.context[len(row.context) - row.new_count :] for row in rows])
    short_rows = [row for row in rows if row.new_count <= SHORT_FEED]
    long_rows = [row for row in rows if row.new_count > SHORT_FEED]
    context_multiple = _CONTEXT_MULTIPLE if store.uses_products else 1
    groups = [_group_short_rows(short_rows, context_multiple)] if short_rows else []
    groups += [_make_single_group(row, context_multiple) for row in long_rows]
    return AttentionPlan(store, slots, tuple(groups), is_single=len(rows) == 1)


def _make_single_group(row: AttentionRow, context_multiple: int) -> RowGroup:
    """Return the group of one long row, with its context padded to a multiple of `context_multiple` slots."""
    queries = torch.arange(row.start, row.stop, device=row.context.device)[None]
    slots = _pad_context(row.context, context_multiple)
    # nothing was cached before and nothing is padded, so torch's own causal mask fits
    is_causal = row.new_count == len(slots)
    mask = None if is_causal else _make_mask([row], row.new_count, len(slots))
    return RowGroup(queries, slots[None], mask, shared=len(row.context) - row.new_count)


def _group_short_rows(rows: Sequence[AttentionRow], context_multiple: int) -> RowGroup:
    """Group short rows, padded to equal length. Padding repeats a row's last token, and its output is discarded."""
    new_count = max(row.new_count for row in rows)
    longest_context = max(len(row.context) for row in rows)
    device = rows[0].context.device
    queries = [torch.arange(row.start, row.start + new_count, device=device).clamp(max=row.stop - 1) for row in rows]
    slots = torch.stack([_pad_context(row.context, context_multiple, longest_context) for row in rows])
    # the contexts of several rows differ in length, so the mask has to cover all keys
    shared = longest_context - new_count if len(rows) == 1 else 0
    return RowGroup(torch.stack(queries), slots, _make_mask(rows, new_count, slots.shape[1]), shared)


def _pad_context(context: Tensor, multiple: int, min_length: int = 0) -> Tensor:
    """Return the context, padded to a multiple of `multiple` slots, at least `min_length`, by repeating its last slot.

    Other slots could hold NaN or infinity, which would reach the result although their weight is 0.
    """
    length = -(-max(min_length, len(context)) // multiple) * multiple
    return torch.cat([context, context[-1:].expand(length - len(context))]) if length > len(context) else context


def _make_mask(rows: Sequence[AttentionRow], new_count: int, context_length: int) -> Tensor:
    """Return the mask [rows, 1, new, context] by which a query sees the keys up to its own position in its sequence.

    Each row is padded to `new_count` queries and `context_length` keys.
    """
    device = rows[0].context.device
    new_indices = torch.arange(new_count, device=device)
    key_positions = torch.arange(context_length, device=device)
    # a row with fewer new tokens than `new_count` is padded with its last token
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
    """Return the attention [1, tokens, heads, size] of one layer over all sequences of a step. The library calls this.

    `query`, `key` and `value` [1, heads, tokens, size] are those of the step's new tokens.
    """
    layer = module.layer_idx
    scale = settings.get("scaling")
    plan.store.put(layer, plan.slots, key[0], value[0])
    attend_group = _attend_by_products if plan.store.uses_products else _attend_by_kernel
    # the tokens of a single sequence are in order, so nothing has to be gathered and put back
    if plan.is_single:
        group = plan.groups[0]
        keys, values = plan.store.get(layer, group.slots)
        return attend_group(query, keys, values, group, scale).transpose(1, 2), None
    token_queries = query[0].transpose(0, 1)
    out = torch.empty_like(token_queries)
    for group in plan.groups:
        keys, values = plan.store.get(layer, group.slots)
        attended = attend_group(token_queries[group.queries].transpose(1, 2), keys, values, group, scale)
        # padding repeats its row's last query, so it writes the same output to the same position again
        out[group.queries] = attended.transpose(1, 2)
    # the second value would be the attention weights, which nobody reads
    return out[None], None


def _attend_by_kernel(queries: Tensor, keys: Tensor, values: Tensor, group: RowGroup, scale: float | None) -> Tensor:
    """Return the attention [rows, heads, new, size] of a group's queries, computed by torch's kernel.

    `queries` are [rows, heads, new, size], `keys` and `values` [rows, key heads, context, size].
    """
    heads_per_key = queries.shape[1] // keys.shape[1]
    keys = keys.repeat_interleave(heads_per_key, dim=1)
    values = values.repeat_interleave(heads_per_key, dim=1)
    is_causal = group.mask is None
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=group.mask, is_causal=is_causal, scale=scale)


def _attend_by_products(queries: Tensor, keys: Tensor, values: Tensor, group: RowGroup, scale: float | None) -> Tensor:
    """Return what `_attend_by_kernel` returns, computed by matrix products and a softmax, some queries at a time."""
    rows, heads, new_count, size = queries.shape
    _, key_heads, context_length, _ = keys.shape
    mask = group.mask
    shared = group.shared
    if mask is None:
        mask = torch.ones(1, 1, new_count, context_length, dtype=torch.bool).tril()
    is_hidden = ~mask[:, :, None, :, shared:]
    scaled_queries = queries * (size**-0.5 if scale is None else scale)
    max_queries = max(1, min(_MAX_QUERIES, _MAX_SCORES // (rows * heads * context_length)))
    outputs = []
    for first in range(0, new_count, max_queries):
        stop = min(first + max_queries, new_count)
        key_count = context_length
        if rows == 1:
            # the queries of a single sequence see no keys after the last query
            visible_keys = -(-(shared + stop) // _CONTEXT_MULTIPLE) * _CONTEXT_MULTIPLE
            key_count = min(context_length, visible_keys)
        query_rows = scaled_queries[:, :, first:stop].reshape(rows, key_heads, -1, size)
        row_count = query_rows.shape[2]
        scores = _multiply(cpu_kernels.pad_rows(query_rows), keys[:, :, :key_count])
        # a view of the scores, without the keys that every query may see; masking the view changes the scores
        masked_scores = scores[:, :, :row_count].view(rows, key_heads, -1, stop - first, key_count)[..., shared:]
        masked_scores.masked_fill_(is_hidden[..., first:stop, : key_count - shared], -torch.inf)
        attended = (scores.softmax(dim=-1) @ values[:, :, :key_count])[:, :, :row_count]
        outputs.append(attended.reshape(rows, heads, stop - first, size))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _multiply(queries: Tensor, keys: Tensor) -> Tensor:
    """Return the products of all queries with all keys, [rows, key heads, queries, context]."""
    # in tiles, the transposed product takes a third of the time
    if len(keys) > 1 and cpu_kernels.has_amx():
        return cpu_kernels.multiply_transposed(queries, keys).contiguous()
    return queries @ keys.transpose(-1, -2)


AttentionInterface.register(IMPLEMENTATION, attend)
