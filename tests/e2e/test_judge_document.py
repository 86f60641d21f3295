"""docs/guides/judge.md, as it is written: a guard and a decision model, each set up by its lines and five commands.

The first command of each starts a model on another machine. Here a scripted guard stands for vLLM, and the embedded
aligner for a larger one.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.clients import MASTER_KEY
from tests.e2e.processes import Process, free_port
from tests.e2e.scripted_judge import PREFIX
from tests.support.command import put_command_on_path

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(300)]
DOC = Path(__file__).parents[2] / "docs" / "guides" / "judge.md"
BLOCK = re.compile(r"^```(yaml|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BESIDE = {"band": 50.0}
"""A band in which every sentence is, for a second route: so the judge is asked about whatever the upstream says."""


@dataclass(frozen=True)
class Section:
    """What a section of the page has a reader write and type."""

    models: list[dict[str, Any]]
    """Entries of LiteLLM's `model_list`."""
    policies: dict[str, Any]
    commands: list[str]

    @property
    def route(self) -> dict[str, Any]:
        """The only route of the policies."""
        (route,) = self.policies["routes"]
        return dict(route)

    @property
    def model(self) -> str:
        """A model of that route."""
        return str(self.route["match"]["model"]).replace("*", "1")

    @classmethod
    def read(cls, title: str, replaced: Mapping[str, str]) -> Section:
        """The section of this title, with other addresses and models in place of those that it names."""
        text = DOC.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        blocks = BLOCK.findall(text)
        assert [kind for kind, _ in blocks] == ["yaml", "yaml", "sh"]
        for before, after in replaced.items():
            assert before in str(blocks)
            blocks = [(kind, block.replace(before, after)) for kind, block in blocks]
        (_, models), (_, policies), (_, commands) = blocks
        lines = commands.replace("\\\n", " ").splitlines()
        return cls(yaml.safe_load(models)["model_list"], yaml.safe_load(policies), lines)


@dataclass(frozen=True)
class Machine:
    """A folder in which the commands of a section run, with their `aligner-proxy` on the path."""

    folder: Path
    port: int
    environment: dict[str, str]
    """The variables of its shell."""

    def edit(self, section: Section, upstream: str) -> None:
        """Write the two files that a gateway has, with the section's lines in them."""
        route = section.route
        params = {"model": "openai/up", "api_base": f"{upstream}/v1", "api_key": "none"}
        ours = [{"model_name": name, "litellm_params": params} for name in (section.model, f"beside-{section.model}")]
        guardrail = {"guardrail": "aligner_proxy.guardrail.AlignerGuardrail", "mode": "post_call", "default_on": True}
        config = {
            "model_list": [*ours, *section.models],
            "guardrails": [{"guardrail_name": "aligner", "litellm_params": guardrail}],
            "general_settings": {"master_key": MASTER_KEY},
        }
        beside = route | {"match": {"model": "beside-*"}, "judge": route["judge"] | BESIDE}
        policies = section.policies | {"routes": [route, beside]}
        (self.folder / "litellm.yaml").write_text(yaml.safe_dump(config))
        (self.folder / "policies.yaml").write_text(yaml.safe_dump(policies))

    def run(self, command: str) -> str:
        """Run a command of the page, which succeeds; return what it prints."""
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def keep_running(self, command: str, *options: str, ready: str) -> Iterator[None]:
        """Run a command that goes on, in the folder, until the block ends; the block begins when `ready` answers."""
        words = [str(self.folder / "bin" / "aligner-proxy"), *shlex.split(command, comments=True)[1:], *options]
        shell = ["bash", "-c", f"cd {self.folder} && exec {shlex.join(words)}"]
        process = Process(shell, self.folder / f"{words[1]}.log", self.environment)
        process.start()
        try:
            process.wait_for(ready)
            yield
        finally:
            process.stop()

    def ask(self, model: str) -> httpx.Response:
        """One chat completion of the gateway."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"authorization": f"Bearer {MASTER_KEY}"}
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=60, trust_env=False)


def follow(section: Section, machine: Machine, upstream: str, group: str) -> None:
    """Run the commands behind the first one, and see that the judge is asked."""
    _, edit, check, serve, try_it = section.commands
    assert edit.startswith("$EDITOR litellm.yaml policies.yaml")
    machine.edit(section, upstream)
    assert group in machine.run(check)
    address = f"http://127.0.0.1:{machine.port}"
    with machine.keep_running(serve, "--port", str(machine.port), ready=f"{address}/health/readiness"):
        printed = machine.run(try_it.replace("localhost:4000", f"127.0.0.1:{machine.port}"))
        assert "x-aligner-status: unchanged" in printed
        judged = machine.ask(f"beside-{section.model}")
        assert judged.headers["x-aligner-judge"].startswith(f"{group} asked="), judged.headers


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, free_port(), put_command_on_path(tmp_path) | {"NO_PROXY": "*", "KEY": MASTER_KEY})


def test_a_guard_is_asked_after_five_commands(machine: Machine, upstream: str) -> None:
    replaced = {
        "hosted_vllm/Qwen/Qwen3Guard-Gen-4B": f"openai/{PREFIX}qwen3guard",
        "http://gpu:8000/v1": f"{upstream}/v1, api_key: none",
    }
    section = Section.read("Use a guard you have", replaced)
    assert section.commands[0].startswith("vllm serve Qwen/Qwen3Guard-Gen-4B")
    follow(section, machine, upstream, "my-guard")


def test_a_decision_model_is_asked_after_five_commands(machine: Machine, upstream: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    replaced = {
        "my-org/aligner-7b --host 0.0.0.0 --port 8765": f"embedded --port {address.partition(':')[2]}",
        "gpu:8765": address,
    }
    section = Section.read("Use a decision model", replaced)
    with machine.keep_running(section.commands[0], ready=f"http://{address}/ready"):
        follow(section, machine, upstream, "my-decisions")
