"""`replay`: what it prints and writes for a recorded store, and its one-line refusals."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from click.testing import CliRunner, Result

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.cli import main
from aligner_proxy.engine.server.app import create_app
from tests.audit.conftest import RUDE, noted
from tests.e2e.processes import free_port
from tests.support.scripted import ScriptedEngine

POLICIES = """\
objectives: {kind: "Kindness: be kind"}
routes: [{match: {model: "*"}, objectives: [kind]}]
audit: {file: audit.db}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ALIGNER_PROXY_KEYS", "ALIGNER_PROXY_POLICIES", "ALIGNER_PROXY_ENGINE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "new.yaml").write_text(POLICIES)
    store = AuditStore(tmp_path / "audit.db")
    now = time.time()
    for n in range(4):
        one = noted(n, at=now - 3600 * n, no_store=n == 3)
        if n == 1:
            one = replace(one, outcome=replace(one.outcome, edited=RUDE))
        store.add(make_entry(one))
    store.close()
    return tmp_path


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """A scripted engine on a port."""
    port = free_port()
    app = create_app(ScriptedEngine(lambda request: request.answer.replace(" You fool.", "")))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def run(folder: Path, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["replay", "--policy", str(folder / "new.yaml"), *map(str, arguments)])


def test_all_it_makes_holds_figures_and_no_text(folder: Path, engine: str) -> None:
    result = run(folder, "--engine", engine, "--output", folder / "out", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["answers"], told["without_text"]) == (3, 1)
    assert told["changes"] == {
        "the same": 2,
        "newly changed": 1,
        "no longer changed": 0,
        "changed otherwise": 0,
        "another outcome": 0,
    }
    assert [case["call_id"] for case in told["cases"]] == ["call-2", "call-1", "call-0"]
    written = {path.name: path.read_text() for path in (folder / "out").iterdir()}
    assert json.loads(written["replay.json"]) == told
    assert "| newly changed | 1 |" in written["replay.md"]
    drawn = ET.fromstring(written["replay.svg"])
    assert {"before", "after", "changed", "p95"} <= {
        node.text for node in drawn.iter("{http://www.w3.org/2000/svg}text")
    }
    for text in (*written.values(), result.output):
        assert "fool" not in text
        assert "It is so" not in text


def test_without_matplotlib_there_is_a_table_and_no_plot(
    folder: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        # every other package is found as ever: the engine's thread may import one meanwhile
        lambda name, *package: None if name == "matplotlib" else find_spec(name, *package),
    )
    assert run(folder, "--engine", engine, "--output", folder / "out").exit_code == 0
    assert {path.name for path in (folder / "out").iterdir()} == {"replay.json", "replay.md"}
    assert "pip install 'aligner-proxy[plots]'" in (folder / "out" / "replay.md").read_text()


def test_a_table_and_the_diffs_that_were_asked_for(folder: Path, engine: str) -> None:
    result = run(folder, "--engine", engine, "--show", "5")
    assert "share changed" in result.output
    assert "call-1/0: newly changed" in result.output
    assert "You fool." in result.output
    assert "call-0/0" not in result.output


def test_how_far_back(folder: Path, engine: str) -> None:
    for since, answers in (("90m", 2), ("30m", 1), ("2000-01-31", 3)):
        assert json.loads(run(folder, "--engine", engine, "--since", since, "--json").stdout)["answers"] == answers
    assert json.loads(run(folder, "--engine", engine, "--limit", "1", "--json").stdout)["answers"] == 1


def test_a_candidate_is_compared_with_the_current_file(folder: Path, engine: str) -> None:
    (folder / "candidate.yaml").write_text(POLICIES.replace("[kind]", "[kind, harmless]"))
    result = run(folder, "--engine", engine, "--candidate", folder / "candidate.yaml", "--json")
    report = json.loads(result.stdout)
    assert (report["changes"]["the same"], report["changes"]["newly changed"]) == (3, 0)
    # the answer that was recorded without an edit gets one today, under either file
    assert report["otherwise_than_recorded"] == 1
    printed = run(folder, "--engine", engine, "--candidate", folder / "candidate.yaml").output
    assert "under the current file 1 of them differ from the record" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "soon"], "--since must be an age"),
        (["--since", "2999-01-31"], "no entry of that time"),
        (["--audit", "nowhere.db"], "there is no audit store at nowhere.db"),
        (["--engine", "http://127.0.0.1:9", "--aligner", "embedded"], "give --engine or --aligner"),
    ],
)
def test_refusals(folder: Path, arguments: list[str], said: str) -> None:
    result = run(folder, *arguments)
    assert (result.exit_code, said in result.output) == (2, True), result.output
