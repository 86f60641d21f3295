"""`teach`: what it prints and keeps, what it refuses, and that `align --config` uses what was taught."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner, Result

from aligner_proxy.cli import main
from aligner_proxy.engine import sockets
from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.server.app import create_app
from tests.support.teachable import TeachableEngine
from tests.teaching.examples import AGAINST, HELD_OUT, listed, policies

ANSWER = f"The harbour opens at six. {HELD_OUT[0]} Bring a coat."
CLEAN = "The harbour opens at six. Bring a coat."


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "feelings.yaml").write_text(listed())
    (tmp_path / "policies.yaml").write_text(policies())
    return tmp_path / "policies.yaml"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[str, TeachableEngine]]:
    yield from _served(TeachableEngine(), tmp_path / "e.sock")


def _served(engine: Engine, path: Path) -> Iterator[tuple[str, Any]]:
    with sockets.unix(path) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(engine), log_config=None, lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        yield f"unix:{path}", engine
        server.should_exit = True
        thread.join()


def run(*args: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), input=given, catch_exceptions=False)


def aligned(file: Path, address: str, answer: str = ANSWER) -> dict[str, Any]:
    result = run(
        "align", "-q", "When?", "-o", "no-feelings", "--json", "--config", file, "--engine", address, given=answer
    )
    return json.loads(result.stdout)


def test_what_was_taught_is_flagged_by_align_and_was_not_before(
    file: Path, engine: tuple[str, TeachableEngine]
) -> None:
    address, _ = engine
    assert aligned(file, address)["corrected"] == ANSWER
    result = run("teach", file, "--engine", address, "--json")
    assert result.exit_code == 0, result.output
    [told] = json.loads(result.stdout)["objectives"]
    assert (told["objective"], told["taught"], told["against"]) == ("no-feelings", True, len(AGAINST))
    assert told["found"]["hits"] >= 3
    assert told["false"]["share"] <= 0.002
    after = aligned(file, address)
    assert after["corrected"] == CLEAN
    assert [segment["against"] for segment in after["segments"]] == [None, "no-feelings", None]
    assert aligned(file, address, CLEAN)["corrected"] == CLEAN
