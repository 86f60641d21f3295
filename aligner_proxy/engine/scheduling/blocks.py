"""Blocks of the KV cache: of a fixed size, shared by prompts that begin alike. No torch.

A full block of a prompt is identified by its tokens and by the block before it. Tokens are compared one by one, never
by a hash alone, so that one tenant's cache can never be mistaken for another's. Each adapter has a root of its own,
because the same tokens give other keys and values under another adapter. Blocks that no sequence holds retain their
content until they are needed. The least recently used block is reused first, and of one prompt the last block first.
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
"""The node of the previous block, this block's tokens, and its tenant (None if all tenants share the block).

Every block that is published gets a new number above 0, its node; the first block follows minus the adapter's
number."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a prompt: the adapter that reads it, and the tenant of all but its first `shared` tokens."""

    adapter: int = 0
    tenant: str = ""
    shared: int = 0


_ANYBODY = Owner()


class NoRoom(Exception):
    """No block is free: a job has to wait, or another has to free its blocks."""


class BlockPool:
    """Tracks who holds the blocks 0 to `count` - 1; the cache memory itself is elsewhere (`KVStore`)."""

    def __init__(self, count: int, size: int = BLOCK) -> None:
        self.count = count
        self.size = size
        self._holders = [0] * count  # how many sequences hold each block
        # the blocks that nobody holds (the values mean nothing); the first one is taken next
        self._free: OrderedDict[int, None] = OrderedDict((block, None) for block in range(count))
        # of published blocks only: node and key by block, and block by key
        self._node_of: dict[int, int] = {}
        self._key_of: dict[int, Key] = {}
        self._block_of: dict[Key, int] = {}
        # never reused, so that a block whose predecessor is gone cannot be matched by accident
        self._node_numbers = itertools.count(1)

    def take(self) -> int:
        """Take a free block and forget its old content; raises `NoRoom`."""
        if not self._free:
            raise NoRoom
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self._holders[block] = 1
        return block

    def give_back(self, blocks: Iterable[int]) -> None:
        """Release blocks, given in the order of the sequence; those that no other sequence holds become free."""
        # in reverse, so that the last block is reused first: without an earlier one, the later ones cannot be found
        for block in reversed(list(blocks)):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free[block] = None
                # nobody can reuse its content, so it goes before those whose content may still be matched
                if block not in self._key_of:
                    self._free.move_to_end(block, last=False)

    def match(self, ids: Sequence[int], limit: int, owner: Owner = _ANYBODY) -> list[int]:
        """Hold and return the published blocks that match the start of an owner's prompt, up to its token `limit`."""
        matched: list[int] = []
        node = -owner.adapter  # the adapter's root; other nodes have positive numbers
        for start in range(0, limit - self.size + 1, self.size):
            block = self._block_of.get(self._make_key(node, ids, start, owner))
            if block is None:
                break
            self._free.pop(block, None)
            self._holders[block] += 1
            matched.append(block)
            node = self._node_of[block]
        return matched

    def publish(self, blocks: Sequence[int], ids: Sequence[int], length: int, owner: Owner = _ANYBODY) -> None:
        """Publish the full blocks of the first `length` tokens for reuse; they are computed and will not change."""
        full = min(length // self.size, len(blocks))
        first = full
        # those before a published block are published, too
        while first and blocks[first - 1] not in self._key_of:
            first -= 1
        node = self._node_of[blocks[first - 1]] if first else -owner.adapter
        for number in range(first, full):
            key = self._make_key(node, ids, number * self.size, owner)
            if key in self._block_of:
                return  # another sequence computed the same block first: that one is shared, ours is not
            block = blocks[number]
            self._block_of[key] = block
            self._key_of[block] = key
            node = next(self._node_numbers)
            self._node_of[block] = node

    def is_published(self, block: int) -> bool:
        """Whether other sequences may use the block, so that it must not be written to any more."""
        return block in self._key_of

    def count_free(self) -> int:
        return len(self._free)

    def count_uses(self) -> BlockUse:
        """Count the blocks by state, for metrics; may be called from another thread."""
        cached = sum(block in self._key_of for block in [*self._free])  # a copy, as the model's thread may change it
        used = self.count - len(self._free)
        shared = sum(holder_count > 1 for holder_count in self._holders)
        return BlockUse(used, shared, cached, len(self._free) - cached)

    def check(self, held_blocks: Iterable[int]) -> None:
        """Raise AssertionError unless exactly `held_blocks` (with repetitions) are held; for tests and idle moments."""
        expected = [0] * self.count
        for block in held_blocks:
            expected[block] += 1
        assert self._holders == expected, "holders of blocks are miscounted"
        unheld = {block for block in range(self.count) if not expected[block]}
        assert unheld == set(self._free), "free blocks are not the unheld"
        assert all(self._block_of[key] == block for block, key in self._key_of.items()), "a known block is lost"

    def _make_key(self, node: int, ids: Sequence[int], start: int, owner: Owner) -> Key:
        """The key of the block that begins at token `start` of a prompt and follows the block `node`."""
        end = start + self.size
        return (node, tuple(ids[start:end]), None if end <= owner.shared else owner.tenant)

    def _forget(self, block: int) -> None:
        """Unpublish a block. The blocks after it in its prompt cannot be matched any more, and wait for their reuse."""
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._block_of[key], self._node_of[block]
