"""Taught heads on their way to an engine: uploaded when it lacks them, and done without where that is impossible."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError

from aligner_proxy.engine.admission import LocalAdmission
from aligner_proxy.engine.api import (
    MAX_TEXTS,
    AlignRequest,
    ExchangeRows,
    ExchangeText,
    HeadSource,
    RowsRequest,
    RowsResponse,
    Teachable,
    require_teachable,
)
from aligner_proxy.engine.client.circuit_breaker import Breaker
from aligner_proxy.engine.client.completions import CompletionsClient
from aligner_proxy.engine.client.completions_aligner import CompletionsAligner
from aligner_proxy.engine.client.edited_engine import EditedEngine
from aligner_proxy.engine.client.head_supply import HeadSupply, SuppliedEngine
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.client.replicas import Replicas
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.server import app
from aligner_proxy.engine.taught_head import MAX_HEAD_BYTES, TaughtHead
from aligner_proxy.engine.wire import VERSION_HEADERS
from aligner_proxy.errors import EngineUnavailable, HeadRefused, HeadsUnavailable, InvalidOutput, UnknownHead
from aligner_proxy.prompts import TEMPLATES
from aligner_proxy.types import Correction
from tests.engine.server.test_app import bare, serving
from tests.engine.test_loop import aligner
from tests.support import tiny
from tests.support.scripted import ScriptedEngine
from tests.support.serving import Completions, completing, engine_at
from tests.support.taught import OBJECTIVE, WIDTH, head

LOUD = head(prior=0.0, bias=50.0)
NAME = LOUD.content_hash


def align_request(*heads: str, **more: Any) -> AlignRequest:
    return tiny.request(score_only=True, **more).model_copy(update={"heads": heads})


def scores(done: Correction) -> list[float | None]:
    return [segment.score for segment in done.segments]


def close(first: Correction, other: Correction) -> bool:
    """The same verdicts; what is read again is read in other chunks."""
    return scores(first) == pytest.approx(scores(other), abs=1e-4)


class Store:
    """A source of heads that counts what is taken from it."""

    def __init__(self, *heads: TaughtHead, others: Mapping[str, bytes] | None = None) -> None:
        self.kept = {each.content_hash: each.to_bytes() for each in heads} | dict(others or {})
        self.taken: list[str] = []

    def __call__(self, name: str) -> bytes | None:
        self.taken.append(name)
        return self.kept.get(name)


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    """An engine that knows no head yet."""
    local = LocalEngine(aligner)
    await local.start()
    yield local
    await local.aclose()


@contextlib.asynccontextmanager
async def client_of(engine: Any, path: Path, source: HeadSource | None = None) -> AsyncIterator[HttpEngine]:
    """A client over a socket, with this source."""
    async with serving(engine, path) as plain:
        client = HttpEngine(plain.address, wait_s=2.0, head_source=source)
        yield client
        await client.aclose()


def untaught(reason: str) -> float:
    return REGISTRY.get_sample_value("aligner_untaught_total", {"reason": reason}) or 0.0


# upload


async def test_a_head_that_the_engine_lacks_is_uploaded_once(engine: LocalEngine, tmp_path: Path) -> None:
    store = Store(LOUD)
    async with client_of(engine, tmp_path / "e.sock", store) as client:
        for _ in range(3):
            done = await client.align(align_request(NAME))
            assert scores(done) == [50.0] * 4
            assert done.untaught == 0
    assert store.taken == [NAME]
    assert scores(await engine.align(align_request(NAME))) == [50.0] * 4


async def test_an_engine_that_began_anew_gets_its_heads_again(tmp_path: Path) -> None:
    store = Store(LOUD)
    client = HttpEngine(f"unix:{tmp_path / 'e.sock'}", wait_s=2.0, head_source=store)
    for _ in range(2):
        fresh = LocalEngine(aligner)
        await fresh.start()
        async with serving(fresh, tmp_path / "e.sock"):
            assert scores(await client.align(align_request(NAME))) == [50.0] * 4
            await client.aclose()
        await fresh.aclose()
    assert store.taken == [NAME] * 2


async def test_a_session_is_opened_with_the_heads_that_it_needs(engine: LocalEngine, tmp_path: Path) -> None:
    async with client_of(LocalAdmission(engine), tmp_path / "e.sock", Store(LOUD)) as client:
        session = await client.read(align_request(NAME).model_copy(update={"answer": ""}))
        await session.feed(tiny.ANSWER)
        verdicts = await session.wait_for_verdicts(0)
        assert verdicts
        assert {verdict.score for verdict in verdicts} == {50.0}
        done = await session.finish(align_request(NAME))
        assert scores(done) == [50.0] * 4
        assert done.untaught == 0


async def test_a_session_without_its_head_is_judged_by_the_general_one(engine: LocalEngine, tmp_path: Path) -> None:
    expected = await engine.align(align_request())
    async with client_of(engine, tmp_path / "e.sock", Store()) as client:
        session = await client.read(align_request(NAME).model_copy(update={"answer": ""}))
        await session.feed(tiny.ANSWER)
        await session.end()
        verdicts = await session.wait_for_verdicts(3)
        assert verdicts is not None
        assert [verdict.score for verdict in verdicts] == pytest.approx(scores(expected), abs=1e-4)
        done = await session.finish(align_request(NAME))
        assert close(done, expected)
        assert done.untaught == 1


async def test_a_head_lost_while_an_answer_was_read_costs_nothing_but_time(tmp_path: Path) -> None:
    subject = aligner()
    engine = LocalEngine(lambda: subject)
    await engine.start()
    async with client_of(engine, tmp_path / "e.sock", Store(LOUD)) as client:
        session = await client.read(align_request(NAME).model_copy(update={"answer": ""}))
        await session.feed(tiny.ANSWER)
        assert await session.wait_for_verdicts(0)
        subject.runner.loaded_heads._heads.clear()
        done = await session.finish(align_request(NAME))
        assert scores(done) == [50.0] * 4
    await engine.aclose()


@pytest.mark.parametrize(
    "wrap", [lambda client: Replicas([("a", client)]), Breaker, lambda client: Breaker(Replicas([("a", client)]))]
)
async def test_whatever_stands_before_an_engine_passes_heads_on(
    engine: LocalEngine, tmp_path: Path, wrap: Callable[[HttpEngine], Any]
) -> None:
    async with client_of(LocalAdmission(engine), tmp_path / "e.sock", Store(LOUD)) as client:
        subject = wrap(client)
        assert isinstance(subject, Teachable)
        assert scores(await subject.align(align_request(NAME))) == [50.0] * 4
        other = head(prior=0.0, bias=7.0)
        assert await subject.put_head(other.to_bytes()) == other.content_hash
        assert scores(await engine.align(align_request(other.content_hash))) == [7.0] * 4
        assert (await subject.rows(rows_request())).width == WIDTH


async def test_all_replicas_get_a_head(tmp_path: Path) -> None:
    engines = [LocalEngine(aligner) for _ in range(2)]
    for each in engines:
        await each.start()
    async with engine_at(engines[0]) as first, engine_at(engines[1]) as second:
        gone = ("gone", HttpEngine(f"unix:{tmp_path / 'none.sock'}", wait_s=0.0))
        together = Replicas([gone, ("a", HttpEngine(first)), ("b", HttpEngine(second))])
        assert await together.put_head(LOUD.to_bytes()) == NAME
        for each in engines:
            assert scores(await each.align(align_request(NAME))) == [50.0] * 4
        with pytest.raises(EngineUnavailable):
            await Replicas([gone]).put_head(LOUD.to_bytes())
        await together.aclose()
    for each in engines:
        await each.aclose()


async def test_a_scorer_before_a_remote_editor_judges_by_heads(engine: LocalEngine, tmp_path: Path) -> None:
    server = Completions(lambda _: " Thank you.")
    async with client_of(engine, tmp_path / "e.sock", Store(LOUD)) as client, completing(server) as base:
        editor = CompletionsAligner(CompletionsClient(base), TEMPLATES["ultrafeedback"])
        subject = EditedEngine(client, editor)
        assert scores(await subject.align(align_request(NAME))) == [50.0] * 4
        session = await subject.read(align_request(NAME).model_copy(update={"answer": ""}))
        await session.feed(tiny.ANSWER)
        assert scores(await session.finish(align_request(NAME))) == [50.0] * 4
        lacking = await subject.align(tiny.request(caution=-1e9).model_copy(update={"heads": ("f" * 64,)}))
        assert lacking.untaught == 1
        assert server.asked
        assert (await subject.rows(rows_request())).aligner == "hash0"
        assert await subject.put_head(LOUD.to_bytes()) == NAME
        await subject.aclose()


async def test_an_engine_in_this_process_gets_them_from_the_same_source(engine: LocalEngine) -> None:
    subject = SuppliedEngine(engine, Store(LOUD))
    assert scores(await subject.align(align_request(NAME))) == [50.0] * 4
    assert scores(await (await subject.read(align_request(NAME))).finish(align_request(NAME))) == [50.0] * 4
    lacking = await subject.align(align_request("f" * 64))
    assert (close(lacking, await engine.align(align_request())), lacking.untaught) == (True, 1)
    assert isinstance(subject, Teachable)
    assert await subject.info() == await engine.info()


# without


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "missing"),
        (Store(), "missing"),
        (Store(others={NAME: b"noise"}), "damaged"),
        (Store(others={NAME: head().to_bytes()}), "damaged"),
    ],
)
async def test_where_a_head_cannot_be_had_the_general_head_judges_alone(
    engine: LocalEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture, source: HeadSource | None, reason: str
) -> None:
    before = untaught(reason)
    expected = await engine.align(align_request())
    async with client_of(engine, tmp_path / "e.sock", source) as client:
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                done = await client.align(align_request(NAME))
                assert close(done, expected)
                assert done.untaught == 1
    assert untaught(reason) == before + 3
    lines = [record.getMessage() for record in caplog.records if "taught head" in record.getMessage()]
    assert len(lines) == 1, "once a minute"
    assert NAME[:8] in lines[0]
    assert OBJECTIVE not in lines[0]


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        (head(aligner="another", prior=0.0, bias=50.0), "head_refused"),
        (head(width=64, prior=0.0), "head_refused"),
        (head("Brevity: short", prior=0.0, bias=50.0), "objective"),
    ],
)
async def test_a_head_that_does_not_fit_never_judges_and_never_fails_an_answer(
    engine: LocalEngine, tmp_path: Path, subject: TaughtHead, reason: str
) -> None:
    before = untaught(reason)
    expected = await engine.align(align_request())
    store = Store(subject)
    async with client_of(engine, tmp_path / "e.sock", store) as client:
        for _ in range(3):
            done = await client.align(align_request(subject.content_hash))
            assert (close(done, expected), done.untaught) == (True, 1)
    assert untaught(reason) == before + 3
    assert store.taken == [subject.content_hash], "it is not offered again at once"


async def test_the_other_heads_of_a_request_judge_all_the_same(engine: LocalEngine, tmp_path: Path) -> None:
    wishes = ("Brevity: short", OBJECTIVE)
    async with client_of(engine, tmp_path / "e.sock", Store(LOUD)) as client:
        request = align_request("f" * 64, NAME).model_copy(update={"objectives": wishes})
        done = await client.align(request)
        assert (scores(done), done.untaught) == ([50.0] * 4, 1)


async def test_a_head_known_to_the_engine_under_another_objective_is_not_used(
    engine: LocalEngine, tmp_path: Path
) -> None:
    await engine.put_head(LOUD.to_bytes())
    wishes = ("Brevity: short",)
    expected = await engine.align(align_request().model_copy(update={"objectives": wishes}))
    async with client_of(engine, tmp_path / "e.sock", Store(LOUD)) as client:
        done = await client.align(align_request(NAME).model_copy(update={"objectives": wishes}))
        assert (close(done, expected), done.untaught) == (True, 1)


async def test_a_head_that_was_missing_is_used_as_soon_as_it_is_there_again(engine: LocalEngine) -> None:
    now = [0.0]
    store = Store()
    supply = HeadSupply(store, engine.put_head, clock=lambda: now[0])
    assert (await supply.upload_heads(align_request(NAME))).heads == ()
    store.kept[NAME] = LOUD.to_bytes()
    assert (await supply.upload_heads(align_request(NAME))).heads == ()
    now[0] += 31.0
    assert (await supply.upload_heads(align_request(NAME))).heads == (NAME,)
    assert supply.drop_absent_heads(align_request(NAME)).heads == (NAME,)


async def test_an_engine_that_forgets_at_once_is_asked_without_heads(tmp_path: Path) -> None:
    class Forgetful(ScriptedEngine):
        """Takes heads, and has none."""

        async def put_head(self, data: bytes) -> str:
            return TaughtHead.from_bytes(data).content_hash

        async def align(self, request: AlignRequest) -> Correction:
            if request.heads:
                raise UnknownHead("no such head")
            return await super().align(request)

    forgetful = Forgetful()
    forgetful.rows = lambda _: []
    async with client_of(forgetful, tmp_path / "e.sock", Store(LOUD)) as client:
        before = untaught("lost")
        done = await client.align(align_request(NAME))
        assert (done.text, done.untaught) == (tiny.ANSWER, 1)
        assert untaught("lost") == before + 1


async def test_the_deadline_covers_the_upload_and_the_second_request(tmp_path: Path) -> None:
    left: list[float] = []

    class Slow(ScriptedEngine):
        async def put_head(self, data: bytes) -> str:
            await asyncio.sleep(0.3)
            return TaughtHead.from_bytes(data).content_hash

        async def align(self, request: AlignRequest) -> Correction:
            left.append(request.deadline_s)
            if len(left) == 1:
                raise UnknownHead("no such head")
            return await super().align(request)

    slow = Slow()
    slow.rows = lambda _: []
    async with client_of(slow, tmp_path / "e.sock", Store(LOUD)) as client:
        await client.align(align_request(NAME, deadline_s=5.0))
    assert left[1] < left[0] - 0.25


# the server


async def test_a_head_is_taken_under_its_own_hash_only(engine: LocalEngine, tmp_path: Path) -> None:
    async with serving(engine, tmp_path / "e.sock"), bare(tmp_path / "e.sock") as http:

        async def put(name: str, data: bytes) -> tuple[int, str]:
            reply = await http.put(f"/v1/heads/{name}", content=data, headers=VERSION_HEADERS)
            return reply.status_code, reply.json()["error"]["message"] if reply.content else ""

        assert await put(NAME, LOUD.to_bytes()) == (204, "")
        status, message = await put("f" * 64, LOUD.to_bytes())
        assert (status, message) == (422, "the hash of the taught head differs from its path; upload it again")
        damaged = TaughtHead(OBJECTIVE, "hash0", 1.0, 0.0, b"\0\x7c" * WIDTH)
        status, message = await put(damaged.content_hash, damaged.to_bytes())
        assert (status, message) == (422, "a taught head with a number that is not finite")
        status, message = await put("f" * 64, bytes(MAX_HEAD_BYTES + 1))
        assert (status, message) == (422, f"a taught head may have at most {MAX_HEAD_BYTES} bytes")
        unknown = await http.post(
            "/v1/corrections", content=align_request("e" * 64).model_dump_json(), headers=VERSION_HEADERS
        )
        assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "unknown_head")
        assert "eeeeeeee;" in unknown.json()["error"]["message"]
        assert "e" * 9 not in unknown.json()["error"]["message"]


async def test_a_client_is_told_why_a_head_was_refused(engine: LocalEngine, tmp_path: Path) -> None:
    async with client_of(engine, tmp_path / "e.sock") as client:
        with pytest.raises(HeadRefused, match="for aligner elsewhere, but this engine serves hash0"):
            await client.put_head(head(aligner="elsewhere").to_bytes())
        with pytest.raises(HeadRefused, match="8 numbers, but rows of aligner hash0 have 192"):
            await client.put_head(head(width=8).to_bytes())
        with pytest.raises(HeadRefused, match="first line"):
            await client.put_head(b"noise")


async def test_an_engine_without_a_model_takes_no_heads(tmp_path: Path) -> None:
    async with client_of(ScriptedEngine(), tmp_path / "e.sock") as client:
        with pytest.raises(HeadsUnavailable, match="nothing can be taught"):
            await client.put_head(LOUD.to_bytes())
        with pytest.raises(HeadsUnavailable):
            await client.rows(rows_request())
    with pytest.raises(HeadsUnavailable):
        require_teachable(ScriptedEngine())


# rows


def rows_request(*answers: str) -> RowsRequest:
    turns = tiny.request().turns
    exchanges = tuple(ExchangeText(turns=turns, answer=answer) for answer in answers or (tiny.ANSWER,))
    return RowsRequest(request_id="rows", exchanges=exchanges, objectives=(OBJECTIVE,), deadline_s=60)


def numbers(read: ExchangeRows) -> tuple[float, ...]:
    """All rows of an answer, one behind the other."""
    data = b64decode(read.rows)
    return struct.unpack(f"<{len(data) // 2}e", data)


async def test_rows_travel_whole(engine: LocalEngine, tmp_path: Path) -> None:
    request = rows_request(tiny.ANSWER, tiny.CORPUS[5], " ")
    async with client_of(LocalAdmission(engine), tmp_path / "e.sock") as client:
        got, expected = await client.rows(request), await engine.rows(request)
    assert (got.aligner, got.width) == (expected.aligner, expected.width) == ("hash0", WIDTH)
    for each, other in zip(got.exchanges, expected.exchanges, strict=True):
        assert each.segments == other.segments
        assert [row[0] for row in each.scores] == pytest.approx([row[0] for row in other.scores], abs=1e-4)
        assert numbers(each) == pytest.approx(numbers(other), abs=2e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda reply: reply | {"exchanges": []},
        lambda reply: reply | {"width": WIDTH - 1},
        lambda reply: reply | {"exchanges": [reply["exchanges"][0] | {"rows": "AAAA"}]},
        lambda reply: reply | {"exchanges": [reply["exchanges"][0] | {"scores": [[0.5]]}]},
        lambda reply: reply | {"more": 1},
    ],
)
async def test_rows_of_something_else_are_no_rows(engine: LocalEngine, change: Callable[[Any], Any]) -> None:
    honest = await engine.rows(rows_request())

    class Noisy(HttpEngine):
        async def send(self, method: str, path: str, content: bytes | None) -> bytes:
            return httpx.Response(200, json=change(honest.model_dump(mode="json"))).content

    with pytest.raises(InvalidOutput):
        await Noisy("http://engine").rows(rows_request())


def test_requests_for_rows_and_heads_are_bounded() -> None:
    exchange = ExchangeText(turns=(), answer="x")
    for wrong in (
        {"exchanges": (exchange,) * (MAX_TEXTS + 1)},
        {"exchanges": ()},
        {"objectives": ()},
        {"deadline_s": 0},
    ):
        with pytest.raises(ValidationError):
            RowsRequest(**{"request_id": "r", "exchanges": (exchange,), "objectives": ("a",), **wrong})
    for heads in ((NAME, NAME), ("short",), ("F" * 64,), (NAME + "0",)):
        with pytest.raises(ValidationError):
            AlignRequest(**(tiny.request().model_dump() | {"heads": heads}))
    assert AlignRequest(**(tiny.request().model_dump() | {"heads": ("",)})).heads == ("",)


async def test_rows_wait_for_a_place_like_any_request(engine: LocalEngine) -> None:
    admission = LocalAdmission(engine, slots=1)
    first, second = await asyncio.gather(
        admission.rows(rows_request(*[tiny.ANSWER] * 8)), admission.rows(rows_request()), return_exceptions=True
    )
    assert isinstance(first, RowsResponse)
    assert not isinstance(second, RowsResponse)


def test_the_app_names_its_routes() -> None:
    paths = {getattr(route, "path", "") for route in app.create_app(ScriptedEngine()).routes}
    assert {"/v1/rows", "/v1/heads/{name}"} <= paths
