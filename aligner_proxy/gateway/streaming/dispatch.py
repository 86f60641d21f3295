"""Stream dispatch: holds a stream, releases it segment by segment, or delivers it at once, as the policy says."""

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
from aligner_proxy.gateway.streaming.delivery import StreamDelivery, StreamRequest
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
    """Yield the items of the stream `response` as the client gets them, corrected in the stream mode of the policy.

    `side` judges texts beside the answer and `calls` corrects tool calls; each is None if the policy does not ask for
    it. The policy in `state` gets the mode and stream mode that apply. Raises `Blocked` if the policy prefers an error.
    """
    stream_mode = choose_stream_mode(state.policy, corrector.pipeline, records_first=corrector.records_first)
    # Text that is delivered at once cannot be corrected. Metrics and comments report the mode that was used.
    mode = Mode.SHADOW if stream_mode is StreamMode.PASSTHROUGH else state.policy.mode
    state.policy = replace(state.policy, mode=mode, stream=stream_mode)
    if stream_mode is StreamMode.PASSTHROUGH:
        # A response that is delivered at once cannot be blocked because of a text beside its answer.
        side = None
    if side is not None:
        response = side.drop_from_stream(response)
        if calls is not None:
            response = CallStream(calls, wire, budget.open(state.policy.tenant)).correct(response)
    request = StreamRequest(wire, data, state, corrector, side)
    stream = _STREAMS[stream_mode](request, budget.open(state.policy.tenant))
    # In the other modes the answer is corrected in one call (`correct_one`), which pauses shadow aligners itself.
    shadow_pause = corrector.pause_shadow_aligners() if stream_mode is StreamMode.SENTENCE else contextlib.nullcontext()
    try:
        with shadow_pause:
            async with contextlib.aclosing(stream.deliver(response)) as items:
                async for item in items:
                    # The final comment comes after all text, so all delivered text is known now.
                    if item is stream.client.comment:
                        litellm_internals.log_served_texts(data, stream.client.served_items.items)
                    yield item
    finally:
        metrics.record_stream(state.call_id, state.policy, stream.client.timeline)


def choose_stream_mode(policy: Policy, pipeline: Pipeline, *, records_first: bool = False) -> StreamMode:
    """The stream mode to use: the policy's, unless one of these cases applies.

    In shadow mode a stream passes at once. A stream is held in mode `off`, if its answer must be recorded as a whole
    before any of it is delivered (`records_first`), or if its corrector cannot correct segment by segment.
    """
    if policy.mode is Mode.SHADOW:
        return StreamMode.PASSTHROUGH
    if policy.mode is not Mode.ENFORCE or records_first:
        return StreamMode.HOLD
    if policy.stream is StreamMode.SENTENCE and not pipeline.can_release_segments(policy):
        return StreamMode.HOLD
    return policy.stream
