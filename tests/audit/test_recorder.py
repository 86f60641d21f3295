"""Taking notes never waits and never raises, whatever becomes of the file; what was lost is counted without text."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from aligner_proxy.audit.store import Store
from aligner_proxy.audit.writer import Keeping, Recorder
from tests.audit.conftest import counted, noted

KEEPING = Keeping(seconds=1e12, max_bytes=2**30, waiting=8, pause_s=0.0)


@pytest.fixture
def counts() -> Callable[[], dict[str, float]]:
    """How many entries went which way since the test began."""
    before = {result: counted(result) for result in ("written", "lost", "dropped")}
    return lambda: {result: counted(result) - was for result, was in before.items() if counted(result) != was}


def kept(path: Path) -> list[str]:
    store = Store(path)
    found = [one.call_id for one in store.entries()]
    store.close()
    return found[::-1]


async def test_what_waits_is_written_before_the_end(path: Path, counts: Callable[[], dict[str, float]]) -> None:
    recorder = Recorder(lambda: Store(path), KEEPING)
    for n in range(5):
        recorder.note(noted(n, at=1000.0 + n))
    await recorder.aclose()
    assert kept(path) == [f"call-{n}" for n in range(5)]
    assert counts() == {"written": 5}


async def test_when_too_many_wait_the_rest_is_dropped(path: Path, counts: Callable[[], dict[str, float]]) -> None:
    stuck = threading.Event()

    def opened() -> Store:
        stuck.wait()
        return Store(path)

    recorder = Recorder(opened, KEEPING)
    for n in range(20):
        recorder.note(noted(n))
    assert counts() == {"dropped": 12}
    stuck.set()
    await recorder.aclose()
    assert counts() == {"written": 8, "dropped": 12}


async def test_a_file_that_cannot_be_made_costs_entries_only(
    tmp_path: Path, counts: Callable[[], dict[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    recorder = Recorder(lambda: Store(tmp_path / "file" / "folder" / "audit.db"), KEEPING)
    for n in range(3):
        recorder.note(noted(n))
    await recorder.aclose()
    assert counts() == {"lost": 3}
    assert [record.message for record in caplog.records] == [
        "audit: entries are lost (NotADirectoryError); answers are not affected"
    ]


async def test_a_locked_file_is_left_alone_and_comes_back(
    path: Path, counts: Callable[[], dict[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    Store(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    locked = Recorder(lambda: Store(path), replace(KEEPING, pause_s=1000.0))
    for n in range(6):
        locked.note(noted(n))  # only the first waits for the lock
    await locked.aclose()
    assert counts() == {"lost": 6}
    other.execute("ROLLBACK")
    other.close()
    assert "SQLITE_BUSY" in caplog.text
    recorder = Recorder(lambda: Store(path), KEEPING)
    recorder.note(noted())
    await recorder.aclose()
    assert kept(path) == ["call-0"]


async def test_a_full_disk_is_told_once_and_so_is_its_end(
    path: Path, counts: Callable[[], dict[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    full = [True, True, False]

    def opened() -> Store:
        store = Store(path)
        if full.pop(0):
            pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
            store._connection.execute(f"PRAGMA max_page_count = {pages}")
        return store

    one = noted()
    big = replace(one, exchange=replace(one.exchange, answer="Long. " * 4000))
    recorder = Recorder(opened, KEEPING)
    with caplog.at_level(logging.INFO, "aligner_proxy.audit"):
        for _ in range(3):
            recorder.note(big)
        await recorder.aclose()
    assert counts() == {"lost": 2, "written": 1}
    messages = [record.message for record in caplog.records]
    assert messages == [
        "audit: entries are lost (SQLITE_FULL); answers are not affected",
        "audit: entries are written again",
    ]


async def test_a_redaction_that_fails_keeps_nothing_and_tells_nothing(
    path: Path, counts: Callable[[], dict[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(text: str) -> str:
        raise LookupError(f"cannot redact {text}")

    recorder = Recorder(lambda: Store(path), KEEPING, broken)
    recorder.note(noted())
    await recorder.aclose()
    assert counts() == {"lost": 1}
    assert kept(path) == []
    assert "LookupError" in caplog.text
    assert "so" not in caplog.text.replace("also", "")
    assert "cannot redact" not in caplog.text


async def test_a_note_after_the_end_is_dropped(path: Path, counts: Callable[[], dict[str, float]]) -> None:
    recorder = Recorder(lambda: Store(path), KEEPING)
    await recorder.aclose()
    recorder.note(noted())
    assert counts() == {"dropped": 1}


async def test_what_is_too_old_goes_when_the_store_is_opened(path: Path) -> None:
    store = Store(path)
    store.close()
    recorder = Recorder(lambda: Store(path), replace(KEEPING, seconds=3600.0))
    recorder.note(noted(1, at=1000.0))
    await recorder.aclose()
    assert kept(path) == []
