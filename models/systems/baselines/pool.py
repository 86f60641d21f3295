"""Answers of the untrained policy, with their rewards: what the methods that train offline learn from.

A model that is only sampled writes hardly anything concise or courteous. So of every four answers one is plain, one was
asked to be short, one was begun with a courtesy of ours, and one is both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .objectives import ScoredObjective
from .policy import PolicyModel

SHORT = "Answer in one short sentence."
COURTESIES = (
    "Thank you for the question. ",
    "I am happy to help. ",
    "I am glad to help with that. ",
    "Thanks for asking. ",
)
WAYS = (("", False), (SHORT, False), ("", True), (SHORT, True))
"""The system's words, and whether the answer begins with a courtesy."""
TEMPERATURE = 0.9


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """An answer with its reward under each objective, by the objective's name."""

    question: str
    answer: str
    rewards: Mapping[str, float]

    def total(self, weights: Mapping[str, float]) -> float:
        """The weighted sum of its rewards."""
        return sum(weight * self.rewards[name] for name, weight in weights.items())


def score_answer(question: str, answer: str, objectives: Mapping[str, ScoredObjective]) -> ScoredAnswer:
    """An answer with its reward under every objective."""
    return ScoredAnswer(
        question, answer, {name: objective.score(question, answer) for name, objective in objectives.items()}
    )


def sample_answers(
    policy: PolicyModel, questions: Sequence[str], each: int, seed: int, objectives: Mapping[str, ScoredObjective]
) -> list[ScoredAnswer]:
    """Sample `each` answers to each question, in the `WAYS` by turns, and score them.

    A courtesy is the beginning of the answer that the policy has to go on with.
    """
    prompts = []
    beginnings: list[tuple[str, str]] = []
    for i, question in enumerate(questions):
        for j in range(each):
            system, is_courteous = WAYS[j % len(WAYS)]
            courtesy = COURTESIES[(i + j) % len(COURTESIES)] if is_courteous else ""
            prompts.append(policy.prompt(question, system) + courtesy)
            beginnings.append((question, courtesy))
    continuations = policy.write(prompts, TEMPERATURE, seed)
    return [
        score_answer(question, (courtesy + continuation).strip(), objectives)
        for (question, courtesy), continuation in zip(beginnings, continuations, strict=True)
    ]


def group_by_question(pool: Sequence[ScoredAnswer]) -> list[list[ScoredAnswer]]:
    """The answers of each question, as a list of lists."""
    groups: dict[str, list[ScoredAnswer]] = {}
    for answer in pool:
        groups.setdefault(answer.question, []).append(answer)
    return list(groups.values())
