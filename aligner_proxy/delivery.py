"""Which way does a stream take to its client? The policy's: held, released segment by segment, or delivered at once.

Whatever the way, LiteLLM learns what was served and the metrics how long it took.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aligner_proxy import inside, telemetry
from aligner_proxy.ahead import ReadAhead
from aligner_proxy.engine.protocol import Reading
from aligner_proxy.ledger import Ledger
from aligner_proxy.pipeline import Pipeline
from aligner_proxy.rewrite import Wire
from aligner_proxy.sentences import ReleasedStream
from aligner_proxy.streaming import HeldStream
from aligner_proxy.types import Exchange, Mode, Outcome, Policy, StreamMode

Read = Callable[[int], Reading | None]
"""The reading of one choice, if there is one."""


@dataclass(frozen=True, slots=True)
class Books:
    """What a stream needs of the guardrail: `align` settles whole answers; of those that were settled piece by piece
    `record` is told each and `report` that all are; `refuse` raises where the policy wants an error."""

    pipeline: Pipeline
    align: Callable[[Sequence[Exchange], Read], Awaitable[Sequence[Outcome]]]
    record: Callable[[Exchange, Outcome], None]
    report: Callable[[], None]
    refuse: Callable[[Outcome], None]


def stream(
    wire: Wire, ledger: Ledger, data: dict[str, Any], response: AsyncIterable[Any], books: Books
) -> AsyncGenerator[Any, None]:
    """The items that the client gets."""
    way = _way(ledger.policy, books.pipeline)
    # What is delivered at once cannot be corrected. The way that is taken is what metrics and comments tell.
    mode = Mode.SHADOW if way is StreamMode.LIVE else ledger.policy.mode
    ledger.policy = replace(ledger.policy, mode=mode, stream=way)
    if way is StreamMode.SENTENCE:
        return _released(wire, ledger, data, response, books)
    return _held(wire, ledger, data, response, books)


def _way(policy: Policy, pipeline: Pipeline) -> StreamMode:
    """The policy's, where it can be taken: in shadow nothing is held, and not every corrector works by segments."""
    if policy.mode is Mode.SHADOW or (policy.stream is StreamMode.LIVE and policy.mode is Mode.ENFORCE):
        return StreamMode.LIVE
    by_segments = policy.stream is StreamMode.SENTENCE and policy.mode is Mode.ENFORCE and pipeline.piecewise(policy)
    return StreamMode.SENTENCE if by_segments else StreamMode.HOLD


async def _held(
    wire: Wire, ledger: Ledger, data: dict[str, Any], response: AsyncIterable[Any], books: Books
) -> AsyncGenerator[Any, None]:
    """A stream that is aligned as a whole; the engine reads along."""
    async with contextlib.aclosing(ReadAhead(books.pipeline, wire, data, ledger.policy)) as ahead:

        async def align(exchanges: Sequence[Exchange]) -> Sequence[Outcome]:
            return await books.align(exchanges, ahead.of)

        hear = _unheard if ledger.policy.mode is Mode.SHADOW else ahead.hear
        held = HeldStream(wire, data, ledger, align, hear)
        async with contextlib.aclosing(_played(held, response, data, ledger)) as items:
            async for item in items:
                yield item


def _released(
    wire: Wire, ledger: Ledger, data: dict[str, Any], response: AsyncIterable[Any], books: Books
) -> AsyncGenerator[Any, None]:
    """A stream whose segments go out as soon as they are judged."""

    def settle(found: Sequence[tuple[Exchange, Outcome]]) -> None:
        for exchange, outcome in found:
            books.record(exchange, outcome)
        ledger.settle([outcome for _, outcome in found])
        books.report()

    return _played(ReleasedStream(wire, data, ledger, books.pipeline, settle, books.refuse), response, data, ledger)


async def _unheard(_item: object) -> bool:
    """Of a stream that is only recorded nothing is read: letting go of a reading takes the client's time."""
    return True


async def _played(
    played: HeldStream | ReleasedStream, response: AsyncIterable[Any], data: dict[str, Any], ledger: Ledger
) -> AsyncGenerator[Any, None]:
    """A stream as it goes out."""
    try:
        async with contextlib.aclosing(played.play(response)) as items:
            async for item in items:
                if item is played.comment:
                    inside.log_served(data, played.items)
                yield item
    finally:
        telemetry.streamed(ledger.call_id, ledger.policy, played.timeline)
