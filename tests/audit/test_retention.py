"""Old entries go by themselves: in portions, by one process, and never by a clock that jumped."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.location import StoreLocation, open_store
from aligner_proxy.audit.retention import RetentionLease, RetentionLimits, RetentionWorker
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.clock import ClockReading
from tests.audit.conftest import noted

DAY_S = 86_400.0
MONTH_S = 30 * DAY_S
NOW = 1_700_000_000.0
KEEPING = RetentionLimits(MONTH_S, 2**30)
ROOT = Path(__file__).parents[2]


def filled(place: StoreLocation, times: list[float], *, answer: str = "It is so. You fool.") -> None:
    one = noted()
    made = make_entry(replace(one, exchange=replace(one.exchange, call_id="-", answer=answer)))
    store = open_store(place)
    for number, at in enumerate(times):
        store.add(replace(made, at=at, call_id=f"call-{number}"))
    store.close()


def kept(place: StoreLocation) -> list[str]:
    store = open_store(place)
    found = [row[0] for row in store.fetch_rows("SELECT call_id FROM entries ORDER BY id")]
    store.close()
    return found


def tidy(
    place: StoreLocation, keeping: RetentionLimits = KEEPING, now: float = NOW, uptime: float = 0.0, boot: str = "b"
) -> int:
    """One round of a process that starts now."""
    tidier = RetentionWorker(place, keeping, read_clock=lambda: ClockReading(now, uptime, boot))
    deleted = tidier.delete_old()
    tidier.close()
    return deleted


def deleted(limit: str) -> float:
    return REGISTRY.get_sample_value("aligner_audit_deleted_total", {"limit": limit}) or 0.0


def test_what_is_too_old_goes_and_leaves_no_text(path: Path) -> None:
    filled(path, [NOW - 31 * DAY_S, NOW - 30.5 * DAY_S, NOW - 29 * DAY_S, NOW])
    before = deleted("age")
    assert tidy(path) == 2
    assert kept(path) == ["call-2", "call-3"]
    assert deleted("age") == before + 2
    assert b"call-0" not in b"".join(file.read_bytes() for file in path.parent.glob("audit.db*"))
    assert stat.S_IMODE(path.with_name("audit.db.tidy").stat().st_mode) == 0o600


def test_when_it_is_too_large_the_first_go_and_the_file_shrinks(path: Path) -> None:
    # The clock went back in between: what was added first goes first all the same.
    filled(path, [NOW - n for n in range(60)], answer="Long. " * 4000)
    limit = 2**20
    assert path.stat().st_size > limit
    gone = tidy(path, RetentionLimits(MONTH_S, limit))
    assert 0 < gone < 60
    assert kept(path) == [f"call-{n}" for n in range(gone, 60)]
    assert path.stat().st_size <= limit
    assert tidy(path, RetentionLimits(MONTH_S, limit)) == 0


def test_between_two_portions_others_write_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, [NOW - 40 * DAY_S] * 300 + [NOW])
    other = sqlite3.connect(path, timeout=0.0, isolation_level=None)
    written = 0

    def wait(_: float | None = None) -> bool:
        nonlocal written
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE entries SET ms = ms WHERE call_id = 'call-300'")
        other.execute("COMMIT")
        written += 1
        return False

    portions: list[int] = []
    delete_first = AuditStore.delete_first
    monkeypatch.setattr(AuditStore, "delete_first", lambda *args: portions.append(delete_first(*args)) or portions[-1])
    tidier = RetentionWorker(path, KEEPING, read_clock=lambda: ClockReading(NOW))
    monkeypatch.setattr(tidier._stop, "wait", wait)
    assert tidier.delete_old() == 300
    tidier.close()
    other.close()
    assert written >= len(portions) - 1 > 1
    assert max(portions) <= 256


def test_one_process_tidies_until_it_ends(path: Path) -> None:
    filled(path, [NOW - 31 * DAY_S] * 3)
    script = (
        "import sys; from pathlib import Path; from aligner_proxy.audit.retention import RetentionLease\n"
        "lease = RetentionLease(Path(sys.argv[1])); print(lease.take(), flush=True); sys.stdin.read()\n"
    )
    lease = str(path.with_name("audit.db.tidy"))
    command = [sys.executable, "-c", script, lease]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert tidy(path) == 0
        assert kept(path) == ["call-0", "call-1", "call-2"]
        holder.kill()
    assert tidy(path) == 0, "what was written last is a month old: is it the clock?"
    assert tidy(path, now=NOW + DAY_S + 1, uptime=DAY_S + 1) == 3


def test_a_second_lease_of_the_same_process_waits_for_the_first(path: Path) -> None:
    path.parent.mkdir()
    first, second = RetentionLease(path), RetentionLease(path)
    assert (first.take(), first.take(), second.take()) == (True, True, False)
    first.close()
    assert second.take()
    second.close()


def test_a_clock_that_jumps_ahead_deletes_nothing(place: StoreLocation) -> None:
    filled(place, [NOW - 29 * DAY_S, NOW])
    now = [ClockReading(NOW, 100.0, "b")]
    tidier = RetentionWorker(place, KEEPING, read_clock=lambda: now[0])
    assert tidier.delete_old() == 0
    now[0] = ClockReading(NOW + 600 + 365 * DAY_S, 700.0, "b")
    assert tidier.delete_old() == 0
    tidier.close()
    later = RetentionWorker(place, KEEPING, read_clock=lambda: ClockReading(NOW + 1200 + 365 * DAY_S, 1300.0, "b"))
    assert later.delete_old() == 0, "the next process knows that it jumped"
    later.close()
    assert kept(place) == ["call-0", "call-1"]
    assert tidy(place, now=NOW + 2 * DAY_S, uptime=100.0 + 2 * DAY_S) == 1, "and when it is right again, that it is"


@pytest.mark.parametrize("years", [10, -10])
def test_a_machine_that_starts_with_a_wrong_clock_deletes_nothing(place: StoreLocation, years: int) -> None:
    filled(place, [NOW - 29 * DAY_S, NOW])
    assert tidy(place, boot="first") == 0
    assert tidy(place, now=NOW + years * 365 * DAY_S, boot="second") == 0
    assert tidy(place, now=NOW + 60, boot="third") == 0
    assert kept(place) == ["call-0", "call-1"]


def test_a_store_of_an_earlier_version_is_compared_with_its_newest_entry(place: StoreLocation) -> None:
    filled(place, [NOW - 29 * DAY_S, NOW])
    assert tidy(place, now=NOW + 365 * DAY_S) == 0
    assert tidy(place, now=NOW + 366 * DAY_S + 1, uptime=DAY_S + 1) == 2, "but not for ever"


def test_entries_that_were_written_by_a_wrong_clock_do_not_go_first(place: StoreLocation) -> None:
    """The second was written at the start of a machine without a battery, the third when it was set wrongly."""
    filled(place, [NOW - 100.0, 5.0, NOW + 365 * DAY_S, NOW - 50.0])
    assert tidy(place) == 0
    assert tidy(place, now=NOW + 29 * DAY_S, uptime=29 * DAY_S) == 0
    assert tidy(place, now=NOW + 31 * DAY_S, uptime=31 * DAY_S) == 4


def test_a_lease_file_that_is_damaged_is_as_none(path: Path) -> None:
    filled(path, [NOW - 31 * DAY_S, NOW])
    path.with_name("audit.db.tidy").write_text("{not json" * 99)
    assert tidy(path) == 1
    assert tidy(path) == 0


def test_a_round_that_fails_is_told_once_and_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(path, [NOW])
    tidier = RetentionWorker(path, KEEPING, round_s=0.0)
    rounds = 0

    def fails(_: object) -> int:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            tidier._stop.set()
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(RetentionWorker, "delete_old", fails)
    tidier.start()
    assert tidier._thread is not None
    tidier._thread.join()
    assert rounds == 3
    assert caplog.text.count("old entries cannot be deleted (OperationalError)") == 1


WRITERS = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from aligner_proxy.audit.recorder import QueueLimits, Recorder
from aligner_proxy.audit.store import AuditStore
from tests.audit.conftest import counted, noted

async def main():
    path = Path(sys.argv[1])
    recorder = Recorder(lambda: AuditStore(path, busy_s=0.01), QueueLimits(2**26))
    print("ready", flush=True)
    for n in range(int(sys.argv[2])):
        recorder.note(noted(n, at=float(sys.argv[3])))
        await asyncio.sleep(0.001)
    while recorder._items:
        await asyncio.sleep(0.01)
    await recorder.aclose()
    print(counted("written"), counted("lost"), counted("dropped"), flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
def test_while_one_process_tidies_no_entry_of_the_others_is_lost(path: Path) -> None:
    """Even of workers that wait for a write of others for a hundredth of a second only."""
    filled(path, [*[NOW - 40 * DAY_S] * 3000, NOW], answer="Long. " * 3000)
    command = [sys.executable, "-c", WRITERS, str(path), "300", str(NOW)]
    with contextlib.ExitStack() as stack:
        started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        writers = [stack.enter_context(writer) for writer in started]
        outputs = [writer.stdout for writer in writers if writer.stdout is not None]
        assert [output.readline() for output in outputs] == ["ready\n"] * 2
        assert tidy(path) == 3000
        assert [output.readline() for output in outputs] == ["300.0 0.0 0.0\n"] * 2
    assert len(kept(path)) == 601
