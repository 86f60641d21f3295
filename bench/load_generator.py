"""Load generator. In an open loop, requests are sent at times drawn beforehand, whatever is still unanswered.

A closed loop waits for a slow server and so hides its slowness. Here a request that could not be sent in time counts
from the moment when it should have been sent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TimedRequest(Generic[T]):
    """One request: when it was due and when it was answered, in seconds from the start."""

    due: float
    end: float
    result: T

    @property
    def waited(self) -> float:
        """Seconds that the client waited."""
        return self.end - self.due


def draw_times(rate: float, seconds: float, seed: int) -> list[float]:
    """Draw Poisson arrival times: independent clients, together `rate` requests a second."""
    draw = random.Random(seed)
    at = 0.0
    due = []
    while (at := at + draw.expovariate(rate)) < seconds:
        due.append(at)
    return due


async def drive(ask: Callable[[int], Awaitable[T]], due: list[float]) -> list[TimedRequest[T]]:
    """Send request `number` at `due[number]`; return all results, ordered by due time, after the last has ended."""
    began = time.perf_counter()

    async def one(number: int, at: float) -> TimedRequest[T]:
        await asyncio.sleep(at - (time.perf_counter() - began))
        result = await ask(number)
        return TimedRequest(at, time.perf_counter() - began, result)

    return list(await asyncio.gather(*(one(number, at) for number, at in enumerate(due))))


async def saturate(
    ask: Callable[[int], Awaitable[T]], clients: int, seconds: float, good: Callable[[T], bool] = lambda _: True
) -> float:
    """Good answers per second if `clients` send their next request as soon as the last is answered."""
    began = time.perf_counter()
    done = 0

    async def client() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            result = await ask(done)
            done += good(result)  # not in one expression with the await, since other clients count meanwhile

    await asyncio.gather(*(client() for _ in range(clients)))
    return done / (time.perf_counter() - began)
