"""Events in line: most are kept as plain values, which the collector lets alone, and all come out as they were."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from aligner_proxy.formats.packing import PackedChunk
from aligner_proxy.formats.stream_events import StreamEvent
from aligner_proxy.gateway.streaming.event_queue import _MAX_SHAPES, NO_REPEATED_TEXTS, EventQueue, QueuedEvent
from tests.support.stream_fixtures import chunk

TEXT: Any = SimpleNamespace(changed=False, length=0)


class Decoder:
    """Puts other pieces into an item."""

    def rewritten(self, item: object, pieces: Sequence[str], _: Mapping[int, str]) -> object:
        return (item, *pieces)


DECODER = Decoder()
TEMPLATE = chunk("a")
PATHS = (("choices", 0, "delta", "content"),)


def queued(piece: str, start: int, **more: Any) -> QueuedEvent[Any]:
    event = StreamEvent(PackedChunk(TEMPLATE, PATHS, (piece,)), [(0, piece)], rewrite=DECODER.rewritten, **more)
    return QueuedEvent(event, ((TEXT, start, start + len(piece)),), NO_REPEATED_TEXTS, 900)


def test_what_comes_out_is_what_went_in() -> None:
    queue: EventQueue[Any] = EventQueue()
    events = [
        queued("It ", 0),
        queued("is", 3),
        replace(queued("", 5), repeated_texts={0: TEXT}),
        queued(" so.", 5, ended_texts=(0,)),
        QueuedEvent(StreamEvent(b"data: x\n\n"), (), NO_REPEATED_TEXTS, 10),
        queued("!", 9),
    ]
    for event in events:
        queue.append(event)
    assert [type(entry).__name__ for entry in queue._entries] == [
        *("tuple", "tuple"),
        *("QueuedEvent", "QueuedEvent", "QueuedEvent"),
        "tuple",
    ]
    assert list(queue) == events
    assert queue.first == events[0]
    assert [queue.popleft() for _ in range(len(queue))] == events
    assert not queue


def test_an_item_is_made_again_of_what_was_kept() -> None:
    queue: EventQueue[Any] = EventQueue()
    queue.append(queued("It ", 0))
    kept = queue.last
    queue.clear()
    assert queue.original_item(kept) == chunk("It ")
    assert queue.original_item(b"as it came") == b"as it came"
    assert queue.original_item(StreamEvent(b"as it came")) == b"as it came"
    assert queue.original_item(PackedChunk(TEMPLATE, PATHS, ("is",))) == chunk("is")


def test_the_collector_lets_plain_events_alone() -> None:
    """Half a million events that it looked at took it most of a second."""
    queue: EventQueue[Any] = EventQueue()
    for start in range(100):
        queue.append(queued(f"{start} ", start))
    for _ in range(2):  # a tuple is let alone once what it holds is
        gc.collect()
    assert not any(map(gc.is_tracked, queue._entries))


def test_what_many_events_have_in_common_is_bounded() -> None:
    """An upstream could send every event in another shape; those beyond the bound are kept as they are."""
    queue: EventQueue[Any] = EventQueue()
    events = []
    for number in range(3 * _MAX_SHAPES):
        event = queued("x", number)
        event.event.item = PackedChunk(chunk("x"), PATHS, ("x",))
        events.append(event)
        queue.append(event)
    assert len(queue._shapes) == _MAX_SHAPES
    assert list(queue) == events
