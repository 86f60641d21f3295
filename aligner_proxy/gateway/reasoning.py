"""Reasoning beside the answers of one request: taken out, or scored for the record. It is never edited.

What is scored changes nothing that the client gets but a header or comment; its record is that of a shadow correction,
under the policy's name with `/reasoning` behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from aligner_proxy import formats
from aligner_proxy.errors import NotPutIn, Unreadable
from aligner_proxy.formats.base import no_store
from aligner_proxy.formats.reasoning import SafeReasoning, SafeReasoningStream
from aligner_proxy.gateway import metrics, side_texts
from aligner_proxy.gateway.choice_corrector import Blocked, ChoiceCorrector
from aligner_proxy.gateway.litellm_internals import WatchedStream
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.side_texts import CorrectorOf, scoring_state, side_exchange
from aligner_proxy.pipeline import outcomes
from aligner_proxy.types import (
    Exchange,
    Mode,
    Outcome,
    SideKind,
    SideTreatment,
    Status,
)


def treatment(state: RequestState) -> SideTreatment:
    """What is done with the reasoning of this request."""
    policy = state.policy
    off = policy.bypass or policy.mode is Mode.OFF
    if off or (policy.reasoning is SideTreatment.DROP and policy.mode is not Mode.ENFORCE):
        return SideTreatment.PASS
    if policy.reasoning is SideTreatment.DROP:
        return SideTreatment.DROP
    # Where reasoning may end the answer, it is judged with all other texts beside it.
    ends = policy.reasoning is SideTreatment.BLOCK or side_texts.blocks(policy, SideKind.REASONING)
    return SideTreatment.PASS if ends or state.skip else policy.reasoning


def opened(data: dict[str, Any], state: RequestState, corrector_of: CorrectorOf) -> Reasoning | None:
    """The reasoning of a request; None where it stays as it comes."""
    form = formats.reasoning(state.route)
    wire = formats.wire(state.route)
    if form is None or wire is None or treatment(state) is SideTreatment.PASS:
        return None
    corrector = corrector_of(scoring_state(state, SideKind.REASONING))
    return Reasoning(form, data, state, wire.first_exchange(data, 0), corrector)


@dataclass(slots=True)
class Reasoning:
    """The reasoning of one request."""

    _form: SafeReasoning
    _data: Mapping[str, Any]
    _state: RequestState
    _opening: Exchange
    """A choice before anything of it came."""
    _corrector: ChoiceCorrector

    @property
    def _drops(self) -> bool:
        return self._state.policy.reasoning is SideTreatment.DROP

    @contextlib.asynccontextmanager
    async def beside(self, response: Any) -> AsyncIterator[Any]:
        """Block that gets the response as it may go on; reasoning is scored meanwhile."""
        if self._drops:
            yield self._without(response)
            return
        work = asyncio.create_task(self._judge(self._texts(response), response))
        try:
            yield response
            await work
        finally:
            work.cancel()

    def _without(self, response: Any) -> Any:
        try:
            return self._form.remove_reasoning(self._data, response)
        except NotPutIn:
            self._failed()
            return response

    def _failed(self) -> None:
        """Reasoning could not be taken out: the policy says whether it goes out all the same."""
        metrics.not_put_in(self._state)
        if outcomes.blocks(Outcome(Status.FAILED, outcomes.INTERNAL, None, self._state.policy)):
            raise Blocked(outcomes.INTERNAL)

    def _texts(self, response: Any) -> dict[int, str]:
        try:
            return self._form.texts(response)
        except Unreadable:
            return {}

    async def _judge(self, texts: Mapping[int, str], response: object = None) -> None:
        """Score reasoning by choice; what became of it is in the request's state."""
        unstored = no_store(self._data, response)
        exchanges = [
            side_exchange(self._opening, index, text, no_store=unstored) for index, text in sorted(texts.items())
        ]
        scored = await asyncio.gather(*map(self._corrector.correct_one, exchanges))
        self._state.reasoning = list(scored)

    def stream(self, source: AsyncIterable[Any]) -> AsyncIterable[Any]:
        """The same stream, without reasoning or with it read as it passes."""
        reader = self._form.open_stream(self._data, drop=self._drops)
        items = self._dropped(source, reader) if self._drops else self._read(source, reader)
        return WatchedStream(items, source)

    async def _dropped(self, source: AsyncIterable[Any], reader: SafeReasoningStream) -> AsyncGenerator[Any, None]:
        """The items of a stream without reasoning; from a failure on as they come."""
        broken = False
        async with _closing(source) as items:
            async for item in items:
                try:
                    passed = [item] if broken else reader.feed(item)
                except NotPutIn:
                    broken = True
                    self._failed()
                    passed = [*reader.unread_items(), item]
                for each in passed:
                    yield each
        for each in [] if broken else reader.flush():
            yield each

    async def _read(self, source: AsyncIterable[Any], reader: SafeReasoningStream) -> AsyncGenerator[Any, None]:
        """The items of a stream as they come. Its reasoning is scored as soon as something else follows it."""
        work: asyncio.Task[None] | None = None
        judged = size = 0
        try:
            async with _closing(source) as items:
                async for item in items:
                    with contextlib.suppress(Unreadable):
                        reader.feed(item)
                    if reader.size == size > judged:
                        judged = size
                        work = _again(work, self._judge(reader.texts))
                    size = reader.size
                    yield item
            with contextlib.suppress(Unreadable):
                reader.flush()
            if reader.size > judged:
                work = _again(work, self._judge(reader.texts))
            if work is not None:
                await work
        finally:
            if work is not None:
                work.cancel()


def _again(work: asyncio.Task[None] | None, coroutine: Any) -> asyncio.Task[None]:
    """A task in place of one that knew less."""
    if work is not None:
        work.cancel()
    return asyncio.create_task(coroutine)


@contextlib.asynccontextmanager
async def _closing(source: AsyncIterable[Any]) -> AsyncIterator[AsyncIterator[Any]]:
    """The items of a stream, which is closed at the end."""
    items = aiter(source)
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()
