"""The Redis server that gateways share: every call has a timeout, and while the server is away nobody waits for it.

A call that fails or takes longer than `WAIT_S` marks the server as away, and later calls fail at once. A background
task then probes the server until it answers again, so that no request has to. A server that refuses writes (its memory
is full, or it is a replica) is still read. Texts go to Redis only in encoded entries (entries.py). No message contains
the server's address, because it may contain a password.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from aligner_proxy.concurrency import end_tasks, is_being_cancelled
from aligner_proxy_fleet.errors import RedisAway, RedisRefused
from aligner_proxy_fleet.metrics import REDIS_FAILURES, REDIS_UP

if TYPE_CHECKING:
    from redis.asyncio import Redis

WAIT_S = 0.25
"""Timeout of a call in seconds; waiting longer would cost more than working without Redis."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
"""Longest pause in seconds between probes of a server that is away; the pause starts at `FIRST_PAUSE_S` and doubles."""
FULL_PAUSE_S = 3.0
"""Seconds without writes after the server refused one."""
_CONNECTIONS = 32
"""Maximum connections of each worker; further calls wait for a free one, within their timeout."""
_WRITES_REFUSED = ("OOM", "READONLY", "MISCONF", "NOREPLICAS")
"""Error codes with which a readable server refuses writes."""
_T = TypeVar("_T")
Work = Callable[["Redis"], Awaitable[_T]]
"""Makes calls with the client that it gets, and returns their result."""
log = logging.getLogger("aligner_proxy.fleet")


class RedisServer:
    """A Redis by its URL; `name` is the variable with the URL. Only the event loop that first uses it may use it."""

    def __init__(self, url: str, name: str, *, wait_s: float = WAIT_S) -> None:
        self.name = name
        self._url = url
        self._wait_s = wait_s
        self._client: Redis | None = None
        """The shared client; None before the first call, and after the server was away."""
        self._probe_task: asyncio.Task[None] | None = None
        """Probes the server while it is away; None while it answers."""
        self._pause_s = 0.0
        """Pause before the next probe."""
        self._returned_at = 0.0
        """When the server last came back, by `time.monotonic`; 0 if it was never away."""
        self._takes_writes = True
        """False for `FULL_PAUSE_S` after the server refused a write."""
        self._closed = False
        self._update_metrics()

    @property
    def is_away(self) -> bool:
        """Whether calls fail at once, because the server did not answer recently or this object is closed."""
        return self._closed or self._probe_task is not None

    async def ask(self, work: Work[_T]) -> _T:
        """Run `work` with a client and return its result.

        Raises `RedisAway` if the server does not answer in time, and marks it as away. Raises `RedisRefused` if it
        refuses writes now, and stops writing for `FULL_PAUSE_S`.
        """
        if self.is_away:
            raise RedisAway("the shared Redis is away")
        try:
            return await self._call(work)
        except RedisRefused as error:
            self._stop_writing(str(error))
            raise
        except RedisAway as error:
            self._mark_away(str(error))
            raise

    async def write(self, work: Work[_T]) -> _T:
        """Do as `ask` with `work` that writes; while the server refuses writes, raise `RedisRefused` at once."""
        if not self._takes_writes:
            raise RedisRefused("the shared Redis takes no writes")
        return await self.ask(work)

    def new_client(self) -> Redis:
        """A client with its own connections, which the caller must close; it connects with its first call."""
        return open_client(self._url, self._wait_s)

    async def aclose(self) -> None:
        """Stop probing and close all connections; later calls fail at once."""
        self._closed = True
        if self._probe_task is not None:
            await end_tasks(self._probe_task)
        await self._disconnect()

    async def _disconnect(self) -> None:
        """Close all connections, even those in use; the next call opens new ones."""
        client = self._client
        self._client = None
        if client is not None:
            # imported here, so that the library is loaded only if Redis is used
            from redis.exceptions import RedisError

            # a connection that does not close in time (for example in a busy event loop) is dropped with the client
            with contextlib.suppress(RedisError, OSError, RuntimeError):
                await client.connection_pool.disconnect(inuse_connections=True)

    async def _call(self, work: Work[_T]) -> _T:
        """Run `work` with a timeout; raises `RedisAway` and `RedisRefused` in place of the library's errors."""
        # imported here, so that the library is loaded only if Redis is used
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(self._wait_s):
                return await work(self._open_client())
        except (RedisError, OSError, ValueError) as error:
            raise _classify_error(error) from None
        finally:
            # The library may lose a cancellation: an error of the connection that it then closes replaces it, and in
            # Python 3.11 `asyncio.wait_for` ignores it if its work has just ended.
            if is_being_cancelled():
                raise asyncio.CancelledError

    def _open_client(self) -> Redis:
        """Return the shared client, which is created if there is none."""
        if self._client is None:
            self._client = open_client(self._url, self._wait_s)
        return self._client

    def _mark_away(self, fault: str) -> None:
        """Count a failure, mark the server as away, and start a task that probes it until it is back.

        `fault` is the kind of failure, for metrics and the log.
        """
        REDIS_FAILURES.labels(fault).inc()
        if self.is_away:
            return  # another call has marked it already
        log.warning("the Redis in %s does not answer (%s); this gateway works alone until it does", self.name, fault)
        up_s = time.monotonic() - self._returned_at
        # if the server fails again soon after its return, the pause goes on growing
        self._pause_s = FIRST_PAUSE_S if up_s > LONGEST_PAUSE_S else min(LONGEST_PAUSE_S, self._pause_s * 2)
        self._probe_task = asyncio.create_task(self._wait_until_back())
        self._update_metrics()

    async def _wait_until_back(self) -> None:
        """Close the old connections, probe the server with growing pauses until it answers, and mark it as back."""
        await self._disconnect()
        while True:
            await asyncio.sleep(self._pause_s)
            with contextlib.suppress(RedisAway, RedisRefused):
                await self._call(lambda redis: redis.ping())
                break
            self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
        self._returned_at = time.monotonic()
        self._probe_task = None
        self._takes_writes = True
        self._update_metrics()
        log.info("the Redis in %s answers again", self.name)

    def _stop_writing(self, fault: str) -> None:
        """Count and log a refusal, and stop writing for `FULL_PAUSE_S`; `fault` is the server's error code."""
        REDIS_FAILURES.labels(fault).inc()
        if not self._takes_writes:
            return
        self._takes_writes = False
        self._update_metrics()
        log.warning(
            "the Redis in %s refuses writes (%s); the gateway still reads it and retries writes", self.name, fault
        )
        asyncio.get_running_loop().call_later(FULL_PAUSE_S, self._resume_writing)

    def _resume_writing(self) -> None:
        self._takes_writes = True
        self._update_metrics()

    def _update_metrics(self) -> None:
        is_away = self._probe_task is not None
        REDIS_UP.labels(self.name, "reads").set(not is_away)
        REDIS_UP.labels(self.name, "writes").set(not is_away and self._takes_writes)


def open_client(url: str, wait_s: float) -> Redis:
    """A client with the timeout `wait_s` and without retries; it connects with its first call."""
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    settings: dict[str, Any] = {
        "socket_timeout": wait_s,
        "socket_connect_timeout": wait_s,
        "max_connections": _CONNECTIONS,
        "timeout": wait_s,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "aligner-proxy",
        "decode_responses": False,
    }
    return Redis.from_pool(BlockingConnectionPool.from_url(url, **settings))


def _classify_error(error: Exception) -> RedisAway | RedisRefused:
    """Return `RedisRefused` for a refused write, else `RedisAway`, for an error that the library or the system raised.

    The message is the server's error code, or the class of the error.
    """
    # imported here, so that the library is loaded only if Redis is used
    from redis.exceptions import ResponseError

    if isinstance(error, TimeoutError):
        return RedisAway("Timeout")
    if not isinstance(error, ResponseError):
        return RedisAway(type(error).__name__)
    # the library has classes for some error codes; otherwise the message begins with the code
    codes_by_class = {"OutOfMemoryError": "OOM", "ReadOnlyError": "READONLY"}
    code = codes_by_class.get(type(error).__name__, str(error).partition(" ")[0])
    return RedisRefused(code) if code in _WRITES_REFUSED else RedisAway(type(error).__name__)
