"""How is foreign code called, so that it can neither break the gateway nor block it?

`boundary` lets our own failures and cancellations through and gives everything else a name, without its text.
`ThreadRunner` is a thread with an event loop of its own: code that blocks there blocks nothing else, and once it does
not even answer a knock, nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

from aligner_proxy.errors import CorrectionError, DeadlineExceeded, PluginFault, PluginStuck

_T = TypeVar("_T")
_GRACE_S = 0.25
"""A thread that answers no knock for so long after its work was given up is stuck."""

Work = Callable[[], Coroutine[Any, Any, _T]]


class Runner(Protocol):
    """Where something of a plugin runs."""

    async def call(self, work: Work[_T]) -> _T:
        """What `work` returns; raises `CorrectionError` subclasses only, and `CancelledError`."""
        ...


@contextlib.contextmanager
def boundary() -> Iterator[None]:
    """What leaves this is ours: the package's second boundary, around everything that a plugin does."""
    try:
        yield
    except CorrectionError as error:
        # Of a class of its own nobody would know what follows it, and its reason could be anything.
        if type(error).__module__.partition(".")[0] == "aligner_proxy":
            raise
        raise PluginFault(f"a plugin raised {type(error).__name__}") from None
    except TimeoutError:
        raise DeadlineExceeded("a plugin ran out of time") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever foreign code raises, its text may quote answers
        raise PluginFault(f"a plugin raised {type(error).__name__}") from None


class InlineRunner:
    """Satisfies `Runner` for plugins of our own: in the gateway's event loop."""

    async def call(self, work: Work[_T]) -> _T:
        """Do it."""
        with boundary():
            return await work()


class ThreadRunner:
    """Satisfies `Runner`: one daemon thread, started when it is first needed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._knocked: tuple[float, threading.Event] | None = None

    async def call(self, work: Work[_T]) -> _T:
        """Do it over there. When the caller leaves, the work is cancelled; a thread that blocks hears it later."""
        loop = self._running()
        if self._stuck():
            raise PluginStuck(f"{self._name} blocks its thread")
        future = asyncio.run_coroutine_threadsafe(_bounded(work), loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if _leaving():
                self._knock(loop)
                raise
            raise PluginFault("a plugin raised CancelledError") from None

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            self._loop = asyncio.new_event_loop()
            self._knocked = None
            self._thread = threading.Thread(target=_serve, args=(self._loop,), name=self._name, daemon=True)
            self._thread.start()
        return self._loop

    def _knock(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask the thread for a sign of life, unless one is still outstanding."""
        if self._knocked is None or self._knocked[1].is_set():
            heard = threading.Event()
            self._knocked = (time.monotonic(), heard)
            with contextlib.suppress(RuntimeError):  # the loop was closed: the next call begins another
                loop.call_soon_threadsafe(heard.set)

    def _stuck(self) -> bool:
        if self._knocked is None or self._knocked[1].is_set():
            return False
        return time.monotonic() - self._knocked[0] > _GRACE_S


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _bounded(work: Work[_T]) -> _T:
    with boundary():
        return await work()


def _leaving() -> bool:
    """Whether it is we who are cancelled, and not only the work that we wait for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
