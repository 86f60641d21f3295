"""README's way from a checkout to a corrected answer, as it is written, with a scripted provider behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.clients import MASTER_KEY
from tests.e2e.processes import EngineProcess
from tests.e2e.test_adopt import KIND, Shell, folder_of_ones_own, open_shell, port

__all__ = ["folder_of_ones_own", "port"]
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    """README's blocks of one language."""
    return [
        text for language, text in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")) if language == kind
    ]


def serving_commands() -> list[str]:
    """The lines that check a policy and start the gateway."""
    (block,) = [text for text in blocks("sh") if "aligner-proxy serve" in text]
    return block.splitlines()


@pytest.fixture
def shell(folder_of_ones_own: Path, upstream: str, engine: EngineProcess) -> Iterator[Shell]:
    """A shell in an empty folder; no provider's key is set."""
    with open_shell(folder_of_ones_own, upstream, engine) as terminal:
        terminal.type("unset OPENAI_API_KEY GATEWAY_OPENAI_KEY; export ALIGNER_PROXY_LOG=json")
        yield terminal


def test_the_path_of_the_readme(shell: Shell, folder_of_ones_own: Path, port: int) -> None:
    for line in serving_commands():
        typed = line.replace("4000", str(port))
        typed = f"{typed} >gateway.log 2>&1 &" if "serve" in typed else typed
        printed = shell.type(typed)
        if " check " in line:
            assert "valid" in printed
            assert "warning" not in printed
    key = shell.type("echo $LITELLM_MASTER_KEY").strip()
    assert key not in ("", MASTER_KEY)
    shell.type(f"until curl -sf -o ready.json http://127.0.0.1:{port}/health/readiness; do sleep 1; done")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, verify=False) as http:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "rude"}]}
        got = http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
        assert got.status_code == 200, got.text
        assert got.headers["x-aligner-status"] == "corrected"
        assert got.json()["choices"][0]["message"]["content"] == KIND
        for headers in ({}, {"authorization": "Bearer sk-somebody-else"}):
            refused: Any = http.post("/v1/chat/completions", json=body, headers=headers)
            assert refused.status_code == 401, refused.text
    log = (folder_of_ones_own / "gateway.log").read_text()
    # engine, gateway, LiteLLM and uvicorn alike
    lines = [json.loads(line) for line in log.splitlines()]
    assert len(lines) > 10
    assert [line for line in lines if list(line)[:4] != ["time", "level", "logger", "pid"]] == []
    assert not [line for line in lines if "Traceback" in str(line) or "cost map" in str(line)]
