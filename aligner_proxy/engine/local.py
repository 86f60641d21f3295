"""An engine inside this process: one thread owns the model and runs its forward passes for all requests together.

A request's deadline counts both waiting and running time. An abandoned request releases the model before its next
forward pass. The number of requests in the engine is limited before it (admission.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
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
    Session,
    Span,
    StatesRequest,
    TokenLabels,
    TokenLabelsRequest,
)
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.complete import choose_aligner, complete
from aligner_proxy.engine.decoding.correct import correct
from aligner_proxy.engine.decoding.incremental import PartialAnswer, PendingReplacement, read_growing_answer
from aligner_proxy.engine.decoding.rows import read_answer_rows
from aligner_proxy.engine.decoding.states import read_states
from aligner_proxy.engine.loop import Loop, make_own_error
from aligner_proxy.engine.scheduling.metrics import Phases
from aligner_proxy.engine.scheduling.scheduler import Job, JobClient, Scheduler
from aligner_proxy.engine.scheduling.sequence import TokenSequence, Work
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import CorrectionError, EngineUnavailable, HeadRefused, MalformedHead
from aligner_proxy.observability import tracing
from aligner_proxy.types import Correction, SegmentScore, Verify


@dataclass(slots=True, eq=False)
class _Submitted:
    """A request handed to the model's thread; `abandoned` is set when its client has given it up.

    Its `future` gets the result of the work, or the error that ended it.
    """

    deadline: float
    """In monotonic seconds."""
    phases: Phases
    future: Future[Any] = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)

    def finish(self, end: object) -> None:
        """Record how the request ended and resolve its future; called in the model's thread, and by `aclose`."""
        # both a passed deadline and a client that leaves cancel the future; the clock tells which it was
        departure = "timeout" if time.monotonic() >= self.deadline else "cancelled"
        self.phases.note_end(end, departure if self.future.cancelled() else None)
        with contextlib.suppress(InvalidStateError):  # the client has gone, so the future is already resolved
            if isinstance(end, CorrectionError):
                self.future.set_exception(end)
            else:
                self.future.set_result(end)


class LocalSession(Session):
    """A session of `LocalEngine`: an answer that this process reads while it is being written."""

    def __init__(
        self,
        submitted: _Submitted,
        answer: PartialAnswer,
        wake: Callable[[], None],
        on_end: Callable[[], None],
        *,
        judges: bool,
    ) -> None:
        self._submitted = submitted
        self._answer = answer
        self._wake = wake  # wakes the model's thread
        self._on_end = on_end  # called when the session ends; may be called twice
        self._judges = judges  # whether there are verdicts while the answer is being written
        self._ending = False  # whether `finish` was called
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        answer.notify_change = self._note_change
        # the end of the reading wakes those who wait, too
        submitted.future.add_done_callback(lambda _: self._note_change())

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """Add text without waiting for the model; return all verdicts so far."""
        self._answer.body.add(text)
        if self._answer.waits():
            self._wake()  # not for a few characters, which are not worth a forward pass
        return self._answer.verdicts

    async def end(self) -> None:
        self._answer.text_ended = True
        self._wake()

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """Wait for more than `known_count` verdicts, or for all; None if the session does not judge while reading."""
        if not self._judges:
            return None
        answer = self._answer
        answer.awaited = True
        self._wake()
        await self._wait_until(lambda: answer.all_judged or len(answer.verdicts) > known_count)
        return answer.verdicts

    async def replace(self, span: Span) -> Correction:
        """Return a replacement for a flagged range within `span.deadline_s`; raises what ended the reading."""
        pending = PendingReplacement(span)
        self._answer.replacing.append(pending)
        self._wake()
        async with enforce_deadline(span.deadline_s):
            await self._wait_until(pending.done.done)
        return pending.done.result()

    async def finish(self, request: AlignRequest) -> Correction:
        """Correct the complete answer, `request.answer`, within `request.deadline_s`, and end the session."""
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
        """Give up the session, unless `finish` was called: that call then ends it."""
        if not self._ending:
            self._end()

    def _note_change(self) -> None:
        """Wake those who wait; any thread may call this."""
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nothing waits any more
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until the model's thread makes `condition` true; raises the error that ended the reading, if any."""
        while not condition():
            if self._submitted.future.done():
                self._submitted.future.result()
                raise EngineUnavailable("the reading has ended")
            await self._changed.wait()
            self._changed.clear()

    def _end(self) -> None:
        """Give up the work of the model's thread, if it is not done, and forget the session."""
        self._submitted.abandoned.set()
        self._wake()
        self._on_end()


class LocalEngine:
    """An engine with its own model and thread; `load` loads the aligner once, in that thread."""

    def __init__(self, load: Callable[[], Aligner]) -> None:
        self._load = load
        self._loaded: Future[Aligner] = Future()  # the aligner, or the error that prevented its loading
        self._thread: threading.Thread | None = None  # the model's thread; None before `start`
        self._scheduler: Scheduler  # set when the aligner is loaded
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()  # jobs for the model's thread, and `_WAKE`
        self._live: set[_Submitted] = set()  # requests and sessions that have not ended
        self._closed = False
        self._stepping: float | None = None  # when the current step began, in monotonic seconds; None between steps
        # makes its thread when it is first asked for something
        self._judging = ThreadPoolExecutor(1, thread_name_prefix="judge")

    async def start(self) -> AlignerInfo:
        """Load the aligner and wait until it is loaded; may be called again. Raises `WeightsError` if that fails."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="aligner", daemon=True)
            self._thread.start()
        aligner = await asyncio.shield(asyncio.wrap_future(self._loaded))
        return aligner.info

    async def info(self) -> AlignerInfo:
        """The aligner served; raises `EngineUnavailable` until it is loaded."""
        return self._find_aligner().info

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer within `request.deadline_s`, including any time it waits for the model."""
        return await self._submit_work(correct, request)  # type: ignore[no-any-return]

    async def states(self, request: StatesRequest) -> list[list[float]]:
        return await self._submit_work(read_states, request)  # type: ignore[no-any-return]

    async def put_head(self, data: bytes) -> str:
        """Store a taught head for requests that name it by its hash, and return the hash; raises `HeadRefused`."""
        aligner = self._find_aligner()
        try:
            head = TaughtHead.from_bytes(data)
        except MalformedHead as error:
            raise HeadRefused(str(error)) from None
        return aligner.store_head(head)

    async def rows(self, request: RowsRequest) -> RowsResponse:
        return await self._submit_work(read_answer_rows, request)  # type: ignore[no-any-return]

    async def label_tokens(self, request: TokenLabelsRequest) -> TokenLabels:
        """Return what a token classifier says of an answer; raises `UnknownJudge`.

        Token classifiers run in a thread of their own, one call at a time, so that the aligner never waits for one.
        """
        judge = self._find_aligner().find_judge(request.model)
        async with enforce_deadline(request.deadline_s):
            try:
                return await asyncio.wrap_future(self._judging.submit(judge.label_tokens, request))
            except Exception as error:  # noqa: BLE001 - the boundary to tokenizers and foreign models
                raise make_own_error(request.request_id, error) from None

    async def complete(self, request: CompletionRequest, name: str, deadline_s: float) -> Completion:
        """Complete one prompt within `deadline_s`; `name` is the request's id in errors and logs."""
        aligner = choose_aligner(self._find_aligner(), request.model)
        work = partial(complete, aligner, request)
        submitted = self._submit(name, aligner, work, request.user or "", deadline_s)
        return await self._wait_for_result(submitted, deadline_s)  # type: ignore[no-any-return]

    async def read(self, request: AlignRequest) -> LocalSession:
        """Begin to read an answer that is still being written; raises `UnknownHead` and `HeadRefused`."""
        # alone means that this answer is the only request
        answer = PartialAnswer(request, is_alone=lambda: len(self._live) == 1)
        answer.body.add(request.answer)
        aligner = self._find_aligner().find_aligner(request.aligner)
        aligner.find_taught_heads(request)  # refuse unusable taught heads now, not when the answer has ended
        judges = aligner.info.has_head and request.verify is Verify.FLAGGED
        work = partial(read_growing_answer, aligner, answer)
        submitted = self._submit(request.request_id, aligner, work, request.tenant, answer=answer)
        on_end = partial(self._live.discard, submitted)
        return LocalSession(submitted, answer, lambda: self._inbox.put(_WAKE), on_end, judges=judges)

    async def _submit_work(self, work: Callable[..., Work], request: AlignRequest | StatesRequest | RowsRequest) -> Any:
        """Submit the work of a request and return its result within `request.deadline_s`."""
        aligner = self._find_aligner().find_aligner(request.aligner)
        begin = partial(work, aligner, request)
        submitted = self._submit(request.request_id, aligner, begin, request.tenant, request.deadline_s)
        return await self._wait_for_result(submitted, request.deadline_s)

    def _submit(
        self,
        name: str,
        aligner: Aligner,
        work: Callable[[TokenSequence], Work],
        tenant: str = "",
        deadline_s: float = float("inf"),
        answer: PartialAnswer | None = None,
    ) -> _Submitted:
        """Queue work for the model's thread; `work` is given the job's sequence of tokens.

        With an `answer`, the job waits for its text and has no deadline here.
        """
        sequence = TokenSequence(aligner.adapter, tenant)
        phases = Phases(tracing.current_context(), unwanted=answer is not None)
        submitted = _Submitted(time.monotonic() + deadline_s, phases)
        client = JobClient(submitted.deadline, tenant, submitted.abandoned.is_set)
        if answer is not None:
            client.has_new_text = answer.waits
            client.reads_ahead = answer.is_read_ahead
        job = Job(name, work(sequence), submitted.finish, client, sequence=sequence, phases=phases)
        self._live.add(submitted)
        self._inbox.put(job)
        return submitted

    async def _wait_for_result(self, submitted: _Submitted, deadline_s: float) -> Any:
        """Return the result of the work; if the caller stops waiting, the model's thread drops the work."""
        try:
            async with enforce_deadline(deadline_s):
                return await asyncio.wrap_future(submitted.future)
        finally:
            submitted.abandoned.set()
            self._live.discard(submitted)

    async def aclose(self) -> None:
        """Fail all unfinished requests and wait for the model's thread to end, unless it is still loading."""
        self._closed = True
        self._judging.shutdown(wait=False, cancel_futures=True)
        for submitted in list(self._live):
            submitted.finish(EngineUnavailable("the engine is closing"))
        self._inbox.put(_WAKE)
        if self._thread is not None and not self.loading:
            await asyncio.to_thread(self._thread.join)

    def load(self) -> Load:
        """The engine's current load; raises `EngineUnavailable` until the aligner is loaded."""
        self._find_aligner()
        return self._scheduler.load()

    def stalled_s(self) -> float:
        """Seconds that the current step has been running; infinite if the model's thread has died."""
        if self._thread is not None and not self._thread.is_alive() and not self._closed:
            # a thread that could not load the aligner has ended as it should; `start` raises its error
            return float("inf") if self._loaded.exception() is None else 0.0
        since = self._stepping
        return 0.0 if since is None else time.monotonic() - since

    @property
    def loading(self) -> bool:
        return self._thread is not None and not self._loaded.done()

    def _find_aligner(self) -> Aligner:
        """The aligner; raises `EngineUnavailable` unless it is loaded and the engine open."""
        if self._closed:
            raise EngineUnavailable("the engine is closed")
        if not self._loaded.done():
            raise EngineUnavailable("the aligner is still loading")
        failure = self._loaded.exception()
        if failure is not None:
            raise EngineUnavailable(f"the aligner could not be loaded: {failure}") from failure
        return self._loaded.result()

    def _run(self) -> None:
        """Body of the model's thread: load the aligner, then run steps until the engine is closed."""
        try:
            aligner = self._load()
        except BaseException as error:  # noqa: BLE001 - whatever it is, `start` raises it in the caller's thread
            self._loaded.set_exception(error)
            return
        loop = Loop(aligner)
        self._scheduler = loop.scheduler
        self._loaded.set_result(aligner)
        while not self._closed:
            self._move_queued_jobs(loop)
            self._stepping = time.monotonic()
            loop.step()
            self._stepping = None
        loop.close()

    def _move_queued_jobs(self, loop: Loop) -> None:
        """Move all queued jobs into the loop; if the loop is idle, wait for the first one."""
        wait = loop.is_idle()
        while True:
            try:
                job = self._inbox.get(block=wait)
            except queue.Empty:
                return
            wait = False  # take the others only if they are there already
            if job is not None:
                loop.add(job)


_WAKE = None
"""Item that wakes the model's thread, because a job it already has can go on."""
