"""The engine inside this process: one thread owns the model and steps it for all requests at once.

Admission is bounded, a deadline runs while a request waits and while it is worked on, and a request that nobody waits
for any more lets go of the model before its next forward.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aligner_proxy.engine.complete import Completion, CompletionRequest, complete
from aligner_proxy.engine.correct import Aligner, correct
from aligner_proxy.engine.load import Load
from aligner_proxy.engine.loop import Loop
from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest
from aligner_proxy.engine.reading import Growing, read
from aligner_proxy.engine.scheduler import Finish, Job, Scheduler
from aligner_proxy.engine.sequence import Sequence, Work
from aligner_proxy.errors import CorrectionError, DeadlineExceeded, EngineOverloaded, EngineUnavailable
from aligner_proxy.types import Correction, SegmentScore

_SMOOTHING = 0.2
_FIRST_GUESS_S = 1.0


Begin = Callable[[Aligner, Sequence], Work]


@dataclass(slots=True, eq=False)
class _Admitted:
    """One request in the house; `abandoned` is set when nobody waits for it any more.

    One whose answer is still being written has no deadline of its own: whoever waits for it keeps that.
    """

    name: str
    begin: Begin
    deadline: float = float("inf")
    awake: Callable[[], bool] = lambda: False
    future: Future[Any] = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)

    def finish(self, end: object) -> None:
        """Called in the model's thread."""
        try:
            if isinstance(end, CorrectionError):
                self.future.set_exception(end)
            else:
                self.future.set_result(end)
        except InvalidStateError:
            pass  # whoever asked has gone

    def job(self, aligner: Aligner, finish: Finish) -> Job:
        """The same as the scheduler knows it."""
        sequence = Sequence()
        work, gone = self.begin(aligner, sequence), self.abandoned.is_set
        return Job(self.name, work, finish, self.deadline, abandoned=gone, awake=self.awake, sequence=sequence)


class LocalReading:
    """Satisfies `Reading`: an answer that this process reads while it is being written."""

    def __init__(
        self, admitted: _Admitted, growing: Growing, wake: Callable[[], None], left: Callable[[], None]
    ) -> None:
        self._admitted, self._growing, self._wake, self._left = admitted, growing, wake, left
        self._ending = False

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer; the verdicts that are there already, on segments from the first on."""
        self._growing.text += text
        if self._growing.waits():
            self._wake()
        return self._growing.verdicts

    async def finish(self, request: AlignRequest) -> Correction:
        """The answer has ended and is `request.answer`; its correction, within `request.deadline_s`."""
        self._ending = True
        self._growing.request, self._growing.complete = request, True
        self._wake()
        try:
            async with asyncio.timeout(request.deadline_s):
                return await asyncio.wrap_future(self._admitted.future)
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline of {request.deadline_s:g} s passed") from None
        finally:
            self._end()

    async def aclose(self) -> None:
        """Nobody waits for it any more; one that is being finished belongs to whoever waits for that."""
        if not self._ending:
            self._end()

    def _end(self) -> None:
        self._admitted.abandoned.set()
        self._wake()
        self._left()


class LocalEngine:
    """Satisfies `Engine`. `load` runs once, in the model's thread; `queue` bounds the requests in the house."""

    def __init__(self, load: Callable[[], Aligner], *, queue: int = 64) -> None:
        self._load, self._queue = load, queue
        self._loaded: Future[Aligner] = Future()
        self._thread: threading.Thread | None = None
        self._scheduler: Scheduler
        self._inbox: _Inbox = _new_inbox()
        self._live: set[_Admitted] = set()
        self._mean_s, self._spent_s, self._ended = _FIRST_GUESS_S, 0.0, 0
        self._closed = False

    async def start(self) -> AlignerInfo:
        """Load the aligner and wait for it; may be called again. Raises `WeightsError` when it cannot be loaded."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="aligner", daemon=True)
            self._thread.start()
        aligner = await asyncio.shield(asyncio.wrap_future(self._loaded))
        return aligner.info

    async def info(self) -> AlignerInfo:
        """What is served; raises `EngineUnavailable` until it is loaded."""
        return self._aligner().info

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer, waiting for room if need be, within `request.deadline_s`."""
        begin = partial(_begin, correct, request)
        corrected: Correction = await self._done(request.request_id, begin, request.deadline_s)
        return corrected

    async def complete(self, request: CompletionRequest, name: str, deadline_s: float) -> Completion:
        """Complete one prompt, with the client's prediction as the draft."""
        completed: Completion = await self._done(name, partial(_begin, complete, request), deadline_s)
        return completed

    async def read(self, request: AlignRequest) -> LocalReading:
        """Begin to read an answer that is still being written; `request.answer` is what there is of it."""
        growing = Growing(request, request.answer)
        admitted = _Admitted(request.request_id, partial(_begin, read, growing), awake=growing.waits)
        self._admit(admitted)
        return LocalReading(admitted, growing, lambda: self._inbox.put(_WAKE), lambda: self._live.discard(admitted))

    async def _done(self, name: str, begin: Begin, deadline_s: float) -> Any:
        admitted = _Admitted(name, begin, time.monotonic() + deadline_s)
        self._admit(admitted)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.wrap_future(admitted.future)
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline of {deadline_s:g} s passed") from None
        finally:
            admitted.abandoned.set()
            self._live.discard(admitted)

    async def aclose(self) -> None:
        """Give up what is still worked on and wait until the model's thread has let go; loading is not waited for."""
        self._closed = True
        for admitted in list(self._live):
            admitted.finish(EngineUnavailable("the engine is closing"))
        self._inbox.put(_WAKE)
        if self._thread is not None and not self.loading:
            await asyncio.to_thread(self._thread.join)

    def load(self) -> Load:
        """What it is busy with; raises `EngineUnavailable` until it is loaded."""
        self._aligner()
        return self._scheduler.load()

    @property
    def loading(self) -> bool:
        """Whether the aligner is being loaded right now."""
        return self._thread is not None and not self._loaded.done()

    def _aligner(self) -> Aligner:
        if self._closed:
            raise EngineUnavailable("the engine is closed")
        if not self._loaded.done():
            raise EngineUnavailable("the aligner is still loading")
        failure = self._loaded.exception()
        if failure is not None:
            raise EngineUnavailable(f"the aligner could not be loaded: {failure}") from failure
        return self._loaded.result()

    def _admit(self, admitted: _Admitted) -> None:
        """Let one in, if the aligner is there and the house is not full."""
        self._aligner()
        if len(self._live) >= self._queue:
            wait = max(0.1, self._mean_s * len(self._live))
            raise EngineOverloaded(f"{len(self._live)} requests are waiting already (bound {self._queue})", wait)
        self._live.add(admitted)
        self._inbox.put(admitted)

    def _run(self) -> None:
        """The model's thread: load, then step as long as there is something to do."""
        try:
            aligner = self._load()
        except BaseException as error:  # noqa: BLE001 - whatever it is, `start` raises it in the caller's thread
            self._loaded.set_exception(error)
            return
        loop = Loop(aligner)
        self._scheduler = loop.scheduler
        self._loaded.set_result(aligner)
        while not self._closed:
            self._take_in(loop, aligner)
            began, before = time.monotonic(), self._ended
            loop.step()
            self._note(time.monotonic() - began, self._ended - before)
        loop.close()

    def _take_in(self, loop: Loop, aligner: Aligner) -> None:
        """Everything that has arrived; with nothing to do, wait for it."""
        wait = not loop.busy
        while True:
            try:
                admitted = self._inbox.get(block=wait)
            except queue.Empty:
                return
            wait = False
            if admitted is None:
                continue
            loop.add(admitted.job(aligner, partial(self._finish, admitted)))

    def _finish(self, admitted: _Admitted, end: object) -> None:
        self._ended += 1
        admitted.finish(end)

    def _note(self, seconds: float, ended: int) -> None:
        """Seconds for one correction in the present company, for whoever has to wait."""
        self._spent_s += seconds
        if ended:
            self._mean_s += _SMOOTHING * (self._spent_s / ended - self._mean_s)
            self._spent_s = 0.0


def _begin(work: Callable[[Aligner, Any, Sequence], Work], what: object, aligner: Aligner, sequence: Sequence) -> Work:
    return work(aligner, what, sequence)


_WAKE = None
"""Put into the inbox where there is something to do for work that is in the house already."""
_Inbox = queue.SimpleQueue["_Admitted | None"]


def _new_inbox() -> _Inbox:
    return queue.SimpleQueue()
