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
    """A request handed to the model's thread."""

    deadline: float
    """In monotonic seconds."""
    phases: Phases
    future: Future[Any] = field(default_factory=Future)
    """Gets the result of the request's work, or the error that ended it."""
    abandoned: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for the result any more; the model's thread then drops the work."""

    def finish(self, result: object) -> None:
        """Record the end of the request and resolve its future; `result` is the work's result or a `CorrectionError`.

        Called in the model's thread, and by `LocalEngine.aclose`.
        """
        departure = None
        if self.future.cancelled():
            # both a passed deadline and a client that leaves cancel the future; the clock tells which it was
            departure = "timeout" if time.monotonic() >= self.deadline else "cancelled"
        self.phases.note_end(result, departure)
        with contextlib.suppress(InvalidStateError):  # the client has gone, so the future is already resolved
            if isinstance(result, CorrectionError):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)


class LocalSession(Session):
    """A session of `LocalEngine`: an answer that this process reads while it is being written."""

    def __init__(
        self,
        submitted: _Submitted,
        answer: PartialAnswer,
        wake_thread: Callable[[], None],
        on_end: Callable[[], None],
        *,
        has_early_verdicts: bool,
    ) -> None:
        self._submitted = submitted
        self._answer = answer
        self._wake_thread = wake_thread  # wakes the model's thread
        self._on_end = on_end  # called when the session ends; may be called twice
        self._has_early_verdicts = has_early_verdicts  # whether segments are judged while the answer is being written
        self._is_finishing = False  # whether `finish` was called
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()  # set when the model's thread has changed the answer
        answer.notify_change = self._note_change
        # the end of the reading also ends the waiting in `_wait_until`
        submitted.future.add_done_callback(lambda _: self._note_change())

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """Add text without waiting for the model; return all verdicts so far."""
        self._answer.body.add(text)
        # false for a few characters, which are not worth a forward pass
        if self._answer.waits():
            self._wake_thread()
        return self._answer.verdicts

    async def end(self) -> None:
        self._answer.text_ended = True
        self._wake_thread()

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """Wait for more than `known_count` verdicts or for the last one; None if there are none before `finish`."""
        if not self._has_early_verdicts:
            return None
        answer = self._answer
        answer.awaited = True
        self._wake_thread()
        await self._wait_until(lambda: answer.all_judged or len(answer.verdicts) > known_count)
        return answer.verdicts

    async def replace(self, span: Span) -> Correction:
        """Return a replacement for a flagged range within `span.deadline_s`; raises an error that ended the reading."""
        pending = PendingReplacement(span)
        self._answer.replacing.append(pending)
        self._wake_thread()
        async with enforce_deadline(span.deadline_s):
            await self._wait_until(pending.done.done)
        return pending.done.result()

    async def finish(self, request: AlignRequest) -> Correction:
        """Correct the complete answer, `request.answer`, within `request.deadline_s`, and end the session."""
        self._is_finishing = True
        self._submitted.phases.trace = tracing.current_context()
        self._submitted.phases.note_complete_answer()
        self._answer.request = request
        self._answer.complete = True
        self._wake_thread()
        try:
            async with enforce_deadline(request.deadline_s):
                return await asyncio.wrap_future(self._submitted.future)
        finally:
            self._end()

    async def aclose(self) -> None:
        """Give up the session, unless `finish` was called, which ends the session itself."""
        if not self._is_finishing:
            self._end()

    def _note_change(self) -> None:
        """Wake the tasks that wait in `_wait_until` for a change of the answer; any thread may call this method."""
        with contextlib.suppress(RuntimeError):  # the event loop is closed, so no task waits
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until the model's thread makes `condition` true.

        If the reading of the answer ends before that, raises the error that ended it, or else `EngineUnavailable`.
        """
        while not condition():
            if self._submitted.future.done():
                self._submitted.future.result()  # raises the error, if there is one
                raise EngineUnavailable("the reading has ended")
            await self._changed.wait()
            self._changed.clear()

    def _end(self) -> None:
        """End the session: the model's thread drops unfinished work, and the engine forgets the session."""
        self._submitted.abandoned.set()
        self._wake_thread()
        self._on_end()


class LocalEngine:
    """An engine with its own model and thread; `load` loads the aligner once, in that thread."""

    def __init__(self, load: Callable[[], Aligner]) -> None:
        self._load = load
        self._loaded: Future[Aligner] = Future()  # the aligner, or the error that prevented its loading
        self._thread: threading.Thread | None = None  # the model's thread; None before `start`
        self._scheduler: Scheduler  # set when the aligner is loaded
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()  # jobs, and `_WAKE`
        self._live: set[_Submitted] = set()  # requests and sessions that have not ended
        self._closed = False
        self._step_start: float | None = None  # when the current step began, in monotonic seconds; None between steps
        # runs the token classifiers; its thread is started by the first call
        self._judge_executor = ThreadPoolExecutor(1, thread_name_prefix="judge")

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
                return await asyncio.wrap_future(self._judge_executor.submit(judge.label_tokens, request))
            except Exception as error:  # noqa: BLE001 - tokenizers and foreign models may raise anything
                raise make_own_error(request.request_id, error) from None

    async def complete(self, request: CompletionRequest, name: str, deadline_s: float) -> Completion:
        """Complete one prompt within `deadline_s`; `name` is the request's id in errors and logs."""
        aligner = choose_aligner(self._find_aligner(), request.model)
        work = partial(complete, aligner, request)
        submitted = self._submit(name, aligner, work, request.user or "", deadline_s)
        return await self._wait_for_result(submitted, deadline_s)  # type: ignore[no-any-return]

    async def read(self, request: AlignRequest) -> LocalSession:
        """Begin to read an answer that is still being written; raises `UnknownHead` and `HeadRefused`."""
        # an answer that is the engine's only request is read in smaller pieces
        answer = PartialAnswer(request, is_alone=lambda: len(self._live) == 1)
        answer.body.add(request.answer)
        aligner = self._find_aligner().find_aligner(request.aligner)
        aligner.find_taught_heads(request)  # refuse unusable taught heads now, not when the answer has ended
        has_early_verdicts = aligner.info.has_head and request.verify is Verify.FLAGGED
        work = partial(read_growing_answer, aligner, answer)
        submitted = self._submit(request.request_id, aligner, work, request.tenant, answer=answer)
        wake_thread = partial(self._inbox.put, _WAKE)
        on_end = partial(self._live.discard, submitted)
        return LocalSession(submitted, answer, wake_thread, on_end, has_early_verdicts=has_early_verdicts)

    async def _submit_work(self, work: Callable[..., Work], request: AlignRequest | StatesRequest | RowsRequest) -> Any:
        """Let the model's thread run `work(aligner, request, sequence)`, and return its result before the deadline."""
        aligner = self._find_aligner().find_aligner(request.aligner)
        request_work = partial(work, aligner, request)
        submitted = self._submit(request.request_id, aligner, request_work, request.tenant, request.deadline_s)
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
        """Queue a job for the model's thread: the generator that `work` returns for the job's token sequence.

        `name` is the request's id. A job with an `answer` reads it ahead: it waits for the answer's text, and
        `LocalSession.finish` enforces its deadline.
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
        """Return the result of submitted work; if the caller is cancelled, the model's thread drops the work."""
        try:
            async with enforce_deadline(deadline_s):
                return await asyncio.wrap_future(submitted.future)
        finally:
            submitted.abandoned.set()
            self._live.discard(submitted)

    async def aclose(self) -> None:
        """Fail all unfinished requests, and wait for the model's thread to end unless the aligner is still loading."""
        self._closed = True
        self._judge_executor.shutdown(wait=False, cancel_futures=True)
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
            # if the aligner could not be loaded, the thread was right to end; `start` raises the error
            return float("inf") if self._loaded.exception() is None else 0.0
        step_start = self._step_start  # read once, because the model's thread may change it
        return 0.0 if step_start is None else time.monotonic() - step_start

    @property
    def loading(self) -> bool:
        return self._thread is not None and not self._loaded.done()

    def _find_aligner(self) -> Aligner:
        """The default aligner; raises `EngineUnavailable` unless it is loaded and the engine open."""
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
        except BaseException as error:  # noqa: BLE001 - the caller's thread gets the error, from `start`
            self._loaded.set_exception(error)
            return
        loop = Loop(aligner)
        self._scheduler = loop.scheduler
        self._loaded.set_result(aligner)
        while not self._closed:
            self._move_queued_jobs(loop)
            self._step_start = time.monotonic()
            loop.step()
            self._step_start = None
        loop.close()

    def _move_queued_jobs(self, loop: Loop) -> None:
        """Move all queued jobs into the loop; if the loop is idle, wait for the first one."""
        must_wait = loop.is_idle()
        while True:
            try:
                job = self._inbox.get(block=must_wait)
            except queue.Empty:
                return
            must_wait = False  # take further jobs only if they are there already
            if job is not None:  # None is `_WAKE`
                loop.add(job)


_WAKE = None
"""Item of the inbox that is no job: it wakes the model's thread, because a job that the thread has can go on."""
