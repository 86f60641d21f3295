"""An open loop sends when it is due, and counts from then."""

from __future__ import annotations

import asyncio
import statistics
import time

from hypothesis import given
from hypothesis import strategies as st

from bench.load_generator import draw_times, drive, saturate


@given(rate=st.floats(0.1, 50), seconds=st.floats(1, 60), seed=st.integers(0, 9))
def test_arrivals_are_in_order_and_in_time(rate: float, seconds: float, seed: int) -> None:
    due = draw_times(rate, seconds, seed)
    assert due == sorted(due)
    assert all(0 < at < seconds for at in due)
    assert due == draw_times(rate, seconds, seed)


def test_there_are_as_many_as_the_rate_says() -> None:
    assert abs(statistics.mean(len(draw_times(10, 100, seed)) for seed in range(50)) - 1000) < 20


async def test_nobody_waits_for_those_before() -> None:
    """All are in flight at the same time: each waits for the last one to be sent."""
    all_sent = asyncio.Event()

    async def ask(number: int) -> int:
        if number == 4:
            all_sent.set()
        await all_sent.wait()
        return number

    arrived = await drive(ask, [0.0, 0.01, 0.02, 0.03, 0.04])
    assert [one.result for one in arrived] == [0, 1, 2, 3, 4]
    assert all(one.waited >= 0 for one in arrived)
    assert arrived[0].waited >= 0.04  # what kept the first one counts from when it was due


async def test_a_closed_loop_asks_as_often_as_it_is_answered() -> None:
    asked: list[int] = []

    async def ask(number: int) -> bool:
        asked.append(number)
        await asyncio.sleep(0.01)
        return len(asked) % 2 == 0

    assert await saturate(ask, 3, 0.1) > 0
    assert len(asked) >= 3
    assert await saturate(ask, 3, 0.05, lambda _: False) == 0


async def test_a_closed_loop_counts_every_answer_of_every_client() -> None:
    answered = 0

    async def ask(_: int) -> None:
        nonlocal answered
        await asyncio.sleep(0.01)
        answered += 1

    began = time.perf_counter()
    rate = await saturate(ask, 5, 0.1)
    assert answered > 5
    assert rate * (time.perf_counter() - began) >= answered, "answers that two clients got at once were counted once"
