"""The engine's port, used by somebody who is no gateway; and a gateway whose engine is none of ours."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import stat
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aligner_proxy.engine import sockets, wire
from aligner_proxy.engine.admission import LocalAdmission
from aligner_proxy.engine.client import http
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.decoding.correct import correct
from aligner_proxy.engine.decoding.incremental import PartialAnswer, read_growing_answer
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.loop import Loop
from aligner_proxy.engine.scheduling.draft_length import CostCurve
from aligner_proxy.engine.scheduling.scheduler import Job, JobClient
from aligner_proxy.engine.scheduling.sequence import TokenSequence
from aligner_proxy.errors import CorrectionError, EngineOverloaded
from aligner_proxy.observability import logs
from aligner_proxy.text.structure import split
from aligner_proxy.types import Turn
from tests.attacks.attack import Attack, rows
from tests.engine.server.test_app import bare, serving
from tests.engine.test_loop import aligner, fed_for
from tests.support import tiny
from tests.support.scripted import ScriptedEngine

GOOD = json.loads(tiny.request().model_dump_json())


def altered(**fields: Any) -> bytes:
    return json.dumps(GOOD | fields).encode()


BODIES = rows(
    ("body-deep", "client of the engine", "JSON of a hundred thousand brackets", "422", b"[" * 100_000),
    (
        "body-zip",
        "client of the engine",
        "a body that says it is packed and would unpack to a gigabyte",
        "422: nothing is unpacked",
        gzip.compress(b"\0" * 10_000_000),
    ),
    ("body-unknown", "client of the engine", "fields that it does not know", "422", altered(mode="off")),
    (
        "body-infinite",
        "client of the engine",
        "a deadline that never comes",
        "422",
        altered().replace(b"60.0", b"Infinity"),
    ),
    (
        "body-nan",
        "client of the engine",
        "a caution that nothing exceeds",
        "422",
        altered().replace(b'"caution": 0.0', b'"caution": NaN'),
    ),
    ("body-none", "client of the engine", "no objectives, so that nothing is judged", "422", altered(objectives=[])),
    ("body-bytes", "client of the engine", "bytes that are no text", "422", b'{"answer": "\xff\xfe"}'),
)


@pytest.mark.parametrize("attack", BODIES)
async def test_a_body_that_is_no_request_is_refused_without_being_quoted(attack: Attack, tmp_path: Path) -> None:
    async with serving(ScriptedEngine(), tmp_path / "e.sock"), bare(tmp_path / "e.sock") as http:
        headers = {"content-encoding": "gzip"} if attack.id == "body-zip" else {}
        got = await http.post("/v1/corrections", content=attack.payload, headers=headers)
        assert got.status_code == 422
        assert "harbour" not in got.text
        assert (await http.post("/v1/corrections", content=altered())).status_code == 200


STREAMS = rows(
    ("body-endless", "client of the engine", "a body that never ends", "413 after 16 MiB", b"x" * (1 << 20)),
)


@pytest.mark.parametrize("attack", STREAMS)
async def test_a_body_without_end_is_cut_off(attack: Attack, tmp_path: Path) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 64:
            sent += 1
            yield attack.payload

    async with serving(ScriptedEngine(), tmp_path / "e.sock"), bare(tmp_path / "e.sock") as http:
        got = await http.post("/v1/corrections", content=body())
    assert got.status_code == 413


READINGS = rows(
    (
        "reading-guess",
        "client of the engine",
        "guesses the name of another's reading",
        "410: names are random",
        "AAAAAAAAAAAAAAAAAAAAAA",
    ),
    ("reading-path", "client of the engine", "a name with steps upwards", "no such thing", "..%2F..%2Finfo"),
)


@pytest.mark.parametrize("attack", READINGS)
async def test_nobody_else_reads_a_reading(attack: Attack, tmp_path: Path) -> None:
    async with serving(ScriptedEngine(), tmp_path / "e.sock"), bare(tmp_path / "e.sock") as http:
        opened = (await http.post("/v1/read", content=altered())).json()["reading"]
        assert len(opened) >= 22
        got = await http.post(f"/v1/read/{attack.payload}", json={"text": "x"})
        assert got.status_code in (404, 405, 410)
        assert (await http.post(f"/v1/read/{opened}/finish", content=altered())).status_code == 200
        assert (await http.post(f"/v1/read/{opened}/finish", content=altered())).status_code == 410


SWAPS = rows(
    (
        "reading-swap",
        "upstream",
        "writes one answer while it is read and ends with another",
        "the correction is that of the answer that was delivered",
        "A wholly other text. You are a fool. " * 4,
    ),
)


@pytest.mark.parametrize("attack", SWAPS)
async def test_what_counts_is_the_answer_at_its_end(attack: Attack) -> None:
    engine = LocalEngine(tiny.aligner)
    await engine.start()
    reading = await engine.read(tiny.request(""))
    await reading.feed(attack.payload)
    await asyncio.sleep(0.1)
    swapped = await reading.finish(tiny.request())
    plain = await engine.align(tiny.request())
    await engine.aclose()
    assert (swapped.text, [s.text for s in swapped.segments]) == (plain.text, [s.text for s in plain.segments])


FLOODS = rows(
    (
        "flood-readings",
        "client of the engine",
        "opens readings and never ends them",
        "429 when the house is full, and memory is bounded",
        8,
    ),
)


@pytest.mark.parametrize("attack", FLOODS)
async def test_a_full_house_says_so(attack: Attack) -> None:
    engine = LocalAdmission(LocalEngine(tiny.aligner), slots=attack.payload)
    await engine.start()
    held = [await engine.read(tiny.request("")) for _ in range(attack.payload)]
    with pytest.raises(EngineOverloaded):
        await engine.read(tiny.request(""))
    for reading in held:
        await reading.aclose()
    await engine.aclose()


LONG = rows(
    (
        "long-filler",
        "client",
        "30 kB of filler before the question, so that nothing fits the window",
        "the question is cut, the answer judged",
        ("Here is a text about a harbour. " * 1000, ""),
    ),
    ("long-zero-width", "client", "7,000 zero-width characters", "the same", ("\u200b" * 7000, "")),
    ("long-one-word", "client", "one word 20,000 times", "it is read twice, the answer judged", ("dog " * 20_000, "")),
    (
        "long-retrieved",
        "client",
        "half a million characters of documents",
        "the same",
        (" ".join(f"{number}: {text}" for number, text in enumerate(tiny.CORPUS * 1200)), ""),
    ),
    ("long-breaks", "client", "a hundred thousand line breaks", "the same, in linear time", ("\n" * 100_000, "")),
    (
        "long-answer",
        "upstream",
        "an answer of several windows before the insult",
        "it is judged in parts, to its last sentence",
        ("", "The first ferry leaves at seven. " * 300),
    ),
    (
        "long-unbroken",
        "upstream",
        "the same without a space or a full stop",
        "it is judged in pieces",
        ("", "x" * 20_000 + ". "),
    ),
)


@pytest.mark.parametrize("attack", LONG)
async def test_nothing_is_too_long_to_be_judged(attack: Attack) -> None:
    filler, begin = attack.payload
    engine = LocalEngine(tiny.aligner)
    await engine.start()
    turns = (Turn("user", filler + "When does it open?"),)
    request = tiny.request(begin + tiny.ANSWER, caution=1e9).model_copy(update={"turns": turns})
    done = await engine.align(request)
    session = await engine.read(request.model_copy(update={"answer": ""}))
    for at in range(0, len(request.answer), 500):
        await session.feed(request.answer[at : at + 500])
    along = await session.finish(request)
    await engine.aclose()
    assert [s.text for s in done.segments][-4:] == [s.text for s in split(tiny.ANSWER)]
    assert all(s.score is not None for s in (*done.segments, *along.segments))


FLOODED = rows(
    (
        "ahead-flood",
        "tenant",
        "lets many long answers be read ahead and measures how another tenant fares",
        "its correction takes as many steps as alone, and one more",
        24,
    ),
)


@pytest.mark.parametrize("attack", FLOODED)
def test_reading_ahead_holds_nobody_up(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    request = tiny.request().model_copy(update={"tenant": "another"})

    def steps(readers: int) -> int:
        made = aligner(tokens=16_384)
        monkeypatch.setattr(made.runner, "costs", CostCurve(((1, 1.0), (1001, 101.0))))
        loop = Loop(made, budget=256)
        for number in range(readers):
            sequence = TokenSequence(0, "hostile")
            answer = PartialAnswer(tiny.request(""))
            answer.body.add(f"{number}: " + " ".join(tiny.CORPUS) * 20)
            work = read_growing_answer(made, answer, sequence)
            client = JobClient(tenant="hostile", has_new_text=answer.waits, reads_ahead=answer.is_read_ahead)
            loop.add(Job(str(number), work, print, client, sequence=sequence))
        loop.step()
        ends: list[Any] = []
        sequence = TokenSequence(0, "another")
        work = correct(made, request, sequence)
        loop.add(Job("c", work, ends.append, JobClient(tenant="another"), sequence=sequence))
        count = 0
        while not ends:
            loop.step()
            count += 1
        assert not isinstance(ends[0], CorrectionError)
        return count

    assert steps(attack.payload) <= steps(0) + 1


ORACLES = rows(
    (
        "oracle-prefix",
        "tenant",
        "sends another tenant's exact conversation and measures the time",
        "the model reads as much of it as of a conversation that nobody had",
        " ".join(tiny.CORPUS),
    ),
)


@pytest.mark.parametrize("attack", ORACLES)
def test_the_time_tells_nothing_of_another_tenant(attack: Attack) -> None:
    made = aligner()
    theirs = tiny.request(caution=1e9).model_copy(
        update={"turns": (Turn("user", attack.payload),), "tenant": "one", "common": 1}
    )
    fed_for(made, theirs)
    guessed = fed_for(made, theirs.model_copy(update={"tenant": "two"}))
    unknown = aligner()
    fed_for(unknown, theirs.model_copy(update={"turns": (Turn("user", "Something else."),)}))
    assert guessed == fed_for(unknown, theirs.model_copy(update={"tenant": "two"}))


SOCKETS = rows(
    ("socket-open", "another user", "connects to the engine's socket", "the file is its owner's alone (0600)", 0o600),
)


@pytest.mark.parametrize("attack", SOCKETS)
def test_the_socket_is_for_its_owner(attack: Attack, tmp_path: Path) -> None:
    with sockets.listen_on_unix_socket(tmp_path / "run" / "e.sock"):
        assert stat.S_IMODE((tmp_path / "run" / "e.sock").stat().st_mode) == attack.payload


LINES = rows(
    (
        "log-forged",
        "client",
        "a request id with a line break and a forged log line",
        "one line, whatever the form",
        "x\n2026-01-01 INFO aligner_proxy: all is well",
    ),
    (
        "log-terminal",
        "client",
        "a request id that moves the terminal's cursor",
        "one printable line",
        "x\x1b[2J\x1b]0;owned\x07",
    ),
)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("attack", LINES)
def test_no_id_writes_a_line_of_its_own(attack: Attack, form: str) -> None:
    formatter = logs.make_handler(form).formatter
    assert formatter is not None
    made = logging.LogRecord("aligner_proxy.engine", logging.INFO, "f", 1, "request %s: gone", (attack.payload,), None)
    line = formatter.format(made)
    assert line.isprintable()


def bomb() -> bytes:
    """A hundred megabytes in a hundred kilobytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(100)) + packer.flush()


ROGUES = rows(
    (
        "rogue-zip",
        "engine",
        "an answer that unpacks to a hundred megabytes",
        "nothing is unpacked; the correction fails",
        ("gzip", bomb),
    ),
    (
        "rogue-endless",
        "engine",
        "an answer without end",
        "cut off at 32 MiB; the correction fails",
        (None, lambda: b" " * ((32 << 20) + 1)),
    ),
    (
        "rogue-deep",
        "engine",
        "JSON of a hundred thousand brackets",
        "the correction fails",
        (None, lambda: b"[" * 100_000),
    ),
    (
        "rogue-html",
        "engine",
        "a page of a proxy in between",
        "the correction fails",
        (None, lambda: b"<html>fool</html>"),
    ),
)


@asynccontextmanager
async def rogue(path: Path, encoding: str | None, body: bytes) -> AsyncIterator[HttpEngine]:
    """Something on the engine's socket that is none of ours."""

    async def anything(_: Request) -> Response:
        return Response(body, headers={"content-encoding": encoding} if encoding else {})

    with sockets.listen_on_unix_socket(path) as listener:
        app = Starlette(routes=[Route("/{path:path}", anything, methods=["GET", "POST"])])
        served = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        task = asyncio.create_task(served.serve(sockets=[listener]))
        client = HttpEngine(f"unix:{path}", wait_s=2.0)
        yield client
        await client.aclose()
        served.should_exit = True
        await task


@pytest.mark.parametrize("attack", ROGUES)
async def test_a_rogue_engine_costs_a_correction_and_no_more(attack: Attack, tmp_path: Path) -> None:
    encoding, body = attack.payload
    async with rogue(tmp_path / "e.sock", encoding, body()) as engine:
        with pytest.raises(CorrectionError) as failed:
            await engine.align(tiny.request())
        assert "fool" not in str(failed.value)
    assert http._MAX_BYTES > wire.MAX_BODY_BYTES
