"""Takeover of a stream by another model, which LiteLLM starts if the first broke before its first words.

Each item says which model it comes from. A stream that would pass at once is held until it is certain which model
answers. In a stream that is corrected before delivery, the model of each item is checked as it arrives.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from aligner_proxy.gateway import routing
from aligner_proxy.gateway.litellm_internals import WatchedStream
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.streaming.dispatch import choose_stream_mode
from aligner_proxy.gateway.upstream_errors import UPSTREAM_ERRORS
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import StreamMode

Note = Callable[[object], None]
"""Reads from a stream item which model group answers, and adopts the policy of that group."""
_PEEKED = 8
"""Most items to read ahead in search of the first words."""


async def watch_stream(
    response: AsyncIterable[Any], state: RequestState, pipeline: Pipeline, note: Note
) -> AsyncIterable[Any]:
    """A stream of the items of `response` that calls `note` with each of them before it is passed on."""
    is_withheld = state.skip is None and choose_stream_mode(state.policy, pipeline) is not StreamMode.PASSTHROUGH
    later_items = aiter(response)
    first_items: list[Any] = []
    upstream_error: Exception | None = None
    # Where text is withheld, each item is checked before delivery, so nothing needs to be read ahead.
    while not is_withheld and len(first_items) < _PEEKED and not any(map(routing.has_words, first_items)):
        try:
            first_items.append(await anext(later_items))
        except StopAsyncIteration:
            break
        except UPSTREAM_ERRORS as error:
            upstream_error = error  # raised again after the items that had arrived
            break
        note(first_items[-1])
    return WatchedStream(_note_items(first_items, upstream_error, later_items, state, note), response)


async def _note_items(
    first_items: Sequence[Any],
    upstream_error: Exception | None,
    later_items: AsyncIterator[Any],
    state: RequestState,
    note: Note,
) -> AsyncGenerator[Any, None]:
    """Yield the items of a stream; `note` may set a stricter policy, but mode and stream mode never change."""
    try:
        for item in first_items:
            yield item
        if upstream_error is not None:
            raise upstream_error
        async for item in later_items:
            first_policy = state.policy
            note(item)
            state.policy = replace(state.policy, mode=first_policy.mode, stream=first_policy.stream)
            yield item
    finally:
        if isinstance(later_items, AsyncGenerator):
            await later_items.aclose()
