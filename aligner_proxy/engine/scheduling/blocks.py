"""Blocks of the KV cache: of a fixed size, shared where prompts begin alike. No torch.

A full block of a prompt is known by its tokens and by the block before it, compared token by token and never by a hash
alone: one tenant's cache can never be taken for another's. Each adapter has a beginning of its own, because the same
tokens leave other keys and values behind under another adapter. Blocks that no sequence holds keep their content until
the room is needed; the longest unused goes first, and of one prompt the last block before the first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from aligner_proxy.engine.api import BlockUse

BLOCK = 16
"""Tokens a block; small, because the part that prompts share (template, objectives) is some 60 to 100 tokens."""

Key = tuple[int, tuple[int, ...], str | None]
"""The node of the block before (at the start: minus the adapter's number), the tokens of this one, and its tenant.

None: all tenants share it."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose prompt it is: read with this adapter, and this tenant's own but for its first `shared` tokens."""

    adapter: int = 0
    tenant: str = ""
    shared: int = 0

    def find_tenant(self, end: int) -> str | None:
        """The tenant of a block that ends with so many tokens; None where all share it."""
        return None if end <= self.shared else self.tenant


_ANYBODY = Owner()


class NoRoom(Exception):
    """No block is left: a job has to wait, or another to give its blocks back."""


class BlockPool:
    """The holders of block numbers 0 to `count` - 1; it holds no memory itself."""

    def __init__(self, count: int, size: int = BLOCK) -> None:
        self.count = count
        self.size = size
        self._holders = [0] * count
        self._free: OrderedDict[int, None] = OrderedDict((block, None) for block in range(count))
        self._node_of: dict[int, int] = {}
        self._key_of: dict[int, Key] = {}
        self._block_of: dict[Key, int] = {}
        self._nodes = _numbers()

    def take(self) -> int:
        """A block with nothing in it; raises `NoRoom`."""
        if not self._free:
            raise NoRoom
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self._holders[block] = 1
        return block

    def give_back(self, blocks: Iterable[int]) -> None:
        """Let go of blocks, in the order of the sequence; those that no other sequence holds are free."""
        for block in reversed(list(blocks)):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free[block] = None
                if block not in self._key_of:
                    self._free.move_to_end(block, last=False)

    def match(self, ids: Sequence[int], most: int, owner: Owner = _ANYBODY) -> list[int]:
        """Take the known blocks that a prompt of this owner begins with, of at most `most` of its tokens."""
        matched: list[int] = []
        node = -owner.adapter
        for start in range(0, most - self.size + 1, self.size):
            block = self._block_of.get(self._key(node, ids, start, owner))
            if block is None:
                break
            self._hold(block)
            matched.append(block)
            node = self._node_of[block]
        return matched

    def publish(self, blocks: Sequence[int], ids: Sequence[int], length: int, owner: Owner = _ANYBODY) -> None:
        """Make known the full blocks of the first `length` tokens, which are computed and will not change."""
        node = -owner.adapter
        for block, start in zip(blocks, range(0, length - self.size + 1, self.size), strict=False):
            if block not in self._key_of:
                key = self._key(node, ids, start, owner)
                if key in self._block_of:
                    return  # computed twice at the same time: the first one stays, ours is not shared
                self._block_of[key] = block
                self._key_of[block] = key
                self._node_of[block] = next(self._nodes)
            node = self._node_of[block]

    def is_published(self, block: int) -> bool:
        """Whether others may take it, so that nothing may be written into it any more."""
        return block in self._key_of

    def available(self) -> int:
        """How many blocks could be taken."""
        return len(self._free)

    def use(self) -> BlockUse:
        """For metrics."""
        cached = sum(block in self._key_of for block in [*self._free])  # the model's thread goes on changing it
        used = self.count - len(self._free)
        return BlockUse(used, sum(n > 1 for n in self._holders), cached, len(self._free) - cached)

    def check(self, held_blocks: Iterable[int]) -> None:
        """Raise AssertionError unless exactly `held_blocks` (with repetitions) is held; for tests and idle moments."""
        expected = [0] * self.count
        for block in held_blocks:
            expected[block] += 1
        assert self._holders == expected, "holders of blocks are miscounted"
        assert {b for b in range(self.count) if not expected[b]} == set(self._free), "free blocks are not the unheld"
        assert all(self._block_of[key] == block for block, key in self._key_of.items()), "a known block is lost"

    def _key(self, node: int, ids: Sequence[int], start: int, owner: Owner) -> Key:
        end = start + self.size
        return (node, tuple(ids[start:end]), owner.find_tenant(end))

    def _hold(self, block: int) -> None:
        self._free.pop(block, None)
        self._holders[block] += 1

    def _forget(self, block: int) -> None:
        """Its content goes. What follows it can then not be found any more and goes in its turn."""
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._block_of[key], self._node_of[block]


def _numbers() -> count[int]:
    """Node numbers; never used twice, so that a block whose forerunner is gone cannot be found by chance."""
    return count(1)
