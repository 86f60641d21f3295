"""The engine as a real process: ready, corrects, drains on SIGTERM, and is missed properly after SIGKILL."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from aligner_proxy.cli import main
from aligner_proxy.engine.api import AlignRequest, TokenLabelsRequest
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.errors import EngineUnavailable
from aligner_proxy.types import Verify
from tests.support import tiny
from tests.support.tiny_classifiers import CATEGORIES, save_guard

pytestmark = pytest.mark.slow


class Process:
    """`aligner-proxy engine` over a tiny model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "run" / "engine.sock"
        self.model = tiny.save(folder / "model")
        self.options = self.usual()
        """What a start without arguments is given."""
        self.child: subprocess.Popen[str] | None = None

    def start(self, *args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "aligner_proxy", "engine", *(args or self.options)]
        environment = os.environ | {"ALIGNER_PROXY_HOME": str(self.folder / "home")}
        self.child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        return self.child

    def on_socket(self) -> list[str]:
        return ["--socket", str(self.socket), "--threads", "1"]

    def usual(self) -> list[str]:
        return [*self.on_socket(), "--model", str(self.model), "--template", "ultrafeedback", "--quantization", "none"]

    def write_policies(self) -> Path:
        """A policies file with a judge; its quantization is another than that of the command line."""
        save_guard(self.folder / "judge")
        file = self.folder / "policies.yaml"
        aligner = {"model": str(self.model), "template": "ultrafeedback", "quantization": "nf4"}
        file.write_text(json.dumps({"aligner": aligner | {"judges": {"of-file": "./judge"}}}))
        return file

    def client(self) -> HttpEngine:
        return HttpEngine(f"unix:{self.socket}", wait_s=60)

    def stop(self) -> None:
        if self.child:
            self.child.kill()
            self.child.wait()
            assert self.child.stderr
            self.child.stderr.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One for the tests that need no other options; a start takes seconds."""
    made = Process(tmp_path_factory.mktemp("engine"))
    made.options = [*made.on_socket(), "--quantization", "none", "--config", str(made.write_policies())]
    made.start()
    yield made
    made.stop()


def slow() -> AlignRequest:
    """About a thousand tokens, one by one: seconds."""
    return tiny.request("Bring a coat when it rains. " * 45, verify=Verify.ALWAYS)


async def test_it_loads_the_judges_of_the_file(started: Process) -> None:
    client = started.client()
    about = await client.info()
    assert {judge: info.categories for judge, info in about.judges.items()} == {"of-file": CATEGORIES}
    asked = TokenLabelsRequest(request_id="t", model="of-file", question="When?", answer=tiny.ANSWER, deadline_s=60)
    assert (await client.label_tokens(asked)).read > 20
    await client.aclose()


async def test_killed_in_mid_request_it_is_unavailable_at_once_and_works_again_after_a_restart(
    started: Process,
) -> None:
    child = started.child
    assert child is not None
    client = started.client()
    await client.info()
    working = asyncio.create_task(client.align(slow()))
    await asyncio.sleep(0.5)
    assert not working.done()
    child.send_signal(signal.SIGKILL)
    child.wait()
    with pytest.raises(EngineUnavailable, match="disconnected during a request"):
        await working
    started.stop()
    started.start()
    assert (await client.align(tiny.request(caution=1e9, verify=Verify.ALWAYS))).text == tiny.ANSWER
    await client.aclose()


async def test_it_serves_drains_on_sigterm_and_exits_0(started: Process) -> None:
    child = started.child
    assert child is not None
    client = started.client()
    about = await client.info()
    assert (about.model, about.quantization, about.has_head) == ("model", "none", False)
    working = asyncio.create_task(client.align(slow()))
    await asyncio.sleep(0.5)
    child.send_signal(signal.SIGTERM)
    assert (await working).counts.forwards > 10
    assert await asyncio.to_thread(child.wait, 30) == 0
    assert not started.socket.exists()
    await client.aclose()
    assert child.stderr
    log = child.stderr.read()
    assert "ready: model" in log
    assert "coat" not in log


@pytest.mark.full  # another start; the option is read like the others of the command line
async def test_it_loads_the_judges_of_the_command_line_instead(process: Process) -> None:
    file = process.write_policies()
    process.start(*process.on_socket(), "--config", str(file), "--judge", f"named={process.folder / 'judge'}")
    client = process.client()
    about = await client.info()
    assert about.quantization == "nf4"
    assert {judge: info.categories for judge, info in about.judges.items()} == {"named": CATEGORIES}
    await client.aclose()


def test_a_judge_that_cannot_be_loaded_ends_the_start(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name; the command runs in this process, which has imported what it needs."""
    for name in ("signal.signal", "log_to_stderr", "silence_libraries"):
        monkeypatch.setattr(f"aligner_proxy.cli.engine.{name}", lambda *_: None)
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(process.folder / "home"))
    result = CliRunner().invoke(main, ["engine", *process.usual(), "--judge", f"named={process.folder / 'gone'}"])
    assert result.exit_code == 2
    assert "gone holds no config.json; give a folder or a Hugging Face id" in result.stderr


@pytest.mark.full
async def test_a_draining_engine_takes_nothing_new_and_is_gone_when_its_grace_is_over(process: Process) -> None:
    child = process.start(*process.usual(), "--grace", "1")
    client = process.client()
    await client.info()
    hasty = HttpEngine(f"unix:{process.socket}", wait_s=0.2)
    named = [slow().model_copy(update={"request_id": name}) for name in "abcdefgh"]
    working = [asyncio.create_task(hasty.align(request)) for request in named]  # seconds more than its grace
    reading = await hasty.read(tiny.request(""))
    await reading.feed(tiny.ANSWER)
    await asyncio.sleep(0.5)
    child.send_signal(signal.SIGTERM)
    began = time.monotonic()
    await asyncio.sleep(0.5)
    with pytest.raises(EngineUnavailable, match="no engine answers"):
        await HttpEngine(hasty.address, wait_s=0.2).align(tiny.request())
    assert child.poll() is None, "it still works on what it had"
    ends = await asyncio.gather(*working, return_exceptions=True)
    assert all(isinstance(end, EngineUnavailable) for end in ends), ends
    with pytest.raises(EngineUnavailable):
        await reading.finish(tiny.request(deadline_s=1.0))
    assert await asyncio.to_thread(child.wait, 30) == 0
    assert time.monotonic() - began > 1.0
    assert not process.socket.exists()
    for one in (client, hasty):
        await one.aclose()


@pytest.mark.full
async def test_it_is_healthy_before_it_is_ready(process: Process) -> None:
    process.start()
    transport = httpx.AsyncHTTPTransport(verify=False, uds=str(process.socket))
    seen: set[tuple[int, int]] = set()
    async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=30) as http:
        while (200, 200) not in seen:
            try:
                health = await http.get("/health")
                ready = await http.get("/ready")
            except httpx.ConnectError:
                await asyncio.sleep(0.02)
                continue
            seen.add((health.status_code, ready.status_code))
    assert seen <= {(200, 200), (200, 503)}


@pytest.mark.full
def test_a_taken_port_and_missing_weights_exit_2_with_one_sentence(process: Process) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        child = process.start("--port", str(taken.getsockname()[1]))
        _, said = child.communicate(timeout=60)
        assert child.returncode == 2
        assert "stop the other process or choose another --port" in said.splitlines()[-1]
    child = process.start("--port", "0", "--model", str(process.folder / "nowhere"), "--template", "imhi")
    _, said = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "does not exist; give a folder" in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.full
def test_a_stop_while_it_still_loads_is_clean_and_quick(process: Process) -> None:
    child = process.start("--socket", str(process.socket), "--model", str(process.model), "--template", "imhi")
    while not process.socket.exists():
        time.sleep(0.02)
        assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 0  # seconds; on a busy machine what it is importing takes most of them
    assert not process.socket.exists()
