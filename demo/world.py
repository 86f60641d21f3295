"""What a demo starts, and how it asks: models, the gateway in front of them, and the official `openai` client."""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import openai
import yaml
from rich.console import Console

from demo.cases import DemoCase, call_text
from demo.processes import free_port, run_process, wait_for

HERE = Path(__file__).parent
# The demo's files stay in the checkout; the next run reuses the weights prepared there.
WORK = HERE.parent / ".build" / "demo"


@dataclass(frozen=True, slots=True)
class DemoReply:
    """A delivered answer, the upstream's answer to the same request, and the headers of the response."""

    upstream_answer: str
    delivered_answer: str
    headers: Mapping[str, str]

    def header(self, name: str) -> str:
        """The value of `x-aligner-NAME`; empty without one."""
        return self.headers.get(f"x-aligner-{name}", "")


@dataclass(frozen=True, slots=True)
class World:
    """Everything that runs: addresses, the tenants' keys, and the gateway's environment.

    `console` is the address of the gateway's console, empty if it runs without one.
    """

    gateway: str
    upstream: str
    console: str
    keys: dict[str, str]
    env: dict[str, str]

    def last_answer(self) -> str:
        """The upstream's latest answer."""
        return httpx.get(f"{self.upstream}/last", trust_env=False).json()["text"] or ""

    def client(self, team: str) -> openai.OpenAI:
        """The official client; an application changes only base_url and key."""
        return openai.OpenAI(base_url=f"{self.gateway}/v1", api_key=self.keys[team], max_retries=0, timeout=300)

    def ask(self, team: str, case: DemoCase, **more: Any) -> DemoReply:
        """Send one question through the gateway."""
        raw = self.client(team).chat.completions.with_raw_response.create(
            model=case.model, messages=case.messages, **case.options, **more
        )
        message = raw.parse().choices[0].message
        functions = [call.function for call in message.tool_calls or () if call.type == "function"]
        calls = [call_text(function.name, function.arguments) for function in functions]
        return DemoReply(self.last_answer(), "".join([message.content or "", *calls]), raw.headers)

    def ask_stream(self, team: str, case: DemoCase, on_sentence: Callable[[float, str], None]) -> DemoReply:
        """Send one question as a stream; `on_sentence` gets each sentence, and the seconds until it came."""
        began = time.monotonic()
        raw = self.client(team).chat.completions.with_raw_response.create(
            model=case.model, messages=case.messages, stream=True, **case.options
        )
        chunks: Iterable[Any] = raw.parse()
        answer = ""
        sentence = ""
        for chunk in chunks:
            text = (chunk.choices[0].delta.content if chunk.choices else None) or ""
            answer += text
            sentence += text
            if text.endswith("."):
                on_sentence(time.monotonic() - began, sentence.strip())
                sentence = ""
        return DemoReply(self.last_answer(), answer, raw.headers)


def make_parser(description: str) -> argparse.ArgumentParser:
    """The command line of a demo, without its own options."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--verbose", action="store_true", help="show the policy in force, value by value, as well")
    return parser


def make_console() -> Console:
    """A console of 100 columns, or of fewer if the terminal is narrower."""
    console = Console(highlight=False)
    console.width = min(100, console.width) if console.is_terminal else 100
    return console


@contextmanager
def run_world(console: Console, config: Path, teams: tuple[str, ...], *, with_console: bool = False) -> Iterator[World]:
    """Start the upstreams and the gateway and wait until they answer; stop both afterwards."""
    WORK.mkdir(parents=True, exist_ok=True)
    # Clear the cache, so that the first answer is never cached, and the audit store, so that the console shows only
    # this run.
    shutil.rmtree(WORK / "corrections", ignore_errors=True)
    for stored in WORK.glob("audit.db*"):
        stored.unlink()
    keys = {team: f"sk-{team}-{secrets.token_hex(12)}" for team in teams}
    entries = [{"sha256": hashlib.sha256(k.encode()).hexdigest(), "alias": t, "team": t} for t, k in keys.items()]
    (WORK / "keys.yaml").write_text(yaml.safe_dump(entries))
    upstream = f"http://127.0.0.1:{free_port()}"
    port = free_port()
    # This process reads the gateway's audit store, so it has the same environment.
    os.environ |= {
        "ALIGNER_PROXY_HOME": str(WORK),
        "ALIGNER_PROXY_KEYS": str(WORK / "keys.yaml"),
        "LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(24)}",
        "DEMO_UPSTREAM": f"{upstream}/v1",
        "DEMO_SCRIPTED_OPENAI": f"{upstream}/scripted/v1",
        "DEMO_SCRIPTED_ANTHROPIC": f"{upstream}/scripted",
        "LITELLM_LOG": os.environ.get("LITELLM_LOG", "ERROR"),
    }
    serve = ["aligner_proxy", "serve", "--config", str(config), "--port", str(port)]
    console_address = ""
    if with_console:
        beside = free_port()
        serve += ["--console", "--console-port", str(beside)]
        console_address = f"http://127.0.0.1:{beside}"
    world = World(f"http://127.0.0.1:{port}", upstream, console_address, keys, dict(os.environ))
    with ExitStack() as stack:
        began = time.monotonic()
        commands = {"models": ["demo.upstream", upstream.rpartition(":")[2]], "gateway": serve}
        children = {
            name: stack.enter_context(run_process(command, _log_file(name), os.environ))
            for name, command in commands.items()
        }
        urls = {"models": f"{upstream}/last", "gateway": f"{world.gateway}/health/readiness"}
        for name, child in children.items():
            _await_start(console, name, child, urls[name])
            seconds = time.monotonic() - began
            console.print(f"started the {name} in {seconds:.1f} s, log in {_log_file(name).relative_to(HERE.parent)}")
        yield world


def _log_file(name: str) -> Path:
    return WORK / f"{name}.log"


def _await_start(console: Console, name: str, child: Popen[bytes], url: str) -> None:
    """Wait until a started process answers, and show the last line of its log meanwhile."""
    label = f"starting the {name} ..."
    with console.status(label) as status:
        wait_for(url, child, _log_file(name), lambda line: status.update(f"{label} [dim]{line[:80]}[/dim]"))
