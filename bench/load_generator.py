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
class Arrival(Generic[T]):
    """One request: when it was due and when it was answered, in seconds from the start."""

    due: float
    ended: float
    told: T

    @property
    def waited(self) -> float:
        """Seconds that the client waited."""
        return self.ended - self.due


def times(rate: float, seconds: float, seed: int) -> list[float]:
    """Draw Poisson arrival times: independent clients, together `rate` requests a second."""
    draw = random.Random(seed)
    at = 0.0
    found = []
    while (at := at + draw.expovariate(rate)) < seconds:
        found.append(at)
    return found


async def drive(ask: Callable[[int], Awaitable[T]], due: list[float]) -> list[Arrival[T]]:
    """Send request `number` at `due[number]`; return all results, ordered by due time, after the last has ended."""
    began = time.perf_counter()

    async def one(number: int, at: float) -> Arrival[T]:
        await asyncio.sleep(at - (time.perf_counter() - began))
        told = await ask(number)
        return Arrival(at, time.perf_counter() - began, told)

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
            told = await ask(done)
            done += good(told)  # not in one expression with the await, since other clients count meanwhile

    await asyncio.gather(*(client() for _ in range(clients)))
    return done / (time.perf_counter() - began)
