"""Takeover of a stream by another model, which LiteLLM asks if the first model broke off before its first words. Each
item says which model it comes from, and another model may have another policy.

A stream that would pass at once is held until its first words, when it is certain which model answers. In a stream that
is corrected before delivery, the model of each item is checked as it arrives.
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

NoteItem = Callable[[object], None]
"""Reads from a stream item which model group answers, and adopts the policy of that group."""
_MAX_FIRST_ITEMS = 8
"""Most items to read ahead in search of the first words."""


async def watch_stream(
    response: AsyncIterable[Any], state: RequestState, pipeline: Pipeline, note_item: NoteItem
) -> AsyncIterable[Any]:
    """Return a stream of the items of `response` that calls `note_item` with each item before it yields the item.

    `note_item` may set another policy in `state`. A stream that is delivered at once is read up to its first words
    here, so that the policy is final before the stream's mode is chosen.
    """
    later_items = aiter(response)
    first_items: Sequence[Any] = ()
    upstream_error: Exception | None = None
    is_corrected_first = state.skip is None and choose_stream_mode(state.policy, pipeline) is not StreamMode.PASSTHROUGH
    if not is_corrected_first:
        first_items, upstream_error = await _read_first_items(later_items, note_item)
    items = _pass_items(first_items, upstream_error, later_items, state, note_item)
    return WatchedStream(items, response)


async def _read_first_items(items: AsyncIterator[Any], note_item: NoteItem) -> tuple[Sequence[Any], Exception | None]:
    """Read a stream up to its first words; return the items, and the upstream's error (None unless it broke off)."""
    first_items: list[Any] = []
    while len(first_items) < _MAX_FIRST_ITEMS:
        try:
            item = await anext(items)
        except StopAsyncIteration:
            break
        except UPSTREAM_ERRORS as error:
            return first_items, error
        first_items.append(item)
        note_item(item)
        if routing.has_words(item):
            break
    return first_items, None


async def _pass_items(
    first_items: Sequence[Any],
    upstream_error: Exception | None,
    later_items: AsyncIterator[Any],
    state: RequestState,
    note_item: NoteItem,
) -> AsyncGenerator[Any, None]:
    """Yield `first_items`, for which `note_item` was called already, then raise the error or yield `later_items`.

    `note_item` may set a stricter policy in `state`. The mode and stream mode of the first policy are then restored,
    since the stream is already being delivered in them.
    """
    try:
        for item in first_items:
            yield item
        if upstream_error is not None:
            raise upstream_error
        async for item in later_items:
            first_policy = state.policy
            note_item(item)
            state.policy = replace(state.policy, mode=first_policy.mode, stream=first_policy.stream)
            yield item
    finally:
        if isinstance(later_items, AsyncGenerator):
            await later_items.aclose()
