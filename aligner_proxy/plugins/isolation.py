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
"""Seconds without response after a cancellation before a thread counts as stuck."""


class ThreadRunner:
    """Satisfies `Runner`: one daemon thread, started by the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        """The thread's event loop; None before the first call."""
        self._thread: threading.Thread | None = None
        self._last_probe: tuple[float, threading.Event] | None = None
        """When the thread was last asked for a sign of life (`time.monotonic()`), and the event that it sets.

        None if it never was.
        """

    async def call(self, work: Work[_T]) -> _T:
        """The result of `work`, run in the thread; raises `PluginStuck` at once while the thread does not respond.

        If the caller is cancelled, so is the work, as soon as the thread responds.
        """
        loop = self._ensure_loop()
        if self._is_stuck():
            raise PluginStuck(f"{self._name} blocks its thread")
        future = asyncio.run_coroutine_threadsafe(InlineRunner().call(work), loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # our caller was cancelled; otherwise the plugin itself raised it
            if is_being_cancelled():
                self._send_probe(loop)
                raise
            raise PluginFault("a plugin raised CancelledError") from None

    def _ensure_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the thread; a new thread if there is none or it has ended."""
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
    """What the thread does: run its loop until the process ends."""
    try:
        loop.run_forever()
    finally:
        loop.close()
