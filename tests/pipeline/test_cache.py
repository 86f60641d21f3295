"""Keys that never meet across tenants, a store that cannot harm a request, and one computation for many waiters."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import logging
import pickle
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diskcache
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from aligner_proxy.engine.api import AlignerInfo
from aligner_proxy.errors import CorrectionError, DeadlineExceeded, EngineFault, QuotaSpent
from aligner_proxy.pipeline import cache as caching
from aligner_proxy.pipeline.cache import Compute, CorrectionCache, pack, unpack
from aligner_proxy.types import (
    Correction,
    DecodeCounts,
    Exchange,
    Mode,
    Objective,
    OnError,
    Policy,
    SegmentScore,
    Turn,
    Verify,
)

INFO = AlignerInfo("m", "content", "imhi", "template", 2048, True, "nf4", "cpu")
POLICY = Policy("p", (Objective("a", "A: one"), Objective("b", "B: two")), tenant="team:acme")
EXCHANGE = Exchange("call-1", 0, (Turn("user", "Is it open?"),), "Yes, fool.")
CORRECTION = Correction(
    "Yes.", (SegmentScore("Yes, fool.", 2.5, True),), DecodeCounts(3, 2, 1, 0, 4), 17, 12.5, "content"
)


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[CorrectionCache]:
    store = CorrectionCache(tmp_path / "store", ttl_s=60, max_mb=4)
    yield store
    await store.aclose()


async def shared(cache: CorrectionCache, key: str, compute: Compute) -> Correction:
    """What is computed once for all who ask meanwhile, and not stored."""
    correction, cache_hit = await cache.get_or_compute(key, compute, remember=False)
    assert cache_hit is None
    return correction


def taught(first: str = "", second: str = "") -> Policy:
    """The policy with these heads of its objectives."""
    one, other = POLICY.objectives
    return replace(POLICY, objectives=(replace(one, head=first), replace(other, head=second)))


def _key(info: AlignerInfo = INFO, policy: Policy = POLICY, exchange: Exchange = EXCHANGE) -> str:
    return CorrectionCache(Path("unused"), 1, 1).key(info, policy, exchange)


# keys


@pytest.mark.parametrize(
    "other",
    [
        {"info": replace(INFO, content_hash="other")},
        {"info": replace(INFO, template_hash="other")},
        {"policy": replace(POLICY, objectives=POLICY.objectives[::-1])},
        {"policy": replace(POLICY, objectives=POLICY.objectives[:1])},
        {"policy": replace(POLICY, objectives=(Objective("a", "A: one; B: two"),))},
        {"policy": replace(POLICY, caution=0.5)},
        {"policy": replace(POLICY, verify=Verify.ALWAYS)},
        {"policy": taught("1" * 64)},
        {"policy": replace(POLICY, tenant="team:other")},
        {"policy": replace(POLICY, tenant="-")},
        {"exchange": replace(EXCHANGE, answer="Yes, fool!")},
        {"exchange": replace(EXCHANGE, inner=True)},
        {"exchange": replace(EXCHANGE, turns=())},
        {"exchange": replace(EXCHANGE, turns=(Turn("assistant", "Is it open?"),))},
        {"exchange": replace(EXCHANGE, turns=(Turn("user", "Is it"), Turn("user", " open?")))},
    ],
)
def test_whatever_decides_a_correction_or_who_may_see_it_is_in_the_key(other: dict[str, Any]) -> None:
    assert _key(**other) != _key()


def test_another_way_of_editing_makes_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _key()
    monkeypatch.setattr(caching, "EDITING", caching.EDITING + 1)
    assert _key() != before


def test_corrections_with_and_without_a_head_or_with_another_never_share_an_entry() -> None:
    head, newer = "1" * 64, "2" * 64
    keys = [_key(policy=taught(*heads)) for heads in ((), (head,), (newer,), ("", head), (head, head), (head, newer))]
    assert len({*keys, _key()}) == len(keys)
    assert keys[0] == _key(), "where nothing was taught, what is stored already stays known"


async def test_what_was_judged_without_a_head_that_the_key_names_is_not_stored(cache: CorrectionCache) -> None:
    made = [replace(CORRECTION, untaught=1), CORRECTION]

    async def compute() -> Correction:
        return made.pop(0)

    assert await cache.get_or_compute("k", compute, aligner="content") == (replace(CORRECTION, untaught=1), False)
    assert await cache.get_or_compute("k", compute, aligner="content") == (CORRECTION, False)
    assert await cache.get_or_compute("k", compute, aligner="content") == (CORRECTION, True)


@pytest.mark.parametrize(
    "same",
    [
        {"policy": replace(POLICY, name="q", mode=Mode.SHADOW, on_error=OnError.BLOCK, deadline_s=1, sample=0.5)},
        {"policy": replace(POLICY, objectives=(Objective("x", "A: one"), Objective("y", "B: two")))},
        {"exchange": replace(EXCHANGE, call_id="call-2", index=3)},
        {"info": replace(INFO, device="cuda")},
    ],
)
def test_nothing_else_is_in_the_key(same: dict[str, Any]) -> None:
    assert _key(**same) == _key()


def test_a_text_that_is_no_valid_unicode_has_a_key() -> None:
    assert len(_key(exchange=replace(EXCHANGE, answer="half a pair: \ud83d"))) == 64


# the store


async def test_what_was_put_is_got(cache: CorrectionCache) -> None:
    assert await cache.get("k") is None
    await cache.put("k", CORRECTION)
    assert await cache.get("k") == CORRECTION
    assert await cache.get("other") is None


async def test_entries_outlive_the_process_that_wrote_them(tmp_path: Path) -> None:
    first, second = (CorrectionCache(tmp_path, 60, 4) for _ in range(2))
    await first.put("k", CORRECTION)
    await first.aclose()
    assert await second.get("k") == CORRECTION
    await second.aclose()


async def test_the_folder_is_private(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o755)
    cache = CorrectionCache(tmp_path / "store", 60, 4)
    await cache.put("k", CORRECTION)
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    await cache.aclose()


async def test_entries_are_forgotten_in_time(tmp_path: Path) -> None:
    cache = CorrectionCache(tmp_path, ttl_s=0.05, max_mb=4)
    await cache.put("k", CORRECTION)
    await asyncio.sleep(0.1)
    assert await cache.get("k") is None
    await cache.aclose()


async def test_the_store_stays_within_its_bound_and_drops_what_was_not_used(tmp_path: Path) -> None:
    cache = CorrectionCache(tmp_path, ttl_s=60, max_mb=1)
    large = replace(CORRECTION, text="w" * 40_000)
    for i in range(100):
        await cache.put(f"k{i}", large)
        assert await cache.get("k0") is not None
    assert await cache.get("k1") is None
    await cache.aclose()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 2 * 2**20


def _plant(folder: Path, value: object) -> None:
    with diskcache.Cache(str(folder)) as store:
        store.set("k", value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"short",
        pack(_key(), CORRECTION)[:-1],
        pack(_key(), CORRECTION)[:40] + b"X" + pack(_key(), CORRECTION)[41:],
        pack("another", CORRECTION),
        json.dumps({"text": "no checksum"}).encode(),
        "text",
        17,
    ],
)
async def test_corrupt_entries_are_dropped_and_never_served(
    tmp_path: Path, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    _plant(tmp_path, value)
    cache = CorrectionCache(tmp_path, 60, 4)
    assert await cache.get("k") is None
    assert [record.getMessage() for record in caplog.records] == [
        "correction cache: entry k is corrupt and was dropped"
    ]
    await cache.put("k", CORRECTION)
    assert await cache.get("k") == CORRECTION
    await cache.aclose()


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a planted pickle was run",))


async def test_a_planted_pickle_is_not_run(tmp_path: Path) -> None:
    _plant(tmp_path, {"anything": "pickled"})
    with sqlite3.connect(tmp_path / "cache.db") as base:
        base.execute("UPDATE Cache SET value = ?", (pickle.dumps(_Bomb()),))
    base.close()
    cache = CorrectionCache(tmp_path, 60, 4)
    assert await cache.get("k") is None
    await cache.aclose()


async def test_a_large_entry_whose_file_was_cut_is_dropped(tmp_path: Path) -> None:
    cache = CorrectionCache(tmp_path, 60, 4)
    await cache.put("k", replace(CORRECTION, text="w" * 200_000))
    (file,) = tmp_path.rglob("*.val")
    file.write_bytes(file.read_bytes()[:1000])
    await cache.aclose()
    again = CorrectionCache(tmp_path, 60, 4)
    assert await again.get("k") is None
    await again.aclose()


async def test_a_store_that_cannot_be_read_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache.db").write_bytes(b"this is no database at all" * 100)
    cache = CorrectionCache(tmp_path, 60, 4)
    for _ in range(3):
        await cache.put("k", CORRECTION)
        assert await cache.get("k") is None
    assert await shared(cache, "k", _compute) == CORRECTION
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "cannot be used (SQLITE_NOTADB); going on without it" in record.getMessage()
    await cache.aclose()


async def test_a_store_that_cannot_be_opened_leaves_no_connection_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "FIRST_PAUSE_S", 1e-9)
    monkeypatch.setattr(caching, "LONGEST_PAUSE_S", 1e-9)
    opened: list[sqlite3.Connection] = []
    closed: list[sqlite3.Connection] = []

    class Watched(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            opened.append(self)

        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Watched))
    (tmp_path / "cache.db").write_bytes(b"this is no database at all" * 100)
    cache = CorrectionCache(tmp_path, 60, 4)
    for _ in range(3):
        assert await cache.get("k") is None
    assert len(opened) == 3
    assert closed == opened
    await cache.aclose()


def _up() -> tuple[float | None, float]:
    """Whether the store is said to work, and how often a disk was full."""
    failures = REGISTRY.get_sample_value("aligner_cache_store_failures_total", {"error": "SQLITE_FULL"})
    return REGISTRY.get_sample_value("aligner_cache_store_up"), failures or 0.0


async def test_a_disk_that_was_full_is_used_again_and_the_metrics_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(caching, "FIRST_PAUSE_S", 1e-9)
    monkeypatch.setattr(caching, "LONGEST_PAUSE_S", 1e-9)
    cache = CorrectionCache(tmp_path, 60, 4)
    await cache.put("before", CORRECTION)
    assert cache._store is not None
    store = cache._store
    large = replace(CORRECTION, text="w" * 20_000)

    async def pragma(name: str) -> Any:
        """On the connection that writes, which belongs to the cache's thread; another one nobody would close."""
        return await asyncio.get_running_loop().run_in_executor(
            cache._thread, lambda: store._sql(f"PRAGMA {name}").fetchone()[0]
        )

    await pragma(f"max_page_count = {await pragma('page_count')}")
    _, failures = _up()
    with caplog.at_level(logging.INFO):
        for n in range(3):
            await cache.put(f"k{n}", large)
            assert await cache.get(f"k{n}") is None
        assert _up() == (0.0, failures + 3)
        await pragma(f"max_page_count = {10**6}")
        await cache.put("k", large)
    assert await cache.get("k") == large
    assert _up() == (1.0, failures + 3)
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition("(")[2][:11] or line.rpartition(" is ")[2] for line in told] == ["SQLITE_FULL", "used again"]
    await cache.aclose()


async def test_a_store_that_fails_is_left_alone_for_longer_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    (tmp_path / "file").touch()
    health = caching._StoreHealth(tmp_path)
    ends = []
    for _ in range(9):
        health.note_failure(OSError("no"))
        assert health.is_pausing
        began = now[0]
        while health.is_pausing:
            now[0] += 1.0
        ends.append(now[0] - began)
    assert ends == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    health.note_success()
    health.note_failure(OSError("no"))
    now[0] += 1.0
    assert not health.is_pausing


async def test_a_damaged_store_is_used_again_once_its_folder_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "FIRST_PAUSE_S", 1e-9)
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "cache.db").write_bytes(b"this is no database at all" * 100)
    cache = CorrectionCache(folder, 60, 4)
    assert await cache.get("k") is None
    shutil.rmtree(folder)
    await cache.put("k", CORRECTION)
    assert await cache.get("k") == CORRECTION
    assert (folder / "cache.db").exists()
    await cache.aclose()


class _Jumping:
    """A machine whose clock can be set."""

    by = 0.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + self.by)


@pytest.mark.parametrize("jump", [30 * 86_400.0, -30 * 86_400.0])
async def test_a_jump_of_the_clock_ages_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    machine = _Jumping(monkeypatch)
    cache, worker = (CorrectionCache(tmp_path, 3600, 4) for _ in range(2))
    await cache.put("before", CORRECTION)
    machine.by = jump
    await cache.put("after", CORRECTION)
    for key in ("before", "after"):
        assert await cache.get(key) == CORRECTION
        assert await worker.get(key) == CORRECTION, "from the disk"
    machine.by = 0.0
    later = CorrectionCache(tmp_path, 3600, 4)
    assert await later.get("before") == await later.get("after") == CORRECTION
    for one in (cache, worker, later):
        await one.aclose()


async def test_an_entry_from_the_future_does_not_live_for_longer_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = _Jumping(monkeypatch)
    machine.by = 86_400.0
    wrong = CorrectionCache(tmp_path, 3600, 4)
    await wrong.put("k", CORRECTION)
    machine.by = 0.0
    right = CorrectionCache(tmp_path, 3600, 4)
    assert await right.get("k") is None
    for one in (wrong, right):
        await one.aclose()


async def test_what_has_expired_is_deleted_from_the_disk(tmp_path: Path) -> None:
    now = [time.time()]
    cache = CorrectionCache(tmp_path, 60, 4, lambda: now[0])
    await cache.put("old", CORRECTION)
    now[0] += 50.0
    await cache.put("young", CORRECTION)
    now[0] += 20.0
    cache._sweep_at = 0.0
    assert await cache.get("neither") is None
    for thread in threading.enumerate():
        if thread.name == "correction-cache-sweep":
            thread.join()
    with diskcache.Cache(str(tmp_path)) as store:
        assert list(store.iterkeys()) == ["young"]
    await cache.aclose()


async def test_a_store_that_breaks_later_costs_no_request(tmp_path: Path) -> None:
    cache = CorrectionCache(tmp_path, 60, 4)
    await cache.put("k", CORRECTION)
    for path in tmp_path.glob("cache.db*"):
        path.write_bytes(b"\0" * 5000)
    await cache.put("l", CORRECTION)
    assert await cache.get("l") in (None, CORRECTION)
    await cache.aclose()


async def test_a_folder_that_cannot_be_made_costs_no_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = CorrectionCache(tmp_path / "file" / "store", 60, 4)
    await cache.put("k", CORRECTION)
    assert await cache.get("k") is None
    await cache.aclose()


async def test_a_store_that_another_process_holds_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aligner_proxy.pipeline.cache._BUSY_S", 0.05)
    cache = CorrectionCache(tmp_path, 60, 4)
    await cache.put("k", CORRECTION)
    worker = CorrectionCache(tmp_path, 60, 4)  # another one, which has not just stored it
    assert await worker.get("nothing") is None
    other = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert await worker.get("k") is None
    assert await cache.get("k") == CORRECTION
    other.execute("ROLLBACK")
    other.close()
    assert await worker.get("k") == CORRECTION
    await worker.aclose()
    await cache.aclose()


async def test_a_closed_cache_knows_nothing(tmp_path: Path) -> None:
    cache = CorrectionCache(tmp_path, 60, 4)
    await cache.put("k", CORRECTION)
    await cache.aclose()
    assert await cache.get("k") is None


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_flipped_bit_is_noticed(place: int, flip: int) -> None:
    packed = bytearray(pack("k", CORRECTION))
    packed[place % len(packed)] ^= flip
    assert unpack("k", bytes(packed)) is None


# one computation for many


async def _compute() -> Correction:
    return CORRECTION


class _Work:
    """A computation that counts its runs and goes on when told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.runs = self.cancelled = 0
        self.go_on = asyncio.Event()
        self.error = error

    async def __call__(self) -> Correction:
        self.runs += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return replace(CORRECTION, ms=float(self.runs))


async def _started(cache: CorrectionCache, work: _Work, waiters: int, key: str = "k") -> list[asyncio.Task[Correction]]:
    tasks = [asyncio.create_task(shared(cache, key, work)) for _ in range(waiters)]
    await asyncio.sleep(0.01)
    return tasks


async def test_many_waiters_share_one_computation(cache: CorrectionCache) -> None:
    work = _Work()
    tasks = await _started(cache, work, 50)
    work.go_on.set()
    results = await asyncio.gather(*tasks)
    assert work.runs == 1
    assert all(result is results[0] for result in results)


async def test_different_keys_share_nothing(cache: CorrectionCache) -> None:
    work = _Work()
    tasks = await _started(cache, work, 1, _key()) + await _started(
        cache, work, 1, _key(policy=replace(POLICY, tenant="team:other"))
    )
    assert work.runs == 2
    work.go_on.set()
    await asyncio.gather(*tasks)


async def test_a_cancelled_waiter_leaves_the_others_alone(cache: CorrectionCache) -> None:
    work = _Work()
    tasks = await _started(cache, work, 3)
    tasks[0].cancel()  # the one that began the computation
    tasks[2].cancel()
    await asyncio.sleep(0.01)
    work.go_on.set()
    assert await tasks[1] == replace(CORRECTION, ms=1.0)
    assert (work.runs, work.cancelled) == (1, 0)
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_the_computation_is_cancelled_with_its_last_waiter(cache: CorrectionCache) -> None:
    work = _Work()
    tasks = await _started(cache, work, 2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    late = asyncio.create_task(shared(cache, "k", work))  # before the cancelled computation has ended
    await asyncio.sleep(0.01)
    assert (work.runs, work.cancelled) == (2, 1)
    work.go_on.set()
    assert (await late).ms == 2.0


async def test_a_waiter_that_times_out_is_one_that_goes(cache: CorrectionCache) -> None:
    work = _Work()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await shared(cache, "k", work)
    await asyncio.sleep(0.01)
    assert work.cancelled == 1


async def test_an_error_reaches_all_and_is_not_remembered(cache: CorrectionCache) -> None:
    work = _Work(EngineFault("broken"))
    tasks = await _started(cache, work, 3)
    work.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [EngineFault] * 3
    assert await shared(cache, "k", _compute) == CORRECTION


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), QuotaSpent("spent")])
async def test_time_and_quota_of_the_first_request_are_not_those_of_the_others(
    cache: CorrectionCache, error: CorrectionError
) -> None:
    """A request that joined another failed with that one's deadline, however much time it had itself."""
    poor = _Work(error)
    rich = _Work()
    late = _Work()
    (first,) = await _started(cache, poor, 1)
    others = await _started(cache, rich, 3)
    out_of_time = asyncio.create_task(cache.get_or_compute("k", late, remember=False, deadline=time.monotonic()))
    await asyncio.sleep(0.01)
    poor.go_on.set()
    rich.go_on.set()
    assert [task.ms for task in await asyncio.gather(*others)] == [1.0] * 3
    for failed in (first, out_of_time):
        with pytest.raises(type(error)):
            await failed
    assert (poor.runs, rich.runs, late.runs) == (1, 1, 0)


async def test_an_error_that_nobody_waits_for_is_not_logged(
    cache: CorrectionCache, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn() -> Correction:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        raise EngineFault("too late")

    task = asyncio.create_task(shared(cache, "k", stubborn))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.01)
    del task
    gc.collect()
    assert not caplog.records


async def test_nothing_is_left_behind(cache: CorrectionCache) -> None:
    await asyncio.gather(*(shared(cache, f"k{i}", _compute) for i in range(100)))
    assert not cache._flights


async def test_closing_cancels_what_is_in_flight(tmp_path: Path) -> None:
    cache = CorrectionCache(tmp_path, 60, 4)
    work = _Work()
    (task,) = await _started(cache, work, 1)
    await cache.aclose()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.cancelled == 1


async def test_what_was_used_a_moment_ago_needs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CorrectionCache(tmp_path, 60, 4)
    worker = CorrectionCache(tmp_path, 60, 4)
    await cache.put("k", CORRECTION)
    assert await worker.get("k") == CORRECTION
    for one in (cache, worker):
        monkeypatch.setattr(one, "_run", None)
        assert await one.get("k") == CORRECTION
    monkeypatch.undo()
    await cache.aclose()
    await worker.aclose()
    assert await cache.get("k") is None
