"""Retry of requests that an engine has not begun, within the request's deadline and a limited wait.

An engine has not begun a request if there is no connection, if the aligner is still loading, or if the engine is full.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, AttemptManager, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential, wait_random

from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.engine.api import MIN_DEADLINE_S
from aligner_proxy.errors import EngineOverloaded, EngineUnavailable

_T = TypeVar("_T")
# in seconds; with the random part, clients that failed together do not come back together
_backoff = wait_exponential(multiplier=0.05, max=1.0) + wait_random(0, 0.05)


class NotReady(EngineUnavailable):
    """The engine has not begun the request: nothing listens, or the aligner is still loading."""


async def retry(send: Callable[[float], Awaitable[_T]], deadline_s: float, wait_s: float) -> _T:
    """Call `send` until the engine begins the request, and return its result.

    `send` gets the seconds that are left until the deadline, and sends the request once. Raises `DeadlineExceeded`
    after `deadline_s`, and the last `NotReady` or `EngineOverloaded` after `wait_s` seconds.
    """
    deadline_at = time.monotonic() + deadline_s
    last_start_at = time.monotonic() + min(deadline_s, wait_s)
    retrying = AsyncRetrying(
        retry=retry_if_exception_type((NotReady, EngineOverloaded)),
        wait=_pause_s,
        # stop rather than pause until after `last_start_at`
        stop=lambda state: time.monotonic() + (state.upcoming_sleep or 0.0) >= last_start_at,
        reraise=True,
    )
    attempt: AttemptManager | None = None
    try:
        async with enforce_deadline(deadline_s):
            async for attempt in retrying:
                with attempt:
                    return await send(max(MIN_DEADLINE_S, deadline_at - time.monotonic()))
    except (NotReady, EngineOverloaded) as error:
        raise error.with_traceback(None) from None  # drop the traceback, as tenacity's frames refer to the error
    finally:
        if attempt is not None:
            # tenacity's objects refer to each other and, through the error, to the frames of all callers with their
            # texts. Without this they would stay in memory until garbage collection.
            attempt.retry_state.outcome = None
    # not reached, because tenacity's loop only ends by returning or raising
    raise AssertionError


def _pause_s(state: RetryCallState) -> float:
    """Seconds until the next attempt: what a full engine asked for, otherwise an exponential backoff."""
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after_s if isinstance(error, EngineOverloaded) else _backoff(state)
