"""Somebody fills the disk, holds the files or sets the clock: what is on record stays, and nothing else goes out."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.audit import recorder as recording
from aligner_proxy.audit.entry import estimate_event_bytes, make_entry
from aligner_proxy.audit.recorder import QueueLimits, Recorder
from aligner_proxy.audit.retention import RetentionLimits, RetentionWorker
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.clock import ClockReading
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline import cache as caching
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.types import Correction
from tests.attacks.attack import Attack, rows
from tests.audit.conftest import counted, noted
from tests.gateway.test_guardrail import POLICIES, answer, build, data, user
from tests.support.stream_fixtures import chat_items

RUDE = "It is so. You fool."
DAY_S = 86_400.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store that fails is waited for."""
    monkeypatch.setattr(recording, "MAX_WAIT_S", 0.0)
    monkeypatch.setattr(recording, "LAST_TRIES_S", 0.0)
    monkeypatch.setattr(recording, "_FIRST_PAUSE_S", 0.0)


def guard_of(folder: Path, monkeypatch: pytest.MonkeyPatch, audit: Any) -> AlignerGuardrail:
    return build(folder, monkeypatch, {**POLICIES, "audit": audit})


UNRECORDED = rows(
    (
        "audit-gone",
        "neighbour on the machine",
        "keeps the audit store from being written, so that nobody knows what was delivered",
        "with `audit: required` no answer goes out",
        "required",
    ),
)


@pytest.mark.parametrize("stream", ["hold", "sentence", "passthrough", None])
@pytest.mark.parametrize("attack", UNRECORDED)
async def test_no_answer_goes_out_unrecorded(
    attack: Attack, stream: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / "audit.db").mkdir(parents=True)
    guard = guard_of(tmp_path, monkeypatch, attack.payload)
    with pytest.raises(Blocked, match="audit_unwritten"):
        await _delivered(guard, stream)
    await guard._audit_writers.aclose()


async def _delivered(guard: AlignerGuardrail, stream: str | None) -> None:
    if stream is None:
        await guard.async_post_call_success_hook(data(), user(), answer(RUDE))
        return

    async def flow() -> Any:
        for item in chat_items(["It is so. ", "You fool."]):
            yield item

    who = user(metadata={"aligner": {"stream": stream}})
    async for item in guard.async_post_call_streaming_iterator_hook(who, flow(), data()):
        raise AssertionError(f"{item} went out")


HELD = rows(
    (
        "audit-locked",
        "neighbour on the machine",
        "holds the lock of the audit store for a while",
        "no entry is lost: they wait in memory",
        50,
    ),
)


@pytest.mark.parametrize("attack", HELD)
async def test_entries_outlive_a_lock(attack: Attack, tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    AuditStore(path).close()
    recorder = Recorder(lambda: AuditStore(path, busy_s=0.0), QueueLimits(2**24))
    before = counted("written"), counted("lost"), counted("dropped")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for number in range(attack.payload):
            recorder.note(noted(number))
        while recorder._failing_since is None:
            await asyncio.sleep(0.001)
    while recorder._items:
        await asyncio.sleep(0.001)
    await recorder.aclose()
    assert (counted("written"), counted("lost"), counted("dropped")) == (before[0] + attack.payload, *before[1:])


FLOODS = rows(
    (
        "audit-flood",
        "tenant",
        "sends conversations of megabytes while the audit store cannot be written",
        "what waits is bounded in bytes",
        2**20,
    ),
)


@pytest.mark.parametrize("attack", FLOODS)
async def test_what_waits_for_the_store_is_bounded_in_bytes(attack: Attack, tmp_path: Path) -> None:
    stuck = threading.Event()

    def opened() -> AuditStore:
        stuck.wait()
        return AuditStore(tmp_path / "audit.db")

    recorder = Recorder(opened, QueueLimits(5 * attack.payload))
    for number in range(100):
        one = noted(number)
        recorder.note(replace(one, exchange=replace(one.exchange, answer=f"{number}" + "x" * attack.payload)))
    assert sum(estimate_event_bytes(item.event) for item in recorder._items) <= 5 * attack.payload
    stuck.set()
    await recorder.aclose()


CLOCKS = rows(
    ("clock-ahead", "neighbour on the machine", "sets the clock a year ahead", "no audit entry is deleted", 365),
    ("clock-back", "neighbour on the machine", "sets the clock a year back", "no audit entry is deleted", -365),
)


@pytest.mark.parametrize("boot", ["the same", "another"])
@pytest.mark.parametrize("attack", CLOCKS)
def test_the_clock_deletes_nothing(attack: Attack, boot: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    now = time.time()
    store = AuditStore(path)
    for age in (29, 15, 0):
        store.add(replace(make_entry(noted()), at=now - age * DAY_S))
    store.close()
    keeping = RetentionLimits(30 * DAY_S, 2**30)
    for reading in (
        ClockReading(now, 1000.0, "the same"),
        ClockReading(now + attack.payload * DAY_S, 2000.0, boot),
        ClockReading(now + 3000.0, 3000.0 + 60.0, boot),
    ):
        tidier = RetentionWorker(path, keeping, read_clock=lambda reading=reading: reading)  # type: ignore[misc]
        assert tidier.delete_old() == 0
        tidier.close()


CACHES = rows(
    (
        "cache-full-disk",
        "neighbour on the machine",
        "fills the disk of the cache for a moment",
        "the cache is used again when there is room, without a restart",
        "w" * 20_000,
    ),
)


@pytest.mark.parametrize("attack", CACHES)
async def test_a_full_disk_does_not_end_the_cache(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "FIRST_PAUSE_S", 1e-9)
    cache = CorrectionCache(tmp_path, 60, 4)
    await cache.put("before", Correction("x"))
    loop = asyncio.get_running_loop()

    def most_pages(pages: int) -> None:
        assert cache._store is not None
        cache._store._sql(f"PRAGMA max_page_count = {pages}").fetchall()

    await loop.run_in_executor(cache._thread, most_pages, 1)
    await cache.put("k", Correction(attack.payload))
    assert await cache.get("k") is None
    await loop.run_in_executor(cache._thread, most_pages, 10**6)
    await cache.put("k", Correction(attack.payload))
    assert await cache.get("k") == Correction(attack.payload)
    await cache.aclose()
