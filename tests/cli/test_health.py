"""`health` against real sockets: a gateway that answers like LiteLLM, the scripted engine, and nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import uvicorn
from click.testing import CliRunner

from aligner_proxy.cli import main
from aligner_proxy.engine import sockets
from aligner_proxy.engine.scheduling import metrics
from aligner_proxy.engine.server import app
from tests.support.scripted import ScriptedEngine


@contextlib.contextmanager
def answering(codes: dict[str, int], body: bytes = b"{}") -> Iterator[str]:
    """Something that listens; its address."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(codes.get(self.path, 404))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    made = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}"
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The scripted engine on a unix socket, in a thread of its own."""
    monkeypatch.setattr(metrics, "_last_refusal", [float("-inf")])  # other tests fill engines
    with sockets.listen_on_unix_socket(tmp_path / "e.sock") as listener:
        config = uvicorn.Config(app.create_app(ScriptedEngine()), log_config=None, lifespan="off")
        served = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(served.serve(sockets=[listener])))
        thread.start()
        yield f"unix:{tmp_path / 'e.sock'}"
        served.should_exit = True
        thread.join()


ALIVE = "/health/liveliness"
READY = "/health/readiness"


def asked(*arguments: str) -> tuple[int, dict[str, str]]:
    """Exit status and what each process was found to be."""
    result = CliRunner().invoke(main, ["health", "--json", *arguments])
    told = json.loads(result.stdout)
    return result.exit_code, {"all": told["status"]} | {one["name"]: one["status"] for one in told["processes"]}


def test_both_are_ready(engine: str) -> None:
    with answering({ALIVE: 200, READY: 200}) as gateway:
        found = asked("--gateway", gateway, "--engine", engine)
    assert found == (0, {"all": "ready", "gateway": "ready", "engine": "ready"})


def test_a_gateway_without_an_engine_serves_degraded(tmp_path: Path) -> None:
    with answering({ALIVE: 200, READY: 200}) as gateway:
        found = asked("--gateway", gateway, "--engine", f"unix:{tmp_path}/none.sock")
    assert found == (0, {"all": "degraded", "gateway": "ready", "engine": "down"})


@pytest.mark.parametrize(
    ("codes", "status"), [({ALIVE: 200, READY: 503}, "alive"), ({}, "odd"), ({ALIVE: 500, READY: 200}, "odd")]
)
def test_a_gateway_that_takes_no_requests_fails_the_probe(engine: str, codes: dict[str, int], status: str) -> None:
    with answering(codes) as gateway:
        found = asked("--gateway", gateway, "--engine", engine)
    assert found == (1, {"all": status, "gateway": status, "engine": "ready"})


def test_a_gateway_that_waits_for_its_engine_says_so(tmp_path: Path) -> None:
    with answering({ALIVE: 200, READY: 503}, b'{"status": "not ready", "aligner": "engine_unavailable"}') as gateway:
        said = CliRunner().invoke(main, ["health", "--gateway", gateway, "--engine", f"unix:{tmp_path}/none.sock"])
    assert said.exit_code == 1
    assert said.stdout.startswith("gateway alive (engine_unavailable) at ")


def test_an_engine_alone(engine: str, tmp_path: Path) -> None:
    assert asked("--engine", engine) == (0, {"all": "ready", "engine": "ready"})
    assert asked("--engine", f"unix:{tmp_path}/none.sock") == (1, {"all": "down", "engine": "down"})


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"<html>", b"\xff"])
def test_something_else_on_the_engines_port_is_named(body: bytes) -> None:
    with answering({"/health": 200}, body) as address:
        assert asked("--engine", address) == (1, {"all": "odd", "engine": "odd"})


def test_for_people_and_for_typing_errors(engine: str) -> None:
    said = CliRunner().invoke(main, ["health", "--engine", engine])
    assert said.stdout.startswith("engine ready at unix:")
    wrong = CliRunner().invoke(main, ["health", "--engine", "ftp://x"])
    assert (wrong.exit_code, "not an engine address" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    "address", ["localhost:4000", "ftp://localhost", "http://[::1", "http://localhost:99999", "http://"]
)
def test_what_is_no_address_of_a_gateway_is_said(address: str) -> None:
    result = CliRunner().invoke(main, ["health", "--gateway", address])
    words = "aligner-proxy: --gateway must be an address such as http://127.0.0.1:4000\n"
    assert (result.exit_code, result.stderr) == (2, words)
