"""`serve` whole: a tiny aligner in the engine, the real LiteLLM, a scripted upstream, and signals."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml

from aligner_proxy.policy import config
from tests.e2e import hungry_worker
from tests.e2e.clients import MASTER_KEY
from tests.e2e.processes import free_port
from tests.support import tiny

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

WAIT_S = 120.0
START_S = 300.0
"""Until `serve` is ready: two imports of everything, one after the other, on a machine that may have other work."""
STREAMS = 8
CLIENTS = 3
PAUSE_S = 1.0
"""Between two questions of a client: without it they take all the time that a restart needs."""
SECRET = "sk-a-key-that-the-engine-does-not-need"


@dataclass
class Served:
    """A running `serve` and what a client needs."""

    process: subprocess.Popen[bytes]
    address: str
    console: str
    log: Path

    def ask(self, text: str) -> httpx.Response:
        """One chat completion."""
        body = {"model": "gpt", "messages": [{"role": "user", "content": text}]}
        headers = {"authorization": f"Bearer {MASTER_KEY}"}
        return httpx.post(
            f"{self.address}/v1/chat/completions", json=body, headers=headers, timeout=60, trust_env=False, verify=False
        )

    def stream(self, text: str) -> str:
        """One streamed completion, as it came."""
        body = {"model": "gpt", "stream": True, "messages": [{"role": "user", "content": text}]}
        headers = {"authorization": f"Bearer {MASTER_KEY}"}
        url = f"{self.address}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=60, trust_env=False, verify=False).text

    def child(self, name: str) -> int:
        """Process id of the child that was started last under this name."""
        lines = [line for line in self.log.read_text().splitlines() if f"{name}: started (pid " in line]
        return int(lines[-1].rpartition("pid ")[2].rstrip(")"))


@dataclass
class Load:
    """Clients that ask one question after the other, each on one connection, and everything that went wrong."""

    served: Served
    stop: threading.Event = field(default_factory=threading.Event)
    answers: int = 0
    wrong: list[str] = field(default_factory=list)

    def ask_on(self, number: int) -> None:
        """One client: streams and whole answers in turn."""
        headers = {"authorization": f"Bearer {MASTER_KEY}"}
        with httpx.Client(
            base_url=self.served.address, headers=headers, timeout=120, trust_env=False, verify=False
        ) as http:
            for turn in itertools.count():
                if self.stop.is_set():
                    return
                # Long enough to be in flight when processes are replaced.
                text = f"drip {number} {turn}" if turn % 2 == 1 else f"hello {number} {turn}"
                try:
                    fault = self._fault(http, text, stream=turn % 2 == 1)
                except httpx.HTTPError as error:
                    fault = f"{type(error).__name__}: {error}"
                self.answers += 1
                if fault:
                    self.wrong.append(f"{text}: {fault}")
                self.stop.wait(PAUSE_S)

    def _fault(self, http: httpx.Client, text: str, *, stream: bool) -> str:
        """What is wrong with an answer: it failed, broke off, or was not looked at by the aligner."""
        body = {"model": "gpt", "stream": stream, "messages": [{"role": "user", "content": text}]}
        got = http.post("/v1/chat/completions", json=body)
        if got.status_code != httpx.codes.OK:
            return f"{got.status_code} {got.text[:200]}"
        if not stream:
            status = got.headers["x-aligner-status"]
            return "" if status in {"corrected", "unchanged"} else f"{status} {got.headers.get('x-aligner-reason')}"
        whole = got.text.endswith("data: [DONE]\n\n")
        judged = re.search(r"^: aligner status=(corrected|unchanged)", got.text, re.MULTILINE)
        return "" if whole and judged else got.text[-300:]


def until(true: Callable[[], bool], log: Path, within_s: float = WAIT_S) -> None:
    """Wait for something that happens in other processes."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, log.read_text()[-4000:]
        time.sleep(0.2)


def ready(served: Served) -> bool:
    """Whether the gateway takes requests."""
    assert served.process.poll() is None, served.log.read_text()[-4000:]
    try:
        return (
            httpx.get(f"{served.address}/health/readiness", timeout=5, trust_env=False, verify=False).status_code
            == httpx.codes.OK
        )
    except httpx.TransportError:
        return False


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


SLOW = ["--head-timeout", "2", "--body-timeout", "2", "--connections", "16", "--body-mb", "1"]


class Serves:
    """The `serve` that the tests of this file share: another one is started for other options, and where it has ended.

    A start takes half a minute, so tests of the same options stand together, and the one that ends it is the last.
    """

    def __init__(self, folder: Path, upstream: str) -> None:
        self._folder = folder
        self._upstream = upstream
        self._options: list[str] = []
        self._current: Served | None = None
        self._number = 0

    def get(self, options: list[str]) -> Served:
        """A running `serve` with these options."""
        current = self._current
        if current is None or self._options != options or current.process.poll() is not None:
            self.close()
            self._options = []
            self._number += 1
            self._current = current = self._start(self._folder / str(self._number), options)
            until(lambda: ready(current), current.log, START_S)
            self._options = options  # one that did not get ready is not handed out again
        return current

    def _start(self, folder: Path, options: list[str]) -> Served:
        port = free_port()
        beside = free_port()
        _configure(folder, self._upstream)
        where = ["--config", str(folder / "litellm.yaml"), "--port", str(port)]
        command = ["serve", *where, "--console", "--console-port", str(beside), *options]
        env = {**os.environ, "ALIGNER_PROXY_HOME": str(folder / "home"), "NO_PROXY": "*", "UPSTREAM_KEY": SECRET}
        log = folder / "serve.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "aligner_proxy", *command], stdout=sink, stderr=sink, env=env
            )
        return Served(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{beside}", log)

    def close(self) -> None:
        """Kill it."""
        if self._current is not None:
            self._current.process.kill()
            self._current.process.wait()


def _configure(folder: Path, upstream: str) -> None:
    """The files of a `serve` with a tiny random aligner that verifies every answer."""
    tiny.save(folder / "aligner")
    aligner = {"model": "./aligner", "template": "ultrafeedback", "quantization": "none", "dtype": "fp32"}
    route = {"match": {"model": "*"}, "objectives": ["harmless"]}
    policies = {"aligner": aligner, "audit": {"enabled": True}, "routes": [route]}
    (folder / "policies.yaml").write_text(yaml.safe_dump(policies))
    guardrail = {"guardrail": "aligner_proxy.guardrail.AlignerGuardrail", "mode": "post_call", "default_on": True}
    model = {"model": "openai/up", "api_base": f"{upstream}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": "gpt", "litellm_params": model}],
        "guardrails": [{"guardrail_name": "aligner", "litellm_params": guardrail}],
        "general_settings": {"master_key": MASTER_KEY},
    }
    (folder / "litellm.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def serves(tmp_path_factory: pytest.TempPathFactory, upstream: str) -> Iterator[Serves]:
    """Those of this file."""
    made = Serves(tmp_path_factory.mktemp("serve"), upstream)
    yield made
    made.close()


@pytest.fixture
def served(serves: Serves, request: pytest.FixtureRequest) -> Served:
    """A `serve` with as many workers as the test asks for, and its options."""
    workers, *options = getattr(request, "param", [1])
    return serves.get(["--workers", str(workers), *options])


def shown(http: httpx.Client, path: str) -> str:
    """A page of the console; empty while it does not listen."""
    try:
        return http.get(path).text
    except httpx.TransportError:
        return ""


def test_the_console_beside_it_shows_an_answer(served: Served) -> None:
    said = served.ask("hello console")
    assert said.status_code == httpx.codes.OK
    with httpx.Client(
        base_url=served.console, headers={"origin": served.console}, trust_env=False, verify=False
    ) as browser:
        until(lambda: 'name="token"' in shown(browser, "/login"), served.log)
        token = re.search(r'name="token" value="([^"]+)"', shown(browser, "/login"))
        assert token is not None
        entered = browser.post("/login", data={"token": token[1], "key": MASTER_KEY})
        assert (entered.status_code, entered.headers["location"]) == (httpx.codes.SEE_OTHER, "/overview")
        until(lambda: "hello console" in shown(browser, "/live"), served.log)


def test_each_answer_is_a_line_of_text_without_any_option(served: Served) -> None:
    said = served.ask("hello log")
    line = rf" INFO aligner_proxy\.outcome: .*{said.headers['x-litellm-call-id']}"
    until(lambda: re.search(line, served.log.read_text()) is not None, served.log)
    assert "hello log" not in served.log.read_text()


@pytest.mark.parametrize("path", ["/v1/realtime?model=gpt", "/v1/responses", "/nowhere"])
def test_a_handshake_of_a_websocket_is_answered_and_opens_none(served: Served, path: str) -> None:
    offer = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"}
    key = {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "authorization": f"Bearer {MASTER_KEY}"}
    got = httpx.get(served.address + path, headers={**offer, **key}, timeout=30, trust_env=False, verify=False)
    assert got.status_code in (404, 405)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_engine_has_no_keys_in_its_environment(served: Served) -> None:
    def environment(name: str) -> bytes:
        return Path(f"/proc/{served.child(name)}/environ").read_bytes()

    assert SECRET.encode() in environment("litellm")
    assert SECRET.encode() not in environment("engine")


def test_a_restart_into_a_broken_configuration_is_refused_and_changes_nothing(served: Served) -> None:
    children = [served.child("engine"), served.child("litellm")]
    policies = served.log.parent / "policies.yaml"
    before = policies.read_text()
    try:
        policies.write_text("rotues: []\n")
        served.process.send_signal(signal.SIGHUP)
        until(lambda: "the running processes stay" in served.log.read_text(), served.log)
    finally:
        policies.write_text(before)
    assert served.ask("hello").headers["x-aligner-status"] in {"corrected", "unchanged"}
    assert [served.child("engine"), served.child("litellm")] == children


@pytest.mark.parametrize("filler", ["Here is a text about a harbour. " * 1000, "\u200b" * 7000, "dog " * 20_000])
def test_no_question_is_too_long_to_judge_its_answer(served: Served, filler: str) -> None:
    assert served.ask(f"hello {filler}").headers["x-aligner-status"] in {"corrected", "unchanged"}
    assert re.search(r"^: aligner status=(corrected|unchanged)", served.stream(f"hello {filler}"), re.MULTILINE)


@pytest.mark.full
def test_a_killed_engine_is_started_again(served: Served) -> None:
    first = served.ask("hello first")
    assert first.status_code == httpx.codes.OK
    assert first.headers["x-aligner-status"] in {"corrected", "unchanged"}
    engine = served.child("engine")
    os.kill(engine, signal.SIGKILL)
    until(lambda: served.child("engine") != engine, served.log)
    until(lambda: served.ask("hello again").headers["x-aligner-status"] in {"corrected", "unchanged"}, served.log)


def while_clients_ask(served: Served, restart: Callable[[Load], None]) -> None:
    """Restart while clients ask, and let them ask on: no request is lost, and no answer goes out uncorrected."""
    load = Load(served)
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(load.ask_on, number) for number in range(CLIENTS)]
        try:
            restart(load)
            until(lambda: "restart: done" in served.log.read_text(), served.log)
            before = load.answers
            until(lambda: load.answers >= before + 4 * CLIENTS, served.log)
        finally:
            load.stop.set()
        for client in clients:
            client.result()
    assert load.wrong == []


def restarts_under_load(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(served.log.parent / "home"))
    address = config.default_socket().resolve()
    engine = served.child("engine")
    gateway = served.child("litellm")

    def restart(load: Load) -> None:
        until(lambda: load.answers >= 2 * CLIENTS, served.log)
        served.process.send_signal(signal.SIGHUP)

    while_clients_ask(served, restart)
    assert gone(engine)
    assert gone(gateway)
    assert not gone(served.child("engine"))
    assert not gone(served.child("litellm"))
    assert config.default_socket().resolve() != address, "other tools reach the new engine"


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_worker_that_holds_too_much_is_replaced_under_load(
    tmp_path: Path, upstream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request is lost, no answer goes out uncorrected, and the engine stays."""
    monkeypatch.setenv("LITELLM_WORKER_STARTUP_HOOKS", "tests.e2e.hungry_worker:hold")
    monkeypatch.setenv(hungry_worker.MARK, str(tmp_path / "mark"))
    serves = Serves(tmp_path, upstream)
    try:
        served = serves.get(["--worker-mb", "800"])
        engine = served.child("engine")
        gateway = served.child("litellm")
        while_clients_ask(served, lambda _: None)  # its worker asks for it by itself
        assert gone(gateway)
        assert served.child("engine") == engine
        assert not gone(engine)
    finally:
        serves.close()


def loses_no_stream_in_flight(served: Served, upstream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM while streams are still coming in: the engine has to outlive the gateway's last word."""

    def begun() -> int:
        bodies = httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json()
        return sum(f"of {served.address}" in str(body) for body in bodies)

    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(served.log.parent / "home"))
    sockets = config.default_socket().parent
    children = [served.child("engine"), served.child("litellm")]
    with ThreadPoolExecutor(STREAMS) as pool:
        asked = [pool.submit(served.stream, f"drip {number} of {served.address}") for number in range(STREAMS)]
        until(lambda: begun() == STREAMS, served.log)
        served.process.send_signal(signal.SIGTERM)
        assert not any(one.done() for one in asked)
        got = [one.result() for one in asked]
    for raw in got:
        assert raw.endswith("data: [DONE]\n\n")
        assert '"finish_reason":"stop"' in raw.replace(" ", "")
        assert re.search(r"^: aligner status=(corrected|unchanged)", raw, re.MULTILINE), raw[-300:]
    assert served.process.wait(60) == 0
    assert all(map(gone, children))
    assert not list(sockets.glob("*.sock"))


def test_a_restart_under_load_loses_no_request_and_leaves_none_uncorrected(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarts_under_load(served, monkeypatch)


def test_sigterm_loses_no_stream_in_flight(served: Served, upstream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loses_no_stream_in_flight(served, upstream, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("served", [[2]], indirect=True, ids=["two-workers"])
def test_a_restart_of_several_workers(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    restarts_under_load(served, monkeypatch)


@pytest.mark.full
@pytest.mark.parametrize("served", [[2]], indirect=True, ids=["two-workers"])
def test_sigterm_to_several_workers(served: Served, upstream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loses_no_stream_in_flight(served, upstream, monkeypatch)


@pytest.mark.full
@pytest.mark.parametrize("served", [[1, *SLOW]], indirect=True)
def test_slow_clients_are_sent_away_and_the_others_are_served(served: Served) -> None:
    host, port = served.address.removeprefix("http://").split(":")
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    begun = [b"", b"POST /v1/ch", head, head + b"content-length: 900\r\n\r\n{"]
    with contextlib.ExitStack() as clients:
        slow = [clients.enter_context(socket.create_connection((host, int(port)))) for _ in range(64)]
        for number, client in enumerate(slow):
            with contextlib.suppress(ConnectionError):  # it has been sent away already
                client.sendall(begun[number % len(begun)])
        assert served.ask("hello").headers["x-aligner-status"] in {"corrected", "unchanged"}
        for client in slow:
            client.settimeout(WAIT_S)
            with contextlib.suppress(ConnectionError):
                assert client.recv(100).startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 503 ")) or not client.recv(1)
    long = httpx.post(
        f"{served.address}/v1/chat/completions", content=b"x" * (1 << 21), timeout=60, trust_env=False, verify=False
    )
    assert long.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert ready(served)


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tethers children")
@pytest.mark.parametrize("served", [[1, *SLOW]], indirect=True)
def test_nothing_is_left_when_serve_is_killed(served: Served) -> None:
    children = [served.child("engine"), served.child("litellm")]
    served.process.kill()
    served.process.wait()
    until(lambda: all(map(gone, children)), served.log)
