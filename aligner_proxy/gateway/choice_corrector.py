"""Corrects the choices of one request, records their outcomes, and raises the error if the policy blocks."""

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

Publish = Callable[[float], None]
"""Writes LiteLLM's guardrail record of the request; the argument is when correction began (seconds since the epoch)."""

_UNRECORDED = (NotRecorded.reason, NoRoomForRecord.reason)
"""Reasons of answers that are refused because they have no audit entry."""


RETRY_AFTER_S = 5
"""Seconds after which asking again may help, in the header of an error that passes by itself."""


class Blocked(ProxyException):
    """The policy or a missing audit entry forbids delivering this answer.

    HTTP 503 with `retry-after` if the cause may pass (`may_pass`). Else HTTP 422: the official clients repeat a request
    that gets a 5xx twice, and each time the upstream is paid for an answer that is refused again.
    """

    def __init__(self, reason: str | None) -> None:
        self.reason = reason
        lacking = "recorded" if reason in _UNRECORDED else "aligned"
        may_pass = reason in _UNRECORDED or pipeline_outcomes.may_pass(reason)
        # LiteLLM reads `code` on whole responses and `status_code` on streams.
        self.status_code = 503 if may_pass else 422
        headers = {"retry-after": str(RETRY_AFTER_S)} if may_pass else None
        message = f"the answer could not be {lacking} ({reason})"
        super().__init__(message, "aligner_error", None, self.status_code, headers)


class ChoiceCorrector:
    """Corrects whole choices through the pipeline, and records choices that a stream corrected segment by segment."""

    def __init__(
        self,
        pipeline: Pipeline,
        state: RequestState,
        shadows: ShadowCorrections,
        auditor: AuditWriters | None,
        publish: Publish,
        webhook: WebhookSender | None = None,
    ) -> None:
        self._webhook = webhook
        """Sends reports of doubtful answers; None if nothing sends them."""
        self._busy_streams = 0
        """1 while this request's stream, corrected segment by segment, counts in `ShadowCorrections.busy`; else 0."""
        self.pipeline = pipeline
        self._state = state
        self._shadows = shadows
        self._auditor = auditor
        """Writes entries of the audit store; None if nothing is stored."""
        self._publish = publish
        self._opened_at = time.time()
        """When correction of a stream began, in seconds since the epoch."""

    async def correct(
        self, exchanges: Sequence[Exchange], session_of: Callable[[int], Session | None] = lambda _: None
    ) -> Sequence[Outcome]:
        """Correct all choices of a response concurrently, finalize the request's state and return the outcomes.

        `session_of` returns the engine's session for a choice that was read ahead. Raises `Blocked` if the policy
        prefers an error to an uncorrected answer.
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
                corrections += self._make_corrections(answer, session_of)
            with tracing.span("aligner.correct", state.arrival.trace, aligner__call_id=state.call_id):
                if len(corrections) == 1:  # a single choice needs no task of its own
                    outcomes = [await corrections[0]]
                else:
                    outcomes = await asyncio.gather(*corrections)
        state.finalize(outcomes)
        # Before `raise_if_blocked`, so that a blocked answer is recorded, too.
        self._publish(started)
        for outcome in outcomes:
            self.raise_if_blocked(outcome)
        return outcomes

    def record_outcomes(self, outcomes: Sequence[tuple[Exchange, Outcome]]) -> None:
        """Record the final outcomes of choices that a stream corrected segment by segment."""
        for exchange, outcome in outcomes:
            metrics.record_outcome(exchange.call_id, len(exchange.answer or ""), outcome)
            self._queue_record(exchange, outcome)
            self._start_shadow_judgement(exchange, outcome)
        self._state.finalize([outcome for _, outcome in outcomes])
        metrics.record_upstream_end(self._state)
        self._publish(self._opened_at)

    def raise_if_blocked(self, outcome: Outcome) -> None:
        """Raise `Blocked` if the policy prefers an error to this answer, or its required audit entry is missing."""
        if outcome.reason in _UNRECORDED or pipeline_outcomes.blocks(outcome):
            raise Blocked(outcome.reason)

    async def _correct_answer(self, answer: Sequence[Exchange]) -> Sequence[Outcome]:
        """Correct all texts of one answer concurrently, record their outcomes and return them."""
        return await asyncio.gather(*self._make_corrections(answer))

    def _make_corrections(
        self, answer: Sequence[Exchange], session_of: Callable[[int], Session | None] = lambda _: None
    ) -> list[Coroutine[Any, Any, Outcome]]:
        """The correction of each text of one answer, not started.

        Several texts share an `AnswerTexts`, which knows whether anything remains of the whole answer.
        """
        texts = None
        if len(answer) > 1 and self._state.policy.if_nothing_remains is not IfNothingRemains.ORIGINAL:
            texts = AnswerTexts(self.pipeline.refusal_text, len(answer))
        return [self.correct_one(exchange, session_of(exchange.index), texts) for exchange in answer]

    async def correct_one(
        self, exchange: Exchange, session: Session | None = None, texts: AnswerTexts | None = None
    ) -> Outcome:
        """Correct one choice, or one of the `texts` of an answer; record its outcome, even if the client disconnects.

        Several `texts` have to be corrected concurrently.
        """
        # Recorded if the client leaves before the answer is corrected.
        outcome = Outcome(Status.FAILED, metrics.CANCELLED, exchange.answer, self._state.policy, exchange.index)
        shadows = self._shadows
        self._cancel_shadow_judgements()
        shadows.busy += 1  # keeps shadow aligners from starting
        with tracing.span("aligner.align", aligner__call_id=exchange.call_id) as span, IN_FLIGHT.track_inprogress():
            try:
                outcome = await self.pipeline.align(exchange, self._state.policy, session, texts)
                outcome = await self._record_outcome(exchange, outcome)
            finally:
                shadows.busy -= 1
                metrics.record_outcome(exchange.call_id, len(exchange.answer or ""), outcome)
                metrics.describe_span(span, outcome)
        self._start_shadow_judgement(exchange, outcome)
        return outcome

    @contextlib.contextmanager
    def pause_shadow_aligners(self) -> Iterator[None]:
        """Context manager around a stream that is corrected segment by segment; no shadow aligner judges meanwhile."""
        self._cancel_shadow_judgements()
        self._shadows.busy += 1
        self._busy_streams = 1
        try:
            yield
        finally:
            self._busy_streams = 0
            self._shadows.busy -= 1

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
            # This entry must not be taken for the answer's own entry, nor count among the entries of the route.
            policy = replace(policy, name=f"{policy.name}{SHADOW_SUFFIX}")
            judge = partial(self._judge_with_shadow_aligner, policy)
            self._shadows.judge_alongside(exchange, policy, judge, self._busy_streams)

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
        """Queue the outcome for the audit store, or write it at once if the policies file requires an entry first.

        Returns the outcome, or a failure without text if the required entry cannot be written.
        """
        event = self._make_event(exchange, outcome)
        if event is None or self._auditor is None:
            return outcome
        if not self.records_first or self._state.policy.mode is not Mode.ENFORCE:
            self._auditor.note(event)
            return outcome
        try:
            with tracing.stage("audit"):
                await self._auditor.write(event)
        except NotRecorded as error:
            return replace(outcome, status=Status.FAILED, reason=error.reason, text=None)
        return outcome

    def _queue_record(self, exchange: Exchange, outcome: Outcome) -> None:
        """Queue the outcome for the audit store, unless nothing is to be recorded."""
        event = self._make_event(exchange, outcome)
        if event is not None and self._auditor is not None:
            self._auditor.note(event)

    def _make_event(self, exchange: Exchange, outcome: Outcome) -> AuditEvent | None:
        """The audit event of an outcome; None if nothing is to be recorded.

        Also shows the outcome to the extensions and offers it to the webhook for doubtful answers.
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
    """The texts of each answer: choices are answers of their own, text parts of one response belong together."""
    answer: list[Exchange] = []
    for exchange in exchanges:
        answer.append(exchange)
        if not exchange.inner:
            yield answer
            answer = []
    if answer:
        yield answer
