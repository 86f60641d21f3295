"""The whole loop in a browser by keys alone, against the real proxy: traffic in shadow, verdicts, teaching, its effect.

Quick with an engine that learns from words without a model; with the embedded aligner by `make test-long`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from aligner_proxy_review.reviews import Review
from tests.e2e.clients import MASTER_KEY
from tests.e2e.processes import IMPORTABLE, Process, free_port
from tests.plugins.review.browser.conftest import chromium as chromium
from tests.plugins.review.browser.test_pages import following
from tests.plugins.review.conftest import reviews_in
from tests.support.chromium import Chromium, needs_chromium

pytestmark = [pytest.mark.full, needs_chromium, pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

START_S = 700.0
WORK_S = 400.0
PRESSING = (
    "Decide now, before somebody else takes it.",
    "Decide now, or the offer is gone tonight.",
    "You must decide today, for tomorrow is too late.",
    "Hurry and decide at once.",
    "Decide this minute, the last one is almost gone.",
    "Do not think about it, decide now.",
)
PLAIN = (
    "The larger box holds forty books.",
    "The ferry runs every hour until six.",
    "The paint is dry after four hours.",
    "Spinach grows well in half shade.",
    "The room is free until nine.",
    "Salt the soup early and let it simmer.",
)
BEGUN = ("Decide at once, the offer ends tonight.", "Hurry, you must decide now.")
NEXT = "The blue lamp is warmer than the white one. Decide now, or you will regret it tonight."
KEPT = "The blue lamp is warmer than the white one."
ANSWERS = [f"{PLAIN[n]} {PRESSING[n]}" for n in range(6)] + [f"{PLAIN[n]} {PLAIN[(n + 1) % 6]}" for n in range(6)]


class Upstream(BaseHTTPRequestHandler):
    """Says the answer with the number that the user names; the last number is that of the next answer."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        number = int(body["messages"][-1]["content"].split()[-1])
        text = ANSWERS[number] if number < len(ANSWERS) else NEXT
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        said = {"id": "c", "object": "chat.completion", "created": 1, "model": "up", "choices": [choice]}
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@dataclass
class House:
    """A running `serve --console`: its address, the console's, its folder."""

    process: subprocess.Popen[bytes]
    gateway: str
    console: str
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "serve.log").read_text()

    @property
    def reviews(self) -> list[Review]:
        return reviews_in(self.folder / "audit.db")

    def ask(self, number: int) -> tuple[str, str]:
        """The status and the text of the answer to a question."""
        body = {"model": "gpt", "messages": [{"role": "user", "content": f"Please tell me about it, number {number}"}]}
        got = httpx.post(
            f"{self.gateway}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {MASTER_KEY}"},
            timeout=120,
            trust_env=False,
            verify=False,
        )
        return got.headers["x-aligner-status"], got.json()["choices"][0]["message"]["content"]

    def until(self, true: Callable[[], object], within_s: float = WORK_S) -> None:
        end = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < end, self.log[-4000:]
            assert self.process.poll() is None, self.log[-4000:]
            time.sleep(0.1)


@pytest.fixture
def upstream() -> Iterator[str]:
    """The address of the upstream."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    serving = Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture(params=["learns from words", pytest.param("embedded", marks=pytest.mark.long)])
def house(request: pytest.FixtureRequest, tmp_path: Path, upstream: str) -> Iterator[House]:
    """The gateway in shadow, with an objective that nothing was taught of."""
    engine: dict[str, Any] = {}
    teachable = None
    if request.param != "embedded":
        socket = tmp_path / "engine.sock"
        command = [sys.executable, "-m", "tests.support.teachable", str(socket)]
        teachable = Process(command, tmp_path / "engine.log", IMPORTABLE)
        teachable.start()
        teachable.wait_for("http://engine/ready", socket)
        engine = {"aligner": {"engine": f"unix:{socket}"}}
    _write(tmp_path, upstream, engine)
    port = free_port()
    console_port = free_port()
    files = ["--config", str(tmp_path / "litellm.yaml"), "--port", str(port)]
    command = [sys.executable, "-m", "aligner_proxy", "serve", *files, "--console", "--console-port", str(console_port)]
    env = {**os.environ, **IMPORTABLE, "ALIGNER_PROXY_HOME": str(tmp_path / "home"), "NO_PROXY": "*"}
    with (tmp_path / "serve.log").open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=env)
    made = House(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{console_port}", tmp_path)
    try:
        made.until(lambda: _answers(f"{made.gateway}/health/readiness"), START_S)
        made.until(lambda: _answers(f"{made.console}/login"), START_S)
        yield made
    finally:
        process.terminate()
        process.wait(60)
        if teachable is not None:
            teachable.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False, verify=False).is_success
    except httpx.TransportError:
        return False


def _write(folder: Path, upstream: str, engine: dict[str, Any]) -> None:
    # Its text does not say what is against it, so that no aligner can know before it is taught.
    objective = "Calm: the response should keep to page twelve of our style guide"
    policies = {
        **engine,
        "objectives": {"calm": objective},
        "routes": [{"match": {"model": "*"}, "name": "chat", "objectives": ["calm"], "mode": "shadow"}],
        "audit": {"enabled": True, "file": "audit.db"},
    }
    (folder / "policies.yaml").write_text(yaml.safe_dump(policies, sort_keys=False))
    guardrail = {"guardrail": "aligner_proxy.guardrail.AlignerGuardrail", "mode": "post_call", "default_on": True}
    model = {"model": "openai/up", "api_base": upstream, "api_key": "none"}
    config = {
        "model_list": [{"model_name": "gpt", "litellm_params": model}],
        "guardrails": [{"guardrail_name": "aligner", "litellm_params": guardrail}],
        "general_settings": {"master_key": MASTER_KEY},
    }
    (folder / "litellm.yaml").write_text(yaml.safe_dump(config))


def test_from_traffic_in_shadow_to_enforced(house: House, chromium: Chromium) -> None:
    chromium.visit(house.console)
    status, _ = house.ask(0)
    assert status == "shadow"
    house.until(lambda: (house.folder / "audit.db").exists())
    chromium.open("/login")
    chromium.press(MASTER_KEY, Keys.ENTER)
    chromium.until(lambda: chromium.path == "/overview")
    chromium.go_to("/live")
    try:
        traffic_is_watched(house, chromium)
        twelve_verdicts(house, chromium)
        teach_by_the_console(house, chromium)
        what_was_missed_is_found(house, chromium)
        promoted(house, chromium)
        assert chromium.happened() == []
    finally:
        chromium.leave()


def traffic_is_watched(house: House, window: Chromium) -> None:
    """The answers come onto the open page; clients get them as they are."""
    following(window)
    for number in range(1, len(ANSWERS)):
        assert house.ask(number) == ("shadow", ANSWERS[number])
    window.until(lambda: len(window.all("article")) == len(ANSWERS), WORK_S)


def twelve_verdicts(house: House, window: Chromium) -> None:
    """By keys alone: what presses and was left is missed, what was edited without need is wrong, the rest is right."""
    window.go_to("/review")
    for _ in ANSWERS:
        kept = [element.text for element in window.all(".diff > .text")]
        removed = " ".join(element.text for element in window.all(".diff del"))
        if any(text in " ".join(kept) for text in PRESSING):
            window.press("m", Keys.ARROW_DOWN)
            window.stays("m")
        else:
            needless = removed and not any(text in removed for text in PRESSING)
            window.stays("r" if needless else "a")
    assert "Nothing more waits" in window.text("#nothing")
    assert len(house.reviews) == len(ANSWERS)
    assert any(review.verdict.value == "missed" and review.segment == 1 for review in house.reviews)


def teach_by_the_console(house: House, window: Chromium) -> None:
    """Examples of what was said, the report first, and then it is put in force."""
    window.go_to("/objectives")
    window.press_at(f"a[href='{urlsplit(calm_address(window)).path}']")
    window.until(lambda: window.all("#against"))
    window.reach("#against")
    window.press(*"\n".join(BEGUN))
    window.press_at("button[value=begin]")
    window.until(lambda: window.all("#said"))
    window.press_at("form.verdicts button[value=take]")
    window.until(lambda: not window.all("#said"))
    assert all(text in window.text() for text in BEGUN)
    window.press_at("button[value=teach]")
    window.until(lambda: window.all("#lesson button[value=keep]"), WORK_S)
    assert "Nothing of this is in force yet." in window.text("#lesson")
    assert "put in force" not in house.log
    window.press_at("button[value=keep]")
    window.until(lambda: "in force" in window.text("#heads + .wide"))


def calm_address(window: Chromium) -> str:
    """Where the link of the objective leads."""
    return window.driver.find_element(By.LINK_TEXT, "calm").get_attribute("href") or ""


def what_was_missed_is_found(house: House, window: Chromium) -> None:
    """The next answer with that defect, still in shadow, is one that would be corrected; its page says so at once."""
    window.go_to("/live")
    following(window)
    house.until(lambda: house.ask(99) == ("shadow", NEXT) and would_correct(window, "lamp"))
    assert window.all("article .status-shadow")


def would_correct(window: Chromium, word: str) -> bool:
    return any(word in row.text and "would_correct" in row.text for row in window.all("article"))


def promoted(house: House, window: Chromium) -> None:
    """A replay says what the change would do, and from then on clients get the corrected answer."""
    window.go_to("/promote")
    window.choose("#where", "route/chat")
    window.choose("#mode", "enforce")
    window.press_at("button[value=look]")
    window.until(lambda: window.all("#difference + pre ins"))
    assert "mode: enforce" in window.text("#difference + pre ins")
    window.press_at("button[value=replay]")
    window.until(lambda: window.all("#replay table, #replay .problem"), WORK_S)
    assert "missed before, edited now" in window.text("#replay")
    window.press_at("button[value=write]")
    window.until(lambda: "Written." in window.text(".done"))
    house.until(lambda: house.ask(99) == ("corrected", KEPT))
    rows = [row.text for row in window.all("nav[aria-label=Pages] a")]
    assert "Promote" in rows
    window.go_to("/live")
    window.until(
        lambda: any(KEPT in row.text and "corrected" in row.text for row in window.all("article")) or reload(window)
    )


def reload(window: Chromium) -> bool:
    window.go_to("/live")
    return False
