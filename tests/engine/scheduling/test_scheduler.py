"""Company over a runner without a model: everybody gets what he would get alone. More of it in test_schedules.py."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy.engine.scheduling.blocks import BlockPool
from aligner_proxy.engine.scheduling.draft_length import CostCurve
from aligner_proxy.engine.scheduling.scheduler import Feed, Job, JobClient, Scheduler
from aligner_proxy.engine.scheduling.sequence import Ask, Step, TokenSequence, Work
from aligner_proxy.errors import CorrectionError, EngineFault
from aligner_proxy.types import Correction
from tests.support.sampling import examples

SIZE = 4


class Cache:
    """What stands in the slots: a runner that reads wrong slots, or slots of others, is found out."""

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool
        self.slots: dict[int, int] = {}

    def run(self, feed: Feed) -> list[int]:
        """The token after a prefix is the sum of the prefix, read from the slots, modulo 7."""
        sequence = feed.job.sequence
        places = [block * self.pool.size + i for block in sequence.blocks for i in range(self.pool.size)]
        for at in range(feed.start, feed.stop):
            self.slots[places[at]] = sequence.ids[at]
        read = [self.slots[place] for place in places[: feed.stop]]
        assert read == sequence.ids[: feed.stop], "a sequence reads what it has not written"
        return [sum(read[: at + 1]) % 7 for at in feed.choice_positions]


def walk(prompt: list[int], turns: int, sequence: TokenSequence) -> Work:
    """Reads a prompt, then writes with drafts of which some are wrong; returns what it wrote, checking every token."""
    rng = random.Random(str(prompt))
    step = yield Ask(list(prompt), prompt=True)
    written: list[int] = []
    for _ in range(turns):
        assert step.tokens[0] == sum(sequence.ids) % 7
        draft = [rng.randrange(7) for _ in range(rng.randrange(7))]
        step = yield Ask([step.tokens[0]], draft)
        held = len(sequence.ids) - len(draft)
        assert step.tokens == [sum(sequence.ids[: held + i]) % 7 for i in range(len(draft) + 1)]
        sequence.crop(held)
        step = Step([], step.tokens[:1], 1)
        if rng.random() < 0.2:  # go back into the prompt, whose blocks others may share, and on with other tokens
            sequence.crop(rng.randrange(len(prompt)))
            step = yield Ask([rng.randrange(7) for _ in range(rng.randrange(1, 4))])
        written.append(step.tokens[0])
    return Correction(str(written))


def expected(prompt: list[int], turns: int) -> str:
    """The same without anybody else."""
    ends: list[Any] = []
    pool = BlockPool(400, SIZE)
    scheduler = Scheduler(pool, budget=10_000)
    cache = Cache(pool)
    add(scheduler, prompt, turns, ends.append)
    drive(scheduler, cache, lambda: None)
    return str(ends[0].text)


def add(scheduler: Scheduler, prompt: list[int], turns: int, finish: Any, **settings: Any) -> Job:
    sequence = TokenSequence()
    job = Job(str(prompt), walk(prompt, turns, sequence), finish, JobClient(**settings), sequence=sequence)
    assert job.advance() is None
    scheduler.add(job)
    return job


def drive(scheduler: Scheduler, cache: Cache, meanwhile: Any) -> int:
    """Step until nothing is left; the books must balance after every step."""
    for steps in range(20_000):
        feeds = scheduler.schedule(0.0)
        assert sum(feed.stop - feed.start for feed in feeds) <= scheduler.budget
        assert len({id(feed.job) for feed in feeds}) == len(feeds)
        for feed, chosen in [(feed, cache.run(feed)) for feed in feeds]:
            if scheduler.record_feed(feed, chosen):
                result = feed.job.advance(Step([], feed.job.tokens, feed.job.forwards))
                if result is not None:
                    scheduler.drop(feed.job, result)
        scheduler.check()
        meanwhile()
        if not scheduler.running and not scheduler.waiting:
            return steps
    raise AssertionError("it does not come to an end")


@settings(max_examples=examples(250), deadline=None)
@given(
    seed=st.integers(0, 10**9),
    blocks=st.integers(24, 50),
    budget=st.integers(1, 40),
    most=st.integers(1, 8),
    jobs=st.integers(1, 10),
)
def test_everybody_gets_what_he_would_get_alone(seed: int, blocks: int, budget: int, most: int, jobs: int) -> None:
    """With little room they push each other out and begin again; prompts begin alike, so blocks are shared."""
    rng = random.Random(seed)
    pool = BlockPool(blocks, SIZE)
    scheduler, cache = Scheduler(pool, budget=budget, most=most), Cache(pool)
    beginning = [rng.randrange(7) for _ in range(12)]
    plans = [([*beginning[: rng.randrange(13)], rng.randrange(7)], rng.randrange(12)) for _ in range(jobs)]
    ends: dict[int, Any] = {}
    for i, (prompt, turns) in enumerate(plans):
        add(scheduler, prompt, turns, lambda end, i=i: ends.__setitem__(i, end), tenant=str(i % 3))

    def push_out() -> None:
        """Now and then somebody has to begin again, wherever he is."""
        if scheduler.running and rng.random() < 0.1:
            scheduler._push_out(rng.choice(scheduler.running))

    drive(scheduler, cache, push_out)
    assert [ends[i].text for i in range(jobs)] == [expected(prompt, turns) for prompt, turns in plans]
    assert pool.count_uses().used == 0


def test_a_tenant_with_many_requests_does_not_keep_another_waiting() -> None:
    pool = BlockPool(100, SIZE)
    scheduler = Scheduler(pool, most=2)
    for i in range(5):
        add(scheduler, [i], 3, lambda _: None, tenant="many")
    add(scheduler, [6], 3, lambda _: None, tenant="few")
    scheduler.schedule(0.0)
    assert [job.client.tenant for job in scheduler.running] == ["many", "few"]


def test_who_decodes_is_not_kept_waiting_by_a_long_prompt() -> None:
    pool = BlockPool(400, SIZE)
    scheduler = Scheduler(pool, budget=16)
    cache = Cache(pool)
    first = add(scheduler, [1, 2, 3], 50, lambda _: None)
    for feed in scheduler.schedule(0.0):
        scheduler.record_feed(feed, cache.run(feed))
        first.advance(Step([], first.tokens, 1))
    add(scheduler, list(range(7)) * 100, 1, lambda _: None)
    scheduled = {feed.job.name: feed.stop - feed.start for feed in scheduler.schedule(0.0)}
    assert scheduled[first.name] == first.sequence.remaining
    assert sum(scheduled.values()) == 16


@pytest.mark.parametrize("times_dearer", [0, 1])
def test_prompts_slow_those_who_write_only_so_far(times_dearer: int) -> None:
    """Where tokens cost as much as they are many; where a forward costs the same whatever its length, not at all."""
    pool = BlockPool(400, SIZE)
    curve = CostCurve(((1, 1.0), (1001, 1.0 + 1000 * times_dearer)))
    scheduler = Scheduler(pool, costs=curve)
    cache = Cache(pool)
    first = add(scheduler, [1, 2, 3], 50, lambda _: None)
    for feed in scheduler.schedule(0.0):
        scheduler.record_feed(feed, cache.run(feed))
        first.advance(Step([], first.tokens, 1))
    first.sequence.ids += [1] * (20 - first.sequence.remaining)
    second = add(scheduler, list(range(7)) * 100, 1, lambda _: None)
    scheduled = {feed.job.name: feed.stop - feed.start for feed in scheduler.schedule(0.0)}
    assert scheduled == {first.name: 20, second.name: 100 if times_dearer else 700}


STRAIGHT = CostCurve(((1, 1.0), (1001, 101.0)))
"""Ten tokens cost twice as much as one."""


def reading(scheduler: Scheduler, tokens: int, tenant: str = "reader") -> Job:
    """An answer that is only read ahead, with so much text that is new."""
    return add(scheduler, [tokens % 7] * tokens, 1, lambda _: None, tenant=tenant, reads_ahead=lambda: True)


def sizes(feeds: list[Feed]) -> dict[str, int]:
    """Tokens of a step by tenant."""
    found = Counter[str]()
    for feed in feeds:
        found[feed.job.client.tenant] += feed.stop - feed.start
    return dict(found)


def step(scheduler: Scheduler, cache: Cache) -> dict[str, int]:
    """One step; its tokens by tenant."""
    feeds = scheduler.schedule(0.0)
    for feed in feeds:
        if scheduler.record_feed(feed, cache.run(feed)):
            feed.job.advance(Step([], feed.job.tokens, feed.job.forwards))
    return sizes(feeds)


def test_reading_ahead_alone_goes_on_in_short_steps() -> None:
    scheduler = Scheduler(BlockPool(400, SIZE), budget=256, costs=STRAIGHT)
    reading(scheduler, 900)
    assert step(scheduler, Cache(scheduler.pool)) == {"reader": 50}, "six times the cost of a token"


def test_where_tokens_cost_nothing_reading_ahead_takes_the_whole_step() -> None:
    scheduler = Scheduler(BlockPool(400, SIZE), budget=256)
    reading(scheduler, 900)
    assert step(scheduler, Cache(scheduler.pool)) == {"reader": 256}


def test_what_a_client_waits_for_is_not_held_up_by_reading_ahead() -> None:
    """Long answers of others are being read: it has its prompt read at once, as if it were alone."""
    scheduler = Scheduler(BlockPool(4000, SIZE), budget=256, most=4, costs=STRAIGHT)
    cache = Cache(scheduler.pool)
    for _ in range(6):
        reading(scheduler, 900)
    for _ in range(3):
        step(scheduler, cache)
    add(scheduler, [1] * 600, 5, lambda _: None, tenant="client")
    assert step(scheduler, cache) == {"client": 256}
    assert step(scheduler, cache) == {"client": 256}
    last = step(scheduler, cache)
    assert last["client"] == 88
    assert last["reader"] <= 0.2 * (88 + 10), "beside it at most what lengthens the step by a fifth"


def test_a_reading_that_a_client_waits_for_is_read_like_any_other() -> None:
    scheduler = Scheduler(BlockPool(400, SIZE), budget=256, costs=STRAIGHT)
    awaited = [False]
    made = add(scheduler, [1] * 900, 1, lambda _: None, reads_ahead=lambda: not awaited[0])
    cache = Cache(scheduler.pool)
    step(scheduler, cache)
    awaited[0] = True
    assert step(scheduler, cache) == {made.client.tenant: 256}


def test_blocks_of_what_is_only_read_ahead_go_to_who_is_waited_for() -> None:
    scheduler = Scheduler(BlockPool(40, SIZE), budget=256)
    cache = Cache(scheduler.pool)
    readers = [reading(scheduler, 70) for _ in range(2)]
    step(scheduler, cache)
    assert scheduler.pool.count_free() < 10
    client = add(scheduler, [1] * 100, 1, lambda _: None, tenant="client")
    assert step(scheduler, cache)["client"] == 100
    assert client in scheduler.running
    assert any(reader in scheduler.waiting for reader in readers)
    scheduler.check()


def test_what_is_only_read_ahead_takes_no_block_from_a_tenant_that_has_fewer() -> None:
    scheduler = Scheduler(BlockPool(40, SIZE), budget=256)
    cache = Cache(scheduler.pool)
    reading(scheduler, 60, "few")
    reading(scheduler, 80, "many")
    step(scheduler, cache)
    reading(scheduler, 60, "many")
    assert "many" not in step(scheduler, cache) or scheduler.totals.preempted == 0
    assert {job.client.tenant for job in scheduler.running} == {"few", "many"}
    scheduler.check()


def test_readings_for_which_there_is_no_block_do_not_keep_the_loop_busy() -> None:
    scheduler = Scheduler(BlockPool(20, SIZE), budget=256)
    cache = Cache(scheduler.pool)
    first = reading(scheduler, 60)
    step(scheduler, cache)
    first.ask = Ask([])  # it waits for text
    first.sequence.crop(60)
    reading(scheduler, 61)
    assert step(scheduler, cache) == {}
    assert not scheduler.busy
    scheduler.drop(first, Correction(""))
    assert scheduler.busy
    assert step(scheduler, cache) == {"reader": 61}


def test_long_prompts_of_one_tenant_do_not_keep_another_waiting() -> None:
    scheduler = Scheduler(BlockPool(4000, SIZE), budget=64)
    cache = Cache(scheduler.pool)
    for _ in range(8):
        add(scheduler, [1] * 500, 1, lambda _: None, tenant="many")
    for _ in range(4):
        step(scheduler, cache)
    add(scheduler, [2] * 128, 1, lambda _: None, tenant="few")
    assert step(scheduler, cache) == {"few": 64}
    assert step(scheduler, cache) == {"few": 64}


def test_who_writes_is_hardly_slowed_by_a_tenant_that_has_had_more() -> None:
    """Ten tokens cost twice as much as one: the step may cost half as much again as without the other tenant."""
    scheduler = Scheduler(BlockPool(4000, SIZE), budget=256, costs=STRAIGHT)
    cache = Cache(scheduler.pool)
    add(scheduler, [1] * 3000, 1, lambda _: None, tenant="many")
    for _ in range(4):
        step(scheduler, cache)
    writer = add(scheduler, [2] * 40, 50, lambda _: None, tenant="few")
    assert step(scheduler, cache) == {"few": 40, "many": 24}
    for _ in range(5):
        own = writer.sequence.remaining
        given = step(scheduler, cache)
        assert given["few"] == own
        assert 4 <= given["many"] <= 256
        assert given["many"] == 4 or STRAIGHT.estimate_cost(sum(given.values())) <= 1.5 * STRAIGHT.estimate_cost(own)


def test_a_tenant_that_has_had_as_much_is_read_as_before() -> None:
    scheduler = Scheduler(BlockPool(4000, SIZE), budget=256, costs=STRAIGHT)
    cache = Cache(scheduler.pool)
    add(scheduler, [1] * 3000, 1, lambda _: None, tenant="one")
    add(scheduler, [2] * 3000, 1, lambda _: None, tenant="other")
    given = Counter[str]()
    for _ in range(10):
        given.update(step(scheduler, cache))
    assert sum(given.values()) > 9 * 256
    assert abs(given["one"] - given["other"]) <= 512


def test_two_tenants_with_long_prompts_get_the_same() -> None:
    scheduler = Scheduler(BlockPool(4000, SIZE), budget=64)
    cache = Cache(scheduler.pool)
    for tenant, count in (("many", 6), ("few", 1)):
        for _ in range(count):
            add(scheduler, [1] * 2000, 1, lambda _: None, tenant=tenant)
    given = Counter[str]()
    for _ in range(20):
        given.update(step(scheduler, cache))
    assert abs(given["many"] - given["few"]) <= 64


def test_a_tenant_without_a_place_gets_one_of_those_of_the_tenant_that_has_most() -> None:
    scheduler = Scheduler(BlockPool(4000, SIZE), budget=64, most=4)
    cache = Cache(scheduler.pool)
    for number in range(6):
        add(scheduler, [number] * 40, 50, lambda _: None, tenant="many")
    for _ in range(20):
        step(scheduler, cache)
    assert len(scheduler.running) == 4
    add(scheduler, [5, 6] * 16, 1, lambda _: None, tenant="few")
    assert step(scheduler, cache)["few"] == 32
    assert Counter(job.client.tenant for job in scheduler.running) == {"many": 3, "few": 1}
    scheduler.check()


def test_of_many_readings_a_few_go_on_in_one_step() -> None:
    scheduler = Scheduler(BlockPool(400, SIZE))
    jobs = [reading(scheduler, 5) for _ in range(20)]
    for job in jobs:
        job.ask = Ask([])
        job.client.has_new_text = lambda: True
    first = scheduler.find_woken_jobs()
    assert len(first) == 8
    for job in first:
        job.woken += 1
    assert not set(map(id, first)) & set(map(id, scheduler.find_woken_jobs()))
    jobs[-1].client.reads_ahead = lambda: False
    assert scheduler.find_woken_jobs()[0] is jobs[-1]


@pytest.mark.parametrize("waiting", [0, 2])
def test_what_can_never_fit_fails_and_says_what_is_missing(waiting: int) -> None:
    pool = BlockPool(4, SIZE)
    scheduler = Scheduler(pool)
    cache = Cache(pool)
    ends: list[Correction | CorrectionError] = []
    add(scheduler, list(range(7)) * 10, 1, ends.append)
    for i in range(waiting):
        add(scheduler, [i], 1, lambda _: None)
    drive(scheduler, cache, lambda: None)
    assert isinstance(ends[0], EngineFault)
    assert "70 tokens do not fit the 16 of the KV cache" in str(ends[0])


def long_beside_little(blocks: int = 4000) -> tuple[Scheduler, Cache]:
    """A tenant with four long answers that has been read for a while."""
    scheduler = Scheduler(BlockPool(blocks, SIZE), budget=256, costs=STRAIGHT)
    for number in range(4):
        add(scheduler, [number] * 1500, 50, lambda _: None, tenant="long")
    cache = Cache(scheduler.pool)
    for _ in range(3):
        assert step(scheduler, cache) == {"long": 256}
    return scheduler, cache


def test_long_work_of_another_tenant_lengthens_short_work_by_an_eighth_at_most() -> None:
    """Prompts and what is written are all counted; beside a chunk that becomes due, the one chunk more."""
    scheduler, cache = long_beside_little()
    ends: list[Any] = []
    add(scheduler, [5] * 300, 40, ends.append, tenant="little")
    alone = 0.0
    all_of_it = 0.0
    while not ends:
        given = step_to_end(scheduler, cache)
        alone += STRAIGHT.estimate_cost(given["little"])
        all_of_it += STRAIGHT.estimate_cost(sum(given.values()))
    assert alone < all_of_it <= 1.125 * alone + STRAIGHT.estimate_cost(32)


def step_to_end(scheduler: Scheduler, cache: Cache) -> dict[str, int]:
    """One step in which jobs may end; its tokens by tenant."""
    feeds = scheduler.schedule(0.0)
    for feed in feeds:
        if scheduler.record_feed(feed, cache.run(feed)):
            end = feed.job.advance(Step([], feed.job.tokens, feed.job.forwards))
            if end is not None:
                scheduler.drop(feed.job, end)
    return sizes(feeds)


def test_long_work_goes_on_where_others_always_have_a_little_to_do() -> None:
    """Each step could be filled by prompts of tenants with little to do."""
    scheduler, cache = long_beside_little()
    given = Counter[str]()
    for number in range(60):
        while sum(len(job.sequence.ids) for job in scheduler.waiting if job.client.tenant != "long") < 300:
            add(scheduler, [6] * 256, 0, lambda _: None, tenant=f"little {number} {len(scheduler.waiting)}")
        given.update(step_to_end(scheduler, cache))
    assert given["long"] >= 0.05 * sum(given.values())


def test_a_step_of_long_work_alone_ends_soon_where_another_tenant_may_come_back() -> None:
    scheduler, cache = long_beside_little()
    ends: list[Any] = []
    add(scheduler, [5] * 30, 1, ends.append, tenant="little")
    while not ends:
        step_to_end(scheduler, cache)
    assert step(scheduler, cache) == {"long": 32}, "four times the cost of a token is less than the least chunk"
    feeds = scheduler.schedule(6.0)
    assert sizes(feeds) == {"long": 256}, "nobody came back"


def test_long_work_gives_its_blocks_to_a_tenant_with_little_to_do() -> None:
    scheduler, cache = long_beside_little(blocks=400)
    while step(scheduler, cache)["long"] == 256 and scheduler.pool.count_free() > 20:
        pass
    ends: list[Any] = []
    add(scheduler, [5] * 200, 1, ends.append, tenant="little")
    for _ in range(4):
        step_to_end(scheduler, cache)
    assert ends
    scheduler.check()
