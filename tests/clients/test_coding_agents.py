"""Coding agents of docs/guides/recipes.md, set up by the page: their text corrected, their calls and reasoning kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.page import ROOT, read_block
from tests.e2e.clients import MASTER_KEY, Gateway
from tests.e2e.scripted_answers import RUDE, THOUGHT
from tests.e2e.scripted_engine import INSULT
from tests.e2e.upstream_agents import NOTE, WRITTEN

PROGRAMS = Path(os.environ.get("RECIPE_AGENTS", ROOT / ".build" / "recipe-agents" / "node_modules" / ".bin"))
"""What `make clients` installs."""
pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not (PROGRAMS / "claude").exists(), reason="make clients installs the coding agents of the page"
    ),
]
KIND = RUDE.replace(INSULT, "")
ENDS_S = 90


@dataclass(frozen=True)
class Agent:
    """A coding agent: where its settings stand on the page and on disk, how it is asked, and what it then shows."""

    section: str
    language: str
    settings: str
    """File below the home folder; empty for variables of the shell."""
    command: tuple[str, ...]
    suffix: str
    """Of the names of models that speak its format."""
    list_texts: Callable[[str], list[str]]
    """What it shows as the model's text, by its output."""


def list_claude_texts(output: str) -> list[str]:
    """The texts of Claude Code's messages."""
    lines = [json.loads(line) for line in output.splitlines()]
    blocks = [block for line in lines if line["type"] == "assistant" for block in line["message"]["content"]]
    return [block["text"] for block in blocks if block["type"] == "text"]


def list_codex_texts(output: str) -> list[str]:
    """The texts of Codex's messages."""
    items = [json.loads(line).get("item", {}) for line in output.splitlines()]
    return [item["text"] for item in items if item.get("type") == "agent_message"]


AGENTS = {
    "claude": Agent(
        "Claude Code",
        "sh",
        "",
        ("claude", "--output-format", "stream-json", "--verbose", "--allowedTools", "Bash", "-p"),
        "-claude",
        list_claude_texts,
    ),
    "codex": Agent(
        "Codex",
        "toml",
        ".codex/config.toml",
        ("codex", "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
        "",
        list_codex_texts,
    ),
    "continue": Agent(
        "Continue",
        "yaml",
        ".continue/config.yaml",
        ("cn", "--config", "{settings}", "--allow", "Bash", "-p"),
        "",
        lambda output: [output.strip()],
    ),
}


def run_agent(agent: Agent, gateway: Gateway, model: str, folder: Path, prompt: str) -> str:
    """Let an agent that the page sets up answer a prompt, and return what it printed."""
    home = folder / "home"
    project = folder / "project"
    project.mkdir(parents=True)
    block = read_block(agent.section, agent.language, gateway.address, model)
    settings = home / agent.settings
    settings.parent.mkdir(parents=True, exist_ok=True)
    variables = block if not agent.settings else ""
    if agent.settings:
        settings.write_text(block, encoding="utf-8")
    program = shutil.which(agent.command[0], path=str(PROGRAMS))
    assert program is not None
    arguments = [argument.format(settings=settings) for argument in agent.command[1:]]
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "IS_SANDBOX": "1", "NO_PROXY": "*"}
    if agent.language == "yaml":  # Continue reads the secret from its own file
        (settings.parent / ".env").write_text(f"ALIGNER_KEY={MASTER_KEY}\n", encoding="utf-8")
    else:
        env["ALIGNER_KEY"] = MASTER_KEY
    done = subprocess.run(
        ["bash", "-c", f'{variables}\nexec "$@"', "agent", program, *arguments, prompt],
        cwd=project,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ENDS_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return done.stdout


def last_request(upstream: str, marker: str) -> dict[str, Any]:
    """The last request of a conversation that reached the upstream."""
    bodies = httpx.get(f"{upstream}/seen", params={"n": 20}, trust_env=False, verify=False).json()
    return [body for body in bodies if marker in json.dumps(body)][-1]


@pytest.mark.parametrize("mode", ["quick", "sentence"])
@pytest.mark.parametrize("name", AGENTS)
def test_its_text_is_corrected_and_its_calls_and_reasoning_are_kept(
    gateway: Gateway, upstream: str, tmp_path: Path, name: str, mode: str
) -> None:
    agent = AGENTS[name]
    marker = uuid.uuid4().hex
    output = run_agent(agent, gateway, f"{mode}-agent{agent.suffix}", tmp_path, f"Where does Paris lie? {marker}")
    texts = agent.list_texts(output)
    assert texts
    assert set(texts) == {KIND}
    # The shell wrote what the model's call said.
    assert (tmp_path / "project" / NOTE).read_text().strip() == WRITTEN
    # With the result the agent sent back what it holds of the first answer.
    sent_back = json.dumps(last_request(upstream, marker))
    assert json.dumps(KIND)[1:-1] in sent_back
    assert json.dumps(RUDE)[1:-1] not in sent_back
    if name != "continue":  # its upstream has no reasoning
        assert THOUGHT in sent_back
