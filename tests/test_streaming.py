"""The held stream: what is replayed, when, and what happens when the upstream or the client breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from litellm.types.utils import ModelResponseStream

from aligner_proxy.ledger import Ledger
from aligner_proxy.rewrite import chat
from aligner_proxy.streaming import HeldStream
from aligner_proxy.types import Exchange, Mode, Outcome, Policy, Status

POLICY = Policy("p")


def chunk(content: str | None = None, index: int = 0, why: str | None = None) -> ModelResponseStream:
    choice = {"index": index, "delta": {"content": content}, "finish_reason": why}
    return ModelResponseStream(id="1", created=1, choices=[choice])


async def deaf(_item: object) -> None:
    """Nobody reads along."""


async def flow(items: Sequence[object], error: BaseException | None = None) -> AsyncIterator[object]:
    for item in items:
        yield item
    if error is not None:
        raise error


def held(status: Status = Status.UNCHANGED, text: str | None = None) -> tuple[HeldStream, Ledger, list[Exchange]]:
    ledger, asked = Ledger("call-1", POLICY, "m"), list[Exchange]()

    async def align(exchanges: Sequence[Exchange]) -> list[Outcome]:
        asked.extend(exchanges)
        outcomes = [Outcome(status, None, text or e.answer, POLICY, e.index) for e in exchanges]
        ledger.settle(outcomes)
        return outcomes

    return HeldStream(chat, {"messages": []}, ledger, align, deaf), ledger, asked


async def played(stream: HeldStream, source: AsyncIterator[object]) -> list[Any]:
    return [item async for item in stream.play(source)]


async def into(got: list[object], source: AsyncIterator[object]) -> None:
    async for item in source:
        got.append(item)


async def test_an_unchanged_stream_is_the_same_objects_and_a_comment() -> None:
    stream, _, asked = held()
    items = [chunk("a"), b"raw", chunk("b"), chunk(why="stop")]
    got = await played(stream, flow(items))
    assert all(a is b for a, b in zip(got, items, strict=False))
    assert got[4:] == [b": aligner status=unchanged\n\n"]
    assert [exchange.answer for exchange in asked] == ["ab"]


async def test_a_corrected_stream() -> None:
    stream, _, _ = held(Status.CORRECTED, "xyz")
    got = await played(stream, flow([chunk("ab"), chunk("c"), chunk(why="stop")]))
    assert [item.choices[0].delta.content for item in got[:3]] == ["xy", "z", None]
    assert got[3] == b": aligner status=corrected\n\n"


async def test_nothing_is_said_before_the_whole_answer_is_aligned() -> None:
    gate = asyncio.Event()
    stream, ledger, _ = held()

    async def slow() -> AsyncIterator[object]:
        yield chunk("a")
        await gate.wait()
        yield chunk("b")

    replay = stream.play(slow())
    first = asyncio.ensure_future(anext(replay))
    await asyncio.sleep(0.01)
    assert not first.done()
    gate.set()
    await first
    assert ledger.settled


async def test_a_stream_without_choices_is_empty() -> None:
    stream, ledger, asked = held()
    assert await played(stream, flow([b"raw"])) == [b"raw", b": aligner status=skipped reason=empty\n\n"]
    assert (asked, ledger.status) == ([], Status.SKIPPED)


@pytest.mark.parametrize("error", [httpx.ReadError("gone"), ConnectionResetError("gone")])
async def test_a_broken_upstream_delivers_what_came_and_breaks(error: Exception) -> None:
    stream, ledger, asked = held(Status.CORRECTED, "never")
    items, got = [chunk("a"), chunk("b", 1)], list[object]()
    with pytest.raises(type(error)) as caught:
        await into(got, stream.play(flow(items, error)))
    assert caught.value is error
    assert got[:2] == items
    choices = b"choices=skipped/upstream_error,skipped/upstream_error"
    assert got[2:] == [b": aligner status=skipped reason=upstream_error " + choices + b"\n\n"]
    assert asked == []
    assert [outcome.index for outcome in ledger.outcomes] == [0, 1]


async def test_a_stream_that_never_began_is_the_upstreams_error_alone() -> None:
    stream, ledger, _ = held()
    with pytest.raises(httpx.ConnectError):
        await played(stream, flow([], httpx.ConnectError("no")))
    assert (ledger.status, ledger.reason) == (Status.SKIPPED, "upstream_error")


async def test_a_client_that_leaves_cancels_the_alignment() -> None:
    cancelled = asyncio.Event()
    ledger = Ledger("call-1", POLICY, "m")

    async def align(exchanges: Sequence[Exchange]) -> list[Outcome]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return []

    stream = HeldStream(chat, {}, ledger, align, deaf)
    task = asyncio.create_task(played(stream, flow([chunk("a")])))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


async def test_an_alignment_that_is_refused_delivers_nothing() -> None:
    async def align(exchanges: Sequence[Exchange]) -> list[Outcome]:
        raise PermissionError("blocked")

    got: list[object] = []
    with pytest.raises(PermissionError):
        await into(got, HeldStream(chat, {}, Ledger("c", POLICY, "m"), align, deaf).play(flow([chunk("a")])))
    assert got == []


async def test_a_client_that_leaves_while_the_upstream_writes_is_recorded() -> None:
    stream, ledger, asked = held()

    async def endless() -> AsyncIterator[object]:
        yield chunk("a")
        await asyncio.sleep(60)

    task = asyncio.create_task(played(stream, endless()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (ledger.status, ledger.reason, asked) == (Status.FAILED, "cancelled", [])


async def test_in_shadow_mode_items_pass_as_they_come() -> None:
    policy = Policy("p", mode=Mode.SHADOW)
    ledger = Ledger("call-1", policy, "m")

    async def align(exchanges: Sequence[Exchange]) -> list[Outcome]:
        outcomes = [Outcome(Status.SHADOW, "would_correct", e.answer, policy, e.index) for e in exchanges]
        ledger.settle(outcomes)
        return outcomes

    items = [chunk("a"), chunk("b")]
    replay = HeldStream(chat, {}, ledger, align, deaf).play(flow(items))
    assert await anext(replay) is items[0]
    assert not ledger.settled
    assert [item async for item in replay] == [items[1], b": aligner status=shadow reason=would_correct\n\n"]
