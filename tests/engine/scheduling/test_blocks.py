"""Blocks of the KV cache: nobody gets another's, nobody loses his own, and prompts that begin alike share."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aligner_proxy.engine.scheduling.blocks import BlockPool, Owner
from tests.support.sampling import examples

SIZE = 4


def filled(pool: BlockPool, ids: list[int]) -> list[int]:
    """Blocks for these tokens, computed and published."""
    blocks = [pool.take() for _ in range(-(-len(ids) // SIZE))]
    pool.publish(blocks, ids, len(ids))
    return blocks


def test_a_prompt_that_begins_alike_takes_the_blocks_that_are_there() -> None:
    pool = BlockPool(8, SIZE)
    first = filled(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert pool.match([1, 2, 3, 4, 5, 6, 7, 8, 0, 0], 10) == first[:2]
    assert pool.match([1, 2, 3, 4, 0, 0, 0, 0], 8) == first[:1]
    assert pool.match([0, 2, 3, 4], 4) == []
    assert pool.count_uses().shared == 2


def test_the_same_tokens_after_another_beginning_are_another_block() -> None:
    pool = BlockPool(8, SIZE)
    filled(pool, [1, 1, 1, 1, 5, 6, 7, 8])
    assert pool.match([2, 2, 2, 2, 5, 6, 7, 8], 8) == []


def test_no_more_is_taken_than_may_be() -> None:
    pool = BlockPool(8, SIZE)
    first = filled(pool, [1, 2, 3, 4, 5, 6, 7, 8])
    assert pool.match([1, 2, 3, 4, 5, 6, 7, 8], 7) == first[:1]


def test_what_nobody_holds_is_kept_until_room_is_needed_the_end_of_a_prompt_first() -> None:
    pool = BlockPool(3, SIZE)
    blocks = filled(pool, list(range(12)))
    pool.give_back(blocks)
    assert pool.count_uses().cached == 3
    assert pool.take() == blocks[2]
    assert pool.match(list(range(12)), 12) == blocks[:2]


def test_a_block_whose_forerunner_is_gone_is_never_found() -> None:
    pool = BlockPool(4, SIZE)
    first = filled(pool, list(range(8)))
    pool.give_back(first[:1])
    spare = [pool.take() for _ in range(3)]
    assert first[0] in spare
    pool.give_back(spare)
    filled(pool, [0, 1, 2, 3])
    assert len(pool.match(list(range(8)), 8)) == 1


def test_behind_what_all_share_nobody_finds_the_blocks_of_another_tenant() -> None:
    pool = BlockPool(16, SIZE)
    ids = list(range(12))
    first = [pool.take() for _ in range(3)]
    pool.publish(first, ids, 12, Owner(tenant="a", shared=5))
    assert pool.match(ids, 12, Owner(tenant="a", shared=5)) == first
    assert pool.match(ids, 12, Owner(tenant="b", shared=5)) == first[:1]
    assert pool.match(ids, 12, Owner(tenant="b", shared=12)) == first[:1]
    assert pool.match(ids, 12, Owner(1, "a", 5)) == []
    second = pool.match(ids, 12, Owner(tenant="b", shared=5))
    second += [pool.take() for _ in range(2)]
    pool.publish(second, ids, 12, Owner(tenant="b", shared=5))
    assert pool.match(ids, 12, Owner(tenant="b", shared=5)) == second
    assert pool.match(ids, 12, Owner(tenant="a", shared=5)) == first


def test_a_block_that_belongs_to_a_tenant_in_part_is_its_own() -> None:
    pool = BlockPool(8, SIZE)
    blocks = [pool.take()]
    pool.publish(blocks, [1, 2, 3, 4], 4, Owner(tenant="a", shared=3))
    assert pool.match([1, 2, 3, 4], 4, Owner(tenant="b", shared=3)) == []


class Holders(RuleBasedStateMachine):
    """Sequences that come, grow and go in any order; a model of who holds what watches the pool."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(12, SIZE)
        self.content: dict[int, tuple[int, ...]] = {}
        self.held: list[tuple[list[int], list[int]]] = []

    @rule(ids=st.lists(st.integers(0, 1), min_size=1, max_size=20))
    def come(self, ids: list[int]) -> None:
        blocks = self.pool.match(ids, len(ids))
        for i, block in enumerate(blocks):
            assert self.content[block] == tuple(ids[: (i + 1) * SIZE]), "a block with other tokens was given"
        missing = -(-len(ids) // SIZE) - len(blocks)
        if missing > self.pool.count_free():
            self.pool.give_back(blocks)
            return
        blocks += [self.pool.take() for _ in range(missing)]
        self.pool.publish(blocks, ids, len(ids))
        for i, block in enumerate(blocks):
            if (i + 1) * SIZE <= len(ids):
                self.content[block] = tuple(ids[: (i + 1) * SIZE])
        self.held.append((blocks, ids))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        blocks, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.pool.give_back(blocks)

    @invariant()
    def books_balance(self) -> None:
        self.pool.check(block for blocks, _ in self.held for block in blocks)


TestHolders = Holders.TestCase
TestHolders.settings = settings(max_examples=examples(150), stateful_step_count=30, deadline=None)


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(0, 40))
def test_a_match_is_a_beginning_of_whole_blocks(ids: list[int], most: int) -> None:
    pool = BlockPool(32, SIZE)
    filled(pool, ids)
    assert len(pool.match(ids, min(most, len(ids)))) == min(most, len(ids)) // SIZE
