"""A stream that is over leaves nothing behind: its texts go with it, not with the next collection of garbage.

Until then they would be in no budget, and clients that leave make more of them than the collector takes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Iterator
from itertools import chain, starmap
from typing import Any

import pytest

from aligner_proxy.errors import EngineUnavailable
from aligner_proxy.formats.safe import SafeDecoder
from aligner_proxy.gateway.streaming import delivery
from aligner_proxy.gateway.streaming.delivery import StreamDelivery
from aligner_proxy.pipeline.answer_part import AnswerPart
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.resumable_session import ResumableSession
from aligner_proxy.types import StreamMode
from tests.gateway.streaming.test_bounds import SENTENCE, engine, flow, policy, stream
from tests.support.scripted import ScriptedSession, SegmentEngine
from tests.support.stream_fixtures import FORMATS, Format

KINDS = (StreamDelivery, SafeDecoder, GrowingAnswer, AnswerPart, ResumableSession)
ANSWER = SENTENCE * 120


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # what was there before is not listed again and again
    gc.disable()
    yield
    gc.enable()


def held() -> Counter[str]:
    """How many there are of each kind of thing of a stream."""
    # `isinstance` would ask each thing for its class, of which some warn. And a tuple that another thread is building
    # fails if somebody else holds it: the things are listed and let go inside one call, which no thread interrupts.
    kinds = list(map(type, chain.from_iterable(starmap(gc.get_objects, [()]))))
    return Counter(kind.__name__ for kind in kinds if issubclass(kind, KINDS))


async def more_than(before: Counter[str]) -> Counter[str]:
    """What is left of a stream, once its tasks have ended: on a busy machine they do so a while after it."""
    deadline = asyncio.get_running_loop().time() + 10
    while (more := held() - before) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.01)
    return more


async def play(form: Format, mode: StreamMode, most: int, asked: SegmentEngine) -> None:
    """A client that leaves after so many items."""
    made, _ = stream(form, policy(stream=mode), asked=asked)
    items = form.tell([ANSWER[at : at + 200] for at in range(0, len(ANSWER), 200)])
    seen = list[Any]()
    async with contextlib.aclosing(made.deliver(flow(items))) as out:
        async for item in out:
            seen += [item] if item != delivery.KEEPALIVE else []
            if len(seen) >= most:
                return


@pytest.mark.parametrize("most", [3, 10_000], ids=["left", "read to its end"])
@pytest.mark.parametrize("mode", [StreamMode.HOLD, StreamMode.SENTENCE])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
async def test_a_stream_that_is_over_is_gone(form: Format, mode: StreamMode, most: int) -> None:
    before = held()
    await play(form, mode, most, engine())
    assert not await more_than(before)


@pytest.mark.parametrize("mode", [StreamMode.HOLD, StreamMode.SENTENCE])
async def test_a_stream_left_while_a_part_ends_is_gone(mode: StreamMode, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[ScriptedSession] = []

    async def slowly(session: ScriptedSession) -> None:
        await asyncio.sleep(0.02)
        closed.append(session)

    monkeypatch.setattr(ScriptedSession, "aclose", slowly)
    asked = engine()
    before = held()
    await play(FORMATS[0], mode, 3, asked)
    assert not await more_than(before)
    async with asyncio.timeout(10):
        while len(closed) < len(asked.sessions):
            await asyncio.sleep(0.01)


async def test_a_stream_whose_engine_was_away_is_gone() -> None:
    asked = engine()

    async def away(_: object) -> Any:
        raise EngineUnavailable("scripted")

    asked.read = away  # type: ignore[method-assign]
    before = held()
    await play(FORMATS[0], StreamMode.SENTENCE, 3, asked)
    assert not await more_than(before)
