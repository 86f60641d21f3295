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
_CACHE_SIZE = 256
"""Number of answers whose language is remembered."""
_CACHED_CHARS = 16_000
"""Maximum length in characters of an answer whose language is remembered."""


def is_unknown(answer: str | None, languages: Collection[str]) -> bool:
    """Whether an answer, or a sentence of it, is clearly in none of these languages.

    False if the answer is short, or if no languages are given.
    """
    if not languages or not answer:
        return False
    return is_unknown_as_whole(answer, languages) or bool(foreign_segments(answer, languages))


def is_unknown_as_whole(answer: str | None, languages: Collection[str]) -> bool:
    """Whether an answer as a whole is clearly in none of these languages (ISO 639-1 codes)."""
    detected_language = prose_language(answer) if languages and answer else None
    return detected_language is not None and not is_among(detected_language, languages)


@lru_cache(_CACHE_SIZE)
def _has_unknown_text(answer: str, remaining_texts: Sequence[str], languages: Collection[str]) -> bool:
    """Whether an answer as a whole, or one of its segments that are not removed, is in none of these languages.

    The results are kept, because an answer whose correction is cached is asked about again.
    """
    return is_unknown_as_whole(answer, languages) or any(foreign_segments(text, languages) for text in remaining_texts)


class Language(Stage):
    """Marks an answer in a language that the aligner does not know, and stops it if the policy demands an error.

    `ask_languages` returns the languages that the aligner was trained for; it raises `CorrectionError` if the engine
    cannot be asked. `languages` are these languages if the caller knows them already.
    """

    order = 50

    def __init__(
        self,
        policy: Policy,
        ask_languages: Callable[[], Awaitable[Collection[str]]],
        languages: Collection[str] | None = None,
    ) -> None:
        self._blocks = outcomes.blocks(Outcome(Status.NOT_JUDGED, LANGUAGE, None, policy))
        """Whether the client gets an error if the aligner does not know the answer's language."""
        self._ask_languages = ask_languages
        self._languages = languages
        """The languages of the aligner; None before the engine was asked, empty if it could not be asked."""
        self._checked_segments = 0
        """Number of segments that were checked by themselves."""
        self._next_check_chars = 0
        """Length of a growing answer at which its whole text is checked next; it doubles with each check."""

    async def admit(self, answer: AnswerSoFar) -> Stop | None:
        """Stop an answer as soon as its language is clearly unknown, if the policy demands an error; otherwise None."""
        if answer.is_whole:
            return await self._admit_whole(answer) if self._blocks else None
        if self._languages is None:
            self._languages = ()  # an engine that cannot be asked does not judge either, so no answer is stopped
            try:
                self._languages = await self._ask_languages()
            except CorrectionError as error:
                # an engine that is only slow may still judge, and text that must be stopped here would go out
                if self._blocks and isinstance(error, DeadlineExceeded):
                    raise
        is_blocked = self._blocks and bool(self._languages) and self._is_foreign(answer, self._languages)
        return Stop(Status.NOT_JUDGED, LANGUAGE) if is_blocked else None

    async def _admit_whole(self, answer: AnswerSoFar) -> Stop | None:
        """Stop a whole answer in a language that the aligner does not know; None for any other.

        Raises `CorrectionError` if the engine cannot be asked, because the answer must not pass as judged then.
        """
        languages = await self._ask_languages()
        is_blocked = await run_off_loop(len(answer.text), partial(is_unknown, answer.text, languages))
        return Stop(Status.NOT_JUDGED, LANGUAGE) if is_blocked else None

    def _is_foreign(self, answer: AnswerSoFar, languages: Collection[str]) -> bool:
        """Whether the answer so far, or a segment that is new since the last call, is in none of these languages."""
        # A single sentence may be foreign although the whole is not, so each segment is checked once by itself.
        new_segments = answer.segments[self._checked_segments :]
        self._checked_segments = len(answer.segments)
        if any(foreign_segments(segment.text, languages) for segment in new_segments):
            return True
        # The whole is checked only each time that its length has doubled, so a long answer is read only a few times.
        if not answer.has_ended and len(answer.text) < self._next_check_chars:
            return False
        self._next_check_chars = 2 * len(answer.text)
        return is_unknown_as_whole(answer.text, languages)

    def report(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome, marked as not judged if the answer, or a sentence that stays, is in a language unknown here."""
        if outcome.correction is None or not self._languages or answer.is_stopped:
            return outcome
        remaining_texts = tuple([segment.text for segment in outcome.segments if not segment.flagged])
        # a long answer would fill the memory of `lru_cache`, so the function without the cache reads it
        is_short = len(answer.text) <= _CACHED_CHARS
        has_unknown_text = _has_unknown_text if is_short else _has_unknown_text.__wrapped__
        if not has_unknown_text(answer.text, remaining_texts, tuple(self._languages)):
            return outcome
        if outcome.status is Status.SHADOW and outcome.reason == WOULD_LEAVE:
            return replace(outcome, reason=WOULD_NOT_JUDGE)
        # if another text, or none, was delivered in place of the answer, its language no longer matters
        if outcome.status is Status.CORRECTED and outcome.reason not in (DECLINED, EMPTIED):
            return replace(outcome, reason=LANGUAGE)
        # if the gate refused the edits and this blocks the answer, its reason counts more than the language
        is_refused = outcomes.class_of_outcome(outcome) is FailureClass.GATE and outcomes.blocks(outcome)
        if outcome.status is not Status.UNCHANGED or is_refused:
            return outcome
        return replace(outcome, status=Status.NOT_JUDGED, reason=LANGUAGE)
