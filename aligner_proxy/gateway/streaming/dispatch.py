"""Stream dispatch: held, released segment by segment, or delivered at once, as the policy says.

Whatever the way, LiteLLM learns what was served and the metrics how long it took.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import replace
from typing import Any

from aligner_proxy.formats import Wire
from aligner_proxy.gateway import litellm_internals, metrics
from aligner_proxy.gateway.choice_corrector import ChoiceCorrector
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.side_texts import SideTexts
from aligner_proxy.gateway.streaming.budget import StreamBudget
from aligner_proxy.gateway.streaming.held import HeldStream, LiveStream
from aligner_proxy.gateway.streaming.queue import StreamQueue
from aligner_proxy.gateway.streaming.released import ReleasedStream
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Mode, Policy, StreamMode

_STREAMS: dict[StreamMode, type[StreamQueue[Any]]] = {
    StreamMode.HOLD: HeldStream,
    StreamMode.SENTENCE: ReleasedStream,
    StreamMode.PASSTHROUGH: LiveStream,
}


async def stream(
    wire: Wire,
    ledger: RequestState,
    data: dict[str, Any],
    response: AsyncIterable[Any],
    corrector: ChoiceCorrector,
    budget: StreamBudget,
    side: SideTexts | None = None,
) -> AsyncGenerator[Any, None]:
    """The items that the client gets."""
    way = stream_mode(ledger.policy, corrector.pipeline, records_first=corrector.records_first)
    # What is delivered at once cannot be corrected. The way that is taken is what metrics and comments tell.
    mode = Mode.SHADOW if way is StreamMode.PASSTHROUGH else ledger.policy.mode
    ledger.policy = replace(ledger.policy, mode=mode, stream=way)
    if way is StreamMode.PASSTHROUGH:
        side = None
    if side is not None:
        response = side.drop_from_stream(response)
    queue = _STREAMS[way](wire, data, ledger, corrector, budget.open(ledger.policy.tenant), side)
    working = corrector.at_work() if way is StreamMode.SENTENCE else contextlib.nullcontext()
    try:
        with working:
            async with contextlib.aclosing(queue.play(response)) as items:
                async for item in items:
                    if item is queue.comment:
                        litellm_internals.log_served_texts(data, queue.client.served_items.items)
                    yield item
    finally:
        metrics.record_stream(ledger.call_id, ledger.policy, queue.client.timeline)


def stream_mode(policy: Policy, pipeline: Pipeline, *, records_first: bool = False) -> StreamMode:
    """The policy's, where it can be taken: in shadow nothing is held, and not every corrector works by segments.

    `records_first`: nothing that is enforced may go out before the whole answer is recorded.
    """
    if records_first and policy.mode is Mode.ENFORCE:
        return StreamMode.HOLD
    if policy.mode is Mode.SHADOW or (policy.stream is StreamMode.PASSTHROUGH and policy.mode is Mode.ENFORCE):
        return StreamMode.PASSTHROUGH
    by_segments = (
        policy.stream is StreamMode.SENTENCE and policy.mode is Mode.ENFORCE and pipeline.can_release_segments(policy)
    )
    return StreamMode.SENTENCE if by_segments else StreamMode.HOLD
