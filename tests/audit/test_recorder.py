"""Taking notes never waits and never raises, whatever becomes of the file; what cannot be written waits in memory."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.audit import recorder as recording
from aligner_proxy.audit.entry import AuditEvent, estimate_event_bytes
from aligner_proxy.audit.location import StoreLocation, open_store
from aligner_proxy.audit.recorder import QueueLimits, Recorder
from aligner_proxy.audit.retention import RetentionLimits, RetentionWorker
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.errors import NoRoomForRecord, NotRecorded
from aligner_proxy_fleet.database import DatabaseStore
from tests.audit.conftest import RUDE, counted, noted

ROOM = QueueLimits(2**24, longest_pause_s=0.0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts, and a single one at the end."""
    monkeypatch.setattr(recording, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(recording, "LAST_TRIES_S", 0.0)


@pytest.fixture
def counts() -> Callable[[], dict[str, float]]:
    """How many entries went which way since the test began."""
    before = {result: counted(result) for result in ("written", "lost", "dropped")}
    return lambda: {result: counted(result) - was for result, was in before.items() if counted(result) != was}


def waiting_bytes() -> float:
    return REGISTRY.get_sample_value("aligner_audit_waiting_bytes") or 0.0


def kept(place: StoreLocation) -> list[str]:
    store = open_store(place)
    found = [one.call_id for one in store.entries()]
    store.close()
    return found[::-1]


def sized(number: int, answer: str) -> AuditEvent:
    one = noted(number)
    return replace(one, exchange=replace(one.exchange, answer=answer))


async def settled(recorder: Recorder) -> None:
    """Everything that waited is written."""
    while recorder._items:
        await asyncio.sleep(0.001)


class Disk:
    """Opens stores on a disk that is full, or not."""

    def __init__(self, place: StoreLocation, *, full: bool = True, durable: bool = False) -> None:
        self.place = place
        self.durable = durable
        self.full = full
        self.attempts = 0

    def __call__(self) -> AuditStore:
        self.attempts += 1
        store = open_store(self.place, durable=self.durable)
        if self.full:
            if isinstance(store, DatabaseStore):
                store.fetch_rows("SET default_transaction_read_only = on")  # as where its disk is full
            else:
                pages = store.fetch_rows("PRAGMA page_count")[0][0]
                store.fetch_rows(f"PRAGMA max_page_count = {pages}")
        return store

    async def tried(self, attempts: int) -> None:
        while self.attempts < attempts:
            await asyncio.sleep(0.001)


BIG = "Long. " * 1000
"""It does not fit into a page that is there already."""


async def test_what_waits_is_written_before_the_end(
    place: StoreLocation, counts: Callable[[], dict[str, float]]
) -> None:
    recorder = Recorder(lambda: open_store(place), ROOM)
    for n in range(5):
        recorder.note(noted(n, at=1000.0 + n))
    await recorder.aclose()
    assert kept(place) == [f"call-{n}" for n in range(5)]
    assert counts() == {"written": 5}
    assert waiting_bytes() == 0


async def test_what_waits_is_bounded_by_its_bytes(place: StoreLocation, counts: Callable[[], dict[str, float]]) -> None:
    stuck = threading.Event()

    def opened() -> AuditStore:
        stuck.wait()
        return open_store(place)

    large = [sized(n, "x" * 100_000 + str(n)) for n in range(20)]
    recorder = Recorder(opened, QueueLimits(8 * estimate_event_bytes(large[0]) + 1000))
    for one in large:
        recorder.note(one)
    assert counts() == {"dropped": 12}
    assert 800_000 < waiting_bytes() < 900_000
    stuck.set()
    await recorder.aclose()
    assert counts() == {"written": 8, "dropped": 12}
    assert waiting_bytes() == 0


def test_the_weight_of_an_event_is_that_of_its_texts() -> None:
    assert estimate_event_bytes(sized(0, "x" * 10**6)) - estimate_event_bytes(sized(0, "x")) == 10**6 - 1
    one = noted()
    wide = replace(one, facts=replace(one.facts, fields={"a": [{"b": "y" * 10**6}] * 9}))
    assert 10**6 < estimate_event_bytes(wide) < 10**6 + estimate_event_bytes(one) + 10_000, (
        "the same text is counted once"
    )


async def test_the_number_of_those_that_wait_is_bounded_where_the_operator_says_so(
    place: StoreLocation, counts: Callable[[], dict[str, float]]
) -> None:
    stuck = threading.Event()

    def opened() -> AuditStore:
        stuck.wait()
        return open_store(place)

    recorder = Recorder(opened, QueueLimits(2**30, 8))
    for n in range(20):
        recorder.note(noted(n))
    stuck.set()
    await recorder.aclose()
    assert counts() == {"written": 8, "dropped": 12}


async def test_one_that_is_larger_than_all_room_waits_alone(place: StoreLocation) -> None:
    recorder = Recorder(lambda: open_store(place), QueueLimits(10))
    recorder.note(noted(1))
    await settled(recorder)
    recorder.note(noted(2))
    await recorder.aclose()
    assert kept(place) == ["call-1", "call-2"]


async def test_a_full_disk_loses_nothing_while_there_is_memory(
    path: Path, counts: Callable[[], dict[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(path)
    recorder = Recorder(disk, ROOM)
    with caplog.at_level(logging.INFO, "aligner_proxy.audit"):
        for n in range(70):
            recorder.note(sized(n, BIG))
        await disk.tried(4)
        assert counts() == {}
        disk.full = False
        await settled(recorder)
        await recorder.aclose()
    assert counts() == {"written": 70}
    assert sorted(kept(path)) == sorted(f"call-{n}" for n in range(70))
    assert [record.message for record in caplog.records] == [
        "audit: entries cannot be written (SQLITE_FULL) and wait; answers are not affected",
        "audit: entries are written again",
    ]


async def test_a_locked_file_loses_nothing(path: Path, counts: Callable[[], dict[str, float]]) -> None:
    AuditStore(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    attempts = 0

    def opened() -> AuditStore:
        nonlocal attempts
        attempts += 1
        return AuditStore(path, busy_s=0.0)

    recorder = Recorder(opened, ROOM)
    for n in range(6):
        recorder.note(noted(n))
    while attempts < 5:
        await asyncio.sleep(0.001)
    other.execute("ROLLBACK")
    other.close()
    await settled(recorder)
    await recorder.aclose()
    assert counts() == {"written": 6}


async def test_what_cannot_be_written_to_the_end_is_counted(
    tmp_path: Path, counts: Callable[[], dict[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    recorder = Recorder(lambda: AuditStore(tmp_path / "file" / "folder" / "audit.db"), ROOM)
    for n in range(3):
        recorder.note(noted(n))
    await recorder.aclose()
    assert counts() == {"lost": 3}
    assert [record.message for record in caplog.records] == [
        "audit: entries cannot be written (NotADirectoryError) and wait; answers are not affected"
    ]
    assert waiting_bytes() == 0


async def test_a_redaction_that_fails_costs_its_entry_and_tells_nothing(
    place: StoreLocation, counts: Callable[[], dict[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(text: str) -> str:
        if text == RUDE:
            raise LookupError(f"cannot redact {text}")
        return text

    recorder = Recorder(lambda: open_store(place), ROOM, broken)
    recorder.note(noted(1))
    recorder.note(sized(2, "It is so."))
    await recorder.aclose()
    assert counts() == {"lost": 1, "written": 1}
    assert kept(place) == ["call-2"]
    assert "LookupError" in caplog.text
    assert "cannot redact" not in caplog.text


async def test_an_error_that_nobody_expected_loses_nothing(
    place: StoreLocation, monkeypatch: pytest.MonkeyPatch, counts: Callable[[], dict[str, float]]
) -> None:
    insert = AuditStore.insert
    errors = [MemoryError(), ZeroDivisionError()]

    def sometimes(store: AuditStore, rows: Any) -> list[int]:
        if errors:
            raise errors.pop()
        return insert(store, rows)

    monkeypatch.setattr(AuditStore, "insert", sometimes)
    recorder = Recorder(lambda: open_store(place), ROOM)
    recorder.note(noted())
    await settled(recorder)
    await recorder.aclose()
    assert counts() == {"written": 1}


async def test_a_note_after_the_end_is_dropped(place: StoreLocation, counts: Callable[[], dict[str, float]]) -> None:
    recorder = Recorder(lambda: open_store(place), ROOM)
    await recorder.aclose()
    recorder.note(noted())
    assert counts() == {"dropped": 1}


async def test_the_tidier_begins_with_the_first_entry_and_ends_with_the_recorder(place: StoreLocation) -> None:
    tidier = RetentionWorker(place, RetentionLimits(1e9, 2**30))
    recorder = Recorder(lambda: open_store(place), ROOM, retention=tidier)
    recorder.note(noted())
    await settled(recorder)
    assert tidier._thread is not None
    await recorder.aclose()
    assert not tidier._thread.is_alive()


# the record that is required


async def test_a_required_entry_is_on_the_disk_before_the_answer_goes_on(place: StoreLocation) -> None:
    recorder = Recorder(lambda: open_store(place, durable=True), ROOM, required=True)
    await asyncio.gather(*(recorder.write(noted(n)) for n in range(100)))
    assert len(kept(place)) == 100
    await recorder.aclose()


async def test_a_required_entry_waits_for_a_store_that_fails_for_a_moment(place: StoreLocation) -> None:
    disk = Disk(place, durable=True)
    recorder = Recorder(disk, ROOM, required=True)
    answer = asyncio.create_task(recorder.write(sized(1, BIG)))
    await disk.tried(3)
    assert not answer.done()
    disk.full = False
    await answer
    assert kept(place) == ["call-1"]
    await recorder.aclose()


async def test_answers_are_refused_while_the_store_fails_and_notes_still_wait(
    place: StoreLocation, monkeypatch: pytest.MonkeyPatch, counts: Callable[[], dict[str, float]]
) -> None:
    monkeypatch.setattr(recording, "MAX_WAIT_S", 0.01)
    disk = Disk(place)
    recorder = Recorder(disk, ROOM, required=True)
    recorder.note(sized(1, BIG))
    with pytest.raises(NotRecorded) as caught:
        await recorder.write(sized(2, BIG))
    assert caught.value.reason == "audit_unwritten"
    assert counts() == {"lost": 1}
    disk.full = False
    await settled(recorder)
    await recorder.write(sized(3, BIG))
    await recorder.aclose()
    assert kept(place) == ["call-1", "call-3"]


async def test_an_answer_for_whose_entry_there_is_no_room_is_refused_at_once(place: StoreLocation) -> None:
    stuck = threading.Event()

    def opened() -> AuditStore:
        stuck.wait()
        return open_store(place)

    recorder = Recorder(opened, QueueLimits(2**30, 1), required=True)
    recorder.note(noted(1))
    with pytest.raises(NoRoomForRecord) as caught:
        await recorder.write(noted(2))
    assert caught.value.reason == "audit_full"
    stuck.set()
    await recorder.aclose()


async def test_an_answer_whose_entry_cannot_be_redacted_is_refused(place: StoreLocation) -> None:
    def broken(text: str) -> str:
        raise LookupError

    recorder = Recorder(lambda: open_store(place), ROOM, broken, required=True)
    with pytest.raises(NotRecorded):
        await recorder.write(noted())
    await recorder.aclose()


async def test_the_entry_of_an_answer_that_nobody_waits_for_any_more_is_written(place: StoreLocation) -> None:
    disk = Disk(place)
    recorder = Recorder(disk, ROOM, required=True)
    answer = asyncio.create_task(recorder.write(sized(1, BIG)))
    await disk.tried(2)
    answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer
    disk.full = False
    await settled(recorder)
    await recorder.aclose()
    assert kept(place) == ["call-1"]
