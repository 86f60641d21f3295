"""Concurrency helpers: shielded work, deadlines, disconnected clients, and fair turns on an event loop.

LiteLLM's hooks do not see the connection, so they would correct responses whose client has disconnected.
`DisconnectMiddleware` wraps the application and makes the connection available to the hooks of the request. Streams do
not need this because the server closes them itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar, copy_context
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_proxy.errors import ClientGone, DeadlineExceeded

AT_ONCE_CHARS = 500
"""Texts up to this many characters are processed in the event loop; longer ones in a thread."""
_T = TypeVar("_T")
_client: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("aligner_proxy_client", default=None)
"""Waits until the client of the current request leaves."""
_running: set[asyncio.Task[Any]] = set()
"""Strong references to running tasks, since the loop itself keeps only weak ones."""


async def run_to_end(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end even if the caller is cancelled.

    After a client leaves a stream, its server (anyio) cancels at every await, so cleanup that awaits would never
    finish.
    """
    await asyncio.shield(start_task(work))


def start_task(work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """Start a task that lives until its end, even if the caller keeps no reference to it."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


async def end_tasks(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait for their ends; their errors are ignored."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def is_being_cancelled() -> bool:
    """Whether the present task itself is being cancelled, and not only the work that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def run_off_loop(chars: int, work: Callable[[], _T], tenant: str | None = None) -> _T:
    """The result of `work`, run in a thread if it processes enough characters to stall the loop, else directly.

    Work that may take long for some texts names the `tenant` whose texts they are, and shares threads fairly.
    """
    if chars <= AT_ONCE_CHARS:
        return work()
    return await (asyncio.to_thread(work) if tenant is None else _SHARED_THREADS.run(tenant, work))


class FairThreads:
    """Some threads for long computations; the texts of one tenant occupy at most `share` of them at a time.

    A thread cannot be stopped, so what computes for a caller that has left still counts.
    """

    def __init__(self, count: int, share: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._share = share
        self._lock = threading.Lock()
        self._running: dict[str, set[Future[Any]]] = {}
        """By tenant, what waits for a thread or computes now; changed under the lock."""

    async def run(self, tenant: str, work: Callable[[], _T]) -> _T:
        """The result of `work`, computed in a thread as soon as the tenant may use one."""
        while len(running := self._list_running(tenant)) >= self._share:
            await _wait_for_any(running)
        with self._lock:
            future = self._executor.submit(copy_context().run, work)
            self._running.setdefault(tenant, set()).add(future)
        future.add_done_callback(lambda _: self._forget(tenant, future))
        return await asyncio.wrap_future(future)

    def _list_running(self, tenant: str) -> tuple[Future[Any], ...]:
        with self._lock:
            return tuple(self._running.get(tenant, ()))

    def _forget(self, tenant: str, future: Future[Any]) -> None:
        """Remove what has ended; called in its thread, before those are woken that wait for it."""
        with self._lock:
            self._running[tenant].remove(future)
            if not self._running[tenant]:
                del self._running[tenant]


async def _wait_for_any(futures: Collection[Future[Any]]) -> None:
    loop = asyncio.get_running_loop()
    has_ended = asyncio.Event()

    def wake(_: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(has_ended.set)

    for future in futures:
        future.add_done_callback(wake)
    await has_ended.wait()


_SHARED_THREADS = FairThreads(4, 2, "texts")


class TimeSlice:
    """One task's share of an event loop: long work pauses regularly so that other tasks run.

    In each round of the loop only one of all tasks with long work runs. Short work in between, such as a new request,
    therefore waits for one of them and not for all.
    """

    LONGEST_S = 0.002
    """Seconds of one turn."""

    async def pause(self) -> None:
        """Let other tasks run if this one has used up its turn or does not have the turn."""
        loop = asyncio.get_running_loop()
        turns = _turns.get(loop) or _turns.setdefault(loop, _Turns())
        task = id(asyncio.current_task())
        if turns.holder != task or time.perf_counter() - turns.began > self.LONGEST_S:
            await turns.wait_for_turn()
            turns.holder = task
            turns.began = time.perf_counter()


class _Turns:
    """Queue of the tasks of one loop that wait for their turn."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        """One future for each waiting task, first come first; its result gives the turn."""
        self._is_due = False
        """Whether `_give_turn` is scheduled for the next round of the loop."""
        self.holder = 0
        """Id of the task that has the turn; a reference to the task would keep it alive."""
        self.began = 0.0
        """When its turn began (`time.perf_counter()`)."""

    async def wait_for_turn(self) -> None:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._give_turn)
        await turn

    def _give_turn(self) -> None:
        """Give the turn to the next task, and reschedule for the next round of the loop while tasks wait."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # its task was not cancelled
                turn.set_result(None)
                break
        self._is_due = bool(self._waiting)
        if self._is_due:
            asyncio.get_running_loop().call_soon(self._give_turn)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()
"""The queue of each event loop."""


async def join_chunks(chunks: AsyncIterator[bytes], limit: int, error: Exception) -> bytes:
    """Join all chunks; raise `error` as soon as they exceed `limit` bytes."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise error
    return bytes(body)


class ErrorTranslation:
    """Context manager that raises `convert(error)` in place of an error of the given kinds.

    This is a class and not a generator with `contextmanager` to avoid a reference cycle. From Python 3.12 on, a
    generator that raises a new error keeps a reference to its caller's frame. That frame holds the first error, whose
    traceback holds the generator's frame. The frames of all callers, with their texts, would stay in memory until the
    garbage collector runs.
    """

    def __init__(
        self, kinds: type[Exception] | tuple[type[Exception], ...], convert: Callable[[Any], Exception]
    ) -> None:
        self._kinds = kinds
        self._convert = convert

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, self._kinds):
            raise self._convert(error) from None


def enforce_deadline(deadline_s: float) -> AbstractAsyncContextManager[None]:
    """Context manager that raises `DeadlineExceeded` if its block takes longer than `deadline_s`."""
    return _Deadline(deadline_s)


class _Deadline:
    """Implementation of `enforce_deadline`; a class for the reason given at `ErrorTranslation`."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._timeout = asyncio.timeout(deadline_s)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline of {self._deadline_s:g} s passed") from None


async def wait_until_closed(receive: Receive) -> None:
    """Return when the connection is closed."""
    while (await receive())["type"] != "http.disconnect":
        pass


def cancel_when_gone(wait_until_gone: Callable[[], Awaitable[None]] | None) -> AbstractAsyncContextManager[None]:
    """Context manager that ends its block with `ClientGone` once `wait_until_gone` returns; None: no watching."""
    return contextlib.nullcontext() if wait_until_gone is None else _Watch(wait_until_gone)


class _Watch:
    """Watches a client while a block runs; a class for the reason given at `ErrorTranslation`."""

    def __init__(self, wait_gone: Callable[[], Awaitable[None]]) -> None:
        self._wait_gone = wait_gone
        """Returns when the client has left."""
        self._is_gone = False
        """Whether the client has left, so that a cancellation is our own."""
        self._has_begun = False
        """Whether the watching task has run at all."""

    async def __aenter__(self) -> None:
        work = asyncio.current_task()
        assert work is not None
        self._work = work
        self._watching = asyncio.create_task(self._watch(work))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        try:
            # `uncancel` takes back our own request to cancel. If another remains, it is our caller's, and the work must
            # end as cancelled.
            if isinstance(error, asyncio.CancelledError) and self._is_gone and self._work.uncancel() == 0:
                raise ClientGone("the client left") from None
        finally:
            self._watching.cancel()
            if self._has_begun:  # otherwise the work never waited, and there is nothing to wait for
                await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self, work: asyncio.Task[Any]) -> None:
        """Cancel the work as soon as the client has left."""
        self._has_begun = True
        # A connection that cannot be read does not mean that the client has left.
        with contextlib.suppress(Exception):
            await self._wait_gone()
            self._is_gone = True
            work.cancel()


class DisconnectMiddleware:
    """ASGI middleware that makes the client's connection available to `app`; it changes no message."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client = _Client(receive, send)
        _client.set(client.wait_gone)
        await self.app(scope, receive, client.send)


class _Client:
    """Connection of one request.

    After the answer, servers report the connection as closed even if the client is still connected. Work that runs
    after the answer (such as LiteLLM's background responses) must not be cancelled then.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._answered = False
        """Whether the whole answer was sent."""

    async def send(self, message: Message) -> None:
        """Send a message and remember whether it ends the answer."""
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._answered = True
        await self._send(message)

    async def wait_gone(self) -> None:
        """Return when the client leaves before its answer is complete; otherwise never return."""
        await wait_until_closed(self._receive)
        if self._answered:
            await asyncio.Event().wait()


def client_gone_waiter() -> Callable[[], Awaitable[None]] | None:
    """A function that returns when the client of the current request leaves; None without the middleware."""
    return _client.get()
