"""`make demo`: a real model, the gateway in front of it, and the official `openai` client with another base_url.

Nothing is recorded beforehand: all answers are made while the demo runs. The exit status is 0 only if at least one
answer was edited and at least one left unchanged.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import yaml
from rich.console import Console

from demo import cases, show
from demo.cases import Case
from demo.processes import DemoError, free_port, process, wait_for
from demo.show import Seen

HERE = Path(__file__).parent
CONFIG = HERE / "configs" / "litellm.yaml"
# The demo's files stay in the checkout; the next run reuses the weights prepared there.
WORK = HERE.parent / ".build" / "demo"
TEAMS = ("demo-team", "acme")


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


def ask(world: World, team: str, case: Case) -> Seen:
    """Send one question through the gateway."""
    client = world.client(team)
    if case.raw:
        raw = client.completions.with_raw_response.create(
            model=cases.RAW_MODEL, prompt=case.prompt, stop="\nAssistant:", **case.options
        )
        text = raw.parse().choices[0].text
    else:
        raw = client.chat.completions.with_raw_response.create(
            model=cases.MODEL, messages=case.messages, **case.options
        )
        text = raw.parse().choices[0].message.content or ""
    return seen(world, text, raw.headers)


def ask_stream(world: World, team: str, case: Case) -> Seen:
    """Send one question through the gateway as a stream."""
    client = world.client(team)
    if case.raw:
        completion = client.completions.with_raw_response.create(
            model=cases.RAW_MODEL, prompt=case.prompt, stop="\nAssistant:", stream=True, **case.options
        )
        parts = [chunk.choices[0].text or "" for chunk in completion.parse() if chunk.choices]
        return seen(world, "".join(parts), completion.headers)
    chat = client.chat.completions.with_raw_response.create(
        model=cases.MODEL, messages=case.messages, stream=True, **case.options
    )
    parts = [chunk.choices[0].delta.content or "" for chunk in chat.parse() if chunk.choices]
    return seen(world, "".join(parts), chat.headers)


def seen(world: World, delivered: str, headers: httpx.Headers) -> Seen:
    """Combine the delivered answer with the upstream's and the status from the headers."""
    names = ("status", "reason", "objectives", "policy", "cache", "ms")
    return Seen(world.last_answer(), delivered, **{name: headers.get(f"x-aligner-{name}", "") for name in names})


@contextmanager
def running(console: Console, config: Path = CONFIG, *, with_console: bool = False) -> Iterator[World]:
    """Start the upstream and the gateway and wait until they answer; stop both afterwards."""
    # Clear the cache, so that the first answer is never cached, and the audit store, so that the console shows only
    # this run.
    shutil.rmtree(WORK / "corrections", ignore_errors=True)
    for kept in WORK.glob("audit.db*"):
        kept.unlink()
    WORK.mkdir(parents=True, exist_ok=True)
    keys = {team: f"sk-{team}-{secrets.token_hex(12)}" for team in TEAMS}
    entries = [{"sha256": hashlib.sha256(k.encode()).hexdigest(), "alias": t, "team": t} for t, k in keys.items()]
    (WORK / "keys.yaml").write_text(yaml.safe_dump(entries))
    up = free_port()
    port = free_port()
    env = {
        **os.environ,
        "ALIGNER_PROXY_HOME": str(WORK),
        "ALIGNER_PROXY_KEYS": str(WORK / "keys.yaml"),
        "LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(24)}",
        "DEMO_UPSTREAM": f"http://127.0.0.1:{up}/v1",
        "LITELLM_LOG": os.environ.get("LITELLM_LOG", "ERROR"),
    }
    serve = ["aligner_proxy", "serve", "--config", str(config), "--port", str(port)]
    shown = ""
    if with_console:
        beside = free_port()
        serve += ["--console", "--console-port", str(beside)]
        shown = f"http://127.0.0.1:{beside}"
    world = World(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{up}", shown, keys, env)
    with ExitStack() as stack:
        _start(stack, console, "the upstream", ["demo.upstream", str(up)], f"{world.upstream}/last", env)
        _start(stack, console, "the gateway", serve, f"{world.gateway}/health/readiness", env)
        yield world


def _start(stack: ExitStack, console: Console, what: str, arguments: list[str], url: str, env: dict[str, str]) -> None:
    log = WORK / f"{what.removeprefix('the ')}.log"
    began = time.monotonic()
    with console.status(f"starting {what} ...") as status:
        child = stack.enter_context(process(arguments, log, env))
        wait_for(url, child, log, lambda line: status.update(f"starting {what} ... [dim]{line[:100]}[/dim]"))
    console.print(f"started {what} in {time.monotonic() - began:.1f} s, log in {log.relative_to(HERE.parent)}")


def defects(console: Console, world: World) -> tuple[int, Case | None]:
    """Ask for answers with a real defect; return how many were edited, and the first edited case."""
    show.heading(console, "Answers with a defect", "A model imitates what it is shown; these conversations mislead it.")
    edited = 0
    first = None
    for case in cases.DEFECTS:
        seen = ask(world, "demo-team", case)
        show.answer(console, "demo-team", case, seen)
        edited += seen.edited
        first = first or (case if seen.edited else None)
    return edited, first


def good(console: Console, world: World) -> int:
    """Ask for good answers; return how many were left unchanged."""
    show.heading(console, "Good answers", "They must come back character for character.")
    untouched = 0
    for case in cases.GOOD:
        seen = ask(world, "demo-team", case)
        show.answer(console, "demo-team", case, seen)
        untouched += seen.untouched
    return untouched


def again(console: Console, world: World, case: Case) -> None:
    """Ask the same question again, from the cache, and then as a stream."""
    show.heading(console, "The same question again", "The correction is known; the aligner does nothing.")
    show.answer(console, "demo-team", case, ask(world, "demo-team", case))
    show.heading(console, "As a stream", "Held, aligned, and sent on in the same chunks.")
    show.answer(console, "demo-team", case, ask_stream(world, "demo-team", case))


def tenants(console: Console, world: World, verbose: bool) -> None:
    """Show the same answer under other objectives; with `verbose` also the origin of each policy value."""
    show.heading(
        console,
        "Another tenant, other objectives",
        "acme wants answers without chatter, and does not ask for a single reply.",
    )
    for case in cases.BOTH:
        for team in TEAMS:
            show.answer(console, team, case, ask(world, team, case))
    request = [os.path.relpath(CONFIG), "--model", cases.MODEL, "--team", "acme"]
    show.check(console, "Where acme's policy comes from", request, world.env if verbose else None)


def tell_address(console: Console, world: World) -> None:
    """Print what an application would configure, and the console's address."""
    show.heading(console, "Your application")
    lines = (f'client = OpenAI(base_url="{world.gateway}/v1",', '                api_key="a key of the gateway")')
    console.print(*lines, sep="\n", markup=False, soft_wrap=True)
    show.heading(console, "In a browser")
    console.print(f"{world.console} shows these answers, as long as the gateway runs (--stay)", markup=False)


def stay(console: Console, world: World) -> None:
    """Keep everything running until Ctrl-C."""
    wait_for(f"{world.console}/login", None, WORK / "gateway.log", lambda _: None)
    console.print(f"log in with the key {world.env['LITELLM_MASTER_KEY']}; Ctrl-C ends all", markup=False)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def options(description: str) -> argparse.ArgumentParser:
    """The command line of a demo, without its own options."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--verbose", action="store_true", help="show the policy in force, value by value, as well")
    return parser


def main() -> int:
    """Run the demo; return 1 if it failed."""
    parser = options("A local model, the gateway in front of it, and the official client.")
    parser.add_argument("--stay", action="store_true", help="leave gateway and console open until Ctrl-C")
    asked = parser.parse_args()
    console = Console()
    began = time.monotonic()
    try:
        with running(console, with_console=True) as world:
            edited, first = defects(console, world)
            untouched = good(console, world)
            again(console, world, first or cases.DEFECTS[0])
            tenants(console, world, asked.verbose)
            tell_address(console, world)
            took = time.monotonic() - began
            console.print(f"\n{edited} edited, {untouched} left alone, {took:.0f} s", style="bold")
            if asked.stay:
                stay(console, world)
    except (DemoError, openai.APIError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 1
    if edited and untouched:
        return 0
    console.print("the demo failed: at least one answer must be edited and one left alone", style="red")
    return 1
