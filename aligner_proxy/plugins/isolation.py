"""Isolation of plugin code in a thread with its own event loop, so that it can neither break nor block the gateway.

Code that blocks the thread blocks nothing else, and while the thread does not respond, calls fail at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TypeVar

from aligner_proxy.concurrency import is_being_cancelled
from aligner_proxy.errors import PluginFault, PluginStuck
from aligner_proxy.plugins.extensions import InlineRunner, Work

_T = TypeVar("_T")
_GRACE_S = 0.25
"""Seconds without response after a cancellation, after which a thread counts as stuck."""


class ThreadRunner:
    """Runs the code of a plugin in a daemon thread, which the first call starts. Satisfies `Runner`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        """The thread's event loop; None before the first call."""
        self._thread: threading.Thread | None = None
        """None before the first call."""
        self._last_probe: tuple[float, threading.Event] | None = None
        """(when the thread was last asked for a sign of life (`time.monotonic()`), the event that it sets in response).

        None if it was never asked.
        """

    async def call(self, work: Work[_T]) -> _T:
        """Run the coroutine that `work` makes in the thread, and return its result.

        Raises `PluginStuck` at once while the thread does not respond. If the caller is cancelled, so is the coroutine,
        as soon as the thread responds.
        """
        loop = self._ensure_loop()
        if self._is_stuck():
            raise PluginStuck(f"{self._name} blocks its thread")
        future = asyncio.run_coroutine_threadsafe(InlineRunner().call(work), loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if is_being_cancelled():
                # our caller was cancelled; the probe will show whether the plugin's code lets the thread go
                self._send_probe(loop)
                raise
            raise PluginFault("a plugin raised CancelledError") from None

    def _ensure_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop of the thread; starts a new thread if there is none, or if it has ended."""
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            self._loop = asyncio.new_event_loop()
            self._last_probe = None
            self._thread = threading.Thread(target=_run_loop, args=(self._loop,), name=self._name, daemon=True)
            self._thread.start()
        return self._loop

    def _send_probe(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask the thread for a sign of life, unless an earlier request is still unanswered."""
        if self._last_probe is None or self._last_probe[1].is_set():
            response = threading.Event()
            self._last_probe = (time.monotonic(), response)
            with contextlib.suppress(RuntimeError):  # the loop is closed; the next call starts another
                loop.call_soon_threadsafe(response.set)

    def _is_stuck(self) -> bool:
        """Whether the thread has left the last probe unanswered for longer than `_GRACE_S`."""
        if self._last_probe is None or self._last_probe[1].is_set():
            return False
        return time.monotonic() - self._last_probe[0] > _GRACE_S


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
