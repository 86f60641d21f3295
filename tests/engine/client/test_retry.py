"""Retries of what an engine has not begun, and what they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Iterator

import pytest

from aligner_proxy.engine.client.retry import NotReady, retry
from aligner_proxy.errors import CorrectionError, EngineUnavailable


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # else the next test collects among all that was there before, again
    gc.disable()
    yield
    gc.enable()


class Text:
    """Stands for an answer that whoever asks holds."""


async def test_what_is_not_ready_is_asked_again() -> None:
    tries: list[float] = []

    async def ask(left_s: float) -> str:
        tries.append(left_s)
        if len(tries) < 3:
            raise NotReady("scripted")
        return "answer"

    assert await retry(ask, 5.0, 5.0) == "answer"
    assert tries == sorted(tries, reverse=True)


async def test_an_engine_that_is_never_ready_is_given_up_with_its_own_error() -> None:
    async def ask(_: float) -> str:
        raise NotReady("scripted")

    with pytest.raises(NotReady, match="scripted"):
        await retry(ask, 5.0, 0.1)


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("ending", ["cancelled", "refused", "never ready", "late"])
async def test_what_a_failed_retry_knew_goes_with_it(ending: str) -> None:
    """Its error knows all callers: whatever keeps the error keeps their texts."""

    async def ask(_: float) -> None:
        if ending == "refused":
            raise EngineUnavailable("scripted")
        if ending == "never ready":
            raise NotReady("scripted")
        await asyncio.sleep(30)

    async def answer(text: Text) -> Text:
        with contextlib.suppress(CorrectionError):  # in the task, as pipelines do; a task that it ended would keep it
            await retry(ask, 0.05 if ending == "late" else 5.0, 0.1)
        return text

    text = Text()
    gone = weakref.ref(text)
    work = asyncio.create_task(answer(text))
    del text
    await asyncio.sleep(0)
    if ending == "cancelled":
        work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    del work
    await asyncio.sleep(0)
    assert gone() is None
