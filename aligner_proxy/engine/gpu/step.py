"""Input of one forward pass, in buffers that stay where they are: written on the host, then copied to the GPU at once.

A recorded forward (`graphs.py`) reads the same addresses each time. So a step has a fixed number of rows (`BUCKETS`);
rows beyond the tokens of a step are padding: they read token 0 and write to slots that no sequence owns.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aligner_proxy.engine.scheduling.blocks import BLOCK
from aligner_proxy.engine.scheduling.scheduler import Feed

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Numbers of rows that a forward is recorded for; a step takes the smallest that holds its tokens."""
CHOICE_BUCKETS = (1, 4, 16, 64, 256, 1024)
"""Numbers of rows after which a token is chosen, for which a choice is recorded."""
MAX_SEQUENCES = 64
"""Most sequences in one forward."""
NO_SEQUENCE = -1
"""Marks a query block, or a favoured token, that does not exist."""
_SMALL_TILE = 16
_LARGE_TILE = 64
_MAX_ROWS_OF_SMALL_TILES = 32
"""Up to so many rows, attention works on small tiles of queries, else on large tiles."""
_MAX_SPLITS = 8
"""Most parts of the context that are attended to at the same time."""
_BUSY_PROGRAMS = 512
"""Programs of attention that keep a GPU busy; with fewer, the context is divided into parts."""


def find_bucket(count: int, buckets: Sequence[int] = BUCKETS) -> int:
    """Return the smallest bucket of at least `count` rows; raises IndexError if there is none."""
    return buckets[bisect_left(buckets, count)]


@dataclass(frozen=True, slots=True)
class Tiling:
    """How attention divides a step: a tile has `queries` rows of one sequence, with all heads that share a key head.

    With 9 query heads over 3 key heads, a tile of 16 has 5 rows with 3 heads each (triton_attention.py shows it).
    """

    tile: int
    """Number of query heads in a tile, of all its rows together."""
    queries: int
    """Number of rows in a tile."""
    blocks: int
    """Most query blocks of a step; each is the rows of one tile."""
    splits: int
    """Number of parts of the context that are attended to at the same time, and then added."""

    @classmethod
    def for_rows(cls, rows: int, heads: int, key_heads: int) -> Tiling:
        """Return the tiling for a step of `rows` rows; `key_heads` is the number of heads of keys and values."""
        heads_per_key = heads // key_heads
        usual_tile = _SMALL_TILE if rows <= _MAX_ROWS_OF_SMALL_TILES else _LARGE_TILE
        # a tile holds at least one row, that is, `heads_per_key` heads; its size is a power of two
        tile = max(usual_tile, 1 << (heads_per_key - 1).bit_length())
        queries = tile // heads_per_key
        min_blocks = -(-rows // queries)
        # each sequence may leave one block partly empty
        max_blocks = min(rows, min_blocks + MAX_SEQUENCES)
        wanted_splits = max(1, min(_MAX_SPLITS, _BUSY_PROGRAMS // (min_blocks * key_heads)))
        # rounded down to a power of two
        splits = 1 << (wanted_splits.bit_length() - 1)
        return cls(tile=tile, queries=queries, blocks=max_blocks, splits=splits)


@dataclass(frozen=True, slots=True)
class StepView:
    """The input of a step with a fixed number of rows, as views of the buffer on the device.

    `ids`, `places` and `slots` [rows] are each row's token, position in its sequence, and slot in the KV store.
    `query_blocks` [blocks, 2] are (sequence, first row). Sequence i has rows `starts[i]` to `starts[i + 1]`, and
    `lengths[i]` tokens in the blocks `table[i]`.

    Two sequences, the first with tokens 30 and 31, the second with token 9, in a bucket of 4 rows:

        row      0   1   2   3          starts   0, 2, 3
        places  30  31   9   padding    lengths  32, 10
    """

    rows: int
    ids: Tensor
    places: Tensor
    slots: Tensor
    query_blocks: Tensor
    starts: Tensor
    lengths: Tensor
    table: Tensor
    tiling: Tiling


@dataclass(frozen=True, slots=True)
class ChoiceInput:
    """The rows after which tokens are chosen. A favoured token is kept unless another one's logit is clearly higher."""

    rows: Tensor
    favoured: Tensor
    """The favoured token of each row, or `NO_SEQUENCE`."""
    caution: Tensor
    """By how much a logit must be higher than that of the row's favoured token, in nats."""


class StepInput:
    """The buffers of one model on one device. `positions` is the length of its longest sequence, `heads` the number of
    its query heads. `padding_slot` is a slot of the KV store that no sequence owns.
    """

    def __init__(self, positions: int, heads: int, key_heads: int, padding_slot: int, device: torch.device) -> None:
        max_rows = BUCKETS[-1]
        max_blocks = -(-positions // BLOCK)  # of a sequence
        self._tilings = {bucket: Tiling.for_rows(bucket, heads, key_heads) for bucket in BUCKETS}
        query_blocks = max(tiling.blocks for tiling in self._tilings.values())
        sizes = {
            "ids": max_rows,
            "places": max_rows,
            "slots": max_rows,
            "query_blocks": 2 * query_blocks,
            "starts": MAX_SEQUENCES + 1,
            "lengths": MAX_SEQUENCES,
            "chosen_rows": max_rows,
            "favoured": max_rows,
            "caution": max_rows,
            "table": MAX_SEQUENCES * max_blocks,
        }
        ends = list(accumulate(sizes.values()))
        self._on_gpu = device.type == "cuda"
        # one buffer on the host and its copy on the device, divided into the arrays of `sizes`
        self._host = torch.zeros(ends[-1], dtype=torch.int32, pin_memory=self._on_gpu)
        self._device = torch.zeros(ends[-1], dtype=torch.int32, device=device)
        host_numbers = self._host.numpy()
        slices = {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}
        # the arrays by name: numpy's views of the host's buffer, and torch's views of the device's buffer
        self._host_arrays: dict[str, Any] = {name: host_numbers[place] for name, place in slices.items()}
        self._host_arrays["caution"] = self._host_arrays["caution"].view(np.float32)
        self._host_arrays["table"] = self._host_arrays["table"].reshape(MAX_SEQUENCES, max_blocks)
        self._device_arrays = {name: self._device[place] for name, place in slices.items()}
        self._device_arrays["caution"] = self._device_arrays["caution"].view(torch.float32)
        self._device_arrays["table"] = self._device_arrays["table"].view(MAX_SEQUENCES, max_blocks)
        self._sequence_numbers = np.arange(MAX_SEQUENCES)
        # the blocks that stand in each row of the table
        self._blocks_in_table: list[list[int]] = [[] for _ in range(MAX_SEQUENCES)]
        self._padding_slot = padding_slot
        self._table_start = slices["table"].start
        self._max_blocks = max_blocks

    def view(self, rows: int) -> StepView:
        """Return the input of a step of `rows` rows, one of the `BUCKETS`."""
        tiling = self._tilings[rows]
        arrays = self._device_arrays
        return StepView(
            rows,
            ids=arrays["ids"][:rows],
            places=arrays["places"][:rows],
            slots=arrays["slots"][:rows],
            query_blocks=arrays["query_blocks"][: 2 * tiling.blocks].view(-1, 2),
            starts=arrays["starts"],
            lengths=arrays["lengths"],
            table=arrays["table"],
            tiling=tiling,
        )

    def view_choice(self, count: int) -> ChoiceInput:
        """Return the input of a choice of `count` tokens, one of `CHOICE_BUCKETS`."""
        arrays = self._device_arrays
        return ChoiceInput(
            rows=arrays["chosen_rows"][:count], favoured=arrays["favoured"][:count], caution=arrays["caution"][:count]
        )

    def clear(self) -> None:
        """Write a step without any sequence, in which all rows are padding, whatever their number."""
        for name in ("ids", "places", "starts", "lengths", "chosen_rows", "caution"):
            self._host_arrays[name][:] = 0
        self._host_arrays["slots"][:] = self._padding_slot
        self._host_arrays["query_blocks"][:] = NO_SEQUENCE
        self._host_arrays["favoured"][:] = NO_SEQUENCE
        # the table stays, because no row of this step reads it
        before_table = slice(self._table_start)
        self._device[before_table].copy_(self._host[before_table], non_blocking=self._on_gpu)

    def fill(self, feeds: Sequence[Feed]) -> tuple[int, int]:
        """Write a step, and start its copy to the device; return the number of rows, and of tokens to choose.

        Both are rounded up to buckets; the second is 0 if no token is to be chosen. The last copy must have ended.
        """
        ids: list[int] = []
        places: list[int] = []
        counts: list[int] = []
        stops: list[int] = []
        for index, feed in enumerate(feeds):
            sequence = feed.job.sequence
            ids += sequence.ids[feed.start : feed.stop]
            places += range(feed.start, feed.stop)
            counts.append(feed.stop - feed.start)
            stops.append(feed.stop)
            self._write_blocks(index, sequence.blocks[: -(-feed.stop // BLOCK)])
        starts = [0, *accumulate(counts)]
        rows = find_bucket(len(ids))
        # all feeds at once: for one token, a call of numpy costs as much as for a hundred
        row_places = np.array(places, np.int32)
        row_sequences = np.repeat(self._sequence_numbers[: len(feeds)], counts)
        slots = self._host_arrays["table"][row_sequences, row_places // BLOCK] * BLOCK + row_places % BLOCK
        self._write("ids", ids, 0, rows)
        self._write("places", row_places, 0, rows)
        self._write("slots", slots, self._padding_slot, rows)
        self._write("starts", starts, starts[-1])
        self._write("lengths", stops, 0)
        self._divide_queries(starts, self._tilings[rows])
        choice_count = self._fill_choices(feeds, starts)
        # the table is the last array, so a slice can leave out its rows that this step does not use
        used = slice(self._table_start + len(feeds) * self._max_blocks)
        self._device[used].copy_(self._host[used], non_blocking=self._on_gpu)
        return rows, choice_count

    def _write(self, name: str, values: Any, padding: int, stop: int | None = None) -> None:
        """Write `values` to the beginning of an array on the host, and `padding` after them, up to the index `stop`."""
        self._host_arrays[name][: len(values)] = values
        self._host_arrays[name][len(values) : stop] = padding

    def _write_blocks(self, index: int, blocks: list[int]) -> None:
        """Write the blocks of the sequence with this index to the table, unless they stand there, as in most steps."""
        if self._blocks_in_table[index] != blocks:
            self._host_arrays["table"][index, : len(blocks)] = blocks
            self._blocks_in_table[index] = blocks

    def _divide_queries(self, starts: Sequence[int], tiling: Tiling) -> None:
        """Write all query blocks; `starts` are the first rows of the sequences, and the end of the last sequence."""
        # sequence and row one after the other, because numpy takes a flat list far quicker than pairs
        flat_blocks: list[int] = []
        for index, (first_row, stop_row) in enumerate(pairwise(starts)):
            for row in range(first_row, stop_row, tiling.queries):
                flat_blocks += (index, row)
        self._write("query_blocks", flat_blocks, NO_SEQUENCE, 2 * tiling.blocks)

    def _fill_choices(self, feeds: Sequence[Feed], starts: Sequence[int]) -> int:
        """Write the rows after which a token is to be chosen, with their favoured tokens and cautions.

        Returns the number of these rows, rounded up to a bucket; 0 if there are none. At the end of the text that
        drafts are taken from, the last rows have no favoured token. `starts` are those of `_divide_queries`.
        """
        rows: list[int] = []
        favoured: list[int] = []
        cautions: list[float] = []
        for feed, stop_row in zip(feeds, starts[1:], strict=True):
            positions = feed.choice_positions
            count = len(positions)
            rows += range(stop_row - count, stop_row)
            ask = feed.job.ask
            caution = ask.caution if ask else 0.0
            if ask is not None and caution > 0:
                # a draft may be fed in several steps; then the rows of this feed begin within it
                first = positions.start - feed.job.first_choice
                favoured += ask.favoured[first : first + count]
            favoured += [NO_SEQUENCE] * (len(rows) - len(favoured))
            cautions += [caution] * count
        if not rows:
            return 0
        bucket = find_bucket(len(rows), CHOICE_BUCKETS)
        self._write("chosen_rows", rows, 0, bucket)
        self._write("favoured", favoured, NO_SEQUENCE, bucket)
        self._write("caution", cautions, 0, bucket)
        return bucket
