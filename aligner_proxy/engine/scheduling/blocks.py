"""Blocks of the KV cache: each holds a fixed number of tokens; prompts that begin alike share blocks. No torch.

A full block of a prompt is published for reuse, and identified by its tokens and by the block before it. Tokens are
compared one by one, never by a hash alone, so that one tenant's cache can never be mistaken for another's. Each adapter
has a root of its own, because the same tokens give other keys and values under another adapter. Blocks that no sequence
holds retain their content until they are needed. The least recently used block is reused first, and of one prompt the
last block first.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aligner_proxy.engine.api import BlockUse

BLOCK = 16
"""Tokens per block; small, because the part that prompts share (template, objectives) is some 60 to 100 tokens."""

Key = tuple[int, tuple[int, ...], str | None]
"""The key of a published block: the node of the block before it, its tokens, and its tenant (None if all share it).

A node is a new positive number that every published block gets. Before the first block of a prompt is the adapter's
root, a node that is minus the adapter's number."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a prompt: the adapter that reads it, and the tenant of all but its first `shared` tokens."""

    adapter: int = 0
    tenant: str = ""
    shared: int = 0


_ANYBODY = Owner()
"""The owner of prompts that name none."""


class BlockPool:
    """Tracks which blocks, from 0 to `count` - 1, sequences hold, and which are published, so that prompts that begin
    alike can share them. The cache memory itself is in `KVStore`."""

    def __init__(self, count: int, size: int = BLOCK) -> None:
        self.count = count
        self.size = size
        self._holder_counts = [0] * count  # how many sequences hold each block
        # an ordered set of the blocks that no sequence holds; the first one is taken next
        self._free_blocks: OrderedDict[int, None] = OrderedDict((block, None) for block in range(count))
        # the next three have published blocks only; `Key` explains keys and nodes
        self._node_by_block: dict[int, int] = {}
        self._key_by_block: dict[int, Key] = {}
        self._block_by_key: dict[Key, int] = {}
        # nodes are never reused, so that a block whose predecessor is gone cannot be matched by accident
        self._new_nodes = itertools.count(1)

    def take(self) -> int:
        """Take a free block for new content, and return its number; there must be one (`count_free`)."""
        block, _ = self._free_blocks.popitem(last=False)  # the keys are the blocks
        self._forget(block)
        self._holder_counts[block] = 1
        return block

    def give_back(self, blocks: Iterable[int]) -> None:
        """Release the blocks of a sequence, given in its order; blocks that no other sequence holds become free."""
        # in reverse, so that the last block is reused first: without an earlier block, later ones cannot be matched
        for block in reversed(list(blocks)):
            self._holder_counts[block] -= 1
            if self._holder_counts[block] == 0:
                self._free_blocks[block] = None
                # the content of an unpublished block cannot be reused, so the block is taken before published ones
                if block not in self._key_by_block:
                    self._free_blocks.move_to_end(block, last=False)

    def match(self, ids: Sequence[int], limit: int, owner: Owner = _ANYBODY) -> list[int]:
        """Return the published blocks that hold the first tokens of an owner's prompt `ids`, and hold them for it.

        At most the first `limit` tokens are matched, in full blocks.
        """
        matched: list[int] = []
        node = -owner.adapter  # the root of the adapter's blocks; published blocks have positive numbers
        for start in range(0, limit - self.size + 1, self.size):
            block = self._block_by_key.get(self._make_key(node, ids, start, owner))
            if block is None:
                break
            self._free_blocks.pop(block, None)
            self._holder_counts[block] += 1
            matched.append(block)
            node = self._node_by_block[block]
        return matched

    def publish(self, blocks: Sequence[int], ids: Sequence[int], length: int, owner: Owner = _ANYBODY) -> None:
        """Publish the full blocks of the first `length` tokens of `ids`, so that other sequences can share them.

        These tokens are in the cache already and do not change any more.
        """
        full_count = min(length // self.size, len(blocks))
        published_count = full_count
        # the blocks before a published block are published, too
        while published_count and blocks[published_count - 1] not in self._key_by_block:
            published_count -= 1
        node = self._node_by_block[blocks[published_count - 1]] if published_count else -owner.adapter
        for index in range(published_count, full_count):
            key = self._make_key(node, ids, index * self.size, owner)
            if key in self._block_by_key:
                return  # another sequence has published a block with the same content, so ours is not needed
            block = blocks[index]
            self._block_by_key[key] = block
            self._key_by_block[block] = key
            node = next(self._new_nodes)
            self._node_by_block[block] = node

    def is_published(self, block: int) -> bool:
        """Whether other sequences may use the block, so that it must not be written to any more."""
        return block in self._key_by_block

    def count_free(self) -> int:
        return len(self._free_blocks)

    def count_uses(self) -> BlockUse:
        """Count the blocks by state, for metrics; may be called from another thread."""
        free_blocks = [*self._free_blocks]  # a copy, because the model's thread may change it meanwhile
        cached = sum(block in self._key_by_block for block in free_blocks)
        used = self.count - len(self._free_blocks)
        shared = sum(holder_count > 1 for holder_count in self._holder_counts)
        return BlockUse(used=used, shared=shared, cached=cached, free=len(self._free_blocks) - cached)

    def check(self, held_blocks: Iterable[int]) -> None:
        """Raise AssertionError unless the counts are consistent; called in tests and when the engine is idle.

        `held_blocks` are the blocks of all sequences; a block that several sequences hold occurs several times.
        """
        expected_counts = [0] * self.count
        for block in held_blocks:
            expected_counts[block] += 1
        assert self._holder_counts == expected_counts, "holders of blocks are miscounted"
        unheld_blocks = {block for block in range(self.count) if not expected_counts[block]}
        assert unheld_blocks == set(self._free_blocks), "free blocks are not the unheld"
        for block, key in self._key_by_block.items():
            assert self._block_by_key[key] == block, "a known block is lost"

    def _make_key(self, node: int, ids: Sequence[int], start: int, owner: Owner) -> Key:
        """The key of the block that begins at token `start` of a prompt and follows the block `node`."""
        end = start + self.size
        tenant = None if end <= owner.shared else owner.tenant
        return (node, tuple(ids[start:end]), tenant)

    def _forget(self, block: int) -> None:
        """Unpublish a block, if it is published. Blocks after it in its prompt then cannot be matched any more."""
        key = self._key_by_block.pop(block, None)
        if key is not None:
            del self._block_by_key[key], self._node_by_block[block]
