"""Retry of what an engine has not begun, within the request's deadline and a bounded patience.

Sent again is only what was not begun: a connection that was not made, an aligner that is still loading, a full queue.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tenacity import AsyncRetrying, AttemptManager, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential, wait_random

from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.errors import EngineOverloaded, EngineUnavailable

_T = TypeVar("_T")
_LEAST_S = 0.001
_backoff = wait_exponential(multiplier=0.05, max=1.0) + wait_random(0, 0.05)


class NotReady(EngineUnavailable):
    """The engine has not begun: nothing listens, or the aligner is still loading."""


async def retry(ask: Callable[[float], Awaitable[_T]], deadline_s: float, patience_s: float) -> _T:
    """Call `ask` with the seconds that are left until the engine begins. Raises `DeadlineExceeded`."""
    until = time.monotonic() + deadline_s
    patience = time.monotonic() + min(deadline_s, patience_s)
    retrying = AsyncRetrying(
        retry=retry_if_exception_type((NotReady, EngineOverloaded)),
        wait=_wait,
        stop=lambda state: time.monotonic() + (state.upcoming_sleep or 0.0) >= patience,
        reraise=True,
    )
    attempt: AttemptManager | None = None
    try:
        async with enforce_deadline(deadline_s):
            async for attempt in retrying:
                with attempt:
                    return await ask(max(_LEAST_S, until - time.monotonic()))
    except (NotReady, EngineOverloaded) as error:
        raise error.with_traceback(None) from None  # tenacity's frames know it
    finally:
        if attempt is not None:
            # tenacity's objects hold each other, and through the error the frames of all callers with their texts:
            # those would wait for the garbage collector.
            attempt.retry_state.outcome = None
    raise EngineUnavailable("the engine was not asked")


def _wait(state: RetryCallState) -> float:
    """As long as a full engine asked for, otherwise a little longer each time."""
    error: Any = state.outcome.exception() if state.outcome else None
    return float(error.retry_after_s) if isinstance(error, EngineOverloaded) else _backoff(state)
