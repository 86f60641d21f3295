"""Load generator. Open loop: requests at times drawn beforehand, whether or not those before them have been answered.

A closed loop waits for a slow server and so hides its slowness; here a request that could not be sent in time counts
from the moment at which it should have been.
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
class Arrival(Generic[T]):
    """One request: when it was due and when it had its answer, in seconds from the beginning."""

    due: float
    ended: float
    told: T

    @property
    def waited(self) -> float:
        """Seconds that its client waited."""
        return self.ended - self.due


def times(rate: float, seconds: float, seed: int) -> list[float]:
    """Poisson arrivals: independent clients, `rate` a second of them all together."""
    draw = random.Random(seed)
    at = 0.0
    found = []
    while (at := at + draw.expovariate(rate)) < seconds:
        found.append(at)
    return found


async def drive(ask: Callable[[int], Awaitable[T]], due: list[float]) -> list[Arrival[T]]:
    """Send request `number` at `due[number]`; all of them, in the order in which they were due, when all have ended."""
    began = time.perf_counter()

    async def one(number: int, at: float) -> Arrival[T]:
        await asyncio.sleep(at - (time.perf_counter() - began))
        told = await ask(number)
        return Arrival(at, time.perf_counter() - began, told)

    return list(await asyncio.gather(*(one(number, at) for number, at in enumerate(due))))


async def saturate(
    ask: Callable[[int], Awaitable[T]], clients: int, seconds: float, good: Callable[[T], bool] = lambda _: True
) -> float:
    """Good answers a second when `clients` ask again as soon as they are answered."""
    began = time.perf_counter()
    done = 0

    async def client() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            told = await ask(done)
            done += good(told)  # not in one line with the wait: others count meanwhile

    await asyncio.gather(*(client() for _ in range(clients)))
    return done / (time.perf_counter() - began)
