"""Language stage: answers, or single sentences, in a language that the aligner was not trained for.

They are judged as well as possible, and flagged text is edited. If nothing is flagged, that proves little, so the
status is `not_judged` instead of `unchanged`. A policy may block such answers; then nothing more goes out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from aligner_proxy.concurrency import run_off_loop
from aligner_proxy.errors import CorrectionError, DeadlineExceeded
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.outcomes import DECLINED, EMPTIED
from aligner_proxy.plugins.stage import AnswerSoFar, Stage, Stop
from aligner_proxy.text.languages import foreign_segments, is_among, prose_language
from aligner_proxy.types import FailureClass, Outcome, Policy, SkipReason, Status

LANGUAGE = SkipReason.LANGUAGE.value
WOULD_LEAVE = "would_leave"
WOULD_NOT_JUDGE = "would_not_judge"
"""The reason in shadow mode of an answer whose status would have been `not_judged`."""
_REMEMBERED = 256
_REMEMBERED_CHARS = 16_000
"""The longest answer whose language is remembered, in characters."""


def is_unknown(answer: str | None, languages: Collection[str]) -> bool:
    """Whether an answer, or a sentence of it, is clearly in none of these languages.

    False if the answer is short, or if no languages are given.
    """
    if not languages or not answer:
        return False
    return is_unknown_as_whole(answer, languages) or bool(foreign_segments(answer, languages))


def is_unknown_as_whole(answer: str | None, languages: Collection[str]) -> bool:
    """Whether an answer as a whole is clearly in none of these languages."""
    name = prose_language(answer) if languages and answer else None
    return name is not None and not is_among(name, languages)


@lru_cache(_REMEMBERED)
def _find_unknown(answer: str, remaining_texts: Sequence[str], languages: Collection[str]) -> bool:
    """Whether an answer as a whole, or a sentence that stays of it, is in none of these languages.

    Remembered, because an answer from the cache is asked about again.
    """
    return is_unknown_as_whole(answer, languages) or any(foreign_segments(text, languages) for text in remaining_texts)


class Language(Stage):
    """Marks an answer in a language that the aligner does not know, and stops it if the policy demands an error.

    `ask` returns the languages that the aligner was trained for; it raises `CorrectionError` if the engine cannot be
    asked.
    """

    order = 50

    def __init__(
        self,
        policy: Policy,
        ask: Callable[[], Awaitable[Collection[str]]],
        languages: Collection[str] | None = None,
    ) -> None:
        self._blocks = outcomes.blocks(Outcome(Status.NOT_JUDGED, LANGUAGE, None, policy))
        """Whether the policy answers with an error if the language is unknown."""
        self._ask = ask
        self._languages = languages
        """The languages of the aligner; None before the engine was asked, empty if it could not be asked."""
        self._segments_seen = 0
        """Number of segments already checked."""
        self._due = 0
        """The length at which the whole is checked again; it doubles with each check."""

    async def admit(self, answer: AnswerSoFar) -> Stop | None:
        """Stop an answer as soon as its language is clearly unknown, if the policy demands an error; otherwise None."""
        if answer.is_whole:
            return await self._admit_whole(answer) if self._blocks else None
        if self._languages is None:
            self._languages = ()  # if the engine cannot be asked, it does not judge either
            try:
                self._languages = await self._ask()
            except CorrectionError as error:
                # a slow engine may still judge, and then text that must be stopped here would go out
                if self._blocks and isinstance(error, DeadlineExceeded):
                    raise
        is_blocked = self._blocks and bool(self._languages) and self._sounds_foreign(answer, self._languages)
        return Stop(Status.NOT_JUDGED, LANGUAGE) if is_blocked else None

    async def _admit_whole(self, answer: AnswerSoFar) -> Stop | None:
        """Stop a whole answer in a language that the aligner does not know; None for any other.

        Raises `CorrectionError` if the engine cannot tell its languages, so that the answer cannot pass as judged.
        """
        languages = await self._ask()
        is_blocked = await run_off_loop(len(answer.text), partial(is_unknown, answer.text, languages))
        return Stop(Status.NOT_JUDGED, LANGUAGE) if is_blocked else None

    def _sounds_foreign(self, answer: AnswerSoFar, languages: Collection[str]) -> bool:
        """Whether the text so far, or a new sentence of it, is in another language."""
        # A single sentence may be foreign in an answer that is not, so each is checked once, too.
        more = answer.segments[self._segments_seen :]
        self._segments_seen = len(answer.segments)
        if any(foreign_segments(segment.text, languages) for segment in more):
            return True
        if not answer.has_ended and len(answer.text) < self._due:
            return False
        # so that a long answer is read only a few times
        self._due = 2 * len(answer.text)
        return is_unknown_as_whole(answer.text, languages)

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """Change status or reason if the answer, or a sentence that stays, is in a language unknown to the aligner."""
        if outcome.correction is None or not self._languages or answer.is_stopped:
            return outcome
        remaining_texts = tuple([segment.text for segment in outcome.segments if not segment.flagged])
        is_short = len(answer.text) <= _REMEMBERED_CHARS
        find = _find_unknown if is_short else _find_unknown.__wrapped__
        if not find(answer.text, remaining_texts, tuple(self._languages)):
            return outcome
        if outcome.status is Status.SHADOW and outcome.reason == WOULD_LEAVE:
            return replace(outcome, reason=WOULD_NOT_JUDGE)
        # a declining text, or none, stands for the answer, whose language no longer matters
        if outcome.status is Status.CORRECTED and outcome.reason not in (DECLINED, EMPTIED):
            return replace(outcome, reason=LANGUAGE)
        # a refusal of the gate that blocks the answer is the graver reason
        is_refused = outcomes.kind_of(outcome) is FailureClass.GATE and outcomes.blocks(outcome)
        if outcome.status is not Status.UNCHANGED or is_refused:
            return outcome
        return replace(outcome, status=Status.NOT_JUDGED, reason=LANGUAGE)
