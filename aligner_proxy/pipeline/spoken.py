"""Answers in a language that the aligner was not trained for, or with a sentence in one.

They are judged as well as that goes, and what is flagged is edited; but an answer that stays as it was has not been
approved by that, so its status is `not_judged`. A policy may block them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.declining import DECLINED
from aligner_proxy.text.languages import foreign_segments, is_among, spoken
from aligner_proxy.types import FailureClass, Outcome, Policy, SkipReason, Status

LANGUAGE = SkipReason.LANGUAGE.value
WOULD_LEAVE = "would_leave"
WOULD_NOT_JUDGE = "would_not_judge"
"""The reason in shadow mode of an answer that would have had the status `not_judged`."""


def is_unknown(answer: str | None, known: Collection[str]) -> bool:
    """Whether an answer, or a sentence of it, is clearly in none of the `known` languages.

    No: it is short, or nobody says what is known.
    """
    return of_the_whole(answer, known) or bool(known and answer and foreign_segments(answer, known))


def of_the_whole(answer: str | None, known: Collection[str]) -> bool:
    """Whether an answer as a whole is clearly in none of the `known` languages."""
    name = spoken(answer) if known and answer else None
    return name is not None and not is_among(name, known)


def blocks(policy: Policy) -> bool:
    """Whether a client gets an error in place of such an answer."""
    return outcomes.blocks(Outcome(Status.NOT_JUDGED, LANGUAGE, None, policy))


def marked(outcome: Outcome, answer: str | None, known: Collection[str], *, foreign: bool | None = None) -> Outcome:
    """The outcome of a judged answer, which says so where its language is not known.

    `foreign` says whether a sentence of it is in another one, where that has been looked at.
    """
    if outcome.correction is None:
        return outcome
    is_judged = not is_unknown(answer, known) if foreign is None else not (foreign or of_the_whole(answer, known))
    if is_judged:
        return outcome
    if outcome.status is Status.SHADOW and outcome.reason == WOULD_LEAVE:
        return replace(outcome, reason=WOULD_NOT_JUDGE)
    if outcome.status is Status.CORRECTED and outcome.reason != DECLINED:
        return replace(outcome, reason=LANGUAGE)
    refused = outcomes.kind_of(outcome) is FailureClass.GATE and outcomes.blocks(outcome)
    if outcome.status is not Status.UNCHANGED or refused:
        return outcome
    return replace(outcome, status=Status.NOT_JUDGED, reason=LANGUAGE)
