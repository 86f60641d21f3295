"""An engine inside this process: one thread owns the model and steps it for all requests at once.

A deadline runs while a request waits and while it is worked on, and a request that was given up lets go of the model
before its next forward. How many requests an engine takes at a time is decided before it (admission.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.engine.api import (
    AlignerInfo,
    AlignRequest,
    Completion,
    CompletionRequest,
    Load,
    RowsRequest,
    RowsResponse,
    Span,
    StatesRequest,
)
from aligner_proxy.engine.decoding.complete import aligner_for, complete
from aligner_proxy.engine.decoding.correct import Aligner, correct
from aligner_proxy.engine.decoding.incremental import PartialAnswer, PendingReplacement, read
from aligner_proxy.engine.decoding.rows import rows
from aligner_proxy.engine.decoding.states import states
from aligner_proxy.engine.loop import Loop
from aligner_proxy.engine.scheduling.metrics import Phases
from aligner_proxy.engine.scheduling.scheduler import Job, Scheduler
from aligner_proxy.engine.scheduling.sequence import Sequence, Work
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import CorrectionError, EngineUnavailable, HeadRefused, MalformedHead
from aligner_proxy.observability import tracing
from aligner_proxy.types import Correction, SegmentScore, Verify


@dataclass(slots=True, eq=False)
class _Submitted:
    """A request on its way through the model's thread; `abandoned` is set when its client has given it up."""

    deadline: float
    phases: Phases
    future: Future[Any] = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)

    def finish(self, end: object) -> None:
        """Called in the model's thread."""
        late = "timeout" if time.monotonic() >= self.deadline else "cancelled"
        self.phases.note_end(end, late if self.future.cancelled() else None)
        with contextlib.suppress(InvalidStateError):  # its client has gone
            if isinstance(end, CorrectionError):
                self.future.set_exception(end)
            else:
                self.future.set_result(end)


class ThreadsafeEvent:
    """An event of the event loop in which it was made, which any thread may set."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake what waits for it."""
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nothing waits any more
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Return when it has been set since the last time."""
        await self._event.wait()
        self._event.clear()


class LocalSession:
    """A session on an answer that this process reads while it is being written."""

    def __init__(
        self,
        submitted: _Submitted,
        answer: PartialAnswer,
        wake: Callable[[], None],
        on_end: Callable[[], None],
        judges: bool,
    ) -> None:
        self._submitted = submitted
        self._answer = answer
        self._wake = wake
        self._on_end = on_end
        self._judges = judges
        self._ending = False
        self._changed = ThreadsafeEvent()
        answer.changed = self._changed.set
        submitted.future.add_done_callback(lambda _: self._changed.set())

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer; the verdicts that are there already, on segments from the first on."""
        self._answer.add(text)
        if self._answer.waits():
            self._wake()
        return self._answer.verdicts

    async def end(self) -> None:
        """There is no more of it."""
        self._answer.text_ended = True
        self._wake()

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """The verdicts, when there are more than `known_count` or all of them."""
        if not self._judges:
            return None
        answer = self._answer
        answer.awaited = True
        self._wake()
        await self._wait_until(lambda: answer.all_judged or len(answer.verdicts) > known_count)
        return answer.verdicts

    async def replace(self, span: Span) -> Correction:
        """What stands in place of a flagged stretch, within `span.deadline_s`."""
        pending = PendingReplacement(span)
        self._answer.replacing.append(pending)
        self._wake()
        async with enforce_deadline(span.deadline_s):
            await self._wait_until(pending.done.done)
        return pending.done.result()

    async def finish(self, request: AlignRequest) -> Correction:
        """The answer has ended and is `request.answer`; its correction, within `request.deadline_s`."""
        self._ending = True
        self._submitted.phases.trace = tracing.current_context()
        self._submitted.phases.note_complete_answer()
        self._answer.request = request
        self._answer.complete = True
        self._wake()
        try:
            async with enforce_deadline(request.deadline_s):
                return await asyncio.wrap_future(self._submitted.future)
        finally:
            self._end()

    async def aclose(self) -> None:
        """Give it up; one that is being finished belongs to the call that finishes it."""
        if not self._ending:
            self._end()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for the model's thread; raises what ended the reading, if that comes first."""
        while not condition():
            if self._submitted.future.done():
                self._submitted.future.result()
                raise EngineUnavailable("the reading has ended")
            await self._changed.wait()

    def _end(self) -> None:
        self._submitted.abandoned.set()
        self._wake()
        self._on_end()


class LocalEngine:
    """An engine with its own model and thread, in which `load` runs once."""

    def __init__(self, load: Callable[[], Aligner]) -> None:
        self._load = load
        self._loaded: Future[Aligner] = Future()
        self._thread: threading.Thread | None = None
        self._scheduler: Scheduler
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._live: set[_Submitted] = set()
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
        return await self._submit_work(correct, request)  # type: ignore[no-any-return]

    async def states(self, request: StatesRequest) -> list[list[float]]:
        """Hidden states of texts; raises `StatesUnavailable` for layers that the aligner has not."""
        return await self._submit_work(states, request)  # type: ignore[no-any-return]

    async def put_head(self, data: bytes) -> str:
        """Keep a taught head for requests that name it by its hash; raises `HeadRefused`."""
        aligner = self._aligner()
        try:
            head = TaughtHead.from_bytes(data)
        except MalformedHead as error:
            raise HeadRefused(str(error)) from None
        return aligner.keep(head)

    async def rows(self, request: RowsRequest) -> RowsResponse:
        """What heads are taught on; raises `HeadsUnavailable` where there is no detector head."""
        return await self._submit_work(rows, request)  # type: ignore[no-any-return]

    async def complete(self, request: CompletionRequest, name: str, deadline_s: float) -> Completion:
        """Complete one prompt, with the client's prediction as the draft."""
        aligner = aligner_for(self._aligner(), request.model)
        work = partial(complete, aligner, request)
        submitted = self._submit(name, aligner, work, request.user or "", deadline_s)
        return await self._result(submitted, deadline_s)  # type: ignore[no-any-return]

    async def read(self, request: AlignRequest) -> LocalSession:
        """Begin to read an answer that is still being written; `request.answer` is what there is of it."""
        answer = PartialAnswer(request, alone=lambda: len(self._live) == 1)
        answer.add(request.answer)
        aligner = self._aligner().find_aligner(request.aligner)
        aligner.find_taught_heads(
            request
        )  # what cannot be judged as it asks is refused now, not when the answer has ended
        judges = aligner.info.has_head and request.verify is Verify.FLAGGED
        work = partial(read, aligner, answer)
        submitted = self._submit(request.request_id, aligner, work, request.tenant, answer=answer)
        on_end = partial(self._live.discard, submitted)
        return LocalSession(submitted, answer, lambda: self._inbox.put(_WAKE), on_end, judges)

    async def _submit_work(self, work: Callable[..., Work], request: AlignRequest | StatesRequest | RowsRequest) -> Any:
        aligner = self._aligner().find_aligner(request.aligner)
        begin = partial(work, aligner, request)
        submitted = self._submit(request.request_id, aligner, begin, request.tenant, request.deadline_s)
        return await self._result(submitted, request.deadline_s)

    def _submit(
        self,
        name: str,
        aligner: Aligner,
        work: Callable[[Sequence], Work],
        tenant: str = "",
        deadline_s: float = float("inf"),
        answer: PartialAnswer | None = None,
    ) -> _Submitted:
        """Hand work to the model's thread. With an `answer` it waits for text; its session keeps the deadline then."""
        sequence = Sequence(aligner.adapter, tenant)
        phases = Phases(tracing.current_context(), unwanted=answer is not None)
        submitted = _Submitted(time.monotonic() + deadline_s, phases)
        job = Job(name, work(sequence), submitted.finish, submitted.deadline, tenant, sequence=sequence, phases=phases)
        job.abandoned = submitted.abandoned.is_set
        if answer is not None:
            job.awake = answer.waits
            job.reads_ahead = answer.is_read_ahead
        self._live.add(submitted)
        self._inbox.put(job)
        return submitted

    async def _result(self, submitted: _Submitted, deadline_s: float) -> Any:
        try:
            async with enforce_deadline(deadline_s):
                return await asyncio.wrap_future(submitted.future)
        finally:
            submitted.abandoned.set()
            self._live.discard(submitted)

    async def aclose(self) -> None:
        """Give up what is still worked on and wait until the model's thread has let go; loading is not waited for."""
        self._closed = True
        for submitted in list(self._live):
            submitted.finish(EngineUnavailable("the engine is closing"))
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
        wait = loop.idle()
        while True:
            try:
                job = self._inbox.get(block=wait)
            except queue.Empty:
                return
            wait = False
            if job is not None:
                loop.add(job)


_WAKE = None
"""Put into the inbox where there is something to do for work that was submitted already."""
