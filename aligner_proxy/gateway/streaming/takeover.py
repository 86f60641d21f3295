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

NoteItem = Callable[[object], None]
"""Reads from a stream item which model group answers, and adopts the policy of that group."""
_MAX_PEEKED_ITEMS = 8
"""Most items to read ahead in search of the first words."""


async def watch_stream(
    response: AsyncIterable[Any], state: RequestState, pipeline: Pipeline, note_item: NoteItem
) -> AsyncIterable[Any]:
    """A stream of the items of `response` that calls `note_item` with each of them before it is passed on."""
    later_items = aiter(response)
    first_items: Sequence[Any] = ()
    upstream_error: Exception | None = None
    is_withheld = state.skip is None and choose_stream_mode(state.policy, pipeline) is not StreamMode.PASSTHROUGH
    # Where text is withheld, each item is checked before delivery, so nothing needs to be read ahead.
    if not is_withheld:
        first_items, upstream_error = await _peek_items(later_items, note_item)
    items = _pass_items(first_items, upstream_error, later_items, state, note_item)
    return WatchedStream(items, response)


async def _peek_items(items: AsyncIterator[Any], note_item: NoteItem) -> tuple[Sequence[Any], Exception | None]:
    """Read a stream up to its first words; return the items, and the error of the upstream if it broke before."""
    peeked_items: list[Any] = []
    while len(peeked_items) < _MAX_PEEKED_ITEMS:
        try:
            item = await anext(items)
        except StopAsyncIteration:
            break
        except UPSTREAM_ERRORS as error:
            return peeked_items, error
        peeked_items.append(item)
        note_item(item)
        if routing.has_words(item):
            break
    return peeked_items, None


async def _pass_items(
    first_items: Sequence[Any],
    upstream_error: Exception | None,
    later_items: AsyncIterator[Any],
    state: RequestState,
    note_item: NoteItem,
) -> AsyncGenerator[Any, None]:
    """Yield the items of a stream: the first ones, which were noted, then its error or the later items, noted here.

    `note_item` may set a stricter policy, but mode and stream mode never change.
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
