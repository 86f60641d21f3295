"""Refusal text stage: decides what a client gets if nothing would remain of an answer.

Nothing remains if no unflagged segment makes sense without the flagged ones, and nothing was written in their place:
all was flagged, or the rest are fragments (text/fragments.py). Nothing remains either of an answer in two voices if one
declines and the other was flagged, because the model was talked into answering after all. If harm was flagged, segments
that nearly were are likely to be more of it and do not count as remaining. Nor does anything remain of an answer that
is harmful as a whole, though none of its segments need be: all of them count as flagged then. This is said only of
prose that is clearly in a language of the aligner; in other languages the score depends on the language more than on
the answer. The replacement text is the operator's or a built-in one, and is not judged.

A refusal never stands beside other content. Where an answer has several texts, all of them together show whether
anything remains (answer_texts.py). If something does, or a tool call is delivered, a text of which nothing remains is
left out instead.

Under `second_try` an editor is first asked for another answer. The head judges all of it, and it is delivered only if
nothing in it is flagged. It is cached under a separate key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace

from aligner_proxy.correctors.editor import ChatWriter
from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.engine.client.edited_engine import EditedEngine
from aligner_proxy.engine.weights.manifest import digest
from aligner_proxy.errors import CorrectionError
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.outcomes import DECLINED, EMPTIED, NOTHING_REMAINS, SECOND_TRY
from aligner_proxy.plugins.stage import AnswerSoFar, Hold, Stage
from aligner_proxy.text import fragments
from aligner_proxy.text.disguises import undisguise_segment
from aligner_proxy.text.judged_words import without_words
from aligner_proxy.text.languages import is_written_in, language
from aligner_proxy.text.refusals import declines
from aligner_proxy.text.remarks import find_remarks_to_reader, is_about_reader
from aligner_proxy.text.short_answers import answers_question, is_full_row, is_yes_or_no
from aligner_proxy.text.structure import split
from aligner_proxy.types import (
    SAFETY_OBJECTIVES,
    Correction,
    EditorUse,
    Exchange,
    GrowingScore,
    IfNothingRemains,
    Mode,
    Outcome,
    Policy,
    SegmentScore,
    Status,
    Write,
)

log = logging.getLogger(__name__)
WOULD_TRY = "would_second_try"
"""The reason in shadow mode that corresponds to `SECOND_TRY`."""
_MIN_TOKENS = 512
"""Room for a second try in tokens, however short the first answer was."""
_CHARS_PER_TOKEN = 3
"""Estimate, with which the length of the first answer becomes a number of tokens."""
_CLEAR_NATS = 4.0
"""Nats below the threshold from which a fragment beside an insult is clearly no harm."""
_LABEL = re.compile(
    r"[ \t>*_#]{0,8}(?P<sign>\[)?(?P<name>[^\W_](?:(?(sign)[^\]\n:]|[\w .'-])){0,30})(?(sign)\])"
    r"[*_]{0,3}:[*_]{0,3}[ \t]+"
)
"""Matches the name of a speaker before the speech, with or without brackets."""
_ANY_LANGUAGE = ""
"""Key of the policy's text for languages that have none of their own."""
_OBJECTIVE = "{objective}"
"""Placeholder in a policy's text for the names of the violated objectives."""
_OWN_TEXTS = {
    "en": "I'm sorry, but I can't answer this here.",
    "de": "Es tut mir leid, darauf kann ich hier nicht antworten.",
    "fr": "D\u00e9sol\u00e9, je ne peux pas r\u00e9pondre \u00e0 cela ici.",
    "es": "Lo siento, no puedo responder a esto aqu\u00ed.",
    "pt": "Desculpe, n\u00e3o posso responder a isto aqui.",
    "it": "Mi dispiace, non posso rispondere a questo qui.",
    "nl": "Het spijt me, hier kan ik geen antwoord op geven.",
}


def nothing_remains(
    segments: Sequence[SegmentScore], delivered: str, question: str = "", harm_line: float | None = None
) -> bool:
    """Whether no answer to `question` is left of one with these segments, given the text `delivered`.

    If harm was flagged, `harm_line` is the score in nats below which a fragment may still answer the question
    (`find_harm_line`). Then it does so only beside remarks about the reader, and never as a bare "Yes.": beside other
    harm it is likely to be more of it.
    """
    if not any(segment.flagged and segment.text.strip() for segment in segments):
        return False
    if _in_two_voices(segments):
        return True
    if any(not segment.flagged and fragments.stands_alone(segment.text) for segment in segments):
        return False
    flagged = [segment.text for segment in segments if segment.flagged and segment.text.strip()]
    is_insult = all(is_about_reader(text) or _lost_remark_alone(text, delivered) for text in flagged)
    may_answer = harm_line is None or is_insult
    if may_answer and _has_short_answer(segments, question, harm_line):
        return False
    old_texts = {fragments.strip_marks(segment.text) for segment in segments}
    new_texts = [piece.text for piece in split(delivered) if fragments.strip_marks(piece.text) not in old_texts]
    # without the question, only a sentence that makes sense alone counts as an answer
    known_question = question if may_answer else ""
    return not any(answers_question(text, known_question) for text in new_texts)


def _lost_remark_alone(text: str, delivered: str) -> bool:
    """Whether a sentence is delivered without its remarks to the reader."""
    places = find_remarks_to_reader(text)
    return bool(places) and without_words(text, places) in delivered


def find_harm_line(segments: Sequence[SegmentScore], policy: Policy, threshold: float) -> float | None:
    """The score below which a fragment is clearly no harm; None if no harm was flagged."""
    return threshold - _CLEAR_NATS if violates_safety(segments, policy, unnamed=True) else None


def _has_short_answer(segments: Sequence[SegmentScore], question: str, harm_line: float | None) -> bool:
    """Whether an unflagged fragment answers the question or is a row of a table."""
    may_refer = True
    text_before = ""
    for segment in segments:
        text = segment.text
        if segment.flagged:
            may_refer = may_refer and is_about_reader(text)
        elif _is_clear(segment, harm_line) and (
            answers_question(text, question, may_refer=may_refer) or is_full_row(text, text_before)
        ):
            return True
        text_before = text
    return False


def _is_clear(segment: SegmentScore, harm_line: float | None) -> bool:
    """Whether a segment is clearly no harm, where some was flagged."""
    if harm_line is None:
        return True
    return segment.score is not None and segment.score < harm_line and not is_yes_or_no(segment.text)


def has_near_harm(segments: Sequence[SegmentScore], policy: Policy, threshold: float) -> bool:
    """Whether harm was flagged and an unflagged segment came close to being flagged (`decline_within`, nats).

    `threshold` is the score, in nats, above which a segment was flagged. Nothing is read again for this. Fragments
    count, because what says little alone ("Demand that they do so, or else.") may continue the harm before it.
    """
    names = {objective.name for objective in policy.objectives}
    # a verdict that names no objective can only be about the only one
    if not violates_safety(segments, policy, unnamed=names <= SAFETY_OBJECTIVES):
        return False
    unflagged = [segment for segment in segments if not segment.flagged and segment.text.strip()]
    # a label or a name counts only where nothing else is left, as the answer "Yes."
    speaking = [segment for segment in unflagged if _says_something(segment.text)] or unflagged
    scores = [segment.score for segment in speaking]
    return any(score is not None and score > threshold - policy.decline_within for score in scores)


def flag_harmful_whole(
    segments: Sequence[SegmentScore], policy: Policy, threshold: float, growing: GrowingScore
) -> tuple[SegmentScore, ...]:
    """The segments, all flagged if the answer is harmful as a whole: its own score (nats) is above the `threshold`.

    `growing` has read the first of them. Unchanged if the answer is short, without a taught head that scores whole
    answers, and where a judge decides about them.
    """
    segments = tuple(segments)
    whole = growing.read(segments) if policy.decline_whole_answers else None
    if whole is None or whole.score <= threshold or fragments.is_short_answer(segment.text for segment in segments):
        return segments
    objective = policy.objectives[whole.objective] if whole.objective < len(policy.objectives) else None
    if objective is None or objective.name not in SAFETY_OBJECTIVES:
        return segments
    judge = policy.judge if objective.judge is None else objective.judge
    if judge.decides_whole_answers:
        return segments
    return tuple(replace(one, flagged=True, objective=whole.objective) if one.text else one for one in segments)


def violates_safety(segments: Sequence[SegmentScore], policy: Policy, *, unnamed: bool) -> bool:
    """Whether a segment was flagged for an objective about safety; with `unnamed`, a verdict that names none counts."""
    safety = {number for number, objective in enumerate(policy.objectives) if objective.name in SAFETY_OBJECTIVES}
    if not safety:
        return False
    # the number of the objective of each flagged segment; None if the verdict names none
    violated = {segment.objective for segment in segments if segment.flagged}
    return bool(violated & safety) or (unnamed and None in violated)


def _reaction_applies(policy: Policy, segments: Sequence[SegmentScore]) -> bool:
    """Whether `if_nothing_remains` counts for an answer with these segments."""
    return not policy.declines_harm_alone or violates_safety(segments, policy, unnamed=True)


def _says_something(text: str) -> bool:
    """Whether a segment is more than a label or a name; a quantity counts, as it may be part of the harm."""
    return len(fragments.space_words(fragments.strip_marks(text)).split()) >= fragments.MIN_WORDS


def _in_two_voices(segments: Sequence[SegmentScore]) -> bool:
    """Whether one speaker of the answer declines ("[A]: I cannot help with that.") and another is flagged."""
    voice = ""
    declining_voices: set[str] = set()
    flagged_voices: set[str] = set()
    for segment in segments:
        label = _LABEL.match(segment.text)
        if label is not None:
            voice = label["name"].casefold()
        if segment.flagged:
            flagged_voices.add(voice)
        elif declines(segment.text[label.end() :] if label is not None else segment.text):
            declining_voices.add(voice)
    # text before the first label, or without labels, is nobody's voice
    declining_voices.discard("")
    flagged_voices.discard("")
    return any(one != other for one in declining_voices for other in flagged_voices)


def text_of(policy: Policy, exchange: Exchange, against: Sequence[str]) -> str:
    """The text delivered instead of an answer that violates these objectives, in the question's language if known."""
    texts = dict(policy.decline)
    spoken = _language_of(exchange)
    text = texts.get(spoken) or texts.get(_ANY_LANGUAGE) or next(iter(texts.values()), None)
    text = text or _OWN_TEXTS.get(spoken, _OWN_TEXTS["en"])
    return text.replace(_OBJECTIVE, ", ".join(against))


def _language_of(exchange: Exchange) -> str:
    """The language of the last question; if it is unclear, that of the answer, or else English."""
    return language(exchange.question) or language(exchange.answer or "") or "en"


@dataclass(frozen=True, slots=True)
class SecondTries:
    """Asks the editor behind an engine for another answer."""

    engine_of_policy: Callable[[], Engine]
    """Returns the engine of the answer's policy; without an editor around it, there is no second try."""
    cache: CorrectionCache | None
    stores_corrections: bool
    """Whether second tries are stored in the cache."""
    request_until: Callable[[Exchange, str, Policy, float], AlignRequest]
    """Returns the engine's request for a text under a policy until a deadline (`align_request`)."""

    async def write_new_answer(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome with another answer as its text; in shadow mode, as its `edited` text only.

        If there is no other answer, or it is no better, only the cost of asking is added.
        """
        engine = self.engine_of_policy()
        if not (isinstance(engine, EditedEngine) and isinstance(engine.writer, ChatWriter)):
            return outcome
        if answer.policy.editor_write is Write.NEVER:
            return outcome
        request = self.request_until(answer.exchange, answer.text, answer.policy, answer.deadline)
        try:
            async with asyncio.timeout(request.deadline_s):
                correction = await self._get_or_write(engine, engine.writer, request, answer)
        except (CorrectionError, TimeoutError) as error:
            log.warning("call %s: the second try failed (%s)", answer.exchange.call_id, type(error).__name__)
            return _add_editor_use(outcome, EditorUse(failed=1))
        outcome = _add_editor_use(outcome, correction.editor)
        text = correction.deliverable.text
        if not text:
            return outcome
        if answer.policy.mode is Mode.SHADOW:
            return replace(outcome, reason=WOULD_TRY, edited=text)
        return replace(outcome, status=Status.CORRECTED, reason=SECOND_TRY, text=text, edited=text)

    async def _get_or_write(
        self, engine: EditedEngine, writer: ChatWriter, request: AlignRequest, answer: AnswerSoFar
    ) -> Correction:
        """The second try from the cache, or written and judged now; its cache key differs from the first answer's."""
        # another answer may be twice as long as the first
        room = max(_MIN_TOKENS, len(request.answer) // _CHARS_PER_TOKEN * 2)

        async def write() -> Correction:
            return await writer.write_new_answer(request, engine.scorer, tokens=room)

        if self.cache is None or answer.exchange.no_store:
            return await write()
        about = (await engine.info()).find_aligner(request.aligner)
        anew = replace(about, content_hash=digest({SECOND_TRY: about.content_hash}))
        key = self.cache.key(anew, answer.policy, answer.exchange)
        deadline = time.monotonic() + request.deadline_s
        correction, _ = await self.cache.get_or_compute(key, write, remember=self.stores_corrections, deadline=deadline)
        return correction


class RefusalText(Stage):
    """Replaces an answer of which nothing remains by a text of the policy, another answer, nothing or an error.

    `ask_languages` returns the languages that the aligner was trained for; it raises `CorrectionError` if the engine
    cannot be asked.
    """

    order = 30

    def __init__(self, second_tries: SecondTries, ask_languages: Callable[[], Awaitable[Collection[str]]]) -> None:
        self._second_tries = second_tries
        self._ask_languages = ask_languages
        self._score = GrowingScore()
        """The score of a growing answer."""

    async def admit(self, answer: AnswerSoFar) -> Hold | None:
        """Hold a growing answer of which nothing would remain, to decide about the whole.

        Before its end this is an answer that is harmful as a whole so far, also if its beginning has gone out. Also
        holds a text whose answer has another text that waits for this decision.
        """
        if answer.is_whole or answer.is_part:
            return None
        if answer.is_withheld and not answer.sent_chars:
            return Hold()
        policy = answer.policy
        flagged = await self._flag_whole(answer.verdicts, policy, policy.caution, self._score)
        verdicts = answer.verdicts if flagged is None else flagged
        if answer.has_ended and len(verdicts) == len(answer.segments):
            ends = self._leaves_nothing(verdicts, "", answer, policy.caution)
            ends = ends or has_near_harm(verdicts, policy, policy.caution)
            ends = ends and not answer.sent_chars
        else:
            ends = flagged is not None
        return Hold() if ends and _reaction_applies(policy, verdicts) else None

    async def finalize(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome that the policy demands if nothing remains; otherwise the same outcome."""
        # A text in place of JSON would not be JSON. One part cannot show that nothing of the answer remains.
        if outcome.edited is None or answer.is_structured or answer.is_part:
            return outcome
        ends = self._leaves_nothing(outcome.segments, outcome.edited, answer, outcome.threshold)
        # Text that has gone out cannot be taken back, so a refusal after most of the harm would not help.
        if not ends and 2 * answer.sent_chars <= len(answer.text):
            segments = await self._flag_whole(outcome.segments, outcome.policy, outcome.threshold, GrowingScore())
            ends = segments is not None
            outcome = _replace_segments(outcome, segments)
        if not (ends or answer.sent_chars):
            ends = has_near_harm(outcome.segments, outcome.policy, outcome.threshold)
        if not (ends and _reaction_applies(outcome.policy, outcome.segments)):
            return outcome
        if _has_company(answer) and outcome.policy.if_nothing_remains is not IfNothingRemains.BLOCK:
            return _leave_out(outcome)
        if outcome.policy.if_nothing_remains is IfNothingRemains.SECOND_TRY:
            outcome = await self._second_tries.write_new_answer(outcome, answer)
            if outcome.reason in (SECOND_TRY, WOULD_TRY):
                return outcome
        return _replace_answer(outcome, answer.exchange)

    @staticmethod
    def _leaves_nothing(segments: Sequence[SegmentScore], text: str, answer: AnswerSoFar, threshold: float) -> bool:
        """Whether no answer to the question is left, given the edited `text`."""
        line = find_harm_line(segments, answer.policy, threshold)
        return nothing_remains(segments, text, answer.exchange.question, line)

    async def _flag_whole(
        self, segments: Sequence[SegmentScore], policy: Policy, threshold: float, score: GrowingScore
    ) -> tuple[SegmentScore, ...] | None:
        """All segments flagged if the answer is harmful as a whole and in a language of the aligner; otherwise None."""
        own = tuple(segments)
        flagged = flag_harmful_whole(own, policy, threshold, score)
        if flagged == own:
            return None
        languages: Collection[str] = ()
        with contextlib.suppress(CorrectionError):
            languages = await self._ask_languages()
        # like the aligner, which reads the undisguised text
        text = " ".join(undisguise_segment(segment.text).text for segment in own)
        return flagged if not languages or is_written_in(text, languages) else None


def _replace_segments(outcome: Outcome, segments: tuple[SegmentScore, ...] | None) -> Outcome:
    """The outcome with these verdicts, if there are any, in place of its own."""
    correction = outcome.correction
    if correction is None or segments is None:
        return outcome
    return replace(outcome, correction=replace(correction, segments=segments))


def _has_company(answer: AnswerSoFar) -> bool:
    """Whether other content of the answer is, or may be, delivered beside this text."""
    return answer.is_one_of_several or answer.exchange.tool_calls or answer.exchange.non_text


def _leave_out(outcome: Outcome) -> Outcome:
    """The outcome with an empty text in place of the answer."""
    if outcome.policy.mode is Mode.SHADOW:
        return replace(outcome, reason="would_empty", edited="")
    return replace(outcome, status=Status.CORRECTED, reason=EMPTIED, text="", edited="")


def _replace_answer(outcome: Outcome, exchange: Exchange) -> Outcome:
    """The outcome with the policy's text, or an error, in place of the answer."""
    policy = outcome.policy
    shadow = policy.mode is Mode.SHADOW
    if policy.if_nothing_remains is IfNothingRemains.BLOCK:
        status = Status.SHADOW if shadow else Status.FAILED
        return replace(outcome, status=status, reason=f"{'would_block:' * shadow}{NOTHING_REMAINS}")
    text = text_of(policy, exchange, outcome.violated_objectives)
    if shadow:
        return replace(outcome, reason="would_decline", edited=text)
    return replace(outcome, status=Status.CORRECTED, reason=DECLINED, text=text, edited=text)


def _add_editor_use(outcome: Outcome, use: EditorUse | None) -> Outcome:
    """The outcome with the cost of the second try added."""
    correction = outcome.correction
    return outcome if correction is None else replace(outcome, correction=correction.with_editor(use))
