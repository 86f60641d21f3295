"""The engine inside this process: one thread owns the model, requests wait for it in order of arrival.

Admission is bounded, a deadline runs while a request waits and while it is worked on, and a request that nobody waits
for any more lets go of the model before its next forward. One sequence at a time; the batched engine takes this seat.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from aligner_proxy.engine.correct import Aligner, correct
from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest
from aligner_proxy.errors import (
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
)
from aligner_proxy.types import Correction

logger = logging.getLogger(__name__)

_SMOOTHING = 0.2


@dataclass(slots=True)
class _Job:
    """One admitted request; `abandoned` is set when nobody waits for it any more."""

    request: AlignRequest
    deadline: float
    abandoned: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Called in the model's thread before every forward."""
        if self.abandoned.is_set():
            raise EngineUnavailable(f"request {self.request.request_id} was given up")
        if time.monotonic() > self.deadline:
            raise DeadlineExceeded(f"the deadline of {self.request.deadline_s:g} s passed")


class LocalEngine:
    """Satisfies `Engine`. `load` runs once, in the model's thread; `queue` bounds the requests in the house."""

    def __init__(self, load: Callable[[], Aligner], *, queue: int = 64) -> None:
        self._load, self._queue = load, queue
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aligner")
        self._loading: Future[Aligner] | None = None
        self._live: dict[int, _Job] = {}
        self._mean_s = 1.0
        self._closed = False

    async def start(self) -> AlignerInfo:
        """Load the aligner and wait for it; may be called again. Raises `WeightsError` when it cannot be loaded."""
        if self._loading is None:
            self._loading = self._thread.submit(self._load)
        aligner = await asyncio.shield(asyncio.wrap_future(self._loading))
        return aligner.info

    async def info(self) -> AlignerInfo:
        """What is served; raises `EngineUnavailable` until it is loaded."""
        return self._aligner().info

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer, waiting in the queue if need be, within `request.deadline_s`."""
        aligner = self._aligner()
        self._admit()
        job = _Job(request, time.monotonic() + request.deadline_s)
        self._live[id(job)] = job
        try:
            async with asyncio.timeout(request.deadline_s):
                return await asyncio.wrap_future(self._thread.submit(self._run, aligner, job))
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline of {request.deadline_s:g} s passed") from None
        finally:
            job.abandoned.set()
            del self._live[id(job)]

    async def aclose(self) -> None:
        """Give up what is still worked on and wait until the model's thread has let go; loading is not waited for."""
        self._closed = True
        for job in self._live.values():
            job.abandoned.set()
        await asyncio.to_thread(self._thread.shutdown, wait=not self.loading, cancel_futures=True)

    @property
    def loading(self) -> bool:
        """Whether the aligner is being loaded right now."""
        return self._loading is not None and not self._loading.done()

    def _aligner(self) -> Aligner:
        if self._closed:
            raise EngineUnavailable("the engine is closed")
        if self._loading is None or not self._loading.done():
            raise EngineUnavailable("the aligner is still loading")
        failure = self._loading.exception()
        if failure is not None:
            raise EngineUnavailable(f"the aligner could not be loaded: {failure}") from failure
        return self._loading.result()

    def _admit(self) -> None:
        if len(self._live) >= self._queue:
            wait = max(0.1, self._mean_s * len(self._live))
            raise EngineOverloaded(f"{len(self._live)} requests are waiting already (bound {self._queue})", wait)

    def _run(self, aligner: Aligner, job: _Job) -> Correction:
        """In the model's thread: one correction, every failure as a `CorrectionError`."""
        started = time.monotonic()
        try:
            job.check()
            return correct(aligner, job.request, job.check)
        except CorrectionError:
            raise
        except Exception as error:
            # The boundary to torch: whatever it raises becomes one of ours. The log says only where, because the
            # message of a library's error may quote the request.
            place = traceback.extract_tb(error.__traceback__)[-1]
            name = type(error).__name__
            logger.error("request %s: %s at %s:%s", job.request.request_id, name, place.filename, place.lineno)  # noqa: TRY400
            raise EngineFault(f"the aligner failed: {name}") from error
        finally:
            self._mean_s += _SMOOTHING * (time.monotonic() - started - self._mean_s)
