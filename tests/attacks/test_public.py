"""What stands open to everybody: pages without a key, handshakes, silent connections, names that end up in metrics."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from aligner_proxy import connections
from aligner_proxy.cli import health, main
from aligner_proxy.cli.diff import show_outcome
from aligner_proxy.cli.terminal import Terminal
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine import sockets
from aligner_proxy.engine.server import app as engine_server
from aligner_proxy.gateway.label_bounds import MAX_COMBINATIONS
from aligner_proxy.gateway.public_pages import COST_MAP
from aligner_proxy.types import Correction, Outcome, Policy, SegmentScore, Status
from aligner_proxy_review.cli import console as console_command
from aligner_proxy_review.cli import replay as replay_command
from aligner_proxy_review.cli import review
from aligner_proxy_review.console.application import COOKIE
from aligner_proxy_review.replay import ReplayCase, ReplayResult, ReplayRun
from tests.attacks.attack import Attack, rows
from tests.e2e.conftest import deployment as deployment
from tests.e2e.conftest import engine as engine
from tests.e2e.conftest import folder as folder
from tests.e2e.conftest import gateway as gateway
from tests.e2e.conftest import proxies as proxies
from tests.e2e.conftest import tenants as tenants
from tests.e2e.conftest import upstream as upstream
from tests.e2e.shared import SHARED
from tests.plugins.review.console.conftest import MASTER, Browser, Site, an_entry, with_texts
from tests.plugins.review.console.conftest import site as site
from tests.support.scripted import ScriptedEngine

DEPLOYMENT = SHARED
PLACES = 8
QUICK = ConnectionLimits(connections=PLACES, head_s=0.5, body_s=0.5, idle_s=0.5, unread_s=0.5, drain_s=0.1)
UPGRADE = b"host: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
KEY = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
OFFER = UPGRADE + KEY + b"sec-websocket-version: 13\r\n"
LONG_LINE = b"x-a: " + b"a" * 9000 + b"\r\n"
H2C = b"GET /page HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: Upgrade\r\n"


async def _talk(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


async def _page(_: Request) -> Response:
    return PlainTextResponse("a page")


def with_websockets() -> Starlette:
    """An application with a WebSocket and a page."""
    return Starlette(routes=[WebSocketRoute("/talk", _talk), Route("/page", _page)])


@contextlib.asynccontextmanager
async def running(server: uvicorn.Server) -> AsyncIterator[int]:
    """A server on a port of its own."""
    with sockets.listen_on_port("127.0.0.1", 0) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            server.should_exit = True
            await task


def listening(application: Starlette) -> uvicorn.Server:
    """A server with short clocks."""
    return uvicorn.Server(
        uvicorn.Config(application, log_config=None, lifespan="off", **connections.uvicorn_settings(QUICK))
    )


async def first_line(port: int, payload: bytes) -> bytes:
    """The first line that comes back; empty where the connection ends without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        writer.write(payload)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                return await reader.readline()
    return b""


TALK = b"GET /talk HTTP/1.1\r\n"
HANDSHAKES = rows(
    ("ws-good", "client", "a handshake of a WebSocket", "404, in HTTP", TALK + OFFER),
    ("ws-page", "client", "a handshake at the address of a page", "200, the page", b"GET /page HTTP/1.1\r\n" + OFFER),
    ("ws-post", "client", "a handshake by POST", "405", b"POST /page HTTP/1.1\r\n" + OFFER),
    ("ws-body", "client", "a handshake with a body", "404", TALK + b"content-length: 4\r\n" + OFFER),
    (
        "ws-chunked",
        "client",
        "a handshake with a body of chunks",
        "404",
        TALK + b"transfer-encoding: chunked\r\n" + OFFER,
    ),
    ("ws-no-key", "client", "a handshake without its key", "404", TALK + UPGRADE),
    ("ws-version", "client", "a handshake of no version", "404", TALK + UPGRADE + KEY),
    ("ws-long", "client", "a handshake with a line of nine thousand bytes", "404", TALK + LONG_LINE + OFFER),
    ("ws-many", "client", "a handshake with two hundred headers", "404", TALK + b"x-a: b\r\n" * 200 + OFFER),
    ("ws-control", "client", "a handshake with a control character", "404", TALK + b"x-a: a\x01b\r\n" + OFFER),
    ("ws-other", "client", "asks for another protocol than WebSockets", "200, in HTTP/1.1", H2C),
)


@pytest.mark.parametrize("attack", HANDSHAKES)
async def test_a_handshake_gets_an_answer(attack: Attack, caplog: pytest.LogCaptureFixture) -> None:
    async with running(listening(with_websockets())) as port:
        got = await first_line(port, attack.payload + b"\r\n")
        assert got.startswith(b"HTTP/1.1 " + attack.holds[:3].encode()), got
        await asyncio.sleep(0.8)  # longer than the clock that a head would have had
        assert (await first_line(port, b"GET /page HTTP/1.1\r\nhost: x\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


ELSEWHERE = rows(
    ("ws-engine", "client", "a handshake at the engine's server", "404, as for any page", "engine"),
    ("ws-console", "anyone", "a handshake at the console", "404, as for any page", "console"),
)


@pytest.mark.parametrize("attack", ELSEWHERE)
async def test_a_handshake_where_there_are_none(attack: Attack, site: Site) -> None:
    if attack.payload == "engine":
        server = listening(engine_server.create_app(ScriptedEngine()))
    else:
        server = console_command.make_server(site.console, QUICK)
    async with running(server) as port:
        got = await first_line(port, b"GET /talk HTTP/1.1\r\n" + OFFER + b"\r\n")
    assert got.startswith(b"HTTP/1.1 " + attack.holds[:3].encode()), got


SILENT = rows(
    ("console-silent", "anyone", "a connection to the console on which nothing comes", "408 in ten seconds", b""),
    ("console-head", "anyone", "half the head of a request to the console", "408", b"GET /login HTTP/1.1\r\nhost:"),
    (
        "console-body",
        "anyone",
        "half a form to the console",
        "408",
        b"POST /login HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n"
        b"content-length: 900\r\n\r\ntoken=",
    ),
    (
        "console-long",
        "anyone",
        "a form of nine hundred megabytes to the console",
        "413",
        b"POST /login HTTP/1.1\r\nhost: x\r\ncontent-length: 900000000\r\n\r\n",
    ),
)


@pytest.mark.parametrize("attack", SILENT)
async def test_a_console_does_not_wait_for_ever(attack: Attack, site: Site) -> None:
    async with running(console_command.make_server(site.console, QUICK)) as port:
        got = await first_line(port, attack.payload)
        assert got.startswith(b"HTTP/1.1 " + attack.holds[:3].encode()), got


CROWDS = rows(
    (
        "console-crowd",
        "anyone",
        "several times as many silent connections to the console as it has places",
        "the longest silent ones go, and a browser is answered",
        5 * PLACES,
    ),
)


@pytest.mark.parametrize("attack", CROWDS)
async def test_silent_connections_do_not_keep_a_browser_out(attack: Attack, site: Site) -> None:
    patient = ConnectionLimits(connections=PLACES, head_s=600, body_s=600, idle_s=600, drain_s=0.1)
    async with (
        running(console_command.make_server(site.console, patient)) as port,
        contextlib.AsyncExitStack() as clients,
    ):
        for _ in range(attack.payload):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            clients.callback(writer.close)
        for _ in range(3):
            got = await first_line(port, b"GET /login HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert got.startswith(b"HTTP/1.1 200 ")


LOG_INS = rows(
    (
        "login-colleague",
        "colleague",
        "mistypes a key ten times, behind the proxy that gives everybody one address",
        "that browser waits a minute, the others get in",
        "colleague",
    ),
    (
        "login-guesses",
        "anyone",
        "tries a hundred keys, each from a browser of its own",
        "429 for every new browser of that address",
        "guesses",
    ),
    (
        "login-known",
        "anyone",
        "tries a hundred keys, so that nobody else of that address gets in",
        "a browser from which somebody got in before still does",
        "known",
    ),
    (
        "login-stale",
        "program",
        "sends one old key for ever, each time as a new browser",
        "it counts once: the others get in",
        "stale",
    ),
)


@pytest.mark.parametrize("attack", LOG_INS)
def test_failed_log_ins_of_one_address(attack: Attack, site: Site) -> None:
    before = Browser(site)
    assert before.log_in(MASTER).status_code == 303
    if attack.payload == "colleague":
        mistyped = Browser(site)
        assert [mistyped.log_in(f"sk-{n}").status_code for n in range(11)] == [403] * 10 + [429]
        assert Browser(site).log_in(MASTER).status_code == 303
        assert mistyped.log_in(MASTER).status_code == 429
        return
    keys = ["sk-old"] * 130 if attack.payload == "stale" else [f"sk-{n}" for n in range(130)]
    codes = [Browser(site).log_in(key).status_code for key in keys]
    assert codes == ([403] * 130 if attack.payload == "stale" else [403] * 100 + [429] * 30)
    newcomer = Browser(site).log_in(MASTER).status_code
    assert newcomer == (303 if attack.payload == "stale" else 429)
    before.http.cookies.delete(COOKIE)
    assert before.log_in(MASTER).status_code == 303
    assert [before.log_in(f"sk-{n}").status_code for n in range(11)] == [403] * 10 + [429]


TERMINALS = rows(
    ("cli-colour", "upstream", "an answer with escapes of a terminal", "`align` shows their numbers", "align"),
    ("cli-title", "client", "a call id with an escape that writes the title", "`replay` shows its number", "replay"),
    ("cli-tenants", "tenant", "a tenant's name with such an escape", "the error of `audit erase` shows it", "audit"),
    ("cli-health", "whoever has the port", "a status with such an escape", "`health` shows its number", "health"),
    ("cli-review", "upstream", "an answer that turns the direction of the line", "`review` shows the mark", "review"),
)
ESCAPE = "\x1b]0;owned\x07 \x9b2J \u202e"


def printed(attack: Attack, site: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints on a terminal."""
    sink = io.StringIO()
    screen = Terminal(file=sink, force_terminal=True, width=200, color_system=None)
    entry = with_texts(an_entry(1, at=time.time()), f"It is {ESCAPE} so.", f"It is {ESCAPE}.")
    if attack.payload == "align":
        segment = SegmentScore(f"It is {ESCAPE} so.", 4.0, True, 0)
        correction = Correction("It is so.", (segment,))
        outcome = Outcome(Status.CORRECTED, ESCAPE, "It is so.", Policy("p"), correction=correction)
        show_outcome(screen, f"It is {ESCAPE} so.", outcome)
    elif attack.payload == "review":
        review.show_entry(screen, entry)
    elif attack.payload == "replay":
        case = ReplayCase(
            replace(entry, call_id=ESCAPE),
            ReplayRun(ReplayResult.SKIPPED, ESCAPE, ESCAPE),
            ReplayRun(ReplayResult.FAILED, ESCAPE, ESCAPE),
            ReplayRun(ReplayResult.SKIPPED, ESCAPE, ESCAPE),
        )
        replay_command._show_cases(screen, [case])
    elif attack.payload == "audit":
        site.add(replace(an_entry(1), call_id="x"), replace(an_entry(2, team="b" + ESCAPE), call_id="x"))
        given = ["audit", "erase", "x", "--policy", str(site.folder / "policies.yaml")]
        return CliRunner().invoke(main, given).output
    else:
        process = health.ProcessHealth("engine", "http://x", ESCAPE, (ESCAPE,))
        monkeypatch.setattr(health, "_check_engine", lambda _: process)
        return CliRunner().invoke(main, ["health", "--engine", "http://x"]).output
    return sink.getvalue()


@pytest.mark.parametrize("attack", TERMINALS)
def test_nothing_that_a_command_prints_acts_on_a_terminal(
    attack: Attack, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed(attack, site, monkeypatch)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "\\u202e" in text


PAGES = rows(
    ("public-openapi", "anyone", "eight clients fetch LiteLLM's OpenAPI document", "made once", "/openapi.json"),
    ("public-prices", "anyone", "eight clients fetch LiteLLM's map of prices", "made once in a minute", COST_MAP),
)


@pytest.mark.e2e
@pytest.mark.timeout(300)
@pytest.mark.parametrize("attack", PAGES)
def test_a_public_page_is_made_once(attack: Attack, gateway: Any) -> None:
    def fetched(_: int) -> tuple[int, bytes]:
        got = httpx.get(gateway.address + attack.payload, timeout=120, trust_env=False, verify=False)
        return got.status_code, got.content

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(fetched, range(24)))) == 1
    assert fetched(0)[0] == 200
    made = gateway.log.read_text().count(f"public page {attack.payload}: built")
    assert made == 1 if attack.payload != COST_MAP else 1 <= made <= 3  # it lasts a minute, on a busy machine less


LABELS = rows(
    ("metrics-agents", "anyone", "names another user agent each time, without a key", "few are named", "user_agent"),
    ("metrics-models", "tenant", "names another model each time", "few are named, the configured ones always", "model"),
)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("attack", LABELS)
def test_metrics_do_not_grow_with_what_clients_name(attack: Attack, gateway: Any, tenants: Any) -> None:
    label = attack.payload
    for number in range(MAX_COMBINATIONS + 50):
        if label == "model":
            tenants["acme"].chat("good", model=f"made-up-{number}")
        else:
            agent = {"user-agent": f"made-up-{number}", "authorization": "Bearer nobody"}
            httpx.post(f"{gateway.address}/v1/chat/completions", json={}, headers=agent, trust_env=False, verify=False)
    tenants["acme"].chat("good")
    until = time.monotonic() + 30
    while True:
        values = re.findall(rf'[{{,]{label}="([^"]*)"', gateway.http.get("/metrics/").text)
        if {"other", *(["gpt"] if label == "model" else [])} <= set(values) or time.monotonic() > until:
            break
        time.sleep(0.5)
    assert 0 < len({value for value in values if value.startswith("made-up-")}) <= MAX_COMBINATIONS
    assert "other" in values
