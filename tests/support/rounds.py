"""How much happens in one round of the event loop, in which nothing else runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


@contextlib.asynccontextmanager
async def rounds() -> AsyncIterator[list[int]]:
    """A list that gets a new number, 0, in each round of the loop."""
    counts = [0]

    async def begin_rounds() -> None:
        while True:
            await asyncio.sleep(0)
            counts.append(0)

    beginning = asyncio.create_task(begin_rounds())
    try:
        yield counts
    finally:
        beginning.cancel()


def count_items(items: Iterable[_T], counts: list[int]) -> Iterator[_T]:
    """The items, each of which is count_items in the round in which it is taken."""
    for item in items:
        counts[-1] += 1
        yield item
