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

from .answers import AnswerWorkshop, JobAnswers
from .config import Editor, FieldComparison

REFINING = {"max_tokens": 320}
MAX_NEW_TOKENS = 160
"""Tokens of a reply in a chat at most, whatever is asked for."""
AT_ONCE = 8
"""Answers that a chat model reviews at the same time."""


def read_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """The texts of these objectives."""
    return tuple(RULES[name].text for name in names)


def lacks_folder(editor: Editor) -> bool:
    """Whether the folder that an editor needs is missing."""
    return editor.needs is not None and not (editor.needs / MANIFEST).exists()


@dataclass(frozen=True, slots=True)
class EditTask:
    """Answers for an editor, with their questions and the names of the objectives."""

    questions: Sequence[str]
    answers: Sequence[str]
    objective_names: tuple[str, ...]
    label: str


def edit_answers(workshop: AnswerWorkshop, editor: Editor, task: EditTask) -> JobAnswers:
    """An editor's version of every `every`th answer, kept or made now."""
    make = partial(_prompt_policy if editor.prompted else _correct_answers, workshop, editor, task)
    return workshop.make_edited(f"{editor.name}-{task.label}", _settings(workshop.comparison, editor, task), make)


def find_kept(workshop: AnswerWorkshop, editor: Editor, task: EditTask) -> JobAnswers | None:
    """An editor's kept answers to a task; None where there are none."""
    return workshop.find_edited(f"{editor.name}-{task.label}", _settings(workshop.comparison, editor, task))


def _settings(comparison: FieldComparison, editor: Editor, task: EditTask) -> list[Any]:
    """What decides an editor's answers."""
    return [editor.model_dump(mode="json"), task.objective_names, list(task.answers), _weights(comparison, editor)]


def _weights(comparison: FieldComparison, editor: Editor) -> list[str]:
    """The hashes of the aligners that an editor uses."""
    folders = [comparison.aligner, comparison.single_purpose if editor.needs else None]
    return [sha256(folder / MANIFEST) for folder in folders if folder and (folder / MANIFEST).exists()]


def _prompt_policy(workshop: AnswerWorkshop, editor: Editor, task: EditTask) -> JobAnswers:
    """The policy's own answers with the objectives in its system prompt."""
    policy = workshop.policy()
    system_text = " ".join(read_objectives(task.objective_names))
    meter = Meter()
    with meter.measure(policy.model):
        answers = policy.write([policy.prompt(question, system_text) for question in task.questions[:: editor.every]])
    return JobAnswers({"": answers}, TrainingCost(), meter.cost)


def _correct_answers(workshop: AnswerWorkshop, editor: Editor, task: EditTask) -> JobAnswers:
    """Send the answers through the gateway's pipeline, with the corrector of the editor's route.

    Answers of Self-Refinement are corrected several at once, because its model writes them in batches.
    """
    comparison = workshop.comparison
    corrector = editor.route.get("corrector")
    at_once = AT_ONCE if corrector == "self_refine" else 1
    system = systems.System(name=editor.name, route=editor.route)
    settings = systems.SystemComparison(
        aligner=comparison.aligner,
        single_purpose=comparison.single_purpose,
        sets=Path(),
        faulty=(),
        good=(),
        not_asked=(),
        deadline_s=comparison.deadline_s * at_once,  # each waits for the others
        systems=(system,),
    )
    pairs = list(zip(task.questions, task.answers, strict=True))[:: editor.every]
    texts = read_objectives(task.objective_names)

    async def correct() -> list[str]:
        chat = partial(PolicyChat, workshop.policy)
        places = asyncio.Semaphore(at_once)
        async with systems.open_gateway(
            comparison.aligner, corrector, comparison.single_purpose, chat, REFINING
        ) as pipeline:

            async def correct_one(i: int, question: str, answer: str) -> str:
                trial = systems.SystemTrial("good", question, answer, texts)
                exchange = Exchange(f"field-{i}", 0, (Turn("user", question),), answer)
                async with places:
                    outcome = await pipeline.align(exchange, systems.make_policy(system, trial, settings))
                return outcome.text or ""

            return await asyncio.gather(*(correct_one(i, *pair) for i, pair in enumerate(pairs)))

    cpu_start = time.process_time()
    wall_start = time.perf_counter()
    corrected_answers = asyncio.run(correct())
    cost = TrainingCost(cpu_s=time.process_time() - cpu_start, wall_s=time.perf_counter() - wall_start)
    # an editor has one version of its answers, so that version needs no name
    return JobAnswers({"": corrected_answers}, TrainingCost(), cost)


class PolicyChat:
    """The policy as the chat model of Self-Refinement, loaded at the first request.

    Requests that arrive while it writes are answered together in the next batch.
    """

    def __init__(self, load: Callable[[], PolicyModel]) -> None:
        self._load = load
        self._policy: PolicyModel | None = None
        self._waiting: list[tuple[str, asyncio.Future[str]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, system: str, user: str, *, tokens: int, temperature: float, deadline_s: float) -> Reply:
        """One reply. It is greedy, because a temperature would need a seed."""
        policy = self._policy = self._policy or self._load()
        policy.new_tokens = MAX_NEW_TOKENS
        prompt = policy.prompt(user, system)
        reply = asyncio.get_running_loop().create_future()
        self._waiting.append((prompt, reply))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(policy))
        room = min(tokens, MAX_NEW_TOKENS)
        text = await reply
        token_ids = policy.tokenizer(text)["input_ids"]
        if len(token_ids) > room:
            text = policy.tokenizer.decode(token_ids[:room], skip_special_tokens=True)
        read = len(policy.tokenizer(prompt)["input_ids"])
        return Reply(text, read, min(len(token_ids), room), finished=len(token_ids) < room)

    async def _write(self, policy: PolicyModel) -> None:
        """Answer what waits, batch by batch, until nothing waits."""
        while self._waiting:
            await asyncio.sleep(0)  # who was answered together asks again together
            waiting = self._waiting
            self._waiting = []
            try:
                texts = await asyncio.to_thread(policy.write, [prompt for prompt, _ in waiting])
            except RuntimeError as error:
                for _, reply in waiting:
                    if not reply.done():
                        reply.set_exception(error)
                continue
            for (_, reply), text in zip(waiting, texts, strict=True):
                if not reply.done():  # whose deadline has passed hears nothing
                    reply.set_result(text)
