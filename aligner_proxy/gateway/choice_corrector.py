"""Correction of the choices of one request, the record of each, and the error where the policy wants one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from litellm.proxy._types import ProxyException

from aligner_proxy import audit
from aligner_proxy.engine.api import Session
from aligner_proxy.gateway import metrics
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.shadow import Shadows
from aligner_proxy.observability import tracing
from aligner_proxy.observability.metrics import IN_FLIGHT
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Exchange, Mode, Outcome, Status

Publish = Callable[[float], None]
"""Gives LiteLLM its guardrail record of a request whose correction began at this time (seconds since the epoch)."""


class Blocked(ProxyException):
    """A correction failed where the policy says `block` for this class of failure (HTTP 503)."""

    # LiteLLM reads `code` on whole responses and `status_code` on streams.
    status_code = 503

    def __init__(self, reason: str | None) -> None:
        super().__init__(f"the answer could not be aligned ({reason})", "aligner_error", None, self.status_code)


def refuse(outcome: Outcome) -> None:
    """Raise where the policy wants an error in place of an answer that could not be corrected."""
    if outcomes.blocks(outcome):
        raise Blocked(outcome.reason)


class ChoiceCorrector:
    """Corrects whole choices through the pipeline, and records those that a stream corrected piece by piece."""

    def __init__(
        self,
        pipeline: Pipeline,
        ledger: RequestState,
        shadows: Shadows,
        keeper: audit.AuditWriter | None,
        publish: Publish,
    ) -> None:
        self.pipeline = pipeline
        self._ledger = ledger
        self._shadows = shadows
        self._keeper = keeper
        self._publish = publish
        self._made = time.time()

    async def correct(
        self, exchanges: Sequence[Exchange], session_of: Callable[[int], Session | None] = lambda _: None
    ) -> Sequence[Outcome]:
        """The outcomes of all choices of a response, corrected at once and settled.

        `session_of` gives the engine's session on a choice, if it has read one ahead. Raises `Blocked` where the policy
        prefers an error to an uncorrected answer.
        """
        started = time.time()
        ledger = self._ledger
        policy = ledger.policy
        metrics.upstream_ended(ledger)
        if ledger.skip is not None:
            outcomes = [metrics.closed(e.call_id, policy, Status.SKIPPED, ledger.skip, e.index) for e in exchanges]
        elif policy.mode is Mode.SHADOW:
            outcomes = [self._shadows.take(exchange, policy, self.correct_one) for exchange in exchanges]
        else:
            work = [self.correct_one(exchange, session_of(exchange.index)) for exchange in exchanges]
            with tracing.span("aligner.correct", ledger.trace, aligner__call_id=ledger.call_id):
                # A single choice needs no task of its own.
                outcomes = [await work[0]] if len(work) == 1 else await asyncio.gather(*work)
        ledger.settle(outcomes)
        self._publish(started)
        for outcome in outcomes:
            self.refuse(outcome)
        return outcomes

    def settle(self, outcomes: Sequence[tuple[Exchange, Outcome]]) -> None:
        """Record and settle choices that a stream corrected piece by piece."""
        for exchange, outcome in outcomes:
            metrics.record(exchange.call_id, len(exchange.answer or ""), outcome)
            self._keep(exchange, outcome)
        self._ledger.settle([outcome for _, outcome in outcomes])
        metrics.upstream_ended(self._ledger)
        self._publish(self._made)

    def refuse(self, outcome: Outcome) -> None:
        """Raise `Blocked` where the policy wants an error in place of this answer."""
        refuse(outcome)

    async def correct_one(self, exchange: Exchange, session: Session | None = None) -> Outcome:
        """The outcome of one choice, recorded wherever records are kept, also when the client went away meanwhile."""
        outcome = Outcome(Status.FAILED, metrics.CANCELLED, exchange.answer, self._ledger.policy, exchange.index)
        with tracing.span("aligner.align", aligner__call_id=exchange.call_id) as span, IN_FLIGHT.track_inprogress():
            try:
                outcome = await self.pipeline.align(exchange, self._ledger.policy, session)
            finally:
                metrics.record(exchange.call_id, len(exchange.answer or ""), outcome)
                metrics.describe(span, outcome)
        self._keep(exchange, outcome)
        return outcome

    def _keep(self, exchange: Exchange, outcome: Outcome) -> None:
        ledger = self._ledger
        if outcome.status is Status.SKIPPED:
            return
        ledger.extensions.observe(outcome)
        if ledger.facts is not None and self._keeper is not None:
            record = ledger.extensions.record(outcome.policy)
            self._keeper.note(audit.AuditEvent(time.time(), ledger.route, ledger.facts, exchange, outcome, record))
