"""Shadow corrections: background corrections of shadow mode, for which no client waits, with bounded concurrency. A
shadow aligner is another aligner that judges the same answer in the background, only for comparison.

Results appear only in telemetry and audit. An answer above the limit is skipped with the reason `shadow_full`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from aligner_proxy.gateway import metrics
from aligner_proxy.observability.metrics import SHADOW_JUDGEMENTS
from aligner_proxy.pipeline.stages import eligibility
from aligner_proxy.types import Exchange, Outcome, Policy, SkipReason, Status

log = logging.getLogger(__name__)

LAST_S = 10.0
"""Seconds that a stopping process spends on pending shadow corrections."""
JudgeAnswer = Callable[[Exchange], Awaitable[object]]
"""Judges an answer and records the result; returns its `Outcome`."""
CorrectTexts = Callable[[Sequence[Exchange]], Awaitable[object]]
"""Corrects the texts of one answer and records their outcomes."""


class ShadowCorrections:
    """Background corrections of at most `max_running` answers at a time; `max_waiting` may wait, others are skipped."""

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self._max_tasks = max_running + max_waiting
        self._slots = asyncio.Semaphore(max_running)
        self._tasks: set[asyncio.Task[None]] = set()
        self.active_count = 0
        """Number of corrections in progress, for clients or in shadow mode; a shadow aligner starts only at 0."""
        self.judgements: set[asyncio.Future[object]] = set()
        """Tasks in which a shadow aligner judges; any other work cancels them, since they have the lowest priority."""

    def start(self, texts: Sequence[Exchange], policy: Policy, correct: CorrectTexts) -> list[Outcome]:
        """Start a background correction of the texts of one answer, and return the outcomes that the client gets now.

        The started task calls `correct` with all texts, which records them, also those that are skipped. If all texts
        are skipped, or too many answers wait, no task is started and the texts are recorded here.
        """
        skip_reasons = [eligibility.check(eligibility.note_calls(exchange, policy), policy) for exchange in texts]
        is_full = len(self._tasks) >= self._max_tasks
        corrects_any = None in skip_reasons  # None: the text is to be corrected
        if is_full or not corrects_any:
            reasons = [reason or SkipReason.SHADOW_FULL for reason in skip_reasons]
            return [
                metrics.record_unprocessed(exchange.call_id, policy, Status.SKIPPED, reason.value, exchange.index)
                for exchange, reason in zip(texts, reasons, strict=True)
            ]
        task = asyncio.create_task(self._run_correction(texts, correct))
        self._tasks.add(task)  # the loop itself keeps only weak references to tasks
        task.add_done_callback(self._finish_correction)
        return [
            _make_immediate_outcome(exchange, policy, skip_reason)
            for exchange, skip_reason in zip(texts, skip_reasons, strict=True)
        ]

    def judge_alongside(
        self, exchange: Exchange, policy: Policy, judge_answer: JudgeAnswer, *, own_active_count: int = 0
    ) -> None:
        """Let the shadow aligner judge an answer if nothing else runs, else only count the answer as `shed` (left out).

        `judge_answer` is called with `exchange` in a task of its own, and records the result. `own_active_count` says
        how many of the `active_count` corrections are of this answer, and so are not other work.
        """
        # The current task may be the shadow correction whose answer this is.
        other_tasks = self._tasks - {asyncio.current_task()}
        if self.active_count > own_active_count or other_tasks or self.judgements:
            SHADOW_JUDGEMENTS.labels(policy.aligner, "shed").inc()
            return
        task = asyncio.ensure_future(judge_answer(exchange))
        self.judgements.add(task)
        task.add_done_callback(partial(self._finish_judgement, policy.aligner))

    def _finish_judgement(self, aligner: str, task: asyncio.Future[object]) -> None:
        """Count a judgement of the shadow aligner, whose task has ended, as judged, failed or shed (left out)."""
        self.judgements.discard(task)
        result = "failed"
        if task.cancelled():  # by other work, which has priority, or by the end of the process
            result = "shed"
        elif task.exception() is not None:
            log.error("the shadow aligner failed (%s)", type(task.exception()).__name__)
        else:
            outcome = task.result()
            if isinstance(outcome, Outcome) and outcome.correction is not None:
                result = "judged"
        SHADOW_JUDGEMENTS.labels(aligner, result).inc()

    async def finish(self, last_work: Callable[[], Awaitable[object]]) -> None:
        """At the end of the process, wait at most `LAST_S` seconds for pending corrections, then run `last_work`."""
        for task in tuple(self.judgements):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_S)
        await last_work()

    async def _run_correction(self, texts: Sequence[Exchange], correct: CorrectTexts) -> None:
        """Correct the texts once fewer than `max_running` corrections run."""
        async with self._slots:
            await correct(texts)

    def _finish_correction(self, task: asyncio.Task[None]) -> None:
        """Forget a task that has ended, and log its error if it has one."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a shadow correction failed (%s)", type(error).__name__)


def _make_immediate_outcome(exchange: Exchange, policy: Policy, skip_reason: SkipReason | None) -> Outcome:
    """The outcome that the client gets now: `shadow` if the text will be corrected, else skipped for this reason."""
    if skip_reason is None:
        return Outcome(Status.SHADOW, None, exchange.answer, policy, exchange.index)
    return Outcome(Status.SKIPPED, skip_reason.value, exchange.answer, policy, exchange.index)
