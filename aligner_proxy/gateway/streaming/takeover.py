"""Takeover of a stream by another model, which LiteLLM asks if the first model broke off before its first words. Each
item says which model it comes from, and another model may have another policy.

A stream that would pass at once is held until its first words, when it is certain which model answers. In a stream that
is corrected before delivery, the model of each item is checked as it arrives.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import replace
from typing import Any

from aligner_proxy.gateway import routing
from aligner_proxy.gateway.litellm_internals import WatchedStream
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.streaming.dispatch import choose_stream_mode
from aligner_proxy.gateway.upstream_errors import UpstreamItems
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
    upstream = UpstreamItems(response)
    first_items: Sequence[Any] = ()
    is_corrected_first = state.skip is None and choose_stream_mode(state.policy, pipeline) is not StreamMode.PASSTHROUGH
    if not is_corrected_first:
        first_items = await _read_first_items(upstream, note_item)
    return WatchedStream(_pass_items(first_items, upstream, state, note_item), response)


async def _read_first_items(upstream: UpstreamItems, note_item: NoteItem) -> Sequence[Any]:
    """Read a stream up to its first words, but at most `_MAX_FIRST_ITEMS` items, and return the items.

    If the upstream breaks off, `upstream` keeps the error.
    """
    first_items: list[Any] = []
    async for item in upstream:
        first_items.append(item)
        note_item(item)
        if routing.has_words(item) or len(first_items) == _MAX_FIRST_ITEMS:
            break
    return first_items


async def _pass_items(
    first_items: Sequence[Any], later_items: UpstreamItems, state: RequestState, note_item: NoteItem
) -> AsyncGenerator[Any, None]:
    """Yield `first_items`, for which `note_item` was called already, then `later_items`.

    `note_item` may set a stricter policy in `state`. The mode and stream mode of the first policy are then restored,
    since the stream is already being delivered in them.
    """
    async with contextlib.aclosing(later_items):
        for item in first_items:
            yield item
        async for item in later_items:
            first_policy = state.policy
            note_item(item)
            state.policy = replace(state.policy, mode=first_policy.mode, stream=first_policy.stream)
            yield item
        later_items.raise_error()
