"""Faults of the servers that gateways share, by the hooks that LiteLLM calls: a real Redis, and no real PostgreSQL.

Where Redis fails each gateway goes on alone, so that every cell is a correction. Entries are spoilt under the names
that the next gateway looks for. An audit database that fails costs the entry, which is counted, and never the answer.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from aligner_proxy.audit import recorder
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy_fleet.entries import EntryCodec
from aligner_proxy_fleet.leases import SharedEntries
from aligner_proxy_fleet.server import WAIT_S, RedisServer
from aligner_proxy_fleet.shared_cache import SharedCache
from tests.audit.conftest import counted
from tests.faults import faults
from tests.faults.cells import Cell, Fault, cells, check, every_kind
from tests.faults.test_by_the_hooks import Engine, close, deliver, guard
from tests.support.redis_server import WELL_S, RedisProcess, needs_redis, redis_process

Spoil = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """One server for all cells."""
    with redis_process(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(running: RedisProcess) -> Iterator[RedisProcess]:
    """It, empty and well; and well again behind the cell."""
    running.command("FLUSHALL")
    yield running
    running.stop()
    running.start()


@asynccontextmanager
async def gateway(
    folder: Path,
    redis: RedisProcess,
    monkeypatch: pytest.MonkeyPatch,
    cell: Cell,
    name: str = "one",
    wait_s: float = WAIT_S,
) -> AsyncIterator[AlignerGuardrail]:
    """A gateway with a disk of its own; a machine that has other work needs more patience where Redis is well."""
    folder.mkdir(exist_ok=True)
    made = guard(folder, monkeypatch, cell, folder / name)
    entries = EntryCodec()
    shared = SharedEntries(RedisServer(redis.url, "REDIS_URL", wait_s=wait_s), entries.prefix, 3600.0)
    made.pipeline = Pipeline(Engine(lambda: None), SharedCache(folder / name, 3600.0, 8, shared, entries))
    try:
        yield made
    finally:
        await close(made)


def gone(redis: RedisProcess) -> None:
    redis.kill()


def silent(redis: RedisProcess) -> None:
    redis.signal(signal.SIGSTOP)


def full(redis: RedisProcess) -> None:
    redis.command("CONFIG", "SET", "maxmemory", "1")


def replica(redis: RedisProcess) -> None:
    """Of a server that is not there: it is read and takes no writes."""
    redis.command("REPLICAOF", "127.0.0.1", "1")


HARMS: dict[Fault, Callable[[RedisProcess], None]] = {
    faults.REDIS_GONE: gone,
    faults.REDIS_SILENT: silent,
    faults.REDIS_FULL: full,
    faults.REDIS_REPLICA: replica,
}
SPOILT: dict[Fault, Spoil] = {
    faults.REDIS_CUT: lambda entry: entry[:-9],
    faults.REDIS_ALTERED: lambda entry: entry[:-1] + bytes([entry[-1] ^ 1]),
    faults.REDIS_FOREIGN: lambda _: b"of another program",
}


@needs_redis
@every_kind
@pytest.mark.parametrize("cell", cells(tuple(HARMS)), ids=lambda cell: cell.name)
async def test_the_redis_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis: RedisProcess, cell: Cell
) -> None:
    async with gateway(tmp_path / "gateway", redis, monkeypatch, cell) as guarded:
        HARMS[cell.fault](redis)
        for _ in range(2):  # the first one finds it so, the second one finds it left alone
            check(cell, await deliver(guarded, cell))
        assert guarded.pipeline.engine.seen


@needs_redis
@every_kind
@pytest.mark.parametrize("cell", cells(tuple(SPOILT)), ids=lambda cell: cell.name)
async def test_what_redis_holds_is_spoilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis: RedisProcess, cell: Cell
) -> None:
    async with gateway(tmp_path / "gateway", redis, monkeypatch, cell, wait_s=WELL_S) as before:
        await deliver(before, cell)
    names = redis.command("KEYS", "*correction*")
    assert names
    for name in names:
        redis.command("SET", name, SPOILT[cell.fault](redis.command("GET", name)), "PX", "60000")
    async with gateway(tmp_path / "gateway", redis, monkeypatch, cell, "another", wait_s=WELL_S) as after:
        check(cell, await deliver(after, cell))
        assert after.pipeline.engine.seen, "what is spoilt is not used"


@pytest.mark.slow
@needs_redis
@pytest.mark.some(2)
@pytest.mark.parametrize("cell", cells((faults.REDIS_LEASE,)), ids=lambda cell: cell.name)
async def test_who_computes_it_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis: RedisProcess, cell: Cell
) -> None:
    """Another gateway holds the lease of this very correction, and never gives it back."""
    async with gateway(tmp_path / "gateway", redis, monkeypatch, cell, wait_s=WELL_S) as before:
        await deliver(before, cell)
    for name in redis.command("KEYS", "*correction*"):
        redis.command("DEL", name)
        redis.command("SET", name.replace(b"correction:", b"lease:"), "7", "PX", "60000")
    async with gateway(tmp_path / "gateway", redis, monkeypatch, cell, "another") as after:
        check(cell, await deliver(after, cell))
        assert after.pipeline.engine.seen


@every_kind
@pytest.mark.parametrize("cell", cells((faults.AUDIT_AWAY, faults.AUDIT_SILENT)), ids=lambda cell: cell.name)
async def test_the_audit_database_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    monkeypatch.setattr(recorder, "LAST_TRIES_S", 0.0)
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        if cell.fault is faults.AUDIT_SILENT:
            server.listen()  # connections are taken, and nothing is ever said
        monkeypatch.setenv("AUDIT_DATABASE", f"postgresql://aligner@127.0.0.1:{server.getsockname()[1]}/none")
        guarded = guard(tmp_path, monkeypatch, cell, tmp_path / "store", audit="AUDIT_DATABASE")
        lost = counted("lost")
        for _ in range(2):
            check(cell, await deliver(guarded, cell))
        await guarded._audit_writers.aclose()
    assert counted("lost") == lost + 2, "the operator is told what is missing"
    await close(guarded)
