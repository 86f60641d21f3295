"""Long work of many tasks in one event loop: each gets its turn, and short work does not wait for all of them.

And what blocks leave behind that turn one error into another.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator

import pytest

from aligner_proxy.concurrency import ErrorTranslation, FairThreads, TimeSlice, cancel_when_gone, enforce_deadline
from aligner_proxy.errors import AlignerProxyError, ClientGone, DeadlineExceeded

TASKS = 20


async def worked(rounds: list[int], name: int, steps: int) -> None:
    """Work that pauses behind each step, every one of them longer than a turn."""
    share = TimeSlice()
    for _ in range(steps):
        rounds.append(name)
        time.sleep(TimeSlice.LONGEST_S * 1.5)
        await share.pause()


async def test_short_work_waits_for_one_of_them_and_not_for_all() -> None:
    steps: list[int] = []
    tasks = [asyncio.create_task(worked(steps, n, 4)) for n in range(TASKS)]
    await asyncio.sleep(0)  # all have begun
    between = []
    for _ in range(10):
        before = len(steps)
        await asyncio.sleep(0)
        between.append(len(steps) - before)
    assert max(between) <= 1
    await asyncio.gather(*tasks)


async def test_all_get_their_turn_in_order() -> None:
    steps: list[int] = []
    await asyncio.gather(*(worked(steps, n, 3) for n in range(TASKS)))
    assert steps == list(range(TASKS)) * 3


async def test_a_task_that_is_cancelled_takes_no_turn() -> None:
    steps: list[int] = []
    tasks = [asyncio.create_task(worked(steps, n, 3)) for n in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert steps == [0, 1, 2, 3, 0, 2, 3, 0, 2, 3]


async def test_a_short_piece_of_work_keeps_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimeSlice, "LONGEST_S", 60.0)
    steps: list[int] = []

    async def work(name: int) -> None:
        share = TimeSlice()
        for _ in range(3):
            await share.pause()
            steps.append(name)

    await asyncio.gather(work(1), work(2))
    assert steps == [1, 1, 1, 2, 2, 2]


def test_each_loop_has_its_own_turns() -> None:
    for _ in range(2):
        steps: list[int] = []
        asyncio.run(worked(steps, 1, 2))
        assert steps == [1, 1]


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # else the next test collects among all that was there before, again
    gc.disable()
    yield
    gc.enable()


class Text:
    """Stands for an answer that whoever asks holds."""


async def late() -> None:
    async with enforce_deadline(0.0):
        await asyncio.sleep(30)


async def left() -> None:
    async with cancel_when_gone(lambda: asyncio.sleep(0)):
        await asyncio.sleep(30)


async def unreadable() -> None:
    with ErrorTranslation(ValueError, lambda error: DeadlineExceeded(f"no number: {len(str(error))}")):
        int("seven")


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize(
    ("block", "kind"), [(late, DeadlineExceeded), (left, ClientGone), (unreadable, DeadlineExceeded)]
)
async def test_a_translated_error_leaves_no_text_to_the_garbage_collector(
    block: Callable[[], Awaitable[None]], kind: type[AlignerProxyError]
) -> None:
    """As it did from Python 3.12 on where these blocks were generators."""

    async def answer(text: Text) -> Text:
        with contextlib.suppress(kind):
            await block()
            pytest.fail("nothing was raised")
        return text

    text = Text()
    gone = weakref.ref(text)
    work = asyncio.create_task(answer(text))
    del text
    await work
    del work
    await asyncio.sleep(0)
    assert gone() is None


async def test_a_translation_lets_other_errors_pass() -> None:
    with pytest.raises(KeyError), ErrorTranslation(ValueError, lambda _: DeadlineExceeded("never")):
        raise KeyError
    with ErrorTranslation(ValueError, lambda _: DeadlineExceeded("never")):
        pass


async def test_threads_are_shared_fairly_among_tenants() -> None:
    """What computes for one tenant, even after its caller has left, takes no thread from the others."""
    threads = FairThreads(3, 2, "test")
    end = threading.Event()
    hostile_calls = [asyncio.create_task(threads.run("hostile", end.wait)) for _ in range(6)]
    await asyncio.sleep(0.05)
    for call in hostile_calls[:4]:
        call.cancel()
    await asyncio.gather(*hostile_calls[:4], return_exceptions=True)
    assert await asyncio.wait_for(threads.run("other", lambda: "done"), 10) == "done"
    assert not any(call.done() for call in hostile_calls[4:])
    end.set()
    assert await asyncio.wait_for(asyncio.gather(*hostile_calls[4:]), 10) == [True, True]
    async with asyncio.timeout(10):
        while threads._running:  # what computed for callers that had left ends, too
            await asyncio.sleep(0.01)


async def test_an_error_in_a_thread_reaches_its_caller_alone() -> None:
    threads = FairThreads(1, 1, "test")

    def fail() -> None:
        time.sleep(0.05)
        raise DeadlineExceeded("too late")

    failing, waiting = await asyncio.gather(
        threads.run("one", fail), threads.run("one", lambda: 7), return_exceptions=True
    )
    assert isinstance(failing, DeadlineExceeded)
    assert waiting == 7
