"""Answers in a language that the aligner was not trained for, or with a sentence in one.

They are judged as well as that goes, and what is flagged is edited; but an answer that stays as it was has not been
approved by that, so its status is `not_judged`. A policy may block them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.declining import DECLINED
from aligner_proxy.text.languages import foreign_segments, is_among, prose_language
from aligner_proxy.text.structure import Segment
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
    name = prose_language(answer) if known and answer else None
    return name is not None and not is_among(name, known)


def blocks(policy: Policy) -> bool:
    """Whether a client gets an error in place of such an answer."""
    return outcomes.blocks(Outcome(Status.NOT_JUDGED, LANGUAGE, None, policy))


def marked(outcome: Outcome, answer: str | None, known: Collection[str]) -> Outcome:
    """The outcome of a judged answer; it says so where its language, or that of a sentence that stays, is not known."""
    if outcome.correction is None or not known:
        return outcome
    stays = (segment.text for segment in outcome.segments if not segment.flagged)
    if not of_the_whole(answer, known) and not any(foreign_segments(text, known) for text in stays):
        return outcome
    if outcome.status is Status.SHADOW and outcome.reason == WOULD_LEAVE:
        return replace(outcome, reason=WOULD_NOT_JUDGE)
    if outcome.status is Status.CORRECTED and outcome.reason != DECLINED:
        return replace(outcome, reason=LANGUAGE)
    refused = outcomes.kind_of(outcome) is FailureClass.GATE and outcomes.blocks(outcome)
    if outcome.status is not Status.UNCHANGED or refused:
        return outcome
    return replace(outcome, status=Status.NOT_JUDGED, reason=LANGUAGE)


class GrowingLanguage:
    """The language of an answer that is still being written."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.known: Collection[str] = ()
        """The languages that the aligner was trained for; none while nobody has said."""
        self._heard = 0
        """So many segments were looked at."""
        self._due = 0
        """The length from which on the whole is looked at again: each look is at twice the length."""

    def must_not_go_out(self, text: str, segments: Sequence[Segment], *, ended: bool) -> bool:
        """Whether what came, or a sentence of it, is in a language for which the policy wants an error."""
        if not self.known or not blocks(self._policy):
            return False
        more = segments[self._heard :]
        self._heard = len(segments)
        if any(foreign_segments(segment.text, self.known) for segment in more):
            return True
        if not ended and len(text) < self._due:
            return False
        self._due = 2 * len(text)
        return of_the_whole(text, self.known)
