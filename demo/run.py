"""`make demo`: a real model, the gateway in front of it, and the official `openai` client with another base_url.

Nothing is recorded: all answers are made while the demo runs. Exit status 0 only if at least one answer was edited and
one left alone.
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
# What the demo stores stays in the checkout; the weights prepared in it are used again by the next run.
WORK = HERE.parent / ".build" / "demo"
TEAMS = ("demo-team", "acme")


@dataclass(frozen=True, slots=True)
class World:
    """Everything running: addresses, the tenants' keys, and the environment that the gateway has.

    `console` is the address of the gateway's console, empty where it was started without one.
    """

    gateway: str
    upstream: str
    console: str
    keys: dict[str, str]
    env: dict[str, str]

    def last_answer(self) -> str:
        """The upstream's last answer."""
        return httpx.get(f"{self.upstream}/last", trust_env=False).json()["text"] or ""

    def client(self, team: str) -> openai.OpenAI:
        """The official client; base_url and key are all that changes for an application."""
        return openai.OpenAI(base_url=f"{self.gateway}/v1", api_key=self.keys[team], max_retries=0, timeout=300)


def ask(world: World, team: str, case: Case) -> Seen:
    """One question through the gateway."""
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
    """The same as a stream."""
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
    """A delivered answer beside the upstream's, with its status from the headers."""
    names = ("status", "reason", "objectives", "policy", "cache", "ms")
    return Seen(world.last_answer(), delivered, **{name: headers.get(f"x-aligner-{name}", "") for name in names})


@contextmanager
def running(console: Console, config: Path = CONFIG, *, with_console: bool = False) -> Iterator[World]:
    """The upstream and the gateway, started and waited for; both are gone afterwards."""
    # So that the first answer of a run is never from a cache, and the console shows this run alone.
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
    """Answers with a real defect; the number of edited ones, and the first of them."""
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
    """Good answers; the number of those left alone."""
    show.heading(console, "Good answers", "They must come back character for character.")
    untouched = 0
    for case in cases.GOOD:
        seen = ask(world, "demo-team", case)
        show.answer(console, "demo-team", case, seen)
        untouched += seen.untouched
    return untouched


def again(console: Console, world: World, case: Case) -> None:
    """The same question from the cache, and as a stream."""
    show.heading(console, "The same question again", "The correction is known; the aligner does nothing.")
    show.answer(console, "demo-team", case, ask(world, "demo-team", case))
    show.heading(console, "As a stream", "Held, aligned, and sent on in the same chunks.")
    show.answer(console, "demo-team", case, ask_stream(world, "demo-team", case))


def tenants(console: Console, world: World, verbose: bool) -> None:
    """The same answer under other objectives; with `verbose` the table of where each value comes from."""
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
    """What an application would say, and where the console is."""
    show.heading(console, "Your application")
    lines = (f'client = OpenAI(base_url="{world.gateway}/v1",', '                api_key="a key of the gateway")')
    console.print(*lines, sep="\n", markup=False, soft_wrap=True)
    show.heading(console, "In a browser")
    console.print(f"{world.console} shows these answers, as long as the gateway runs (--stay)", markup=False)


def stay(console: Console, world: World) -> None:
    """Leave everything open until Ctrl-C."""
    wait_for(f"{world.console}/login", None, WORK / "gateway.log", lambda _: None)
    console.print(f"log in with the key {world.env['LITELLM_MASTER_KEY']}; Ctrl-C ends all", markup=False)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def options(description: str) -> argparse.ArgumentParser:
    """The command line of a demo."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--verbose", action="store_true", help="show the policy in force, value by value, as well")
    return parser


def main() -> int:
    """Run the demo."""
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
