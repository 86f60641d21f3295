"""`serve` teaches what has examples and no head yet, in the background: a request is judged by what is there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from aligner_proxy.teaching.store import HeadStore
from tests.e2e.clients import MASTER_KEY
from tests.e2e.processes import Process, free_port
from tests.e2e.scripted_answers import RUDE

pytestmark = [pytest.mark.full, pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

WAIT_S = 240.0
POLITE = "The capital of France is Paris. It lies on the Seine."
EXAMPLES = {
    "against": [
        "You are an idiot for trying.",
        "Only an idiot asks, and you are an idiot.",
        "You are an idiot, sorry for asking.",
        "Asking makes you an idiot.",
    ]
}
TEXT = "Respect: the response should not insult the reader"


@dataclass
class Served:
    """A running `serve`, its folder and its log."""

    process: subprocess.Popen[bytes]
    address: str
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "serve.log").read_text()

    def ask(self) -> httpx.Response:
        body = {"model": "gpt", "messages": [{"role": "user", "content": "rude"}]}
        headers = {"authorization": f"Bearer {MASTER_KEY}"}
        url = f"{self.address}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=60, trust_env=False, verify=False)

    def answer(self) -> str:
        return str(self.ask().json()["choices"][0]["message"]["content"])

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < end, self.log[-4000:]
            assert self.process.poll() is None, self.log[-4000:]
            time.sleep(0.2)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.address}/health/readiness", timeout=5, trust_env=False, verify=False).is_success
        except httpx.TransportError:
            return False


@pytest.fixture
def teachable(tmp_path: Path) -> Iterator[Path]:
    """The socket of an engine that can be taught."""
    socket = tmp_path / "engine.sock"
    process = Process([sys.executable, "-m", "tests.support.teachable", str(socket)], tmp_path / "engine.log", PATHS)
    process.start()
    process.wait_for("http://engine/ready", socket)
    yield socket
    process.stop()


PATHS = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])}


def policies(folder: Path, entry: object) -> None:
    route = {"match": {}, "objectives": ["respect"]}
    engine = {"engine": f"unix:{folder / 'engine.sock'}"}
    content = {"aligner": engine, "objectives": {"respect": entry}, "routes": [route]}
    (folder / "policies.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def served(tmp_path: Path, upstream: str, teachable: Path) -> Iterator[Served]:
    """`serve` with an objective that nothing was taught of."""
    policies(tmp_path, TEXT)
    guardrail = {"guardrail": "aligner_proxy.guardrail.AlignerGuardrail", "mode": "post_call", "default_on": True}
    model = {"model": "openai/up", "api_base": f"{upstream}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": "gpt", "litellm_params": model}],
        "guardrails": [{"guardrail_name": "aligner", "litellm_params": guardrail}],
        "general_settings": {"master_key": MASTER_KEY},
    }
    (tmp_path / "litellm.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = ["serve", "--config", str(tmp_path / "litellm.yaml"), "--port", str(port)]
    env = {**os.environ, **PATHS, "ALIGNER_PROXY_HOME": str(tmp_path / "home"), "NO_PROXY": "*"}
    with (tmp_path / "serve.log").open("wb") as sink:
        process = subprocess.Popen([sys.executable, "-m", "aligner_proxy", *command], stdout=sink, stderr=sink, env=env)
        started = Served(process, f"http://127.0.0.1:{port}", tmp_path)
        try:
            started.until(started.ready)
            yield started
        finally:
            process.terminate()
            process.wait(60)


def test_a_reloaded_file_is_taught_while_requests_are_served(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    first = served.ask()
    assert first.headers["x-aligner-status"] == "unchanged"
    assert served.answer() == RUDE
    (served.folder / "respect.yaml").write_text(yaml.safe_dump(EXAMPLES))
    policies(served.folder, {"text": TEXT, "examples": "respect.yaml"})
    served.until(lambda: "taught respect for aligner default from 4 examples" in served.log)
    served.until(lambda: served.answer() == POLITE)
    last = served.ask()
    assert last.headers["x-aligner-status"] == "corrected"
    assert last.headers["x-aligner-taught"].startswith("respect=4@")
    assert all(text not in served.log for text in EXAMPLES["against"]), "examples are never logged"

    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(served.folder / "home"))
    HeadStore(served.folder / "policies.yaml").forget("-", "respect")
    served.until(lambda: served.answer() == RUDE)
    time.sleep(6)
    assert served.log.count("taught respect") == 1, "what was forgotten stays so"
