"""Who corrects answers that are delivered as they are? Tasks behind the client's back, a bounded number at once.

The client waits for nothing here, and an answer for which there is no room is skipped by name. What comes of the others
is known to telemetry and audit alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aligner_proxy.gateway import metrics
from aligner_proxy.pipeline import eligibility
from aligner_proxy.types import Exchange, Outcome, Policy, SkipReason, Status

log = logging.getLogger(__name__)

LAST_S = 10.0
"""A process that was asked to end has no more time than that for answers that nobody waits for."""
Settle = Callable[[Exchange], Awaitable[object]]


class Shadows:
    """`running` corrections at a time, `waiting` more before answers are skipped."""

    def __init__(self, running: int, waiting: int) -> None:
        self._room = running + waiting
        self._turn = asyncio.Semaphore(running)
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, exchange: Exchange, policy: Policy, settle: Settle) -> Outcome:
        """What the response says of this choice at once; `settle` records the rest when its turn comes."""
        skip = eligibility.check(exchange, policy)
        if skip is None and len(self._tasks) >= self._room:
            skip = SkipReason.SHADOW_FULL
        if skip is not None:
            return metrics.closed(exchange.call_id, policy, Status.SKIPPED, skip.value, exchange.index)
        task = asyncio.create_task(self._settled(exchange, settle))
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._landed)
        return Outcome(Status.SHADOW, None, exchange.answer, policy, exchange.index)

    async def done(self) -> None:
        """When all that was taken until now is settled."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def finish(self, then: Callable[[], Awaitable[object]]) -> None:
        """The process ends: settle what was taken, as far as `LAST_S` goes, and let `then` keep what came of it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_S)
        await then()

    async def _settled(self, exchange: Exchange, settle: Settle) -> None:
        async with self._turn:
            await settle(exchange)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a shadow correction was lost (%s)", type(error).__name__)
