"""Methods that leave the policy alone, on the untrained policy's answers: the aligner, what else corrects, prompting.

Corrections go through the gateway's own pipeline, gate included, without a cache: one after the other where the aligner
edits, several at once where a chat model does, which answers them together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.engine.weights.manifest import MANIFEST, sha256
from aligner_proxy.types import Exchange, Turn
from models.experiments import systems
from models.systems.baselines.cost import Meter, TrainingCost
from models.systems.baselines.objectives import RULES
from models.systems.baselines.policy import PolicyModel

from .answers import Made, Workshop
from .config import Comparison, Editor

REFINING = {"max_tokens": 320}
MAX_NEW_TOKENS = 160
"""Of a reply in a chat, whatever is asked for."""
AT_ONCE = 8
"""Answers that a chat model reviews at the same time."""


def objectives(names: Sequence[str]) -> tuple[str, ...]:
    """What an editor reads of these objectives."""
    return tuple(RULES[name].text for name in names)


def missing(editor: Editor) -> bool:
    """Whether a folder that the row needs is not there."""
    return editor.needs is not None and not (editor.needs / MANIFEST).exists()


@dataclass(frozen=True, slots=True)
class Given:
    """Answers to be edited, with their questions and the names of the objectives."""

    questions: Sequence[str]
    answers: Sequence[str]
    asked: tuple[str, ...]
    label: str


def edited(workshop: Workshop, editor: Editor, given: Given) -> Made:
    """What an editor makes of every `every`th answer, kept or new; its answers stand under the empty key."""
    make = partial(_prompted if editor.prompted else _corrected, workshop, editor, given)
    return workshop.edited(f"{editor.name}-{given.label}", _settings(workshop.comparison, editor, given), make)


def kept(workshop: Workshop, editor: Editor, given: Given) -> Made | None:
    """What is there of it."""
    return workshop.found(f"{editor.name}-{given.label}", _settings(workshop.comparison, editor, given))


def _settings(comparison: Comparison, editor: Editor, given: Given) -> list[Any]:
    """What decides an editor's answers."""
    return [editor.model_dump(mode="json"), given.asked, list(given.answers), _weights(comparison, editor)]


def _weights(comparison: Comparison, editor: Editor) -> list[str]:
    folders = [comparison.aligner, comparison.single_purpose if editor.needs else None]
    return [sha256(folder / MANIFEST) for folder in folders if folder and (folder / MANIFEST).exists()]


def _prompted(workshop: Workshop, editor: Editor, given: Given) -> Made:
    """The policy's own answers once the objectives stand in its system prompt."""
    policy = workshop.policy()
    told = " ".join(objectives(given.asked))
    meter = Meter()
    with meter.measure(policy.model):
        written = policy.write([policy.prompt(question, told) for question in given.questions[:: editor.every]])
    return Made({"": written}, TrainingCost(), meter.cost)


def _corrected(workshop: Workshop, editor: Editor, given: Given) -> Made:
    c = workshop.comparison
    corrector = editor.route.get("corrector")
    at_once = AT_ONCE if corrector == "self_refine" else 1
    system = systems.System(name=editor.name, route=editor.route)
    settings = systems.Comparison(
        aligner=c.aligner,
        single_purpose=c.single_purpose,
        sets=Path(),
        faulty=(),
        good=(),
        not_asked=(),
        deadline_s=c.deadline_s * at_once,  # each waits for the others
        systems=(system,),
    )
    pairs = list(zip(given.questions, given.answers, strict=True))[:: editor.every]
    texts = objectives(given.asked)

    async def correct() -> list[str]:
        chat = partial(Chat, workshop.policy)
        places = asyncio.Semaphore(at_once)
        async with systems.gateway(c.aligner, corrector, c.single_purpose, chat, REFINING) as pipeline:

            async def delivered(i: int, question: str, answer: str) -> str:
                trial = systems.Trial("good", question, answer, texts)
                exchange = Exchange(f"field-{i}", 0, (Turn("user", question),), answer)
                async with places:
                    outcome = await pipeline.align(exchange, systems.policy(system, trial, settings))
                return outcome.text or ""

            return await asyncio.gather(*(delivered(i, *pair) for i, pair in enumerate(pairs)))

    began = (time.process_time(), time.perf_counter())
    written = asyncio.run(correct())
    cpu = time.process_time() - began[0]
    return Made({"": written}, TrainingCost(), TrainingCost(cpu_s=cpu, wall_s=time.perf_counter() - began[1]))


class Chat:
    """The policy as a chat model that reviews and revises, for Self-Refinement; loaded when first asked.

    What is asked while it writes is answered together, next.
    """

    def __init__(self, load: Callable[[], PolicyModel]) -> None:
        self._load = load
        self._policy: PolicyModel | None = None
        self._waiting: list[tuple[str, asyncio.Future[str]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, system: str, user: str, *, tokens: int, temperature: float, deadline_s: float) -> Reply:
        """One reply; greedy, since a temperature would need a seed."""
        policy = self._policy = self._policy or self._load()
        policy.new_tokens = MAX_NEW_TOKENS
        prompt = policy.prompt(user, system)
        reply = asyncio.get_running_loop().create_future()
        self._waiting.append((prompt, reply))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(policy))
        room = min(tokens, MAX_NEW_TOKENS)
        text = await reply
        written = policy.tokenizer(text)["input_ids"]
        if len(written) > room:
            text = policy.tokenizer.decode(written[:room], skip_special_tokens=True)
        read = len(policy.tokenizer(prompt)["input_ids"])
        return Reply(text, read, min(len(written), room), finished=len(written) < room)

    async def _write(self, policy: PolicyModel) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # who was answered together asks again together
            asked = self._waiting
            self._waiting = []
            try:
                texts = await asyncio.to_thread(policy.write, [prompt for prompt, _ in asked])
            except RuntimeError as error:
                for _, reply in asked:
                    if not reply.done():
                        reply.set_exception(error)
                continue
            for (_, reply), text in zip(asked, texts, strict=True):
                if not reply.done():  # whose deadline has passed hears nothing
                    reply.set_result(text)
