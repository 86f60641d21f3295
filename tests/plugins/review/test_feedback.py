"""`POST /v1/feedback`: kept for answers of the caller's tenant; told apart from nothing for those of others."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException

from aligner_proxy.audit.recorder import QueueLimits, Recorder
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.audit.writer import AuditWriters
from aligner_proxy_review import feedback
from aligner_proxy_review.feedback import Feedback
from tests.audit.conftest import record
from tests.gateway.endpoints.application import Api
from tests.gateway.endpoints.application import api as api
from tests.plugins.review.conftest import reviews_in, serve_feedback

ID = "0" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with one answer of the team acme."""
    path = tmp_path / "audit.db"
    record(path, ID)
    return path


@pytest.fixture
def recorded(api: Api, path: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    """The endpoints with that store; what is not on record is looked for again without a pause."""
    monkeypatch.setattr(feedback, "PAUSES_S", (0.0, 0.0))
    serve_feedback(api, Feedback(lambda: AuditStore(path), rpm=1000))
    return api


async def test_a_word_on_an_answer_is_kept(recorded: Api, path: Path) -> None:
    said = {"verdict": "wrong", "segment": 1, "edit": "It is so, friend.", "objective": "kind"}
    got = await recorded.post("/v1/feedback", {"id": ID, **said}, "acme")
    assert (got.status_code, got.json()) == (202, {"id": ID, "choice": 0, "verdict": "wrong"})
    (review,) = reviews_in(path)
    assert (review.verdict.value, review.segment, review.edit) == ("wrong", 1, "It is so, friend.")
    assert (review.tenant, review.who, review.chosen.value) == ("team:acme", f"key:{'a' * 16}", "feedback")
    assert (review.objective, review.aligner, len(review.policy_hash)) == ("kind", "abc", 16)


@pytest.mark.parametrize(
    ("team", "said"),
    [("other", {}), ("", {}), ("acme", {"id": "f" * 32}), ("acme", {"choice": 1}), ("acme", {"id": "call-0"})],
)
async def test_what_is_not_the_callers_is_not_there(recorded: Api, path: Path, team: str, said: dict[str, Any]) -> None:
    got = await recorded.post("/v1/feedback", {"id": ID, "verdict": "right", **said}, team)
    unknown = await recorded.post("/v1/feedback", {"id": "e" * 32, "verdict": "right"}, team)
    assert (got.status_code, got.json()["error"]["param"]) == (404, "id")
    assert got.content == unknown.content
    assert reviews_in(path) == []


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"verdict": "fine"}, "verdict"),
        ({"verdict": None}, "verdict"),
        ({"segment": 2}, "segment"),
        ({"segment": -1}, "segment"),
        ({"segment": "1"}, "segment"),
        ({"objective": "rude"}, "objective"),
        ({"edit": "x" * 20_001}, "edit"),
        ({"id": "x" * 65}, "id"),
        ({"choice": True}, "choice"),
        ({"tenant": "team:other"}, "tenant"),
    ],
)
async def test_a_bad_body_is_a_400_that_names_the_field(
    recorded: Api, path: Path, said: dict[str, Any], param: str
) -> None:
    got = await recorded.post("/v1/feedback", {"id": ID, "verdict": "right", **said}, "acme")
    assert (got.status_code, got.json()["error"]["param"]) == (400, param), got.text
    assert got.json()["error"]["type"] == "invalid_request_error"
    assert "xxxx" not in got.text
    assert reviews_in(path) == []


async def test_without_an_audit_store_it_is_a_409(api: Api) -> None:
    got = await api.post("/v1/feedback", {"id": ID, "verdict": "right"}, "acme")
    assert got.status_code == 409
    assert "audit" in got.json()["error"]["message"]


async def test_an_entry_that_is_still_on_its_way_is_waited_for(
    recorded: Api, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    written = feedback._save_redacted

    def late(*given: Any) -> None:
        nonlocal looked
        looked += 1
        if looked == 3:
            record(path, "1" * 32)
        written(*given)

    monkeypatch.setattr(feedback, "_save_redacted", late)
    got = await recorded.post("/v1/feedback", {"id": "1" * 32, "verdict": "right"}, "acme")
    assert (got.status_code, looked, len(reviews_in(path))) == (202, 3, 1)


async def test_only_so_many_ids_are_looked_for_again(
    recorded: Api, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    begun = asyncio.Event()
    go_on = asyncio.Event()

    def written(*given: Any) -> None:
        nonlocal looked
        looked += 1
        raise feedback.UnknownAnswer

    async def pause(_: float) -> None:
        begun.set()
        await go_on.wait()

    monkeypatch.setattr(feedback, "_save_redacted", written)
    monkeypatch.setattr(feedback, "MAX_LOOKED_FOR", 1)
    monkeypatch.setattr(feedback.asyncio, "sleep", pause)
    body = {"id": "1" * 32, "verdict": "right"}
    first = asyncio.create_task(recorded.post("/v1/feedback", body, "acme"))
    await begun.wait()
    assert (await recorded.post("/v1/feedback", body, "acme")).status_code == 404
    assert looked == 2, "the second one was looked for once"
    go_on.set()
    assert (await first).status_code == 404
    assert looked == 4


async def test_a_tenant_may_send_so_many_a_minute(recorded: Api, path: Path) -> None:
    serve_feedback(recorded, Feedback(lambda: AuditStore(path), rpm=2))
    body = {"id": ID, "verdict": "right"}
    got = [await recorded.post("/v1/feedback", body, "acme") for _ in range(3)]
    assert [one.status_code for one in got] == [202, 202, 429]
    assert got[2].headers["retry-after"] == "60"
    assert got[2].json()["error"]["type"] == "rate_limit_error"
    other = await recorded.post("/v1/feedback", body, "other")
    assert other.status_code == 404, "the limit of one tenant is not another's"


async def test_the_limits_of_the_key_hold(recorded: Api, path: Path) -> None:
    class Full:
        @contextlib.asynccontextmanager
        async def request_capacity(self, caller: Any, model: str, *, request_data: Any) -> AsyncIterator[None]:
            raise HTTPException(429, "Rate limit exceeded", {"retry-after": "60"})
            yield

    recorded.limiter = Full()
    got = await recorded.post("/v1/feedback", {"id": ID, "verdict": "right"}, "acme")
    assert got.status_code == 429
    assert reviews_in(path) == []


async def test_a_store_that_cannot_be_written_is_a_503(recorded: Api, path: Path) -> None:
    serve_feedback(recorded, Feedback(lambda: AuditStore(path, busy_s=0.0), rpm=9))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        got = await recorded.post("/v1/feedback", {"id": ID, "verdict": "right"}, "acme")
    assert got.status_code == 503
    assert "SQLITE_BUSY" in got.json()["error"]["message"]


async def test_an_unknown_id_does_not_take_the_store_from_those_who_write(recorded: Api, path: Path) -> None:
    serve_feedback(recorded, Feedback(lambda: AuditStore(path, busy_s=0.0), rpm=9))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        got = await recorded.post("/v1/feedback", {"id": "f" * 32, "verdict": "right"}, "acme")
    assert got.status_code == 404


async def test_what_a_person_writes_is_redacted(recorded: Api, path: Path) -> None:
    serve_feedback(recorded, Feedback(lambda: AuditStore(path), 9, lambda text: text.replace("4711", "****")))
    body = {"id": ID, "verdict": "wrong", "edit": "Order 4711.", "objective": "No 4711: never say 4711"}
    assert (await recorded.post("/v1/feedback", body, "acme")).status_code == 202
    (review,) = reviews_in(path)
    assert (review.edit, review.objective) == ("Order ****.", "No ****: never say ****")


async def test_an_answer_of_the_endpoints_can_be_spoken_of_by_its_id(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.guard._audit_writers = api.guard._auditor = _writers(tmp_path / "own.db")
    serve_feedback(api, Feedback(lambda: AuditStore(tmp_path / "own.db"), 9))
    got = await api.align("It is so. You fool.", "acme")
    assert got.json()["aligner_id"] == got.headers["x-aligner-id"]
    body = {"id": got.json()["aligner_id"], "verdict": "right", "segment": 1}
    assert (await api.post("/v1/feedback", body, "acme")).status_code == 202
    await api.guard._audit_writers.aclose()


def _writers(path: Path) -> AuditWriters:
    return AuditWriters([Recorder(lambda: AuditStore(path), QueueLimits(2**24))])


async def test_it_stands_in_the_openapi_document(api: Api) -> None:
    operation = (await api.http.get("/openapi.json")).json()["paths"]["/v1/feedback"]["post"]
    form = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(form["required"]) == {"id", "verdict"}
    assert form["properties"]["verdict"]["enum"] == ["right", "wrong", "harm", "missed"]
    assert {"202", "400", "404", "409", "429"} <= set(operation["responses"])
