"""Faults of the cache's store, the audit store and the clock, by the hooks that LiteLLM calls; stores of a cell's own.

The errors are sqlite's own: a store may be told to have no more pages, or to be only read, and remembers that.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import diskcache
import pytest
import yaml
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.types.utils import ModelResponse, ModelResponseStream

from aligner_proxy.audit import recorder, writer
from aligner_proxy.audit.store import AuditStore, Seal
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.gateway import litellm_internals, reload
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Correction
from tests.audit.conftest import counted
from tests.faults import faults
from tests.faults.cells import CORRECTED, INSIDE, ORIGINAL, REFUSED, Cell, Fault, Seen, cells, check, every_kind
from tests.faults.conftest import policies
from tests.faults.faulty_upstream import INSULT, KIND, RUDE
from tests.support.scripted import ScriptedEngine

ROUTE = "/v1/chat/completions"
DAY_S = 86_400.0


class Engine(ScriptedEngine):
    """Takes the insult out; while it works, something may happen."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__(lambda request: request.answer.replace(INSULT, ""))
        self.meanwhile = meanwhile

    async def align(self, request: AlignRequest) -> Correction:
        """Let it happen."""
        self.meanwhile()
        return await super().align(request)


def noise(store: Path) -> None:
    (store / "cache.db").write_bytes(bytes(range(256)) * 200)


def torn(store: Path) -> None:
    with sqlite3.connect(store / "cache.db") as base:
        ((value,),) = base.execute("SELECT value FROM Cache").fetchall()
        base.execute("UPDATE Cache SET value = ?", (value[:-9] + bytes([value[-9] ^ 1]) + value[-8:],))
    base.close()


def settled(store: Path, **settings: Any) -> None:
    """Settings of sqlite that the store keeps to whenever it is opened."""
    cache = diskcache.Cache(str(store))
    with sqlite3.connect(store / "cache.db") as base:
        base.execute("DELETE FROM Cache")
        pages = base.execute("PRAGMA page_count").fetchone()[0]
        base.executemany(
            "INSERT OR REPLACE INTO Settings (key, value) VALUES (?, ?)",
            [(f"sqlite_{name}", pages if value is ... else value) for name, value in settings.items()],
        )
    base.close()
    cache.close()


def a_file(store: Path) -> None:
    for path in sorted(store.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    store.rmdir()
    store.write_text("")


STORES: dict[Fault, Callable[[Path], None]] = {
    faults.NOISY_STORE: noise,
    faults.TORN_ENTRY: torn,
    faults.READ_ONLY: lambda store: settled(store, query_only=1),
    faults.DISK_FULL: lambda store: settled(store, max_page_count=...),
    faults.NO_FOLDER: a_file,
}
JUMPS = {faults.FORWARD: DAY_S, faults.BACK: -DAY_S}


@every_kind
@pytest.mark.parametrize("cell", cells(tuple(STORES)), ids=lambda cell: cell.name)
async def test_the_store_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    store = tmp_path / "store"
    before = guard(tmp_path, monkeypatch, cell, store)
    assert (await deliver(before, cell)).what == CORRECTED
    await close(before)
    STORES[cell.fault](store)
    after = guard(tmp_path, monkeypatch, cell, store)
    for _ in range(2):  # the first one finds it broken, the second one finds it left alone
        got = await deliver(after, cell)
        check(cell, got)
    assert after.pipeline.engine.seen, "it came from the cache"
    await close(after)


@every_kind
@pytest.mark.parametrize("cell", cells(tuple(JUMPS)), ids=lambda cell: cell.name)
async def test_the_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    """Deadlines, pauses and the age of what is cached go by clocks that do not jump."""
    right = time.time

    def jump() -> None:
        monkeypatch.setattr(time, "time", lambda: right() + JUMPS[cell.fault])

    guarded = guard(tmp_path, monkeypatch, cell, tmp_path / "store", jump)
    check(cell, await deliver(guarded, cell))
    again = await deliver(guarded, cell)
    monkeypatch.setattr(time, "time", right)
    check(cell, again)
    await close(guarded)


@contextmanager
def noisy(file: Path) -> Iterator[None]:
    file.write_bytes(bytes(range(256)) * 200)
    yield


@contextmanager
def locked(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def full(file: Path) -> Iterator[None]:
    """Every entry needs a further page, and there is none; sqlite forgets that with the connection."""
    with closing(sqlite3.connect(file)) as base:
        base.execute("CREATE TABLE ballast (bytes)")
        large = "INSERT INTO ballast VALUES (zeroblob(8192))"
        base.execute(f"CREATE TRIGGER large BEFORE INSERT ON entries BEGIN {large}; END")
        pages = base.execute("PRAGMA page_count").fetchone()[0]

    def opened(path: Path, seal: Seal | None, **settings: Any) -> AuditStore:
        made = AuditStore(path, seal, **settings)
        made._connection.execute(f"PRAGMA max_page_count = {pages}")
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "open_store", opened)
        yield


@contextmanager
def below_a_file(file: Path) -> Iterator[None]:
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("")
    yield


AUDITS: dict[Fault, Callable[[Path], AbstractContextManager[None]]] = {
    faults.NOISY_AUDIT: noisy,
    faults.LOCKED_AUDIT: locked,
    faults.FULL_AUDIT: full,
    faults.NO_AUDIT_FOLDER: below_a_file,
}


@every_kind
@pytest.mark.parametrize("cell", cells(tuple(AUDITS)), ids=lambda cell: cell.name)
async def test_the_audit_store_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    file = tmp_path / "audit" / "audit.db"
    AuditStore(file).close()
    monkeypatch.setattr(recorder, "LAST_TRIES_S", 0.0)
    guarded = guard(tmp_path, monkeypatch, cell, tmp_path / "store", audit=file)
    lost = counted("lost")
    with AUDITS[cell.fault](file):
        check(cell, await deliver(guarded, cell))
        check(cell, await deliver(guarded, cell))
        await guarded._audit_writers.aclose()
    assert counted("lost") == lost + 2, "the operator is told what is missing"
    await close(guarded)


def guard(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    cell: Cell,
    store: Path,
    meanwhile: Callable[[], None] = lambda: None,
    audit: Path | str | None = None,
) -> AlignerGuardrail:
    """The guardrail of the cell's policy, with a real store; `audit` is an audit store's file or its URL's variable."""
    where = {"database_env": audit} if isinstance(audit, str) else {"file": str(audit)}
    kept = {"audit": {"enabled": True, **where}} if audit else {}
    made = open_guardrail(folder, monkeypatch, policies(cell) | kept)
    made.pipeline = Pipeline(Engine(meanwhile), CorrectionCache(store, DAY_S / 2, 8))
    return made


def open_guardrail(folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> AlignerGuardrail:
    """The guardrail of these policies. No thread looks at its files, so that nothing is left of it behind the cell."""
    monkeypatch.setattr(litellm_internals, "config_folder", lambda: folder)
    monkeypatch.setattr(reload, "keep_checking", lambda _: None)
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
    reload._watch_policies.cache_clear()
    (folder / "policies.yaml").write_text(yaml.safe_dump(settings))
    return AlignerGuardrail(guardrail_name="aligner", default_on=True, event_hook="post_call")


async def close(guarded: AlignerGuardrail) -> None:
    assert guarded.pipeline.cache is not None
    await guarded.pipeline.cache.aclose()


async def deliver(
    guarded: AlignerGuardrail,
    cell: Cell,
    said: str = RUDE,
    corrected: str = KIND,
    headers: Mapping[str, str] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Seen:
    """What the client gets of one request that the upstream answers with what is `said`, after something happened."""
    user = UserAPIKeyAuth(api_key="a" * 64, request_route=ROUTE)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    data = {"model": cell.model, "litellm_call_id": "1", "messages": question, "metadata": {}}
    data["proxy_server_request"] = {"headers": dict(headers or {})}
    try:
        async with asyncio.timeout(30):
            await guarded.async_pre_call_hook(user, None, data, "acompletion")
            meanwhile()
            text = await (_streamed if cell.mode.stream else _whole)(guarded, user, data, said)
    except ProxyException as error:
        if str(error.code) == "403":
            return Seen(REFUSED)
        # LiteLLM tells an error of a stream that it has begun to send inside it.
        return Seen(INSIDE if cell.mode.stream == "sentence" else f"error {error.code}")
    return Seen({corrected: CORRECTED, said: ORIGINAL}.get(text, text))


async def _whole(guarded: AlignerGuardrail, user: UserAPIKeyAuth, data: dict[str, Any], said: str) -> str:
    choices = [{"index": 0, "finish_reason": "stop", "message": {"content": said}}]
    response = ModelResponse(id="1", created=1, model="m", choices=choices)
    got = await guarded.async_post_call_success_hook(data, user, response)
    return str((got or response).choices[0].message.content)


async def _streamed(guarded: AlignerGuardrail, user: UserAPIKeyAuth, data: dict[str, Any], said: str) -> str:
    items = guarded.async_post_call_streaming_iterator_hook(user, _chunks(said), data)
    chunks = [item async for item in items if isinstance(item, ModelResponseStream)]
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


async def _chunks(said: str) -> AsyncIterator[ModelResponseStream]:
    told = [*(({"content": said[at : at + 8]}, None) for at in range(0, len(said), 8)), ({}, "stop")]
    for delta, why in told:
        yield ModelResponseStream(id="1", choices=[{"index": 0, "delta": delta, "finish_reason": why}])
