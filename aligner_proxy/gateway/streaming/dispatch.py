"""Stream dispatch: holds a stream, releases it segment by segment, or delivers it at once, as the policy says.

In every mode, the served text is recorded for LiteLLM and the added latency for the metrics.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import replace
from typing import Any

from aligner_proxy.formats import Wire
from aligner_proxy.formats.safe import SafeFormat
from aligner_proxy.gateway import litellm_internals, metrics
from aligner_proxy.gateway.call_arguments import CallArguments
from aligner_proxy.gateway.choice_corrector import ChoiceCorrector
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.side_texts import SideTexts
from aligner_proxy.gateway.streaming.budget import StreamBudget
from aligner_proxy.gateway.streaming.call_stream import CallStream
from aligner_proxy.gateway.streaming.delivery import StreamDelivery
from aligner_proxy.gateway.streaming.held import HeldStream, LiveStream
from aligner_proxy.gateway.streaming.released import ReleasedStream
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Mode, Policy, StreamMode

_STREAMS: dict[StreamMode, type[StreamDelivery[Any]]] = {
    StreamMode.HOLD: HeldStream,
    StreamMode.SENTENCE: ReleasedStream,
    StreamMode.PASSTHROUGH: LiveStream,
}


async def deliver_stream(
    wire: Wire | SafeFormat,
    state: RequestState,
    data: dict[str, Any],
    response: AsyncIterable[Any],
    corrector: ChoiceCorrector,
    budget: StreamBudget,
    side: SideTexts | None = None,
    calls: CallArguments | None = None,
) -> AsyncGenerator[Any, None]:
    """Yield the items that the client gets, after setting the mode and stream mode in the policy that apply here.

    Raises `Blocked` if the policy prefers an error to the answer.
    """
    stream_mode = choose_stream_mode(state.policy, corrector.pipeline, records_first=corrector.records_first)
    # Text that is delivered at once cannot be corrected. Metrics and comments report the mode that was used.
    mode = Mode.SHADOW if stream_mode is StreamMode.PASSTHROUGH else state.policy.mode
    state.policy = replace(state.policy, mode=mode, stream=stream_mode)
    if stream_mode is StreamMode.PASSTHROUGH:
        # What is delivered at once cannot be blocked because of a side text.
        side = None
    if side is not None:
        response = side.drop_from_stream(response)
        if calls is not None:
            response = CallStream(calls, wire, budget.open(state.policy.tenant)).correct(response)
    queue = _STREAMS[stream_mode](wire, data, state, corrector, budget.open(state.policy.tenant), side)
    # In the other modes `correct_one` itself says when a correction is running.
    pausing = corrector.pause_shadow_aligners() if stream_mode is StreamMode.SENTENCE else contextlib.nullcontext()
    try:
        with pausing:
            async with contextlib.aclosing(queue.deliver(response)) as items:
                async for item in items:
                    # The comment is the last item, so everything served is known now.
                    if item is queue.client.comment:
                        litellm_internals.log_served_texts(data, queue.client.served_items.items)
                    yield item
    finally:
        metrics.record_stream(state.call_id, state.policy, queue.client.timeline)


def choose_stream_mode(policy: Policy, pipeline: Pipeline, *, records_first: bool = False) -> StreamMode:
    """The stream mode to use, which may differ from the policy's.

    In shadow mode nothing is held, and not every corrector can release segments. `records_first` means that no enforced
    answer may be delivered before all of it is recorded.
    """
    if records_first and policy.mode is Mode.ENFORCE:
        return StreamMode.HOLD
    if policy.mode is Mode.SHADOW or (policy.stream is StreamMode.PASSTHROUGH and policy.mode is Mode.ENFORCE):
        return StreamMode.PASSTHROUGH
    releases_segments = (
        policy.stream is StreamMode.SENTENCE and policy.mode is Mode.ENFORCE and pipeline.can_release_segments(policy)
    )
    return StreamMode.SENTENCE if releases_segments else StreamMode.HOLD
