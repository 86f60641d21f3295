"""The engine's HTTP form over real sockets, with its own client and with a bare one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine import sockets, wire
from aligner_proxy.engine.admission import LocalAdmission
from aligner_proxy.engine.api import AlignRequest, DeferredSession, Engine
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.server import app
from aligner_proxy.engine.wire import MAX_BODY_BYTES, parse_error
from aligner_proxy.errors import (
    AnswerTooLong,
    ConfigError,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineMismatch,
    EngineOverloaded,
    EngineUnavailable,
    InvalidOutput,
    QuotaSpent,
    SessionLost,
    Shed,
    UnknownAligner,
)
from aligner_proxy.types import Correction, DecodeCounts, SegmentScore
from tests.support import tiny
from tests.support.scripted import SCRIPTED, ScriptedEngine


@contextlib.asynccontextmanager
async def serving(engine: Engine, path: Path) -> AsyncIterator[HttpEngine]:
    """`engine` behind a unix socket, and a client of it."""
    with sockets.listen_on_unix_socket(path) as listener:
        config = uvicorn.Config(app.create_app(engine), log_config=None, lifespan="off")
        served = uvicorn.Server(config)
        task = asyncio.create_task(served.serve(sockets=[listener]))
        client = HttpEngine(f"unix:{path}", wait_s=2.0)
        try:
            yield client
        finally:
            await client.aclose()
            served.should_exit = True
            await task


@contextlib.asynccontextmanager
async def bare(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(verify=False, uds=str(path))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=20) as client:
        yield client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "engine.sock"


async def test_a_correction_travels_whole(path: Path) -> None:
    segments = (SegmentScore("You are a fool.", 3.5, True), SegmentScore("Bring a coat.", None, False))
    told = Correction("Bring a coat.", segments, DecodeCounts(9, 5, 1, 2, 3), 120, 8.25, "hash")
    async with serving(ScriptedEngine(lambda _: told), path) as client:
        assert await client.align(tiny.request()) == told
        assert await client.info() == SCRIPTED


async def test_the_aligners_of_an_engine_are_told_and_chosen_over_the_wire(path: Path) -> None:
    about = replace(SCRIPTED, others={"legal": replace(SCRIPTED, content_hash="legal's", window=512)})
    async with serving(ScriptedEngine(about=about), path) as client:
        assert await client.info() == about
        assert (await client.align(tiny.request(aligner="legal"))).aligner == "legal's"
        with pytest.raises(UnknownAligner, match="it has: default, legal"):
            await client.align(tiny.request(aligner="sales"))


async def test_a_real_engine_behind_the_socket_corrects(path: Path) -> None:
    engine = LocalEngine(tiny.aligner)
    async with serving(engine, path) as client, bare(path) as http:
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/ready")).status_code == 503
        await engine.start()
        assert (await http.get("/ready")).status_code == 200
        result = await client.align(tiny.request(caution=1e9))
        assert result.text == tiny.ANSWER
    await engine.aclose()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AnswerTooLong("long"), 413),
        (DeadlineExceeded("late"), 504),
        (EngineOverloaded("full", 60.0), 429),
        (Shed("full", 60.0), 429),
        (QuotaSpent("used up"), 429),
        (InvalidOutput("garbage"), 502),
        (SessionLost("forgotten"), 410),
        (EngineUnavailable("loading"), 503),
        (EngineFault("broken"), 500),
        (UnknownAligner("nobody"), 404),
        (ValueError("odd"), 500),
    ],
)
async def test_errors_keep_their_type_over_the_wire(path: Path, error: Exception, status: int) -> None:
    async with serving(ScriptedEngine(lambda _: error), path) as client, bare(path) as http:
        response = await http.post("/v1/corrections", content=tiny.request().model_dump_json())
        assert response.status_code == status
        kind = type(error) if isinstance(error, CorrectionError) else EngineFault
        assert response.json()["error"]["type"] == kind.reason
        with pytest.raises(kind) as caught:
            await client.align(tiny.request(deadline_s=20.0))
        if isinstance(caught.value, EngineOverloaded):
            assert caught.value.retry_after_s == 60.0
            assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("60", "60000")


async def test_an_engine_of_another_version_is_named_at_both_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(ScriptedEngine(), path) as client, bare(path) as http:
        response = await http.get("/info", headers={wire.HEADER: "1", wire.RELEASE: "0.0.9"})
        assert response.status_code == 409
        said = "the gateway is of another version (aligner-proxy 0.0.9, wire 1) than the engine"
        assert said in response.json()["error"]["message"]
        monkeypatch.setattr(wire, "VERSION_HEADERS", {})  # as of an older engine
        assert (await client.align(tiny.request())).text == tiny.ANSWER
        refused = tiny.request().model_copy(update={"objectives": ()})
        with pytest.raises(EngineMismatch, match=r"the engine is of another version .*an older release.*same aligner"):
            await client.align(refused)
        monkeypatch.setattr(wire, "VERSION_HEADERS", {wire.HEADER: "99", wire.RELEASE: "9.9"})
        for ask in (client.info(), client.align(tiny.request())):
            with pytest.raises(EngineMismatch, match=r"another version \(aligner-proxy 9.9, wire 99\)"):
                await ask


@pytest.mark.parametrize(
    ("body", "named"),
    [(b"{", "body"), (b'{"request_id": "r"}', "turns"), (b'{"answer": "SECRET", "objectives": []}', "objectives")],
)
async def test_a_bad_request_names_the_field_and_never_its_text(path: Path, body: bytes, named: str) -> None:
    async with serving(ScriptedEngine(), path), bare(path) as http:
        response = await http.post("/v1/corrections", content=body)
        assert response.status_code == 422
        assert response.json()["error"]["type"] == "bad_request"
        assert named in response.json()["error"]["message"]
        assert "SECRET" not in response.text


async def test_an_enormous_body_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_BODY_BYTES", 1000)
    async with serving(ScriptedEngine(), path), bare(path) as http:
        response = await http.post("/v1/corrections", content=b"x" * 5000)
        assert response.status_code == 413


async def test_a_client_that_goes_away_cancels_its_request(path: Path) -> None:
    engine = ScriptedEngine(delay_s=30)
    async with serving(engine, path) as client:
        task = asyncio.create_task(client.align(tiny.request()))
        while not engine.seen:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            while not engine.cancelled:
                await asyncio.sleep(0.01)


async def test_the_deadline_covers_everything_and_is_not_spent_twice(path: Path) -> None:
    engine = ScriptedEngine(delay_s=30)
    async with serving(engine, path) as client:
        with pytest.raises(DeadlineExceeded):
            await client.align(tiny.request(deadline_s=3.0))
        assert engine.seen == ["r1"]


async def test_an_engine_that_is_still_loading_is_asked_again(path: Path) -> None:
    answers: list[str | Exception] = [EngineUnavailable("loading"), EngineOverloaded("full", 0.05), "edited"]

    def script(_: AlignRequest) -> str | Correction | Exception:
        return answers.pop(0)

    engine = ScriptedEngine(script)
    async with serving(engine, path) as client:
        assert (await client.align(tiny.request())).text == "edited"
    assert len(engine.seen) == 3


async def test_a_fault_is_not_asked_again(path: Path) -> None:
    engine = ScriptedEngine(lambda _: EngineFault("broken"))
    async with serving(engine, path) as client:
        with pytest.raises(EngineFault):
            await client.align(tiny.request())
    assert len(engine.seen) == 1


async def test_nobody_there_is_unavailable_within_the_patience(path: Path) -> None:
    client = HttpEngine(f"unix:{path}", wait_s=0.3)
    async with asyncio.timeout(5):
        with pytest.raises(EngineUnavailable, match="no engine answers at unix:"):
            await client.align(tiny.request())
    await client.aclose()


async def test_an_engine_that_comes_up_in_time_is_found(path: Path) -> None:
    client = HttpEngine(f"unix:{path}", wait_s=10)
    task = asyncio.create_task(client.align(tiny.request()))
    await asyncio.sleep(0.2)
    async with serving(ScriptedEngine(lambda _: "edited"), path):
        assert (await task).text == "edited"
        await client.aclose()


async def test_info_is_believed_for_a_while_and_forgotten_when_the_connection_is_lost(path: Path) -> None:
    engine = ScriptedEngine()
    async with serving(engine, path) as client:
        assert (await client.info()).content_hash == SCRIPTED.content_hash
        engine.about = tiny.aligner().info
        assert (await client.info()).content_hash == SCRIPTED.content_hash
    client = HttpEngine(f"unix:{path}", wait_s=0.1)
    with pytest.raises(EngineUnavailable):
        await client.info()
    async with serving(engine, path):
        assert (await client.info()).content_hash == "hash0"
        await client.aclose()


async def test_something_else_at_the_address_is_no_correction(path: Path) -> None:
    async def other(scope: dict[str, object], receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"hello"})  # type: ignore[operator]

    with sockets.listen_on_port("127.0.0.1", 0) as listener:
        served = uvicorn.Server(uvicorn.Config(other, log_config=None, lifespan="off"))  # type: ignore[arg-type]
        task = asyncio.create_task(served.serve(sockets=[listener]))
        client = HttpEngine(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(InvalidOutput, match="no correction"):
            await client.align(tiny.request())
        with pytest.raises(InvalidOutput, match="check the address"):
            await client.info()
        await client.aclose()
        served.should_exit = True
        await task


async def test_an_answer_without_an_end_is_not_taken_in() -> None:
    """Otherwise it would fill the gateway's memory until the deadline."""
    sent = 0

    async def other(scope: dict[str, object], receive: object, send: object) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        while sent < 10 * MAX_BODY_BYTES:
            await send({"type": "http.response.body", "body": b" " * 2**20, "more_body": True})  # type: ignore[operator]
            sent += 2**20

    with sockets.listen_on_port("127.0.0.1", 0) as listener:
        served = uvicorn.Server(uvicorn.Config(other, log_config=None, lifespan="off"))  # type: ignore[arg-type]
        task = asyncio.create_task(served.serve(sockets=[listener]))
        client = HttpEngine(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(InvalidOutput, match="longer than"):
            await client.align(tiny.request())
        assert sent < 10 * MAX_BODY_BYTES
        await client.aclose()
        served.should_exit = True
        await task


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, EngineFault),
        (502, EngineUnavailable),
        (503, EngineUnavailable),
        (504, DeadlineExceeded),
        (404, InvalidOutput),
        (429, InvalidOutput),
    ],
)
def test_a_status_without_an_error_of_ours_is_taken_for_what_proxies_mean_by_it(
    status: int, kind: type[CorrectionError]
) -> None:
    for body in (b"<html>Bad Gateway</html>", b"{}", b"\xff", b""):
        assert type(parse_error(status, body, None)) is kind


def test_an_address_must_be_one() -> None:
    with pytest.raises(ConfigError, match="unix:/path"):
        HttpEngine("localhost:80")


def test_a_socket_is_private_and_goes_away(path: Path) -> None:
    with sockets.listen_on_unix_socket(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_living_one_is_not(path: Path) -> None:
    path.parent.mkdir()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as stale:
        stale.bind(str(path))
    with sockets.listen_on_unix_socket(path):
        with pytest.raises(ConfigError, match="in use"), sockets.listen_on_unix_socket(path):
            pass
        assert path.exists()


def test_a_file_in_the_way_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("keep")
    with pytest.raises(ConfigError, match="no socket"), sockets.listen_on_unix_socket(path):
        pass
    assert path.read_text() == "keep"


def test_a_taken_port_is_named() -> None:
    with sockets.listen_on_port("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1"), sockets.listen_on_port("127.0.0.1", port):
            pass


async def test_an_answer_is_read_over_the_socket_while_it_is_written(path: Path) -> None:
    engine = LocalEngine(tiny.aligner)
    answer = tiny.ANSWER * 3
    async with serving(engine, path) as client:
        await engine.start()
        reading = await client.read(tiny.request("", caution=1e9))
        told: tuple[SegmentScore, ...] = ()
        for i in range(0, len(answer), 30):
            told = await reading.feed(answer[i : i + 30])
            await asyncio.sleep(0.02)
        got = await reading.finish(tiny.request(answer, caution=1e9))
        expected = await client.align(tiny.request(answer, caution=1e9))
        assert got.text == expected.text == answer
        assert [s.text for s in told] == [s.text for s in expected.segments][: len(told)]
        assert told
    await engine.aclose()


async def test_a_verdict_is_sent_once(path: Path) -> None:
    """Else a long answer would cost the square of its length on the way to the gateway."""
    engine = LocalEngine(tiny.aligner)
    async with serving(engine, path), bare(path) as http:
        await engine.start()
        opened = await http.post("/v1/read", content=tiny.request("", caution=1e9).model_dump_json())
        reading = f"/v1/read/{opened.json()['reading']}"
        await http.post(reading, json={"text": tiny.ANSWER * 3, "ended": True})
        every = (await http.post(f"{reading}/judged", json={"known": 9})).json()
        rest = (await http.post(f"{reading}/judged", json={"known": 9, "received": 8})).json()
        assert len(every) == 10
        assert rest == every[8:]
        assert (await http.post(reading, json={"text": "", "known": 9})).json() == every[9:]
    await engine.aclose()


async def test_verdicts_over_the_socket_are_those_of_the_engine(path: Path) -> None:
    engine = LocalEngine(tiny.aligner)
    answer = tiny.ANSWER * 3
    async with serving(engine, path) as client:
        await engine.start()
        expected = (await client.align(tiny.request(answer, caution=1e9))).segments
        reading = await client.read(tiny.request("", caution=1e9))
        for i in range(0, len(answer), 60):
            await reading.feed(answer[i : i + 60])
        known: tuple[SegmentScore, ...] = ()
        while len(known) < len(expected) - 1:
            known = await reading.wait_for_verdicts(len(known)) or ()
        await reading.end()
        known = await reading.wait_for_verdicts(len(expected) - 1) or ()
        assert [s.text for s in known] == [s.text for s in expected]
        assert [s.score for s in known] == pytest.approx([s.score for s in expected], abs=1e-4)
        await reading.aclose()
    await engine.aclose()


class Forgetful(ScriptedEngine):
    """Reads ahead, and knows nothing of it at the end."""

    async def read(self, request: AlignRequest) -> DeferredSession:
        return Lost(self)


class Lost(DeferredSession):
    async def finish(self, request: AlignRequest) -> Correction:
        raise SessionLost("forgotten")


async def test_a_reading_that_is_lost_costs_nothing_but_time(path: Path) -> None:
    async with serving(Forgetful(lambda _: "Bring a coat."), path) as client:
        reading = await client.read(tiny.request(""))
        await reading.feed(tiny.ANSWER)
        assert (await reading.finish(tiny.request())).text == "Bring a coat."


class Silent(ScriptedEngine):
    """Opens readings and then says nothing until they are let go of."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()
        self.forgotten = asyncio.Event()

    async def read(self, request: AlignRequest) -> DeferredSession:
        self.opened.set()
        return Mute(self, self.forgotten)


class Mute(DeferredSession):
    def __init__(self, engine: Engine, forgotten: asyncio.Event) -> None:
        super().__init__(engine)
        self.forgotten = forgotten

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        await self.forgotten.wait()
        return ()

    async def aclose(self) -> None:
        self.forgotten.set()


@pytest.mark.parametrize("how", ["deadline", "cancelled", "closed"])
async def test_a_reading_that_is_not_answered_keeps_the_deadline_and_leaves_nothing_behind(
    path: Path, how: str
) -> None:
    engine = Silent()
    async with serving(engine, path) as client:
        reading = await client.read(tiny.request(""))
        await reading.feed(tiny.ANSWER)
        await engine.opened.wait()
        while reading._name is None:
            await asyncio.sleep(0.01)
        if how == "closed":
            await reading.aclose()
        elif how == "deadline":
            with pytest.raises(DeadlineExceeded):
                await reading.finish(tiny.request(deadline_s=0.2))
        else:
            task = asyncio.create_task(reading.finish(tiny.request()))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with asyncio.timeout(20):
            await engine.forgotten.wait()
        assert engine.seen == []


async def test_without_an_engine_reading_ahead_fails_like_correcting(path: Path) -> None:
    client = HttpEngine(f"unix:{path}", wait_s=0.2)
    reading = await client.read(tiny.request(""))
    assert await reading.feed(tiny.ANSWER) == ()
    with pytest.raises(EngineUnavailable):
        await reading.finish(tiny.request())
    await reading.aclose()
    await client.aclose()


async def test_a_reading_that_is_let_go_of_is_let_go_of_by_the_engine(path: Path) -> None:
    engine = LocalEngine(tiny.aligner)
    async with serving(LocalAdmission(engine, slots=1), path) as client:
        await engine.start()
        reading = await client.read(tiny.request(""))
        await reading.feed(tiny.ANSWER)
        await asyncio.sleep(0.1)
        await reading.aclose()
        assert (await client.align(tiny.request(caution=1e9))).text == tiny.ANSWER
    await engine.aclose()


async def test_any_client_can_let_it_write_with_a_prediction(path: Path) -> None:
    engine = LocalEngine(tiny.aligner)
    asked = {"prompt": "The harbour opens", "max_tokens": 24, "temperature": 0}
    async with serving(engine, path), bare(path) as http:
        await engine.start()
        plain = (await http.post("/v1/completions", json=asked)).json()
        text = plain["choices"][0]["text"]
        told = {**asked, "prediction": {"type": "content", "content": text}}
        predicted = (await http.post("/v1/completions", json=told)).json()
        metrics = (await http.get("/metrics")).text
    assert predicted["choices"] == plain["choices"]
    assert plain["usage"]["completion_tokens"] == 24
    assert plain["usage"]["completion_tokens_details"]["accepted_prediction_tokens"] == 0
    assert predicted["usage"]["completion_tokens_details"]["accepted_prediction_tokens"] > 5
    both = {name: plain["counts"][name] + count for name, count in predicted["counts"].items()}
    assert plain["counts"] == {"drafted": 0, "accepted": 0, "recovered": 0, "bonus": 24, "forwards": 24}
    for name, metric in (("drafted", "draft"), ("accepted",) * 2, ("recovered",) * 2, ("bonus",) * 2):
        assert f"aligner_engine_{metric}_tokens_total {float(both[name])}" in metrics
    assert f"aligner_engine_forwards_total {float(both['forwards'])}" in metrics
    assert "aligner_engine_finished_total 2.0" in metrics
    assert 'aligner_engine_kv_blocks{use="used"} 0.0' in metrics
    await engine.aclose()


async def test_the_official_client_with_what_it_sends_by_itself(path: Path) -> None:
    engine = LocalEngine(tiny.aligner)
    neutral: dict[str, Any] = {"top_p": 1.0, "presence_penalty": 0.0, "best_of": 1, "echo": False, "seed": 7}
    async with serving(engine, path), bare(path) as http:
        await engine.start()
        client = openai.AsyncOpenAI(base_url="http://engine/v1", api_key="none", http_client=http, max_retries=0)
        listed = [model.id async for model in client.models.list()]
        made = await client.completions.create(
            model=listed[0],
            prompt="The harbour opens",
            max_tokens=8,
            temperature=0.0,
            extra_body={"prediction": {"type": "content", "content": " at six."}},
            **neutral,
        )
    assert (made.model, made.choices[0].finish_reason) == ("tiny", "length")
    assert made.usage is not None
    assert made.usage.completion_tokens == 8
    await engine.aclose()


@pytest.mark.parametrize(
    ("wrong", "status", "named"),
    [
        ({"temperature": 0.7}, 422, "temperature"),
        ({"presence_penalty": 0.5}, 422, "presence_penalty"),
        ({"logprobs": 5}, 422, "logprobs"),
        ({"best_of": 3}, 422, "best_of"),
        ({"stream": True}, 422, "stream"),
        ({"prediction": {"content": ["a"]}}, 422, "prediction.content"),
        ({"prediction": {"content": "\ud800"}}, 422, "body"),
        ({"prediction": {"type": "image", "content": "a"}}, 422, "prediction.type"),
        ({"prediction": {"content": "a " * 20_000}}, 413, "a prediction of 40000 characters"),
        ({"prompt": "a " * 20_000}, 413, "a prompt of 40000 characters"),
        ({"prompt": "a " * 2_000}, 413, "window of 1024"),
        ({"prompt": ""}, 413, "at least one"),
        ({"max_tokens": 100_000}, 413, "window of 1024"),
    ],
)
async def test_what_a_completion_cannot_have_is_named(
    path: Path, wrong: dict[str, object], status: int, named: str
) -> None:
    engine = LocalEngine(tiny.aligner)
    async with serving(engine, path), bare(path) as http:
        await engine.start()
        refused = await http.post("/v1/completions", content=json.dumps({"prompt": "The harbour", **wrong}))
    assert refused.status_code == status
    assert named in refused.text
    await engine.aclose()


def test_idle_connections_are_closed_by_the_client() -> None:
    """The other way round a request is lost now and then: on a connection that is closed as it is written to."""
    expiry = httpx.Limits().keepalive_expiry
    assert expiry is not None
    assert expiry < min(ConnectionLimits().idle_s, ConnectionLimits().drain_s)


async def test_a_completion_stops_where_it_is_told_and_says_where(path: Path) -> None:
    engine = LocalEngine(tiny.aligner)
    async with serving(engine, path), bare(path) as http:
        await engine.start()
        asked = {"prompt": "The harbour", "max_tokens": 24, "temperature": 0}
        [plain] = (await http.post("/v1/completions", json=asked)).json()["choices"]
        assert plain["stop_reason"] is None
        word = plain["text"][6:9]
        for stop in (word, ["never written", word]):
            [cut] = (await http.post("/v1/completions", json={**asked, "stop": stop})).json()["choices"]
            assert cut["text"] == plain["text"][: plain["text"].index(word)]
            assert (cut["finish_reason"], cut["stop_reason"]) == ("stop", word)
        [model] = (await http.get("/v1/models")).json()["data"]
        about = await engine.info()
        assert (model["id"], model["root"], model["max_model_len"]) == ("tiny", about.content_hash, about.window)
    await engine.aclose()


async def test_an_engine_that_cannot_load_ends_whatever_the_reason(path: Path) -> None:
    def fail() -> Any:
        raise RuntimeError("an odd failure")

    with sockets.listen_on_unix_socket(path) as listener, pytest.raises(RuntimeError, match="an odd failure"):
        async with asyncio.timeout(20):
            await app._serve(LocalAdmission(LocalEngine(fail), slots=1), listener, 0, ConnectionLimits())
