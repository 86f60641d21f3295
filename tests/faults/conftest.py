"""The engine, the upstream and one real LiteLLM proxy, whose routes are told apart by the model that is asked for."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from aligner_proxy.pipeline import outcomes
from tests.e2e.clients import MASTER_KEY, Streamed
from tests.e2e.deployment import LITELLM
from tests.e2e.processes import IMPORTABLE, Process, free_port
from tests.e2e.warm_litellm import COMMON
from tests.faults import cells, faults
from tests.faults.cells import ALONE, CORRECTED, ERROR, FINAL_ERROR, INSIDE, ORIGINAL, Cell, Seen
from tests.faults.faulty_upstream import KIND, RUDE

ALONE_MODEL = "alone"
SETTLED = cells.model(cells.OnError.PASSTHROUGH, cells.MODES[0], "long")
_NUMBERS = itertools.count()


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something that happens in other processes."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@dataclass
class House:
    """Everything that a fault may be done to, and the client."""

    folder: Path
    address: str
    engine: Process
    socket: Path
    calls: Path
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {"authorization": f"Bearer {MASTER_KEY}"}
        self.http = httpx.Client(base_url=self.address, headers=headers, timeout=90, trust_env=False, verify=False)

    @property
    def policies(self) -> Path:
        """The file that the proxy goes by."""
        return self.folder / "configs" / "policies.yaml"

    def ask(self, model: str, question: str, stream: bool, **body: Any) -> Streamed:
        """One request, as a client sees its answer."""
        messages = [{"role": "user", "content": question}]
        asked = {"model": model, "messages": messages, "stream": stream, **body}
        got = self.http.post("/v1/chat/completions", json=asked)
        return Streamed(got.status_code, got.headers, got.text)

    def asked(self, question: str, event: str = "asked") -> int:
        """How often the engine was asked this, or gave it up."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return sum(call == {"event": event, "said": question} for call in map(json.loads, lines))

    @contextlib.contextmanager
    def holding(self) -> Iterator[Callable[[], None]]:
        """Questions that begin with `held` wait until what this gives is called, or until the block ends."""
        gate = self.calls.with_suffix(".open")
        gate.unlink(missing_ok=True)
        try:
            yield gate.touch
        finally:
            gate.touch()

    def start_engine(self) -> None:
        """Start it and wait until it can work."""
        self.socket.unlink(missing_ok=True)
        self.engine.start()
        self.engine.wait_for("http://engine/ready", self.socket)

    def settle(self) -> None:
        """Until a correction succeeds: what the last cell did to breaker and engine is over."""
        until(
            lambda: self.ask(SETTLED, new("settle"), stream=False).headers.get("x-aligner-status") == "corrected",
            "the gateway never corrected again",
        )

    def metric(self, name: str) -> float:
        """One gauge, as the operator sees it."""
        found = re.search(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", self.http.get("/metrics/").text, re.MULTILINE)
        assert found, name
        return float(found[1])


def new(word: str) -> str:
    """A question that nobody asked before."""
    return f"{word} {next(_NUMBERS)}"


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Three processes."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "configs").mkdir()
    up = free_port()
    port = free_port()
    address = f"http://127.0.0.1:{up}"
    module = [sys.executable, "-m"]
    upstream = Process([*module, "tests.faults.faulty_upstream", str(up)], folder / "upstream.log", IMPORTABLE)
    socket = folder / "engine.sock"
    calls = folder / "engine.calls"
    command = [*module, "tests.faults.faulty_engine", str(socket), str(calls)]
    engine = Process(command, folder / "engine.log", IMPORTABLE)
    with contextlib.ExitStack() as stack:
        made = House(folder, f"http://127.0.0.1:{port}", engine, socket, calls)
        proxy = _proxy(made, address, port)
        for process in (upstream, proxy):
            stack.callback(process.stop)
            process.start()
        stack.callback(engine.stop, signal.SIGKILL)
        made.start_engine()
        upstream.wait_for(f"{address}/health")
        proxy.wait_for(f"{made.address}/health/readiness")
        yield made
        made.http.close()


def _proxy(house: House, upstream: str, port: int) -> Process:
    names = [
        cells.model(policy, mode, deadline)
        for policy in cells.POLICIES
        for mode in cells.MODES
        for deadline in cells.DEADLINES
    ]
    params = {"model": "openai/up", "api_base": f"{upstream}/v1", "api_key": "none"}
    guardrail = {"guardrail": "aligner_proxy.guardrail.AlignerGuardrail", "mode": "post_call", "default_on": True}
    settings = {
        "model_list": [{"model_name": name, "litellm_params": params} for name in (*names, ALONE_MODEL)],
        "general_settings": {"master_key": MASTER_KEY},
        "litellm_settings": {"num_retries": 0, "callbacks": ["prometheus"]},
        "router_settings": {"disable_cooldowns": True},
        "guardrails": [{"guardrail_name": "aligner", "litellm_params": guardrail}],
    }
    file = house.folder / "configs" / "litellm.yaml"
    file.write_text(yaml.safe_dump(settings))
    house.policies.write_text(yaml.safe_dump(policies()))
    env = {
        **COMMON,
        "ALIGNER_PROXY_ENGINE": f"unix:{house.socket}",
        "ALIGNER_PROXY_HOME": str(house.folder / "home"),
        "NO_PROXY": "*",
    }
    command = [LITELLM, "--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    return Process(command, house.folder / "proxy.log", env, warm=True)


def policies(cell: Cell | None = None) -> dict[str, Any]:
    """A route for each policy, mode and deadline, and one that is left alone; or the route of one cell alone.

    A guardrail reads them when it starts, which is most of the work of a cell that needs one of its own.
    """
    routes: list[dict[str, Any]] = [{"match": {"model": ALONE_MODEL}, "mode": "off"}]
    for policy in cells.POLICIES:
        for mode in cells.MODES:
            for name, seconds in cells.DEADLINES.items():
                route = cells.model(policy, mode, name)
                if cell and route != cell.model:
                    continue
                said = {"on_error": policy.value, "deadline_s": seconds} | (
                    {"stream": mode.stream} if mode.stream else {}
                )
                routes.append({"match": {"model": route}, "name": route, "objectives": ["kind"], **said})
    kind = "Kindness: the response should never insult the reader"
    shadow = {"running": len(cells.POLICIES)}  # so that the cells of `passthrough` can be held at once
    return {"objectives": {"kind": kind}, "cache": {"enabled": False}, "shadow": shadow, "routes": routes}


def seen(cell: Cell, got: Streamed, alone: Streamed) -> Seen:
    """What a client got, in the page's words; `alone` is the same request to a route that is left alone."""
    text = _text(cell, got)
    why = _why(got)
    if got.status_code == httpx.codes.OK and text == KIND:
        return Seen(CORRECTED, why)
    if alone.status_code == httpx.codes.OK and text == RUDE and _plain(got, cell) == _plain(alone, cell):
        return Seen(ORIGINAL, why)
    if cell.mode.stream and '"aligner_error"' in got.raw and RUDE.startswith(str(text)):
        return Seen(INSIDE, why)
    if _plain(got, cell) == _plain(alone, cell):
        return Seen(ALONE, f"{_ending(alone)}")
    error = json.loads(got.raw).get("error", {}) if got.raw.startswith("{") else {}
    if f"error {got.status_code}" in (ERROR, FINAL_ERROR) and error.get("type") == "aligner_error":
        return Seen(f"error {got.status_code}", why)
    return Seen(f"{got.status_code}: {got.raw[:600]!r}, alone {alone.status_code}: {alone.raw[:600]!r}")


def _text(cell: Cell, got: Streamed) -> str | None:
    if got.status_code != httpx.codes.OK:
        return None
    if cell.mode.stream:
        return got.text()
    return str(json.loads(got.raw)["choices"][0]["message"]["content"])


def _plain(got: Streamed, cell: Cell) -> tuple[int, str]:
    """Without the model's name and what is made up for each response."""
    raw = got.untouched() if got.raw.startswith(("data", ":")) else got.raw
    return got.status_code, re.sub(
        r"chatcmpl-\S+?\"|\d{10}|time taken=[\d.]+", "", raw.replace(cell.model, ALONE_MODEL)
    )


def _ending(alone: Streamed) -> str:
    if alone.status_code != httpx.codes.OK:
        return f"error {alone.status_code}"
    return "what came, then its error" if '"error"' in alone.raw else "what came"


def _why(got: Streamed) -> str | None:
    """The class of the failure, or the reason where it is none."""
    said = [got.headers.get("x-aligner-reason"), *re.findall(r"reason=([^\s]+)", "".join(got.comments))]
    said += re.findall(r"could not be aligned \((\S+)\)", got.raw)
    reason = next(filter(None, said), None)
    kind = outcomes.class_of(reason)
    return kind.value if kind else reason


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the page, if that was asked for and all cells were seen."""
    if cells.WRITE and not exitstatus and len(cells.SEEN) == len(cells.cells(faults.ALL)):
        cells.PAGE.write_text(cells.page(faults.ALL), encoding="utf-8")
