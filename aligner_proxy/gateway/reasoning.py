"""Handles the reasoning in one response: removes it, or scores it for the record, but never edits it.

Scoring changes only a header or comment of the response. Its result is recorded like a shadow correction, under the
policy's name followed by `/reasoning`. Reasoning that may block the answer is judged in side_texts.py instead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aligner_proxy import formats
from aligner_proxy.concurrency import TimeSlice
from aligner_proxy.errors import NotPutIn, Unreadable
from aligner_proxy.formats.base import is_storing_forbidden
from aligner_proxy.formats.reasoning import SafeReasoning, SafeReasoningStream
from aligner_proxy.gateway import metrics, side_texts
from aligner_proxy.gateway.choice_corrector import Blocked, ChoiceCorrector
from aligner_proxy.gateway.litellm_internals import WatchedStream
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.side_texts import MakeCorrector, make_side_exchange, scoring_state
from aligner_proxy.gateway.upstream_errors import UpstreamItems
from aligner_proxy.pipeline import outcomes
from aligner_proxy.types import Exchange, Mode, Outcome, SideKind, SideTreatment, Status


def reasoning_treatment(state: RequestState) -> SideTreatment:
    """What this module does with the reasoning in a response; PASS: nothing, perhaps since side_texts.py handles it."""
    policy = state.policy
    if policy.bypass or policy.mode is Mode.OFF:
        return SideTreatment.PASS
    if policy.reasoning is SideTreatment.DROP:
        # Shadow mode changes nothing in a response, so it removes no reasoning.
        return SideTreatment.DROP if policy.mode is Mode.ENFORCE else SideTreatment.PASS
    # If reasoning may block the answer, it is judged together with the other side texts.
    may_block = policy.reasoning is SideTreatment.BLOCK or side_texts.blocks_kind(policy, SideKind.REASONING)
    return SideTreatment.PASS if may_block or state.skip else policy.reasoning


def open_reasoning(data: dict[str, Any], state: RequestState, make_corrector: MakeCorrector) -> Reasoning | None:
    """The handler of a request's reasoning; None if reasoning passes unchanged here."""
    reasoning_format = formats.reasoning(state.arrival.route)
    wire = formats.wire(state.arrival.route)
    if reasoning_format is None or wire is None or reasoning_treatment(state) is SideTreatment.PASS:
        return None
    scored_state = scoring_state(state, SideKind.REASONING)
    # Reasoning is scored only for the record, so it may be skipped for the same reasons as an answer.
    scored_state.policy = replace(scored_state.policy, on_skip=state.policy.on_skip)
    corrector = make_corrector(scored_state)
    return Reasoning(reasoning_format, data, state, wire.first_exchange(data), corrector)


@dataclass(slots=True)
class Reasoning:
    """Removes or scores the reasoning of one request."""

    _reasoning_format: SafeReasoning
    _data: Mapping[str, Any]
    _state: RequestState
    _empty_exchange: Exchange
    _corrector: ChoiceCorrector
    """Scores reasoning; edits nothing."""

    @property
    def _drops(self) -> bool:
        """Whether reasoning is removed, and not scored."""
        return self._state.policy.reasoning is SideTreatment.DROP

    @contextlib.asynccontextmanager
    async def judge_alongside(self, response: Any) -> AsyncIterator[Any]:
        """Context manager that yields the response to process further, and scores its reasoning in parallel."""
        if self._drops:
            yield self._remove_reasoning(response)
            return
        scoring = asyncio.create_task(self._score(self._read_texts(response), response))
        try:
            yield response
            await scoring
        finally:
            scoring.cancel()

    def _remove_reasoning(self, response: Any) -> Any:
        """The response without reasoning; unchanged if the reasoning cannot be removed and the policy permits that."""
        try:
            return self._reasoning_format.remove_reasoning(self._data, response)
        except NotPutIn:
            self._handle_failure()
            return response

    def _handle_failure(self) -> None:
        """Count reasoning that could not be removed; raise `Blocked` if the policy prefers an error to that."""
        metrics.record_not_applied(self._state)
        if outcomes.blocks(Outcome(Status.FAILED, outcomes.INTERNAL, None, self._state.policy)):
            raise Blocked(outcomes.INTERNAL)

    def _read_texts(self, response: Any) -> dict[int, str]:
        """The reasoning in a response, by number of choice; empty if it cannot be read, since it is only recorded."""
        try:
            return self._reasoning_format.texts(response)
        except Unreadable:
            return {}

    async def _score(self, reasoning_by_choice: Mapping[int, str], source: object) -> None:
        """Score the reasoning of each choice and store the outcomes in the request's state.

        `source` is the response or stream, with which LiteLLM stores the upstream's headers.
        """
        no_store = is_storing_forbidden(self._data, source)
        exchanges = [
            make_side_exchange(self._empty_exchange, number, text, no_store=no_store)
            for number, text in sorted(reasoning_by_choice.items())
        ]
        outcomes_of_reasoning = await asyncio.gather(*map(self._corrector.correct_one, exchanges))
        self._state.reasoning = list(outcomes_of_reasoning)

    def wrap_stream(self, source: AsyncIterable[Any]) -> AsyncIterable[Any]:
        """The stream with its reasoning removed, or read for scoring as it passes."""
        reader = self._reasoning_format.open_stream(self._data, drop=self._drops)
        items = self._drop_reasoning(source, reader) if self._drops else self._read_along(source, reader)
        return WatchedStream(items, source)

    async def _drop_reasoning(
        self, source: AsyncIterable[Any], reader: SafeReasoningStream
    ) -> AsyncGenerator[Any, None]:
        """Yield the items of a stream without their reasoning.

        After a failure to remove reasoning, the remaining items pass unchanged; if the policy prefers an error,
        `Blocked` is raised instead.
        """
        has_failed = False
        time_slice = TimeSlice()
        async with contextlib.aclosing(UpstreamItems(source)) as upstream:
            async for item in upstream:
                try:
                    outgoing_items = [item] if has_failed else reader.feed(item)
                except NotPutIn:
                    has_failed = True
                    self._handle_failure()
                    outgoing_items = [*reader.unread_items(), item]
                if reader.is_unreadable and not has_failed:
                    # The reader has taken `item`, so it is in `outgoing_items` or among the reader's unread items.
                    has_failed = True
                    self._handle_failure()
                    outgoing_items += reader.unread_items()
                for outgoing_item in outgoing_items:
                    yield outgoing_item
                # While long reasoning is dropped, nothing is yielded, so other tasks run only in this pause.
                await time_slice.pause()
        if not has_failed:
            for outgoing_item in reader.flush():
                yield outgoing_item
        upstream.raise_error()

    async def _read_along(self, source: AsyncIterable[Any], reader: SafeReasoningStream) -> AsyncGenerator[Any, None]:
        """Yield the unchanged items of a stream, and score its reasoning in the background.

        The reasoning so far is scored whenever an item without reasoning follows it, and at the end.
        """
        scoring_task: asyncio.Task[None] | None = None
        piece_count = 0
        scored_count = 0  # how many of the pieces of reasoning are scored, or are being scored
        try:
            async with contextlib.aclosing(UpstreamItems(source)) as upstream:
                async for item in upstream:
                    with contextlib.suppress(Unreadable):
                        reader.feed(item)
                    has_grown = reader.piece_count > piece_count
                    piece_count = reader.piece_count
                    # An item without reasoning follows, so what was read so far is complete.
                    if not has_grown and piece_count > scored_count:
                        scored_count = piece_count
                        # All reasoning so far is scored together, so an earlier task on its beginning is useless.
                        scoring_task = _cancel_and_start(scoring_task, self._score(reader.texts, source))
                    yield item
                upstream.raise_error()
            with contextlib.suppress(Unreadable):
                reader.flush()  # a last piece may still wait in the reader
            if reader.piece_count > scored_count:
                scoring_task = _cancel_and_start(scoring_task, self._score(reader.texts, source))
            if scoring_task is not None:
                await scoring_task
        finally:
            if scoring_task is not None:
                scoring_task.cancel()


def _cancel_and_start(earlier_task: asyncio.Task[None] | None, coroutine: Any) -> asyncio.Task[None]:
    """Cancel the earlier task, if any, and start a new one."""
    if earlier_task is not None:
        earlier_task.cancel()
    return asyncio.create_task(coroutine)
