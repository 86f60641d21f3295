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
_FEW_ROWS = 32
"""Up to this many rows, attention works on small tiles of queries, else on large ones."""
_MAX_SPLITS = 8
"""Most parts of the context that are attended to beside each other."""
_BUSY_PROGRAMS = 512
"""Programs of attention that keep a GPU busy; with fewer, the context is divided into parts."""


def find_bucket(count: int, buckets: Sequence[int] = BUCKETS) -> int:
    """The smallest bucket of at least `count` rows; raises IndexError above the largest."""
    return buckets[bisect_left(buckets, count)]


@dataclass(frozen=True, slots=True)
class Tiling:
    """How attention divides a step: a tile has `queries` rows of one sequence, with all heads that share a key head.

    With 9 query heads over 3 key heads, a tile of 16 has 5 rows with 3 heads each (triton_attention.py shows it).
    """

    tile: int
    """Query heads in a tile, of all its rows together."""
    queries: int
    blocks: int
    """Most query blocks of a step; each is one tile of rows."""
    splits: int
    """Parts of the context that are attended to beside each other, and then added."""

    @classmethod
    def for_rows(cls, rows: int, heads: int, key_heads: int) -> Tiling:
        """The tiling for a step with one of the `BUCKETS` as its number of `rows`."""
        group = heads // key_heads
        usual_tile = _SMALL_TILE if rows <= _FEW_ROWS else _LARGE_TILE
        # a tile holds at least one row, that is, `group` heads; its size is a power of two
        tile = max(usual_tile, 1 << (group - 1).bit_length())
        queries = tile // group
        full_blocks = -(-rows // queries)
        # each sequence may leave one block partly empty
        most_blocks = min(rows, full_blocks + MAX_SEQUENCES)
        wanted_splits = max(1, min(_MAX_SPLITS, _BUSY_PROGRAMS // (full_blocks * key_heads)))
        # rounded down to a power of two
        splits = 1 << (wanted_splits.bit_length() - 1)
        return cls(tile, queries, most_blocks, splits)


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
    """The rows after which tokens are chosen: each with its favoured token, and the caution in favour of that."""

    rows: Tensor
    favoured: Tensor
    caution: Tensor


class StepInput:
    """The buffers of one model on one device; `positions` is its longest sequence, `heads` are those of its queries.

    `padding_slot` is a slot of the KV store that no sequence owns.
    """

    def __init__(self, positions: int, heads: int, key_heads: int, padding_slot: int, device: torch.device) -> None:
        rows = BUCKETS[-1]
        blocks = -(-positions // BLOCK)
        self._tilings = {bucket: Tiling.for_rows(bucket, heads, key_heads) for bucket in BUCKETS}
        query_blocks = max(tiling.blocks for tiling in self._tilings.values())
        sizes = {
            "ids": rows,
            "places": rows,
            "slots": rows,
            "query_blocks": 2 * query_blocks,
            "starts": MAX_SEQUENCES + 1,
            "lengths": MAX_SEQUENCES,
            "chosen_rows": rows,
            "favoured": rows,
            "caution": rows,
            "table": MAX_SEQUENCES * blocks,
        }
        ends = list(accumulate(sizes.values()))
        self._on_gpu = device.type == "cuda"
        # one buffer on the host and its copy on the device, divided into the arrays of `sizes`
        self._host = torch.zeros(ends[-1], dtype=torch.int32, pin_memory=self._on_gpu)
        self._device = torch.zeros(ends[-1], dtype=torch.int32, device=device)
        numbers = self._host.numpy()
        pieces = {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}
        # the arrays by name: numpy's views of the host's buffer, and torch's views of the device's
        self._write: dict[str, Any] = {name: numbers[piece] for name, piece in pieces.items()}
        self._write["caution"] = self._write["caution"].view(np.float32)
        self._write["table"] = self._write["table"].reshape(MAX_SEQUENCES, blocks)
        self._read = {name: self._device[piece] for name, piece in pieces.items()}
        self._read["caution"] = self._read["caution"].view(torch.float32)
        self._read["table"] = self._read["table"].view(MAX_SEQUENCES, blocks)
        self._numbers = np.arange(MAX_SEQUENCES)
        # the blocks that stand in each row of the table
        self._rows_of_blocks: list[list[int]] = [[] for _ in range(MAX_SEQUENCES)]
        self._padding_slot = padding_slot
        self._table_start = pieces["table"].start
        self._blocks = blocks  # most blocks of a sequence

    def view(self, rows: int) -> StepView:
        """The input of a step with one of the `BUCKETS` as its number of `rows`."""
        tiling = self._tilings[rows]
        ids, places, slots = (self._read[name][:rows] for name in ("ids", "places", "slots"))
        blocks = self._read["query_blocks"][: 2 * tiling.blocks].view(-1, 2)
        starts, lengths, table = (self._read[name] for name in ("starts", "lengths", "table"))
        return StepView(rows, ids, places, slots, blocks, starts, lengths, table, tiling)

    def view_choice(self, count: int) -> ChoiceInput:
        """The input of a choice of `count` tokens, one of `CHOICE_BUCKETS`."""
        return ChoiceInput(*(self._read[name][:count] for name in ("chosen_rows", "favoured", "caution")))

    def clear(self) -> None:
        """Write a step without any sequence, in which all rows are padding, whatever their number."""
        for name in ("ids", "places", "starts", "lengths", "chosen_rows", "caution"):
            self._write[name][:] = 0
        self._write["slots"][:] = self._padding_slot
        self._write["query_blocks"][:] = NO_SEQUENCE
        self._write["favoured"][:] = NO_SEQUENCE
        used = slice(self._table_start)
        self._device[used].copy_(self._host[used], non_blocking=self._on_gpu)

    def fill(self, feeds: Sequence[Feed]) -> tuple[int, int]:
        """Write a step, and start its copy to the device; return the number of rows, and of tokens to choose.

        Both are rounded up to buckets; there may be no token to choose. The last copy must have ended.
        """
        ids: list[int] = []
        places: list[int] = []
        counts: list[int] = []
        stops: list[int] = []
        for number, feed in enumerate(feeds):
            sequence = feed.job.sequence
            start = feed.start
            stop = feed.stop
            ids += sequence.ids[start:stop]
            places += range(start, stop)
            counts.append(stop - start)
            stops.append(stop)
            self._write_blocks(number, sequence.blocks[: -(-stop // BLOCK)])
        starts = [0, *accumulate(counts)]
        rows = find_bucket(len(ids))
        buffers = self._write
        # all feeds at once: for one token, a call of numpy costs as much as for a hundred
        place_of = np.array(places, np.int32)
        sequence_of = np.repeat(self._numbers[: len(feeds)], counts)
        slots = buffers["table"][sequence_of, place_of // BLOCK] * BLOCK + place_of % BLOCK
        for name, values, padding in (("ids", ids, 0), ("places", place_of, 0), ("slots", slots, self._padding_slot)):
            buffers[name][: len(ids)] = values
            buffers[name][len(ids) : rows] = padding
        buffers["starts"][: len(starts)] = starts
        buffers["starts"][len(starts) :] = starts[-1]
        buffers["lengths"][: len(feeds)] = stops
        buffers["lengths"][len(feeds) :] = 0
        self._divide_queries(starts, self._tilings[rows])
        choices = self._fill_choices(feeds, starts)
        # the table comes last, and only the part of this step's sequences is copied
        used = slice(self._table_start + len(feeds) * self._blocks)
        self._device[used].copy_(self._host[used], non_blocking=self._on_gpu)
        return rows, choices

    def _write_blocks(self, number: int, blocks: list[int]) -> None:
        """Write the table's row of a sequence, unless it already stands there, as in most steps."""
        if self._rows_of_blocks[number] != blocks:
            self._write["table"][number, : len(blocks)] = blocks
            self._rows_of_blocks[number] = blocks

    def _divide_queries(self, starts: Sequence[int], tiling: Tiling) -> None:
        """Write the query blocks of every sequence, and mark the others as empty."""
        # pairs of a sequence and a row, one after the other: numpy takes a flat list far quicker than pairs
        blocks: list[int] = []
        for number, (first, stop) in enumerate(pairwise(starts)):
            for row in range(first, stop, tiling.queries):
                blocks += (number, row)
        self._write["query_blocks"][: len(blocks)] = blocks
        self._write["query_blocks"][len(blocks) : 2 * tiling.blocks] = NO_SEQUENCE

    def _fill_choices(self, feeds: Sequence[Feed], starts: Sequence[int]) -> int:
        """Write the rows after which a token is wanted, with their favoured tokens; return the number, rounded up.

        There may be fewer favoured tokens than rows, at the end of the text that drafts are taken from.
        """
        rows: list[int] = []
        favoured: list[int] = []
        cautions: list[float] = []
        for feed, last in zip(feeds, starts[1:], strict=True):
            positions = feed.choice_positions
            count = len(positions)
            rows += range(last - count, last)
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
        for name, values, padding in (
            ("chosen_rows", rows, 0),
            ("favoured", favoured, NO_SEQUENCE),
            ("caution", cautions, 0),
        ):
            self._write[name][: len(rows)] = values
            self._write[name][len(rows) : bucket] = padding
        return bucket
