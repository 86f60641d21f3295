"""Isolation of plugin code, so that it can neither break nor block the gateway.

`Boundary` passes our own errors and cancellations, and replaces all other errors by one without their text.
`ThreadRunner` is a thread with its own event loop: code that blocks it blocks nothing else, and while the thread does
not respond, calls fail at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from aligner_proxy.errors import CorrectionError, DeadlineExceeded, PluginFault, PluginStuck

_T = TypeVar("_T")
_GRACE_S = 0.25
"""A thread that does not respond for so long after its work was cancelled is stuck."""

Work = Callable[[], Coroutine[Any, Any, _T]]


class Runner(Protocol):
    """Place where plugin code runs."""

    async def call(self, work: Work[_T]) -> _T:
        """The result of `work`; raises only `CorrectionError` subclasses and `CancelledError`."""
        ...


class Boundary:
    """Block around plugin code, which lets only errors of this package out: the second broad boundary."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CorrectionError):
            # No policy knows a plugin's own error class, and its reason could be anything.
            if type(error).__module__.partition(".")[0] != "aligner_proxy":
                raise PluginFault(f"a plugin raised {type(error).__name__}") from None
        elif isinstance(error, TimeoutError):
            raise DeadlineExceeded("a plugin ran out of time") from None
        elif isinstance(error, Exception | SystemExit):  # whatever foreign code raises, its text may quote answers
            raise PluginFault(f"a plugin raised {type(error).__name__}") from None


class InlineRunner:
    """Satisfies `Runner` for plugins of our own: in the gateway's event loop."""

    async def call(self, work: Work[_T]) -> _T:
        """Run `work` in the present event loop."""
        with Boundary():
            return await work()


class ThreadRunner:
    """Satisfies `Runner`: one daemon thread, started by the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._probed: tuple[float, threading.Event] | None = None

    async def call(self, work: Work[_T]) -> _T:
        """Run `work` in the thread. If the caller is cancelled, so is the work, once the thread responds."""
        loop = self._running()
        if self._stuck():
            raise PluginStuck(f"{self._name} blocks its thread")
        future = asyncio.run_coroutine_threadsafe(InlineRunner().call(work), loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if _is_cancelled():
                self._probe(loop)
                raise
            raise PluginFault("a plugin raised CancelledError") from None

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            self._loop = asyncio.new_event_loop()
            self._probed = None
            self._thread = threading.Thread(target=_serve, args=(self._loop,), name=self._name, daemon=True)
            self._thread.start()
        return self._loop

    def _probe(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask the thread to respond, unless a response is still outstanding."""
        if self._probed is None or self._probed[1].is_set():
            response = threading.Event()
            self._probed = (time.monotonic(), response)
            with contextlib.suppress(RuntimeError):  # the loop was closed: the next call starts another
                loop.call_soon_threadsafe(response.set)

    def _stuck(self) -> bool:
        if self._probed is None or self._probed[1].is_set():
            return False
        return time.monotonic() - self._probed[0] > _GRACE_S


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _is_cancelled() -> bool:
    """Whether the present task is cancelled, and not only the work that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
