"""`make demo-preferences`: one question, three personas, one explicit preference, and weights chosen by a net.

Nothing is recorded beforehand: all answers come through the real gateway. The exit status is 0 only if two things hold.
Each person's preferences made a measurable difference (the upstream's answer did not meet one, the delivered answer
does). Questions of different kinds weigh different objectives most.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import openai
from rich.console import Console
from rich.table import Table

from demo import people, show
from demo.cases import MODEL, DemoCase
from demo.people import Person
from demo.processes import DemoError
from demo.world import HERE, DemoReply, World, make_console, make_parser, run_world

CONFIG = HERE / "configs" / "litellm_preferences.yaml"
TEAM = "demo-team"


@dataclass(frozen=True, slots=True)
class MeasuredReply:
    """One answer, the preferences it met before and after, and the weights of the objectives."""

    reply: DemoReply
    preferences: dict[str, tuple[bool, bool]]
    weights: dict[str, float]

    @property
    def gained(self) -> list[str]:
        """Preferences that only the delivered answer meets."""
        return [name for name, (before, after) in self.preferences.items() if after and not before]

    @property
    def heaviest(self) -> str:
        """The objective with the greatest weight for this question; "" without weights."""
        return max(self.weights, key=lambda name: self.weights[name], default="")


def ask(world: World, case: DemoCase, person: Person) -> MeasuredReply:
    """Send one question through the gateway, with the person's fields."""
    more: dict[str, Any] = {"extra_body": {"metadata": {"aligner": person.fields}}} if person.fields else {}
    reply = world.ask(TEAM, case, **more)
    return MeasuredReply(reply, _read_preferences(reply.headers), _read_weights(reply.headers))


def _read_preferences(headers: Any) -> dict[str, tuple[bool, bool]]:
    pairs = dict(pair.split("=") for pair in headers.get("x-aligner-preferences", "").split(",") if pair)
    return {name: (value.split("/")[0] == "yes", value.split("/")[1] == "yes") for name, value in pairs.items()}


def _read_weights(headers: Any) -> dict[str, float]:
    pairs = dict(pair.split("=") for pair in headers.get("x-aligner-weights", "").split(",") if pair)
    return {name: float(value) for name, value in pairs.items()}


def ask_people(console: Console, world: World) -> list[str]:
    """Ask the same question as different people; return those for whom nothing changed."""
    show.print_heading(
        console, "One question, different people", "The upstream answers all of them alike; a persona says why not."
    )
    plain = ask(world, people.QUESTION, people.NOBODY)
    _print_answer(console, people.NOBODY.who, plain.reply)
    idle = []
    for person in (*people.PERSONAS, people.EXPLICIT):
        measured = ask(world, people.QUESTION, person)
        _print_answer(console, person.who, measured.reply, ("says", person.text), ("why", _describe_changes(measured)))
        if not measured.gained or measured.reply.delivered_answer == plain.reply.delivered_answer:
            idle.append(person.who)
    return idle


def _print_answer(console: Console, who: str, reply: DemoReply, *more: tuple[str, str]) -> None:
    show.print_headline(console, f"{people.QUESTION.question} ({who})")
    answer = show.diff(reply.upstream_answer.strip(), reply.delivered_answer.strip(), plain=not console.is_terminal)
    show.print_rows(console, ("answer", answer), *more)
    show.print_rows(console, ("", show.status_text(reply.header("status"), reply.header("reason"), None)))


def _describe_changes(measured: MeasuredReply) -> str:
    words = [
        f"{name}: {_met_words(before)} before, {_met_words(after)} after"
        for name, (before, after) in measured.preferences.items()
    ]
    return "; ".join(words) or "nothing that can be checked"


def _met_words(is_met: bool) -> str:
    return "met" if is_met else "not met"


def show_weights(console: Console, world: World) -> set[str]:
    """Show the weights for questions of different kinds; return the heaviest objectives."""
    show.print_heading(
        console, "Weights chosen by the net", "objectives: auto, the two heaviest of five stay for each question."
    )
    table = Table("question", "what stays", "heaviest")
    heaviest = set()
    for question, kind in people.WEIGHED:
        case = DemoCase(kind, question, (), options={"temperature": 0, "seed": 1, "max_tokens": 48})
        measured = ask(world, case, people.NOBODY)
        weight_list = ", ".join(f"{name} {weight:.2f}" for name, weight in measured.weights.items())
        table.add_row(f"{kind}: {question}", weight_list, measured.heaviest)
        heaviest.add(measured.heaviest)
    console.print(table)
    return heaviest - {""}


def show_check(console: Console, world: World, verbose: bool) -> None:
    """Show with `aligner-proxy check` how the gateway would handle a preference."""
    preference = people.EXPLICIT.fields["preference"]
    request = [os.path.relpath(CONFIG), "--model", MODEL, "--team", TEAM, "--preference", preference]
    show.print_policy_check(console, "What becomes of a preference", request, world.env if verbose else None)


def main() -> int:
    """Run the demo; return 1 if it failed."""
    verbose = make_parser("One question by different people, and weights chosen by the question.").parse_args().verbose
    console = make_console()
    began = time.monotonic()
    try:
        with run_world(console, CONFIG, (TEAM,)) as world:
            idle = ask_people(console, world)
            heaviest = show_weights(console, world)
            show_check(console, world, verbose)
    except (DemoError, openai.APIError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 1
    console.print(f"\n{time.monotonic() - began:.0f} s", style="bold")
    for who in idle:
        console.print(f"the demo failed: asked {who}, nothing that can be measured changed", style="red")
    if len(heaviest) < 2:
        console.print("the demo failed: questions of different kinds weigh the same objective most", style="red")
    return 1 if idle or len(heaviest) < 2 else 0


if __name__ == "__main__":
    sys.exit(main())
