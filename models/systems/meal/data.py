"""Tasks of prompts and objectives, drawn from `prompts.yaml` by a seed; some only test.

A task is one inner step and one outer one on the same kind of prompt: the inner one has an answer for each of a few
objectives, the outer one other prompts with a preferred answer and another. What is kept back never occurs in training.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

_FILE = Path(__file__).with_name("prompts.yaml")
_PLAIN = "About that, this is what there is to say: {x}."


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Facet(_Block):
    """One objective: how it may be worded, and sentences that an answer gets for it; the last of each is kept back."""

    texts: tuple[str, ...] = Field(min_length=2)
    styles: tuple[str, ...] = Field(min_length=3)


class Asks(_Block):
    """Wordings, and what they are about."""

    asks: tuple[str, ...] = Field(min_length=1)
    about: tuple[str, ...] = Field(min_length=1)

    def prompts(self) -> list[str]:
        """All of them."""
        return [ask.format(x=thing) for ask in self.asks for thing in self.about]


class Kind(Asks):
    """A kind of prompts: what matters most there, and what comes next."""

    matters: tuple[str, str]
    probes: Asks


class Material(_Block):
    """`prompts.yaml`."""

    objectives: dict[str, Facet]
    kinds: dict[str, Kind]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt and the plain answer that is to be corrected."""

    query: str
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    """One step: the competing objectives (names and texts), what the base learner learns, and what tells it.

    `targets[p][o]` is the answer to prompt p that objective o would like; `pairs` are (prompt, preferred, other).
    """

    kind: str
    names: tuple[str, ...]
    texts: tuple[str, ...]
    inner: tuple[Prompt, ...]
    targets: tuple[tuple[str, ...], ...]
    pairs: tuple[tuple[Prompt, str, str], ...]


@cache
def material() -> Material:
    """All prompts and objectives."""
    return Material.model_validate(yaml.safe_load(_FILE.read_text(encoding="utf-8")))


def tasks(seed: int, objectives: int, prompts: int) -> Iterator[Task]:
    """Endless, the same for the same seed; every kind in turn."""
    names = sorted(material().kinds)
    number = 0
    while True:
        rng = random.Random(f"{seed}/{number}")
        order = random.Random(f"{seed}/order/{number // len(names)}").sample(names, len(names))
        yield task(order[number % len(names)], rng, objectives, prompts)
        number += 1


def held_out(seed: int, count: int, objectives: int) -> list[Task]:
    """Tasks over the probes, for the outer loss that nothing is trained by."""
    names = sorted(material().kinds)
    rng = random.Random(f"{seed}/held out")
    return [task(names[i % len(names)], rng, objectives, 1, probe=True) for i in range(count)]


def task(name: str, rng: random.Random, objectives: int, prompts: int, *, probe: bool = False) -> Task:
    """One task of a kind; what matters there is among the objectives, at a place that tells nothing."""
    kind = material().kinds[name]
    known = material().objectives
    others = [o for o in known if o not in kind.matters]
    first, second = kind.matters
    chosen = [first, *([second] if objectives > 2 else []), *rng.sample(others, max(1, objectives - 2))]
    rng.shuffle(chosen)
    source = kind.probes if probe else kind
    drawn = [Prompt(*_filled(source, rng)) for _ in range(2 * prompts)]
    inner = drawn[:prompts]
    outer = drawn[prompts:]
    targets = tuple(tuple(_answer(one, known[o], rng, probe) for o in chosen) for one in inner)
    pairs = tuple(_pair(one, chosen, (first, second), rng, probe) for one in outer)
    texts = tuple(known[o].texts[-1] if probe else rng.choice(known[o].texts[:-1]) for o in chosen)
    return Task(name, tuple(chosen), texts, tuple(inner), targets, pairs)


def _filled(source: Asks, rng: random.Random) -> tuple[str, str]:
    thing = rng.choice(source.about)
    return rng.choice(source.asks).format(x=thing), _PLAIN.format(x=thing)


def _answer(prompt: Prompt, facet: Facet, rng: random.Random, probe: bool) -> str:
    style = facet.styles[-1] if probe else rng.choice(facet.styles[:-1])
    return f"{style} {prompt.answer}"


def _pair(
    prompt: Prompt, chosen: list[str], matters: tuple[str, str], rng: random.Random, probe: bool
) -> tuple[Prompt, str, str]:
    """Mostly what matters against what does not; sometimes the second against the rest, or the first against it."""
    known = material().objectives
    (first, second) = matters
    rest = [o for o in chosen if o not in matters]
    draw = rng.random() if second in chosen else 0.0
    better, worse = (first, rng.choice(rest)) if draw < 0.6 else (second, rng.choice(rest))
    if draw > 0.8:
        better = first
        worse = second
    return prompt, _answer(prompt, known[better], rng, probe), _answer(prompt, known[worse], rng, probe)
