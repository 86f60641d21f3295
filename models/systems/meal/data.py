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


class _StrictBlock(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Facet(_StrictBlock):
    """One objective: its wordings, and sentences that fulfil it. The last of each only tests."""

    texts: tuple[str, ...] = Field(min_length=2)
    styles: tuple[str, ...] = Field(min_length=3)


class PromptWordings(_StrictBlock):
    """Questions, each a wording with a thing in place of `{x}`."""

    asks: tuple[str, ...] = Field(min_length=1)
    about: tuple[str, ...] = Field(min_length=1)

    def prompts(self) -> list[str]:
        """Every wording with every thing."""
        return [ask.format(x=thing) for ask in self.asks for thing in self.about]


class PromptKind(PromptWordings):
    """A kind of prompts, with the objective that matters most there and the one that comes next."""

    matters: tuple[str, str]
    probes: PromptWordings


class PromptMaterial(_StrictBlock):
    """The contents of `prompts.yaml`."""

    objectives: dict[str, Facet]
    kinds: dict[str, PromptKind]


@dataclass(frozen=True, slots=True)
class AnsweredPrompt:
    """A prompt and the plain answer that is to be corrected."""

    query: str
    answer: str


@dataclass(frozen=True, slots=True)
class WeighingTask:
    """What one step of training reads: competing objectives, answers to learn from, and preferences."""

    kind: str
    names: tuple[str, ...]
    texts: tuple[str, ...]
    """The wording of each objective."""
    inner: tuple[AnsweredPrompt, ...]
    """The prompts that the base learner learns from."""
    targets: tuple[tuple[str, ...], ...]
    """[prompt][objective]: the answer that the objective would like."""
    pairs: tuple[tuple[AnsweredPrompt, str, str], ...]
    """(prompt, preferred answer, other answer): what tells whether the weights were right."""


@cache
def material() -> PromptMaterial:
    """All prompts and objectives."""
    return PromptMaterial.model_validate(yaml.safe_load(_FILE.read_text(encoding="utf-8")))


def draw_tasks(seed: int, objectives: int, prompts: int) -> Iterator[WeighingTask]:
    """Yield tasks without end, the kinds in turn; the same seed gives the same tasks."""
    names = sorted(material().kinds)
    number = 0
    while True:
        rng = random.Random(f"{seed}/{number}")
        order = random.Random(f"{seed}/order/{number // len(names)}").sample(names, len(names))
        yield draw_task(order[number % len(names)], rng, objectives, prompts)
        number += 1


def draw_probe_tasks(seed: int, count: int, objectives: int) -> list[WeighingTask]:
    """Tasks over held-out prompts, which train nothing."""
    names = sorted(material().kinds)
    rng = random.Random(f"{seed}/held out")
    return [draw_task(names[i % len(names)], rng, objectives, 1, probe=True) for i in range(count)]


def draw_task(name: str, rng: random.Random, objectives: int, prompts: int, *, probe: bool = False) -> WeighingTask:
    """One task of a kind. What matters there is among the objectives, at a random place.

    A `probe` takes the prompts, wordings and sentences that only test.
    """
    kind = material().kinds[name]
    facets = material().objectives
    others = [name_of_objective for name_of_objective in facets if name_of_objective not in kind.matters]
    first, second = kind.matters
    objective_names = [first, *([second] if objectives > 2 else []), *rng.sample(others, max(1, objectives - 2))]
    rng.shuffle(objective_names)
    source = kind.probes if probe else kind
    every_prompt = [AnsweredPrompt(*_draw_prompt(source, rng)) for _ in range(2 * prompts)]
    inner = every_prompt[:prompts]
    outer = every_prompt[prompts:]
    targets = tuple(
        tuple(_styled_answer(prompt, facets[name_of_objective], rng, probe) for name_of_objective in objective_names)
        for prompt in inner
    )
    pairs = tuple(_draw_pair(prompt, objective_names, (first, second), rng, probe) for prompt in outer)
    texts = tuple(
        facets[name_of_objective].texts[-1] if probe else rng.choice(facets[name_of_objective].texts[:-1])
        for name_of_objective in objective_names
    )
    return WeighingTask(name, tuple(objective_names), texts, tuple(inner), targets, pairs)


def _draw_prompt(source: PromptWordings, rng: random.Random) -> tuple[str, str]:
    """(question, plain answer) about one thing."""
    thing = rng.choice(source.about)
    return rng.choice(source.asks).format(x=thing), _PLAIN.format(x=thing)


def _styled_answer(prompt: AnsweredPrompt, facet: Facet, rng: random.Random, probe: bool) -> str:
    """The plain answer behind a sentence that fulfils the objective."""
    style = facet.styles[-1] if probe else rng.choice(facet.styles[:-1])
    return f"{style} {prompt.answer}"


def _draw_pair(
    prompt: AnsweredPrompt, objective_names: list[str], matters: tuple[str, str], rng: random.Random, probe: bool
) -> tuple[AnsweredPrompt, str, str]:
    """(prompt, preferred answer, other answer).

    Mostly the first objective against one that does not matter; also the second against such a one, and the first
    against the second.
    """
    facets = material().objectives
    (first, second) = matters
    unimportant = [objective_name for objective_name in objective_names if objective_name not in matters]
    draw = rng.random() if second in objective_names else 0.0
    better, worse = (first, rng.choice(unimportant)) if draw < 0.6 else (second, rng.choice(unimportant))
    if draw > 0.8:
        better = first
        worse = second
    return prompt, _styled_answer(prompt, facets[better], rng, probe), _styled_answer(prompt, facets[worse], rng, probe)
