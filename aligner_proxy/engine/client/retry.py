"""Retry of requests that an engine has not begun, within the request's deadline and a limited wait.

An engine has not begun a request if there is no connection, if the aligner is still loading, or if the engine is full.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.engine.api import MIN_DEADLINE_S
from aligner_proxy.errors import EngineOverloaded, EngineUnavailable

_T = TypeVar("_T")
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
"""Seconds before the second attempt, and at most; each further pause is twice as long."""


class NotReady(EngineUnavailable):
    """The engine has not begun the request: nothing listens, or the aligner is still loading."""


async def retry(send: Callable[[float], Awaitable[_T]], deadline_s: float, wait_s: float) -> _T:
    """Call `send` until the engine begins the request, and return its result.

    `send` gets the seconds that are left until the deadline, and sends the request once. Raises `DeadlineExceeded`
    after `deadline_s`, and the last `NotReady` or `EngineOverloaded` after `wait_s` seconds.
    """
    started_at = time.monotonic()
    last_start_at = started_at + min(deadline_s, wait_s)
    backoff_s = _FIRST_PAUSE_S
    async with enforce_deadline(deadline_s):
        while True:
            try:
                return await send(max(MIN_DEADLINE_S, started_at + deadline_s - time.monotonic()))
            except (NotReady, EngineOverloaded) as error:
                if isinstance(error, EngineOverloaded):
                    pause_s = error.retry_after_s
                else:
                    # with the random part, clients that failed together do not come back together
                    pause_s = backoff_s + random.uniform(0, _FIRST_PAUSE_S)
                # give up rather than pause until after `last_start_at`
                if time.monotonic() + pause_s >= last_start_at:
                    raise error from None
            backoff_s = min(2 * backoff_s, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)
