"""Judges the conversation in a request before the upstream works, or meanwhile.

The policy says what is judged (`incoming_tool_results`, `incoming_history`). The request is never rewritten. Under
`block` it waits for the judgement, and a flagged message ends it before anything is spent. Under `report` it goes on at
once, and the header `x-aligner-incoming` says what was flagged. Each message is judged by itself, without the
conversation around it, so that the cache has its result when the tenant's next request repeats the message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litellm.proxy._types import ProxyException

from aligner_proxy.concurrency import cancel_when_gone, client_gone_waiter, start_task
from aligner_proxy.errors import ClientGone
from aligner_proxy.formats.base import is_storing_forbidden
from aligner_proxy.formats.incoming import IncomingText, incoming_texts
from aligner_proxy.gateway import metrics
from aligner_proxy.gateway.choice_corrector import RETRY_AFTER_S
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.side_texts import MakeCorrector, is_clean, scoring_state
from aligner_proxy.pipeline import outcomes as pipeline_outcomes
from aligner_proxy.types import Exchange, IncomingTreatment, Mode, Outcome, Status


@dataclass(frozen=True, slots=True)
class _DoubtfulText:
    """A text of a request that was flagged or could not be judged, and its outcome."""

    text: IncomingText
    outcome: Outcome

    @property
    def is_flagged(self) -> bool:
        """Whether the text violates an objective."""
        return self.outcome.correction is not None and self.outcome.flagged_count > 0

    @property
    def label(self) -> str:
        """Kind and number of the text, and its violated objectives or why it was not judged ("tool@3:insults")."""
        objectives = "+".join(self.outcome.violated_objectives)
        finding = objectives if self.is_flagged else f"unjudged/{self.outcome.reason}"
        return f"{self.text.kind.short_name}@{self.text.position}:{finding}"


class IncomingTexts:
    """The judgement of the texts of one request."""

    def __init__(self, data: Mapping[str, Any], state: RequestState, make_corrector: MakeCorrector) -> None:
        self._data = data
        self._state = state
        self._make_corrector = make_corrector
        self.labels: list[str] = []
        """Labels of the doubtful texts so far, for the header x-aligner-incoming."""
        self._report: asyncio.Task[Any] | None = None
        """Judges the texts that cannot block the request; None if there are none."""

    def __deepcopy__(self, memo: object) -> IncomingTexts:
        """Return this object: LiteLLM copies metadata for its records, but a task belongs to its loop."""
        return self

    async def start(self) -> None:
        """Judge the texts that may block the request, and start a task that judges the rest.

        Raises LiteLLM's error if a text blocks the request, or the client leaves.
        """
        blocking_texts: list[IncomingText] = []
        reported_texts: list[IncomingText] = []
        policy = self._state.policy
        for text in incoming_texts(self._data):
            treatment = policy.incoming_treatment(text.kind)
            if treatment is IncomingTreatment.BLOCK and policy.mode is Mode.ENFORCE:
                blocking_texts.append(text)
            elif treatment is not IncomingTreatment.PASS:
                reported_texts.append(text)
        if blocking_texts:
            for doubtful_text in await self._judge_for_client(blocking_texts):
                self._raise_if_blocked(doubtful_text)
        if reported_texts:
            self._report = start_task(self._judge(reported_texts))

    async def _judge_for_client(self, texts: Sequence[IncomingText]) -> list[_DoubtfulText]:
        """Judge texts while the client waits; if the client leaves, fail the request and raise LiteLLM's error."""
        try:
            async with cancel_when_gone(client_gone_waiter()):
                return await self._judge(texts)
        except ClientGone:
            metrics.finalize_unprocessed(self._state, Status.FAILED, metrics.CANCELLED)
            raise ProxyException("the client left", "aligner_error", None, ClientGone.status_code) from None

    async def wait(self) -> None:
        """Wait until everything is judged; `labels` is complete then."""
        if self._report is not None:
            await asyncio.wait({self._report})

    async def _judge(self, texts: Sequence[IncomingText]) -> list[_DoubtfulText]:
        """Judge texts; return those that were flagged or could not be judged, and note them for the header."""
        await self._state.wait_for_selection()
        no_store = is_storing_forbidden(self._data)
        outcomes = await asyncio.gather(*(self._score(text, no_store=no_store) for text in texts))
        doubtful_texts = [
            _DoubtfulText(text, outcome)
            for text, outcome in zip(texts, outcomes, strict=True)
            if not is_clean(outcome, self._state.policy)
        ]
        self.labels += [doubtful_text.label for doubtful_text in doubtful_texts]
        for doubtful_text in doubtful_texts:
            metrics.record_incoming_text(self._state, doubtful_text.text.kind, is_flagged=doubtful_text.is_flagged)
        return doubtful_texts

    async def _score(self, text: IncomingText, *, no_store: bool) -> Outcome:
        """The outcome of one message, which is scored as if it were an answer; with `no_store`, it is not cached."""
        exchange = Exchange(
            self._state.call_id,
            text.position,
            turns=(),  # a message is judged without the conversation around it
            answer=text.text,
            no_store=no_store,
            inner=True,
        )
        corrector = self._make_corrector(scoring_state(self._state, text.kind))
        return await corrector.correct_one(exchange)

    def _raise_if_blocked(self, doubtful_text: _DoubtfulText) -> None:
        """Raise LiteLLM's error for a flagged text, and for an unjudged text if the policy blocks unjudged texts."""
        text = doubtful_text.text
        outcome = doubtful_text.outcome
        if not (doubtful_text.is_flagged or self._state.policy.blocks_unjudged):
            return
        metrics.finalize_unprocessed(self._state, Status.FAILED, text.kind.value)
        if doubtful_text.is_flagged:
            fault = f"was flagged: {', '.join(outcome.violated_objectives)}"
            may_pass = False
        else:
            fault = f"could not be judged: {outcome.reason}"
            may_pass = pipeline_outcomes.may_pass(outcome.reason)
        raise ProxyException(
            f"{text.place} of the request ({text.kind.short_name}) {fault}",
            type="aligner_error",
            param=text.place,
            code=503 if may_pass else 422,
            headers={"retry-after": str(RETRY_AFTER_S)} if may_pass else None,
        )
