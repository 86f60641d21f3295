"""The engine inside this process: one thread owns the model and steps it for all requests at once.

A deadline runs while a request waits and while it is worked on, and a request that nobody waits for any more lets go of
the model before its next forward. How many may be in the house is decided at its door (admission.py).
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

from aligner_proxy import tracing
from aligner_proxy.engine.complete import Completion, CompletionRequest, asked_for, complete
from aligner_proxy.engine.correct import Aligner, correct
from aligner_proxy.engine.load import Load
from aligner_proxy.engine.loop import Loop
from aligner_proxy.engine.news import News
from aligner_proxy.engine.phases import Phases
from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest, Span, WeighRequest
from aligner_proxy.engine.reading import Growing, Replacing, read
from aligner_proxy.engine.scheduler import Finish, Job, Scheduler
from aligner_proxy.engine.sequence import Sequence, Work
from aligner_proxy.engine.weigh import weigh
from aligner_proxy.errors import CorrectionError, DeadlineExceeded, EngineUnavailable
from aligner_proxy.types import Correction, SegmentScore, Verify

Begin = Callable[[Aligner, Sequence], Work]


@dataclass(slots=True, eq=False)
class _Admitted:
    """One request in the house; `abandoned` is set when nobody waits for it any more.

    One whose answer is still being written has no deadline of its own: whoever waits for it keeps that.
    """

    name: str
    aligner: Aligner
    begin: Begin
    tenant: str = ""
    deadline: float = float("inf")
    awake: Callable[[], bool] = lambda: False
    future: Future[Any] = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)
    phases: Phases = field(default_factory=lambda: Phases(tracing.here()))

    def finish(self, end: object) -> None:
        """Called in the model's thread."""
        late = "timeout" if time.monotonic() >= self.deadline else "cancelled"
        self.phases.ended(end, late if self.future.cancelled() else None)
        try:
            if isinstance(end, CorrectionError):
                self.future.set_exception(end)
            else:
                self.future.set_result(end)
        except InvalidStateError:
            pass  # whoever asked has gone

    def job(self, finish: Finish) -> Job:
        """The same as the scheduler knows it."""
        sequence = Sequence(self.aligner.adapter)
        work, gone = self.begin(self.aligner, sequence), self.abandoned.is_set
        job = Job(self.name, work, finish, self.deadline, self.tenant, gone, self.awake, sequence)
        job.phases = self.phases
        return job


class LocalReading:
    """Satisfies `Reading`: an answer that this process reads while it is being written."""

    def __init__(
        self, admitted: _Admitted, growing: Growing, wake: Callable[[], None], left: Callable[[], None], judges: bool
    ) -> None:
        self._admitted, self._growing, self._wake, self._left, self._judges = admitted, growing, wake, left, judges
        self._ending = False
        self._news = News()
        growing.told = self._news.spread
        admitted.future.add_done_callback(lambda _: self._news.spread())

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer; the verdicts that are there already, on segments from the first on."""
        self._growing.add(text)
        if self._growing.waits():
            self._wake()
        return self._growing.verdicts

    async def end(self) -> None:
        """There is no more of it."""
        self._growing.ended = True
        self._wake()

    async def judged(self, known: int) -> tuple[SegmentScore, ...] | None:
        """The verdicts, when there are more than `known` or all of them."""
        if not self._judges:
            return None
        growing, growing.awaited = self._growing, True
        self._wake()
        await self._until(lambda: growing.judged or len(growing.verdicts) > known)
        return growing.verdicts

    async def replace(self, span: Span) -> Correction:
        """What stands in place of a flagged stretch, within `span.deadline_s`."""
        wanted = Replacing(span)
        self._growing.replacing.append(wanted)
        self._wake()
        try:
            async with asyncio.timeout(span.deadline_s):
                await self._until(wanted.done.done)
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline of {span.deadline_s:g} s passed") from None
        return wanted.done.result()

    async def finish(self, request: AlignRequest) -> Correction:
        """The answer has ended and is `request.answer`; its correction, within `request.deadline_s`."""
        self._ending = True
        self._admitted.phases.trace = tracing.here()
        self._admitted.phases.completed()
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

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for the model's thread; raises what ended the reading, if that comes first."""
        while not condition():
            if self._admitted.future.done():
                self._admitted.future.result()
                raise EngineUnavailable("the reading has ended")
            await self._news.wait()

    def _end(self) -> None:
        self._admitted.abandoned.set()
        self._wake()
        self._left()


class LocalEngine:
    """Satisfies `Engine`. `load` runs once, in the model's thread."""

    def __init__(self, load: Callable[[], Aligner]) -> None:
        self._load = load
        self._loaded: Future[Aligner] = Future()
        self._thread: threading.Thread | None = None
        self._scheduler: Scheduler
        self._inbox: queue.SimpleQueue[_Admitted | None] = queue.SimpleQueue()
        self._live: set[_Admitted] = set()
        self._closed = False
        self._stepping: float | None = None

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
        return await self._worked(correct, request)  # type: ignore[no-any-return]

    async def weigh(self, request: WeighRequest) -> tuple[float, ...]:
        """What the objectives weigh for a prompt; raises `CannotWeigh` where the aligner has no net for it."""
        return await self._worked(weigh, request)  # type: ignore[no-any-return]

    async def complete(self, request: CompletionRequest, name: str, deadline_s: float) -> Completion:
        """Complete one prompt, with the client's prediction as the draft."""
        aligner, begin = asked_for(self._aligner(), request.model), partial(_begin, complete, request)
        admitted = _Admitted(name, aligner, begin, deadline=time.monotonic() + deadline_s)
        return await self._done(admitted, deadline_s)  # type: ignore[no-any-return]

    async def read(self, request: AlignRequest) -> LocalReading:
        """Begin to read an answer that is still being written; `request.answer` is what there is of it."""
        growing = Growing(request, alone=lambda: len(self._live) == 1)
        aligner = self._aligner().named(request.aligner)
        growing.add(request.answer)
        judges = aligner.info.has_head and request.verify is Verify.FLAGGED
        begin = partial(_begin, read, growing)
        admitted = _Admitted(request.request_id, aligner, begin, request.tenant, awake=growing.waits)
        admitted.phases.unwanted = True
        self._admit(admitted)
        left = partial(self._live.discard, admitted)
        return LocalReading(admitted, growing, lambda: self._inbox.put(_WAKE), left, judges)

    async def _worked(self, work: Callable[..., Work], request: AlignRequest | WeighRequest) -> Any:
        aligner, begin = self._aligner().named(request.aligner), partial(_begin, work, request)
        left = request.deadline_s
        return await self._done(
            _Admitted(request.request_id, aligner, begin, request.tenant, time.monotonic() + left), left
        )

    async def _done(self, admitted: _Admitted, deadline_s: float) -> Any:
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

    def stalled_s(self) -> float:
        """How long the step that runs now has been running; for ever when the model's thread is gone."""
        if self._thread is not None and not self._thread.is_alive() and not self._closed:
            return float("inf") if self._loaded.exception() is None else 0.0
        since = self._stepping
        return 0.0 if since is None else time.monotonic() - since

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
            self._take_in(loop)
            self._stepping = time.monotonic()
            loop.step()
            self._stepping = None
        loop.close()

    def _take_in(self, loop: Loop) -> None:
        """Everything that has arrived; with nothing to do, wait for it."""
        wait = loop.rests()
        while True:
            try:
                admitted = self._inbox.get(block=wait)
            except queue.Empty:
                return
            wait = False
            if admitted is None:
                continue
            loop.add(admitted.job(admitted.finish))


def _begin(work: Callable[[Aligner, Any, Sequence], Work], what: object, aligner: Aligner, sequence: Sequence) -> Work:
    return work(aligner, what, sequence)


_WAKE = None
"""Put into the inbox where there is something to do for work that is in the house already."""
