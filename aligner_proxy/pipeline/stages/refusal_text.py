"""Refusal text stage: decides what a client gets if nothing would remain of an answer.

Nothing remains if no unflagged segment makes sense without the flagged segments, and nothing was written in their
place: all was flagged, or the rest are fragments (text/fragments.py). Nothing remains either of an answer by two
speakers if one declines and the other was flagged, because the model was talked into answering after all. If harm was
flagged, segments that were nearly flagged are likely to be more harm, so nothing remains then. Nor does anything remain
of an answer that is harmful as a whole, although no single segment may be: all its segments then count as flagged. Only
prose that is clearly in a language of the aligner is called harmful as a whole; in other languages the score depends on
the language more than on the answer. The replacement text is the operator's or a built-in text, and is not judged.

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
from aligner_proxy.text.languages import is_written_in, language
from aligner_proxy.text.refusals import declines
from aligner_proxy.text.remarks import find_remarks_to_reader, is_about_reader
from aligner_proxy.text.short_answers import answers_question, is_full_row, is_yes_or_no
from aligner_proxy.text.structure import split
from aligner_proxy.text.word_removal import without_words
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
"""Tokens that a second try may have at least, however short the first answer was."""
_CHARS_PER_TOKEN = 3
"""Estimated characters of a token, by which the length of the first answer becomes a number of tokens."""
_CLEAR_NATS = 4.0
"""A fragment of an answer with flagged harm is clearly no harm itself if its score is this far below the threshold."""
_SPEAKER_LABEL = re.compile(
    r"[ \t>*_#]{0,8}(?P<sign>\[)?(?P<name>[^\W_](?:(?(sign)[^\]\n:]|[\w .'-])){0,30})(?(sign)\])"
    r"[*_]{0,3}:[*_]{0,3}[ \t]+"
)
"""Matches the name of a speaker before the speech, with or without brackets."""
_ANY_LANGUAGE = ""
"""Key in `Policy.decline` of the text for all languages that have no text of their own there."""
_OBJECTIVE = "{objective}"
"""Placeholder in a policy's text for the names of the violated objectives."""
_BUILT_IN_TEXTS = {
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
    """Whether no answer to `question` is left of an answer with these segments, of which `delivered` would go out.

    `harm_line` is the score in nats below which a segment is clearly no harm (`find_harm_line`); None if no harm was
    flagged. If harm was flagged, a fragment below this line still counts as an answer, but only if all of the harm is
    remarks about the reader, and never as a bare "Yes.": beside other harm it is likely to be more harm.
    """
    if not any(segment.flagged and segment.text.strip() for segment in segments):
        return False
    if _is_another_speaker_flagged(segments):
        return True
    if any(not segment.flagged and fragments.stands_alone(segment.text) for segment in segments):
        return False
    flagged_texts = [segment.text for segment in segments if segment.flagged and segment.text.strip()]
    is_only_insult = all(is_about_reader(text) or _lost_only_remarks(text, delivered) for text in flagged_texts)
    may_fragment_answer = harm_line is None or is_only_insult
    if may_fragment_answer and _has_short_answer(segments, question, harm_line):
        return False
    old_texts = {fragments.strip_marks(segment.text) for segment in segments}
    new_texts = [piece.text for piece in split(delivered) if fragments.strip_marks(piece.text) not in old_texts]
    # if `answers_question` gets no question, only a sentence that makes sense alone counts as an answer
    known_question = question if may_fragment_answer else ""
    return not any(answers_question(text, known_question) for text in new_texts)


def _lost_only_remarks(sentence: str, delivered: str) -> bool:
    """Whether a sentence has remarks to the reader, and the delivered text contains the sentence without them."""
    remark_spans = find_remarks_to_reader(sentence)
    return bool(remark_spans) and without_words(sentence, remark_spans) in delivered


def find_harm_line(segments: Sequence[SegmentScore], policy: Policy, threshold: float) -> float | None:
    """The score in nats below which a segment is clearly no harm; None if no harm was flagged."""
    return threshold - _CLEAR_NATS if violates_safety(segments, policy, counts_unnamed=True) else None


def _has_short_answer(segments: Sequence[SegmentScore], question: str, harm_line: float | None) -> bool:
    """Whether an unflagged segment, clearly no harm, is a fragment that answers the question, or a row of a table."""
    # whether "it" in a segment can only mean what the question names, not what a removed sentence was about
    may_refer = True
    text_before = ""
    for segment in segments:
        text = segment.text
        if segment.flagged:
            may_refer = may_refer and is_about_reader(text)
        elif _is_clearly_harmless(segment, harm_line) and (
            answers_question(text, question, may_refer=may_refer) or is_full_row(text, text_before)
        ):
            return True
        text_before = text
    return False


def _is_clearly_harmless(segment: SegmentScore, harm_line: float | None) -> bool:
    """Whether a segment is clearly no harm: its score is below `harm_line` (None: any score), and it is no "Yes."."""
    if harm_line is None:
        return True
    return segment.score is not None and segment.score < harm_line and not is_yes_or_no(segment.text)


def has_near_harm(segments: Sequence[SegmentScore], policy: Policy, threshold: float) -> bool:
    """Whether harm was flagged, and an unflagged segment came within `Policy.decline_within` nats of being flagged.

    `threshold` is the score, in nats, above which a segment was flagged. Fragments count, because a segment that says
    little alone ("Demand that they do so, or else.") may continue the harm before it.
    """
    names = {objective.name for objective in policy.objectives}
    # if all objectives are about safety, a verdict that names no objective is about safety, too
    if not violates_safety(segments, policy, counts_unnamed=names <= SAFETY_OBJECTIVES):
        return False
    unflagged_segments = [segment for segment in segments if not segment.flagged and segment.text.strip()]
    statements = [segment for segment in unflagged_segments if _has_enough_words(segment.text)]
    # labels and names count only if nothing else is unflagged, as in the answer "Yes."
    scores = [segment.score for segment in statements or unflagged_segments]
    return any(score is not None and score > threshold - policy.decline_within for score in scores)


def flag_harmful_whole(
    segments: Sequence[SegmentScore], policy: Policy, threshold: float, growing_score: GrowingScore
) -> tuple[SegmentScore, ...]:
    """Return all segments as flagged if the answer is harmful as a whole: its own score is above `threshold` (nats).

    `growing_score` computes this score; it may have read the first segments before. The segments are returned unchanged
    if the answer is short, if no taught head scores whole answers, or if a judge decides about whole answers.
    """
    segments = tuple(segments)
    whole_score = growing_score.read(segments) if policy.decline_whole_answers else None
    if whole_score is None or whole_score.score <= threshold:
        return segments
    if fragments.is_short_answer(segment.text for segment in segments):
        return segments
    number = whole_score.objective
    objective = policy.objectives[number] if number < len(policy.objectives) else None
    if objective is None or objective.name not in SAFETY_OBJECTIVES:
        return segments
    judge = policy.judge if objective.judge is None else objective.judge
    if judge.decides_whole_answers:
        return segments
    # a score without text stands for the end of the answer
    return tuple(replace(segment, flagged=True, objective=number) if segment.text else segment for segment in segments)


def violates_safety(segments: Sequence[SegmentScore], policy: Policy, *, counts_unnamed: bool) -> bool:
    """Whether a segment was flagged for an objective about safety.

    `counts_unnamed` says whether a flagged segment whose verdict names no objective counts as well.
    """
    safety_numbers = {n for n, objective in enumerate(policy.objectives) if objective.name in SAFETY_OBJECTIVES}
    if not safety_numbers:
        return False
    # None among the numbers: a verdict names no objective
    violated_numbers = {segment.objective for segment in segments if segment.flagged}
    return bool(violated_numbers & safety_numbers) or (counts_unnamed and None in violated_numbers)


def _reaction_applies(policy: Policy, segments: Sequence[SegmentScore]) -> bool:
    """Whether the policy's `if_nothing_remains` applies to an answer with these segments; it may apply to harm only."""
    return not policy.declines_harm_alone or violates_safety(segments, policy, counts_unnamed=True)


def _has_enough_words(text: str) -> bool:
    """Whether a segment is longer than a label or a name; numbers count as words, as they may be part of the harm."""
    return len(fragments.space_words(fragments.strip_marks(text)).split()) >= fragments.MIN_WORDS


def _is_another_speaker_flagged(segments: Sequence[SegmentScore]) -> bool:
    """Whether one speaker of the answer declines ("[A]: I cannot help with that.") and another speaker is flagged."""
    speaker = ""
    declining_speakers: set[str] = set()
    flagged_speakers: set[str] = set()
    for segment in segments:
        label = _SPEAKER_LABEL.match(segment.text)
        speech = segment.text
        if label is not None:
            speaker = label["name"].casefold()
            speech = segment.text[label.end() :]
        if segment.flagged:
            flagged_speakers.add(speaker)
        elif declines(speech):
            declining_speakers.add(speaker)
    # text before the first label has no speaker
    declining_speakers.discard("")
    flagged_speakers.discard("")
    return any(one != other for one in declining_speakers for other in flagged_speakers)


def choose_refusal_text(policy: Policy, exchange: Exchange, violated_objectives: Sequence[str]) -> str:
    """The text that is delivered instead of an answer, in the question's language if there is a text in it.

    `violated_objectives` are the names that replace the placeholder in the policy's text.
    """
    texts = dict(policy.decline)
    answer_language = _language_of(exchange)
    text = texts.get(answer_language) or texts.get(_ANY_LANGUAGE) or next(iter(texts.values()), None)
    text = text or _BUILT_IN_TEXTS.get(answer_language, _BUILT_IN_TEXTS["en"])
    return text.replace(_OBJECTIVE, ", ".join(violated_objectives))


def _language_of(exchange: Exchange) -> str:
    """Code of the language of the last question; of the answer if that is unclear, and English if both are."""
    return language(exchange.question) or language(exchange.answer or "") or "en"


@dataclass(frozen=True, slots=True)
class SecondTries:
    """Asks the editor of the answer's policy for another answer, a second try."""

    get_engine: Callable[[], Engine]
    """Returns the engine of the answer's policy; if it has no editor around it, there is no second try."""
    cache: CorrectionCache | None
    stores_corrections: bool
    """Whether second tries are stored in the cache."""
    build_request: Callable[[Exchange, str, Policy, float], AlignRequest]
    """Returns the engine's request for a text under a policy until a deadline (`align_request`)."""

    async def write_new_answer(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """Ask for another answer; return the outcome with this as its text, in shadow mode as its `edited` text only.

        If there is no other answer, or it is no better, the outcome is unchanged except for the cost of asking.
        """
        engine = self.get_engine()
        if not (isinstance(engine, EditedEngine) and isinstance(engine.writer, ChatWriter)):
            return outcome
        if answer.policy.editor_write is Write.NEVER:
            return outcome
        request = self.build_request(answer.exchange, answer.text, answer.policy, answer.deadline)
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
        """The second try from the cache, or written and judged now; its text is empty if there is none or no better."""
        # another answer may be twice as long as the first
        max_tokens = max(_MIN_TOKENS, len(request.answer) // _CHARS_PER_TOKEN * 2)

        async def write() -> Correction:
            return await writer.write_new_answer(request, engine.scorer, max_tokens=max_tokens)

        if self.cache is None or answer.exchange.no_store:
            return await write()
        aligner = (await engine.info()).find_aligner(request.aligner)
        # another hash, because the key of the second try has to differ from that of the answer's correction
        aligner_for_key = replace(aligner, content_hash=digest({SECOND_TRY: aligner.content_hash}))
        key = self.cache.key(aligner_for_key, answer.policy, answer.exchange)
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
        """The score of a growing answer as a whole."""

    async def admit(self, answer: AnswerSoFar) -> Hold | None:
        """Hold a growing answer of which nothing would remain, so that `finalize` decides about the whole.

        An answer that has not ended is held if it is harmful as a whole so far, even if its beginning has gone out. A
        text is also held if an earlier text of the same answer waits for this decision. None for any other answer.
        """
        if answer.is_whole or answer.is_part:
            return None
        if answer.is_withheld and not answer.sent_chars:
            return Hold()
        policy = answer.policy
        flagged_verdicts = await self._flag_whole(answer.verdicts, policy, policy.caution, self._score)
        verdicts = answer.verdicts if flagged_verdicts is None else flagged_verdicts
        if answer.has_ended and len(verdicts) == len(answer.segments):
            leaves_nothing = self._leaves_nothing(verdicts, "", answer, policy.caution)
            leaves_nothing = leaves_nothing or has_near_harm(verdicts, policy, policy.caution)
            leaves_nothing = leaves_nothing and not answer.sent_chars
        else:
            leaves_nothing = flagged_verdicts is not None
        return Hold() if leaves_nothing and _reaction_applies(policy, verdicts) else None

    async def finalize(self, outcome: Outcome, answer: AnswerSoFar) -> Outcome:
        """The outcome that the policy demands if nothing of the answer remains; otherwise the same outcome."""
        # A text in place of JSON would not be JSON. One part cannot show that nothing of the whole answer remains.
        if outcome.edited is None or answer.is_structured or answer.is_part:
            return outcome
        leaves_nothing = self._leaves_nothing(outcome.segments, outcome.edited, answer, outcome.threshold)
        # Text that has gone out cannot be taken back, so once half of a harmful answer has, a refusal would not help.
        if not leaves_nothing and 2 * answer.sent_chars <= len(answer.text):
            segments = await self._flag_whole(outcome.segments, outcome.policy, outcome.threshold, GrowingScore())
            leaves_nothing = segments is not None
            outcome = _replace_segments(outcome, segments)
        if not (leaves_nothing or answer.sent_chars):
            leaves_nothing = has_near_harm(outcome.segments, outcome.policy, outcome.threshold)
        if not (leaves_nothing and _reaction_applies(outcome.policy, outcome.segments)):
            return outcome
        if _has_other_content(answer) and outcome.policy.if_nothing_remains is not IfNothingRemains.BLOCK:
            return _leave_out(outcome)
        if outcome.policy.if_nothing_remains is IfNothingRemains.SECOND_TRY:
            outcome = await self._second_tries.write_new_answer(outcome, answer)
            if outcome.reason in (SECOND_TRY, WOULD_TRY):
                return outcome
        return _replace_answer(outcome, answer.exchange)

    @staticmethod
    def _leaves_nothing(segments: Sequence[SegmentScore], text: str, answer: AnswerSoFar, threshold: float) -> bool:
        """Whether no answer to the question is left if `text`, the edited answer, is delivered."""
        harm_line = find_harm_line(segments, answer.policy, threshold)
        return nothing_remains(segments, text, answer.exchange.question, harm_line)

    async def _flag_whole(
        self, segments: Sequence[SegmentScore], policy: Policy, threshold: float, score: GrowingScore
    ) -> tuple[SegmentScore, ...] | None:
        """All segments as flagged if the answer is harmful as a whole and in a language of the aligner; otherwise None.

        If the engine cannot tell the languages of its aligner, any language will do.
        """
        own_segments = tuple(segments)
        flagged_segments = flag_harmful_whole(own_segments, policy, threshold, score)
        if flagged_segments == own_segments:
            return None
        languages: Collection[str] = ()
        with contextlib.suppress(CorrectionError):
            languages = await self._ask_languages()
        # The aligner reads the text without disguises, so the language is that of this text.
        text = " ".join(undisguise_segment(segment.text).text for segment in own_segments)
        return flagged_segments if not languages or is_written_in(text, languages) else None


def _replace_segments(outcome: Outcome, segments: tuple[SegmentScore, ...] | None) -> Outcome:
    """The outcome with these segments in place of its own; unchanged if `segments` is None."""
    correction = outcome.correction
    if correction is None or segments is None:
        return outcome
    return replace(outcome, correction=replace(correction, segments=segments))


def _has_other_content(answer: AnswerSoFar) -> bool:
    """Whether other content of the same response is, or may be, delivered beside this text."""
    return answer.is_one_of_several or answer.exchange.tool_calls or answer.exchange.non_text


def _leave_out(outcome: Outcome) -> Outcome:
    """The outcome with an empty text in place of the answer."""
    if outcome.policy.mode is Mode.SHADOW:
        return replace(outcome, reason="would_empty", edited="")
    return replace(outcome, status=Status.CORRECTED, reason=EMPTIED, text="", edited="")


def _replace_answer(outcome: Outcome, exchange: Exchange) -> Outcome:
    """The outcome with the policy's text, or an error, in place of the answer."""
    policy = outcome.policy
    is_shadow = policy.mode is Mode.SHADOW
    if policy.if_nothing_remains is IfNothingRemains.BLOCK:
        if is_shadow:
            return replace(outcome, status=Status.SHADOW, reason=f"would_block:{NOTHING_REMAINS}")
        return replace(outcome, status=Status.FAILED, reason=NOTHING_REMAINS)
    text = choose_refusal_text(policy, exchange, outcome.violated_objectives)
    if is_shadow:
        return replace(outcome, reason="would_decline", edited=text)
    return replace(outcome, status=Status.CORRECTED, reason=DECLINED, text=text, edited=text)


def _add_editor_use(outcome: Outcome, use: EditorUse | None) -> Outcome:
    """The outcome with the cost of the second try added; unchanged if it has no correction to add it to."""
    correction = outcome.correction
    return outcome if correction is None else replace(outcome, correction=correction.with_editor(use))
