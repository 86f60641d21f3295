"""The Redis server that gateways share: every call is bounded, and while it is away nobody waits for it.

A call that fails or takes longer than `PATIENCE_S` marks the server as away, and later calls fail at once. A
background task then probes the server, so no request pays for detecting its return. A server that refuses writes (full
memory, or a replica) is still read. Only sealed entries go to Redis, and its address, which may contain a password, is
in no message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from aligner_proxy_fleet.errors import RedisAway, RedisRefused
from aligner_proxy_fleet.metrics import REDIS_FAILURES, REDIS_UP

if TYPE_CHECKING:
    from redis.asyncio import Redis

PATIENCE_S = 0.25
"""A call that takes longer is worse than none."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
"""Longest pause between probes of a server that is away; it starts at `FIRST_PAUSE_S` and doubles."""
FULL_PAUSE_S = 3.0
"""How long nothing is written to a server that takes no writes."""
_CONNECTIONS = 32
"""In each worker; further calls wait for one of them, within their patience."""
_WRITES_REFUSED = ("OOM", "READONLY", "MISCONF", "NOREPLICAS")
"""How the errors begin with which a server that can be read refuses writes."""
_T = TypeVar("_T")
Work = Callable[["Redis"], Awaitable[_T]]
log = logging.getLogger("aligner_proxy.fleet")


class RedisServer:
    """A server by its URL; `name` is the variable that holds it. It belongs to the event loop that asks it first."""

    def __init__(self, url: str, name: str, *, patience_s: float = PATIENCE_S) -> None:
        self.name = name
        self._url = url
        self._patience_s = patience_s
        self._client: Redis | None = None
        self._returning: asyncio.Task[None] | None = None
        self._pause_s = 0.0
        self._returned_at = 0.0
        self._takes_writes = True
        self._closed = False
        self._update_metrics()

    @property
    def is_away(self) -> bool:
        """Whether calls fail at once, because the server did not answer lately."""
        return self._closed or self._returning is not None

    async def ask(self, work: Work[_T]) -> _T:
        """What the server answers to `work`.

        Raises `RedisAway` where it does not answer in time, and `RedisRefused` where it takes no writes now.
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
        """The same for work that changes something; while the server takes no writes it is not asked."""
        if not self._takes_writes:
            raise RedisRefused("the shared Redis takes no writes")
        return await self.ask(work)

    def new_client(self) -> Redis:
        """A client with connections of its own, which its user closes; it connects with its first call."""
        return open_client(self._url, self._patience_s)

    async def aclose(self) -> None:
        """Close all connections."""
        self._closed = True
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.gather(self._returning, return_exceptions=True)
        await self._disconnect()

    async def _disconnect(self) -> None:
        """Close all connections, also those that calls wait for; the next call opens others."""
        client = self._client
        self._client = None
        if client is not None:
            # Only where Redis is used is its client loaded.
            from redis.exceptions import RedisError

            # A connection that does not close in time (a busy event loop) is dropped with the client.
            with contextlib.suppress(RedisError, OSError, RuntimeError):
                await client.connection_pool.disconnect(inuse_connections=True)

    async def _call(self, work: Work[_T]) -> _T:
        """The answer to one call, with the errors of the library turned into ours."""
        # Only where Redis is used is its client loaded.
        from redis.exceptions import RedisError, ResponseError

        try:
            async with asyncio.timeout(self._patience_s):
                return await work(self._open_client())
        except TimeoutError:
            raise RedisAway("Timeout") from None
        except ResponseError as error:
            raise _classify_error(error) from None
        except (RedisError, OSError, ValueError) as error:
            raise RedisAway(type(error).__name__) from None

    def _open_client(self) -> Redis:
        if self._client is None:
            self._client = open_client(self._url, self._patience_s)
        return self._client

    def _mark_away(self, what: str) -> None:
        """Leave the server alone from now on, and find out meanwhile when it is back."""
        REDIS_FAILURES.labels(what).inc()
        if self.is_away:
            return  # another call found out before
        log.warning("the Redis in %s does not answer (%s); this gateway works alone until it does", self.name, what)
        well_for = time.monotonic() - self._returned_at
        self._pause_s = FIRST_PAUSE_S if well_for > LONGEST_PAUSE_S else min(LONGEST_PAUSE_S, self._pause_s * 2)
        self._returning = asyncio.create_task(self._wait_until_back())
        self._update_metrics()

    async def _wait_until_back(self) -> None:
        """Ask now and then; return when the server answers. Connections of before are not used again."""
        await self._disconnect()
        while True:
            await asyncio.sleep(self._pause_s)
            with contextlib.suppress(RedisAway, RedisRefused):
                await self._call(lambda redis: redis.ping())
                break
            self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
        self._returned_at = time.monotonic()
        self._returning = None
        self._takes_writes = True
        self._update_metrics()
        log.info("the Redis in %s answers again", self.name)

    def _stop_writing(self, what: str) -> None:
        """Write nothing for a while; then try again."""
        REDIS_FAILURES.labels(what).inc()
        if not self._takes_writes:
            return
        self._takes_writes = False
        self._update_metrics()
        log.warning("the Redis in %s takes no writes (%s); it is still read, and writes are retried", self.name, what)
        asyncio.get_running_loop().call_later(FULL_PAUSE_S, self._resume_writing)

    def _resume_writing(self) -> None:
        self._takes_writes = True
        self._update_metrics()

    def _update_metrics(self) -> None:
        away = self._returning is not None
        REDIS_UP.labels(self.name, "reads").set(not away)
        REDIS_UP.labels(self.name, "writes").set(not away and self._takes_writes)


def open_client(url: str, patience_s: float) -> Redis:
    """A client that waits no longer than `patience_s` and tries nothing twice; it connects with its first call."""
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    settings: dict[str, Any] = {
        "socket_timeout": patience_s,
        "socket_connect_timeout": patience_s,
        "max_connections": _CONNECTIONS,
        "timeout": patience_s,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "aligner-proxy",
        "decode_responses": False,
    }
    return Redis.from_pool(BlockingConnectionPool.from_url(url, **settings))


def _classify_error(error: Exception) -> RedisAway | RedisRefused:
    """What an answer means that is an error: its first word is a code, or the name of the library's error says it."""
    codes = {"OutOfMemoryError": "OOM", "ReadOnlyError": "READONLY"}
    code = codes.get(type(error).__name__, str(error).partition(" ")[0])
    return RedisRefused(code) if code in _WRITES_REFUSED else RedisAway(type(error).__name__)
