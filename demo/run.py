"""`make demo`: a support desk in twelve questions, through the real gateway, with the official `openai` client.

What is printed is what came back. The exit status is 0 only if every headline is true of the answer below it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import openai
from rich.console import Console
from rich.text import Text

from aligner_proxy.errors import AlignerProxyError
from aligner_proxy.plugins import registry
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching import subjects
from demo import show, story, teaching
from demo.picture import make_picture, write_picture
from demo.processes import DemoError, wait_for
from demo.reasons import explain_skip, find_entry, find_reasons
from demo.story import Scene
from demo.world import HERE, WORK, DemoReply, World, make_console, make_parser, run_world

CONFIG = HERE / "configs" / "litellm.yaml"
POLICIES = HERE / "configs" / "policies.yaml"
CUSTOMERS = {story.ALDER: "a customer of Alder Bikes", story.BIRCH: "a customer of Birch Outdoor"}
MODELS = {
    story.REAL: "SmolLM2-135M-Instruct, a real model on this machine",
    story.OPENAI: "scripted, in OpenAI's wire form",
    story.ANTHROPIC: "scripted, in Anthropic's wire form",
}
HEAD_S = 30.0
"""Seconds within which the gateway must use a new head."""
INTRODUCTION = """\
Two shops let language models answer their customers. Between the models and the customers stands aligner-proxy, a \
gateway. It reads every answer before the customer does, removes the sentences that break the shop's rules, corrects \
facts by the shop's own page, and leaves everything else as it was.

Alder Bikes has four rules: harmless; own-side (no advertising for others); no-promises; no-insides (no \
internal problems), and a page of facts, demo/configs/alder.md. Birch Outdoor has one rule, harmless, and a page \
of its own. All of this stands in demo/configs/policies.yaml.

The first two answers come from a real, very small model. The others are scripted: written for this demo, and sent as \
OpenAI's and Anthropic's servers would send them. The corrections are real: the aligner, a \
small model on this machine (SmolLM2-135M with our training, no GPU), makes them now."""
NEXT_STEPS = """\
.venv/bin/aligner-proxy init gateway
# gateway/litellm.yaml, the file of the LiteLLM proxy below the gateway, names your models and the keys of their
# providers; gateway/policies.yaml has your rules, and which of them apply to whom (docs/start/adopt.md)
.venv/bin/aligner-proxy serve --config gateway/litellm.yaml --port 4000
# your application changes one address, and takes a key of the gateway (the master key, or one per team)
client = OpenAI(base_url="http://127.0.0.1:4000/v1", api_key="a key of the gateway")

make demo ARGS=--stay                       # then shows these answers in a browser"""


@dataclass
class StoryTeller:
    """The story while it is told: where it is printed, what is counted, and which headlines are not true."""

    world: World
    policies: PolicyFile
    console: Console
    picture: Console
    edits: int = 0
    untouched_answers: int = 0
    untrue_headlines: list[str] = field(default_factory=list)

    def tell(self, number: int, scene: Scene) -> None:
        """Ask one question, and print what came back, what was changed, and why."""
        consoles = (self.console, self.picture) if scene.is_pictured else (self.console,)
        for console in consoles:
            show.print_headline(console, f"{number:2}  {scene.case.title}")
            question = Text.assemble(scene.case.question, (f"  ({CUSTOMERS[scene.team]})", "dim"))
            show.print_rows(console, ("asked", question), ("model", MODELS[scene.case.model]))
        reply = self._ask_stream(scene, consoles) if scene.is_streamed else self.world.ask(scene.team, scene.case)
        entry = find_entry(self.policies, reply.header("id"))
        if entry:
            status = show.status_text(entry.status, entry.reason, entry.ms)
        else:
            status = show.status_text(reply.header("status"), reply.header("reason"), None)
        reasons = find_reasons(self.policies, entry) or explain_skip(reply.header("reason"))
        for console in consoles:
            answer = show.diff(
                reply.upstream_answer.strip(), reply.delivered_answer.strip(), plain=not console.is_terminal
            )
            show.print_rows(console, ("answer", answer), *(("why", why) for why in reasons))
            show.print_rows(console, ("", status))
        self._count(scene, reply)

    def _ask_stream(self, scene: Scene, consoles: tuple[Console, ...]) -> DemoReply:
        """Ask for a stream, and print each sentence when it comes; then say what the longest pause was for."""
        moments: list[float] = []

        def print_sentence(seconds: float, text: str) -> None:
            moments.append(seconds)
            for console in consoles:
                show.print_rows(console, (f"{seconds:.1f} s", text))

        reply = self.world.ask_stream(scene.team, scene.case, print_sentence)
        if reply.delivered_answer != reply.upstream_answer and len(moments) > 1:
            pause = Text(describe_pause(moments), style="dim")
            for console in consoles:
                show.print_rows(console, ("", pause))
        return reply

    def _count(self, scene: Scene, reply: DemoReply) -> None:
        if reply.delivered_answer == reply.upstream_answer:
            self.untouched_answers += 1
        else:
            self.edits += 1
        fault = scene.broken_promise(reply.upstream_answer, reply.delivered_answer)
        if fault:
            self.untrue_headlines.append(f"{scene.case.title!r}: {fault}")
            show.print_rows(self.console, ("", Text(f"not as the headline says: {fault}", style="red")))

    def teach(self) -> None:
        """Teach the objective by its four sentences; what was learned is used from the next answer on."""
        [subject] = subjects.select_subjects(self.policies, [story.TAUGHT])
        began = time.monotonic()
        show.print_headline(
            self.console, "    So four sentences that support must not say teach it (aligner-proxy teach)"
        )
        show.print_rows(self.console, *(("", f'"{example.text}"') for example in subject.read_examples().against))
        report = teaching.teach(self.console, POLICIES, story.TAUGHT, WORK / "run")
        self._wait_for_head()
        found_counts = report["found"]
        false_counts = report["false"]
        summary = (
            f"learned in {time.monotonic() - began:.0f} s, without a restart. Tried on heads that had not learned from "
            f"them, {found_counts['hits']} of these {found_counts['of']} sentences are flagged, and "
            f"{false_counts['hits']} of {false_counts['of']} good sentences by mistake"
        )
        show.print_rows(self.console, ("", Text(summary, style="green")))

    def _wait_for_head(self) -> None:
        """Wait until answers are judged by the new head."""
        until = time.monotonic() + HEAD_S
        while time.monotonic() < until:
            if story.TAUGHT in self.world.ask(story.ALDER, story.SCENES[0].case).header("taught"):
                return
            time.sleep(0.2)
        raise DemoError(f"the gateway does not use what was learned of {story.TAUGHT} after {HEAD_S:g} s")


def describe_pause(moments: Sequence[float]) -> str:
    """What happened in the longest pause between two sentences of a stream that was edited."""
    start, end = max(pairwise(moments), key=lambda pair: pair[1] - pair[0])
    return (
        f"In the pause between {start:.1f} s and {end:.1f} s the model wrote the sentence that is removed below; "
        "the gateway read it and sent nothing."
    )


def tell_story(teller: StoryTeller) -> None:
    """Ask all questions, the last one before and after the teaching."""
    for number, scene in enumerate((*story.SCENES, story.BEFORE_TEACHING), 1):
        teller.tell(number, scene)
    teller.teach()
    teller.tell(len(story.SCENES) + 2, story.AFTER_TEACHING)


def keep_running(console: Console, world: World) -> None:
    """Keep everything running until Ctrl-C."""
    wait_for(f"{world.console}/login", None, WORK / "gateway.log", lambda _: None)
    show.print_heading(console, "These answers in a browser")
    console.print(f"{world.console}\nThe key to log in is {world.env['LITELLM_MASTER_KEY']}; Ctrl-C ends all.")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def show_story(console: Console, picture: Console, *, verbose: bool, stays: bool) -> list[str]:
    """Start everything and tell the story; return the headlines that are not true."""
    began = time.monotonic()
    os.environ["ALIGNER_PROXY_HOME"] = str(WORK)
    show.print_heading(console, "A support desk whose answers are corrected before the customer reads them")
    console.print(INTRODUCTION)
    marks = Text.assemble("\nIn the answers, ", show.diff("removed words", "", not console.is_terminal), " went, and ")
    console.print(marks.append_text(show.diff("", "new words", not console.is_terminal)).append(" came in.\n"))
    policies = registry.load_policies(POLICIES)
    teaching.forget_teaching(policies, story.TAUGHT)
    with run_world(console, CONFIG, (story.ALDER, story.BIRCH), with_console=stays) as world:
        teller = StoryTeller(world, policies, console, picture)
        tell_story(teller)
        if verbose:
            request = [os.path.relpath(CONFIG), "--model", story.REAL, "--team", story.ALDER]
            show.print_policy_check(console, "Where Alder's policy comes from", request, world.env)
        show.print_heading(console, "With your own models")
        console.print(NEXT_STEPS)
        summary = f"{teller.edits} edited, {teller.untouched_answers} left alone, {time.monotonic() - began:.0f} s"
        console.print(f"\n{summary}", style="bold")
        if stays:
            keep_running(console, world)
    return teller.untrue_headlines


def main() -> int:
    """Run the demo; return 1 if it failed."""
    parser = make_parser("A support desk: models, the gateway in front of them, and the official client.")
    parser.add_argument("--stay", action="store_true", help="leave gateway and console open until Ctrl-C")
    parser.add_argument("--record", type=Path, metavar="FILE.svg", help="write some of the answers as a picture")
    arguments = parser.parse_args()
    console = make_console()
    picture = make_picture()
    try:
        faults = show_story(console, picture, verbose=arguments.verbose, stays=arguments.stay)
    except (DemoError, AlignerProxyError, openai.APIError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 1
    if arguments.record:
        write_picture(picture, arguments.record)
    for fault in faults:
        console.print(f"the demo failed: {fault}", style="red", markup=False)
    return 1 if faults else 0
