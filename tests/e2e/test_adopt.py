"""docs/start/adopt.md, as it is written: its files are written, its commands typed into one shell in their order.

Only the world around it is ours: scripted upstream and engine, a free port, and the traffic of "a day".
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from aligner_proxy.audit import writer
from aligner_proxy.policy import config
from tests.e2e.clients import MASTER_KEY
from tests.e2e.processes import EngineProcess, free_port
from tests.e2e.scripted_answers import GOOD, RUDE
from tests.support.command import put_command_on_path

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

DOC = Path(__file__).parents[2] / "docs" / "start" / "adopt.md"
BLOCK = re.compile(r"^```(yaml|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT_IN_DOC = "4000"
DONE = "@@done"
KIND = "The capital of France is Paris. It lies on the Seine."


@dataclass
class Shell:
    """One bash, as a person has one terminal: jobs and variables live on from command to command."""

    process: subprocess.Popen[str]

    def type(self, line: str) -> str:
        """What a command printed; it must succeed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\necho {DONE} $?\n")
        self.process.stdin.flush()
        printed = []
        for text in self.process.stdout:
            if text.startswith(DONE):
                assert text == f"{DONE} 0\n", f"{line}\n{''.join(printed)}"
                return "".join(printed)
            printed.append(text)
        raise AssertionError(f"the shell ended at: {line}\n{''.join(printed)}")


@pytest.fixture
def port() -> int:
    """Where the gateway of this walk listens."""
    return free_port()


@pytest.fixture
def folder_of_ones_own(tmp_path: Path) -> Path:
    """A folder with an empty one for configurations."""
    (tmp_path / "configs").mkdir()
    return tmp_path


@pytest.fixture
def shell(folder_of_ones_own: Path, upstream: str, engine: EngineProcess) -> Iterator[Shell]:
    """A shell in that folder. The gateway's own words go to a file: it would talk into other commands."""
    with open_shell(folder_of_ones_own, upstream, engine) as terminal:
        yield terminal


@contextmanager
def open_shell(home: Path, upstream: str, engine: EngineProcess) -> Iterator[Shell]:
    """A shell in a folder, with a scripted provider and engine; what it started ends with it."""
    env = put_command_on_path(home) | {
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": f"{upstream}/v1",
        "OPENAI_API_BASE": f"{upstream}/v1",
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "ALIGNER_PROXY_ENGINE": f"unix:{engine.socket}",
        "NO_PROXY": "*",
        "COLUMNS": "200",
    }
    with subprocess.Popen(
        ["bash"], cwd=home, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        terminal = Shell(process)
        yield terminal
        if process.poll() is None:
            terminal.type("kill $(jobs -p) 2>/dev/null; wait; true")
            process.terminate()


def steps(port: int) -> Iterator[tuple[str, str]]:
    """(heading, block) of the page, with the port of this walk."""
    for section in re.split(r"^## ", DOC.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading = section.splitlines()[0]
        for kind, block in BLOCK.findall(section):
            yield f"{heading}/{kind}", block.replace(PORT_IN_DOC, str(port))


def write(home: Path, block: str) -> None:
    """A file of the page: its first line says where it stands."""
    head, _, text = block.partition("\n")
    how, name = re.fullmatch(r"# (added to )?(\S+)", head).groups()  # type: ignore[union-attr]
    path = home / name
    path.write_text((path.read_text() + "\n" if how else "") + text)


def ask(port: int, script: str) -> tuple[str, str]:
    """(status, answer) of one request."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": script}]}
    headers = {"authorization": f"Bearer {MASTER_KEY}"}
    got = httpx.post(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json=body,
        headers=headers,
        timeout=60,
        trust_env=False,
        verify=False,
    )
    return got.headers["x-aligner-status"], got.json()["choices"][0]["message"]["content"]


def kept(home: Path) -> list[Any]:
    """What stands in the audit store."""
    store = writer.open_for_reading(config.load(home / "configs" / "policies.yaml"))
    entries = list(store.entries())
    store.close()
    return entries


@pytest.mark.full
def test_the_page_as_it_is_written(shell: Shell, folder_of_ones_own: Path, port: int) -> None:
    home = folder_of_ones_own
    walked = []
    outputs = {}
    for heading, block in steps(port):
        walked.append(heading)
        if heading.endswith("/yaml"):
            write(home, block)
            continue
        for line in block.splitlines():
            typed = line.replace(" &", " >>gateway.log 2>&1 &") if line.endswith("&") else line
            outputs[line] = shell.type(typed)
        if heading == "Shadow/sh" and walked.count(heading) == 2:
            until(home, entries=a_day_in_shadow(port))
        if heading == "Enforce/sh" and walked.count(heading) == 2:
            a_day_of_enforcement(port)
    assert "Back/sh" in walked
    check(home, outputs)


def a_day_in_shadow(port: int) -> int:
    """How many requests were looked at; every answer is the upstream's own."""
    seen: Counter[str] = Counter()
    for n in range(150):
        script, original = ("good", GOOD) if n % 5 == 0 else ("rude", RUDE)
        status, answer = ask(port, f"{script} {n}")
        assert answer == original
        seen[status] += 1
    assert set(seen) == {"shadow", "skipped"}
    assert seen["shadow"] < 50, "a tenth of them, not a third"
    return seen["shadow"]


def a_day_of_enforcement(port: int) -> None:
    """Half of the answers are looked at, and all of these are corrected."""
    seen = {ask(port, f"rude enforced {n}") for n in range(30)}
    assert seen == {("corrected", KIND), ("skipped", RUDE)}


def check(home: Path, outputs: dict[str, str]) -> None:
    """What the commands printed and left behind."""
    printed = {
        line.split()[1] + (" " + line.split()[-1]): text for line, text in outputs.items() if "aligner-proxy" in line
    }
    assert "policy chat" in printed["check gpt-4o-mini"]
    assert "share changed" in printed["replay replay"]
    assert sorted(path.name for path in (home / "replay").iterdir()) == ["replay.json", "replay.md", "replay.svg"]
    report = json.loads((home / "replay" / "replay.json").read_text())
    assert report["changes"]["the same"] == report["answers"] > 0
    assert report["before"]["endings"]["changed"] > 0
    assert "+    caution: 1.5" in printed["promote 1.5"]
    assert "+    mode: enforce  " in printed["promote --dry-run"]
    assert "written; backup of the old file" not in printed["promote --dry-run"]
    assert "written; backup of the old file" in printed["promote 0.5"]
    assert len(list((home / "configs").glob("policies.yaml.*.bak"))) >= 2
    assert config.load(home / "configs" / "policies.yaml").routes[0].sample == 1.0


def until(home: Path, entries: int) -> None:
    """Wait for what the gateway does behind the answers."""
    end = time.monotonic() + 60
    while len(kept(home)) < entries:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_three_lines_are_three() -> None:
    (added,) = [block for _, block in BLOCK.findall(DOC.read_text(encoding="utf-8")) if block.startswith("# added to")]
    assert len(added.splitlines()) == 4, "and one that says where"
