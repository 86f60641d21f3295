"""Corrects the choices of a request (request_state.py), records them, and raises the error if the policy blocks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from litellm.proxy._types import ProxyException

from aligner_proxy.audit.entry import BESIDE_ID, SHADOW_SUFFIX, AuditEvent
from aligner_proxy.audit.writer import AuditWriters
from aligner_proxy.engine.api import Session
from aligner_proxy.errors import NoRoomForRecord, NotRecorded
from aligner_proxy.gateway import metrics
from aligner_proxy.gateway.request_state import RequestState, model_use_record
from aligner_proxy.gateway.shadow import ShadowCorrections
from aligner_proxy.gateway.webhook import WebhookSender
from aligner_proxy.observability import tracing
from aligner_proxy.observability.metrics import IN_FLIGHT
from aligner_proxy.pipeline import outcomes as pipeline_outcomes
from aligner_proxy.pipeline.answer_texts import AnswerTexts
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.policy import shares
from aligner_proxy.types import Exchange, IfNothingRemains, Mode, Outcome, Policy, Status

PublishRecord = Callable[[float], None]
"""Writes LiteLLM's guardrail record of the request; the argument is when correction began (seconds since the epoch)."""

_UNRECORDED = (NotRecorded.reason, NoRoomForRecord.reason)
"""Reasons of answers that are refused because they have no audit entry."""
RETRY_AFTER_S = 5
"""Seconds after which asking again may help, in the header of an error that passes by itself."""


class Blocked(ProxyException):
    """The policy or a missing audit entry forbids delivering this answer.

    HTTP 503 with `retry-after` if the cause may pass. Else HTTP 422: the official clients repeat a request that gets a
    5xx twice, and each time the upstream is paid for an answer that is refused again.
    """

    def __init__(self, reason: str | None) -> None:
        self.reason = reason
        missing_step = "recorded" if reason in _UNRECORDED else "aligned"
        may_pass = reason in _UNRECORDED or pipeline_outcomes.may_pass(reason)
        # LiteLLM reads `code` on whole responses and `status_code` on streams.
        self.status_code = 503 if may_pass else 422
        headers = {"retry-after": str(RETRY_AFTER_S)} if may_pass else None
        message = f"the answer could not be {missing_step} ({reason})"
        super().__init__(message, "aligner_error", None, self.status_code, headers)


class ChoiceCorrector:
    """Corrects whole choices through the pipeline, and records choices that a stream corrected segment by segment."""

    def __init__(
        self,
        pipeline: Pipeline,
        state: RequestState,
        shadows: ShadowCorrections,
        auditor: AuditWriters | None,
        publish_record: PublishRecord,
        webhook: WebhookSender | None = None,
    ) -> None:
        self._webhook = webhook
        """Sends reports of doubtful answers; None if nothing sends them."""
        self._own_active_count = 0
        """What this request's stream adds to `ShadowCorrections.active_count`: 1 in `pause_shadow_aligners`, else 0."""
        self.pipeline = pipeline
        self._state = state
        self._shadows = shadows
        self._auditor = auditor
        """Writes entries of the audit store; None if nothing is stored."""
        self._publish_record = publish_record
        self._opened_at = time.time()
        """When correction of a stream began, in seconds since the epoch."""

    async def correct(
        self, exchanges: Sequence[Exchange], take_session: Callable[[int], Session | None] = lambda _: None
    ) -> Sequence[Outcome]:
        """Correct all choices of a response concurrently, finalize the request's state and return the outcomes.

        `take_session` is called with the number of each choice, and returns the session in which the engine has read
        the choice while it arrived, or None. Raises `Blocked` if the policy prefers an error to an uncorrected answer.
        """
        started = time.time()
        state = self._state
        policy = state.policy
        metrics.record_upstream_end(state)
        if state.skip is not None:
            outcomes = [
                metrics.record_unprocessed(exchange.call_id, policy, Status.SKIPPED, state.skip, exchange.index)
                for exchange in exchanges
            ]
        elif policy.mode is Mode.SHADOW:
            outcomes = []
            for answer in _split_answers(exchanges):
                outcomes += self._shadows.start(answer, policy, self._correct_answer)
        else:
            corrections: list[Coroutine[Any, Any, Outcome]] = []
            for answer in _split_answers(exchanges):
                corrections += self._make_corrections(answer, take_session)
            with tracing.span("aligner.correct", state.arrival.trace, aligner__call_id=state.call_id):
                if len(corrections) == 1:  # `gather` would start a task, which a single choice does not need
                    outcomes = [await corrections[0]]
                else:
                    outcomes = await asyncio.gather(*corrections)
        state.finalize(outcomes)
        # Before `raise_if_blocked`, so that a blocked answer is recorded, too.
        self._publish_record(started)
        for outcome in outcomes:
            self.raise_if_blocked(outcome)
        return outcomes

    def record_outcomes(self, outcomes: Sequence[tuple[Exchange, Outcome]]) -> None:
        """Record the final outcomes, each with its exchange, of choices that a stream corrected segment by segment."""
        for exchange, outcome in outcomes:
            metrics.record_outcome(exchange.call_id, len(exchange.answer or ""), outcome)
            event = self._make_event(exchange, outcome)
            if event is not None and self._auditor is not None:
                self._auditor.note(event)
            self._start_shadow_judgement(exchange, outcome)
        self._state.finalize([outcome for _, outcome in outcomes])
        metrics.record_upstream_end(self._state)
        self._publish_record(self._opened_at)

    def raise_if_blocked(self, outcome: Outcome) -> None:
        """Raise `Blocked` if the policy prefers an error to this answer, or its required audit entry is missing."""
        if outcome.reason in _UNRECORDED or pipeline_outcomes.blocks(outcome):
            raise Blocked(outcome.reason)

    async def _correct_answer(self, answer: Sequence[Exchange]) -> Sequence[Outcome]:
        """Correct all texts of one answer concurrently, record their outcomes and return them."""
        return await asyncio.gather(*self._make_corrections(answer))

    def _make_corrections(
        self, answer: Sequence[Exchange], take_session: Callable[[int], Session | None] = lambda _: None
    ) -> list[Coroutine[Any, Any, Outcome]]:
        """Coroutines that correct each text of one answer; none of them is started yet."""
        answer_texts = None  # knows whether anything remains of an answer with several texts
        if len(answer) > 1 and self._state.policy.if_nothing_remains is not IfNothingRemains.ORIGINAL:
            answer_texts = AnswerTexts(self.pipeline.refusal_text, len(answer))
        return [self.correct_one(exchange, take_session(exchange.index), answer_texts) for exchange in answer]

    async def correct_one(
        self, exchange: Exchange, session: Session | None = None, answer_texts: AnswerTexts | None = None
    ) -> Outcome:
        """Correct one choice, and record its outcome even if the client disconnects.

        `session` is the one in which the engine has read the choice while it arrived; None if it has not.
        `answer_texts` is shared by all texts of one answer, which must be corrected concurrently; None for one text.
        """
        # This outcome is recorded if the client leaves before the answer is corrected.
        outcome = Outcome(Status.FAILED, metrics.CANCELLED, exchange.answer, self._state.policy, exchange.index)
        shadows = self._shadows
        self._cancel_shadow_judgements()
        shadows.active_count += 1  # keeps shadow aligners from starting
        with tracing.span("aligner.align", aligner__call_id=exchange.call_id) as span, IN_FLIGHT.track_inprogress():
            try:
                outcome = await self.pipeline.align(exchange, self._state.policy, session, answer_texts)
                outcome = await self._record_outcome(exchange, outcome)
            finally:
                shadows.active_count -= 1
                metrics.record_outcome(exchange.call_id, len(exchange.answer or ""), outcome)
                metrics.describe_span(span, outcome)
        self._start_shadow_judgement(exchange, outcome)
        return outcome

    @contextlib.contextmanager
    def pause_shadow_aligners(self) -> Iterator[None]:
        """Context manager around a stream that is corrected segment by segment; no shadow aligner judges meanwhile."""
        self._cancel_shadow_judgements()
        self._shadows.active_count += 1
        self._own_active_count = 1
        try:
            yield
        finally:
            self._own_active_count = 0
            self._shadows.active_count -= 1

    def _cancel_shadow_judgements(self) -> None:
        """Cancel running judgements of shadow aligners, so that no answer waits for them."""
        for task in tuple(self._shadows.judgements):
            task.cancel()

    def _start_shadow_judgement(self, exchange: Exchange, outcome: Outcome) -> None:
        """Start a background judgement of the same answer by the policy's shadow aligner, if it has one."""
        # The result is only compared, in the audit store, with the verdicts on the same answer.
        if outcome.policy.shadow_aligner is None or outcome.correction is None or self._auditor is None:
            return
        policy = shares.shadow_policy(outcome.policy)
        if policy is not None:
            # The entry gets another policy name, so that it does not count as an entry of the answer or of the route.
            policy = replace(policy, name=f"{policy.name}{SHADOW_SUFFIX}")
            judge_answer = partial(self._judge_with_shadow_aligner, policy)
            self._shadows.judge_alongside(exchange, policy, judge_answer, own_active_count=self._own_active_count)

    async def _judge_with_shadow_aligner(self, policy: Policy, exchange: Exchange) -> Outcome:
        """Judge an answer with the shadow aligner and record the result in a separate audit entry."""
        outcome = await self.pipeline.align(exchange, policy)
        state = self._state
        if outcome.status is not Status.SKIPPED and state.arrival.facts is not None and self._auditor is not None:
            record = state.policy_record(policy)
            aligner_id = f"{state.arrival.aligner_id}{BESIDE_ID}"
            route = f"{state.arrival.route}#beside"
            self._auditor.note(
                AuditEvent(time.time(), route, state.arrival.facts, exchange, outcome, record, aligner_id)
            )
        return outcome

    @property
    def records_first(self) -> bool:
        """Whether an answer under `enforce` must be written to the audit store before it is delivered."""
        return self._auditor is not None and self._auditor.required

    async def _record_outcome(self, exchange: Exchange, outcome: Outcome) -> Outcome:
        """Queue the outcome for the audit store, or write it at once if an answer may only be delivered with an entry.

        Returns the outcome, or a failure without text if the required entry cannot be written.
        """
        event = self._make_event(exchange, outcome)
        # no event: nothing about this outcome is to be recorded
        if event is None or self._auditor is None:
            return outcome
        # an answer that is only observed never waits for its entry
        if not self.records_first or self._state.policy.mode is not Mode.ENFORCE:
            self._auditor.note(event)
            return outcome
        try:
            with tracing.stage("audit"):
                await self._auditor.write(event)
        except NotRecorded as error:
            return replace(outcome, status=Status.FAILED, reason=error.reason, text=None)
        return outcome

    def _make_event(self, exchange: Exchange, outcome: Outcome) -> AuditEvent | None:
        """The audit event of an outcome; None if nothing is to be recorded.

        This also passes every outcome that is not a skip to the extensions of plugins and to the webhook for doubtful
        answers.
        """
        state = self._state
        if outcome.status is Status.SKIPPED:
            return None
        state.arrival.extensions.observe(outcome)
        if outcome.policy.hand_off is not None and self._webhook is not None:
            self._webhook.offer(exchange, outcome, state.arrival.aligner_id)
        if state.arrival.facts is None or self._auditor is None:
            return None
        record = state.policy_record(outcome.policy) | model_use_record(outcome)
        return AuditEvent(
            time.time(), state.arrival.route, state.arrival.facts, exchange, outcome, record, state.arrival.aligner_id
        )


def _split_answers(exchanges: Sequence[Exchange]) -> Iterator[Sequence[Exchange]]:
    """Yield the texts of each answer: a choice is an answer by itself, all text parts of a response are one answer."""
    answer: list[Exchange] = []
    for exchange in exchanges:
        answer.append(exchange)
        has_further_parts = exchange.inner  # True for every text part but the last
        if not has_further_parts:
            yield answer
            answer = []
    if answer:
        yield answer
