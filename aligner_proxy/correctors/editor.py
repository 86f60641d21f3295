"""Editor: a strong model that rewrites the passages flagged by the detector head, and nothing else.

The engine scores the answer; if nothing is flagged, no editor is called. Otherwise one call asks the editor for all
flagged passages. Its replacements are scored in context, and those flagged again are removed. If the editor cannot be
reached, has no time or returns an unusable reply, the aligner makes the edits, as without an editor. That correction is
delivered but not cached.

To the pipeline this is an engine (engine/client/edited_engine.py), so deadline, failure policy, cache and gate apply to
it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.correctors import editor_prompt
from aligner_proxy.correctors.editor_prompt import Passage
from aligner_proxy.correctors.model_group import (
    ModelGroup,
    ModelGroups,
    OpenChat,
    Payer,
    Question,
    Reply,
    cost_of_failure,
)
from aligner_proxy.engine.admission import OpenAccounts
from aligner_proxy.engine.api import AlignerInfo, AlignRequest, Engine, Span, make_proof_request
from aligner_proxy.engine.client.edited_engine import EditedEngine, EditedSession, judged_segments, make_verdict_request
from aligner_proxy.engine.decoding import splice
from aligner_proxy.engine.weights.manifest import digest
from aligner_proxy.errors import CorrectionError, EngineFault, QuotaSpent
from aligner_proxy.text import structure
from aligner_proxy.text.disguises import undisguise
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Correction, EditorUse, Policy, SegmentScore, Write

log = logging.getLogger(__name__)
EDITING_SHARE = 0.7
"""Share of the remaining time that the editor may take; the rest is for judging its text, or for the aligner."""
_NO_ALIGNER = "none"
"""The aligner hash of a new answer that is missing. No cache key has it, so the cache stores nothing, and the next
request asks again."""
_PROMPT_HASH = hashlib.sha256(
    f"{editor_prompt.INSTRUCTION}\n{editor_prompt.NEW_ANSWER_INSTRUCTION}".encode()
).hexdigest()
"""Hash of the prompts' wording: another wording leads to other replies, so it needs another cache key."""
_Result = TypeVar("_Result")


class Editors(ModelGroups):
    """The editors by model group."""

    def __init__(self, open_chat: OpenChat, accounts: OpenAccounts | None = None) -> None:
        super().__init__(open_chat, accounts, role="editor")

    def add_editor(self, scorer: Engine, policy: Policy) -> Engine:
        """Return an engine that scores with `scorer` and edits with the policy's editor; `scorer` if there is none."""
        name = policy.editor_group
        if name is None:
            return scorer
        writer = ChatWriter(self.group(name), dict(policy.payer), policy.write)
        return EditedEngine(scorer, writer, policy.write)


@dataclass(frozen=True, slots=True)
class _ReplacedPassages:
    """The segments of a text, and the replacements of some of them."""

    segments: Sequence[Segment]
    passages: Sequence[Passage]
    """The segments that are replaced."""
    texts: Mapping[int, str]
    """The replacement of each passage, by the index of its segment; empty if the passage is removed."""

    @property
    def pieces(self) -> list[tuple[str, str]]:
        """(text, white space after it) of every segment, with the replacements applied."""
        new_texts: dict[int, str] = {}
        for passage in self.passages:
            index = passage.segment_index
            if index in self.texts:
                new_texts[index] = passage.list_mark + self.texts[index] if self.texts[index] else ""
        pieces = [(new_texts.get(index, segment.text), segment.gap) for index, segment in enumerate(self.segments)]
        if self.segments and not self.segments[-1].text and pieces[-1][0] and len(pieces) > 1:
            # The empty last segment stands for the end of the answer: its replacement is an addition.
            pieces[-2] = (pieces[-2][0], _space_before_addition(structure.join(pieces[:-1])))
        return pieces

    def range_of(self, index: int) -> tuple[int, int]:
        """(start, end) of the replacement of the segment with this index, as offsets in the edited text."""
        pieces = self.pieces
        # `join` drops the white space after the last piece; with "x" as last piece, that before the replacement stays
        start = len(structure.join([*pieces[:index], ("x", "")])) - len("x")
        return start, start + len(pieces[index][0])


class ChatWriter:
    """Rewrites flagged passages with a model group. Satisfies `Writer`; made for one request and its payer."""

    replaces_spans = True

    def __init__(self, editor: ModelGroup, payer: Payer | None = None, aligner_write: Write = Write.FREE) -> None:
        self._editor = editor
        self._payer = payer or {}
        self._aligner_write = aligner_write
        """What the aligner may write if the editor fails."""

    async def describe(self, scorer: AlignerInfo) -> AlignerInfo:
        """The description of the scorer, with content hashes that include the editor."""
        identity = {**self._editor.identity(), "prompts": _PROMPT_HASH}
        others = {name: _with_editor(other, identity) for name, other in scorer.others.items()}
        return replace(_with_editor(scorer, identity), others=others)

    async def write(self, request: AlignRequest, scored: Correction, scorer: Engine, until: float) -> Correction:
        """Replace the flagged passages by the editor's text; if the editor fails, the aligner edits.

        `scored` is the correction with the scores of the answer's segments; `until` is the deadline
        (`time.monotonic()`).
        """
        if not any(verdict.flagged for verdict in scored.segments):
            return scored
        segments = judged_segments(request.answer, scored.segments)
        try:
            replaced, use = await self._write_replacements(request, segments, scored.segments, until)
        except QuotaSpent:
            raise
        except CorrectionError as error:
            own_request = request.model_copy(update={"write": self._aligner_write})
            by_aligner = await scorer.align(own_request.with_deadline(until - time.monotonic()))
            return replace(by_aligner, editor=_log_failure(request, error))
        checked, scorings = await _drop_flagged_replacements(request, scorer, replaced, until)
        text = structure.join(checked.pieces)
        use += EditorUse(refused=_count_shortened(replaced, checked))
        ms = scored.ms + use.ms + sum(scoring.ms for scoring in scorings)
        return replace(scored, text=text, ms=ms).with_cost_of([replace(scored, editor=use), *scorings])

    async def _write_replacements(
        self, request: AlignRequest, segments: Sequence[Segment], scores: Sequence[SegmentScore], until: float
    ) -> tuple[_ReplacedPassages, EditorUse]:
        """Ask the editor in one call to replace all flagged segments; return (replacements cut to length, cost)."""
        passages = editor_prompt.make_passages(segments, scores, request.objectives)
        messages = editor_prompt.make_edit_messages(request.turns, segments, passages)
        max_tokens = editor_prompt.limit_reply_tokens(passages)
        question = Question(messages, max_tokens, editor_prompt.REPLY_SCHEMA)
        reply_texts, use = await self._ask(
            request, question, lambda reply: editor_prompt.read_replacements(reply.text, passages), until
        )
        banned_texts = _list_banned_texts(segments, scores, passages)
        texts = {
            index: splice.find_replacement(text, (), banned_texts, finished=True) for index, text in reply_texts.items()
        }
        return _ReplacedPassages(segments, passages, texts), use

    async def write_new_answer(self, request: AlignRequest, scorer: Engine, *, max_tokens: int) -> Correction:
        """Write another answer; return a correction with it and its scores. Its text is empty if it is flagged."""
        until = time.monotonic() + request.deadline_s
        question = Question(editor_prompt.make_new_answer_messages(request.turns, request.objectives), max_tokens)
        async with enforce_deadline(request.deadline_s):
            text, use = await self._ask(request, question, _read_whole_text, until)
            if not text:
                return Correction("", aligner=_NO_ALIGNER, editor=use)
            scored = await _score_text(request, scorer, text, until)
        is_flagged = any(segment.flagged for segment in scored.segments)
        return replace(scored, text="" if is_flagged else text, aligner="", editor=use)

    async def _ask(
        self, request: AlignRequest, question: Question, read_reply: Callable[[Reply], _Result], until: float
    ) -> tuple[_Result, EditorUse]:
        """Ask the group within the editor's share of the time left; return as `ModelGroup.ask` does."""
        seconds = max(0.001, (until - time.monotonic()) * EDITING_SHARE)
        return await self._editor.ask(request, question, read_reply, self._payer, seconds)

    async def replace(self, session: EditedSession, span: Span, scorer: Engine) -> Correction:
        """Replace one flagged run of a growing answer by the editor's text; if the editor fails, the aligner edits."""
        until = time.monotonic() + span.deadline_s
        request = session.request.model_copy(update={"answer": session.text[: span.end]})
        segments, scores = session.mark_flagged_segments(span)
        async with enforce_deadline(span.deadline_s):
            try:
                replaced, use = await self._write_replacements(request, segments, scores, until)
            except QuotaSpent:
                raise
            except CorrectionError as error:
                by_aligner = await session.replace_by_scorer(span)
                return replace(by_aligner, editor=_log_failure(request, error))
            replaced_in_span = _select_span(replaced, span)
            is_addition = not segments[span.first].text
            if is_addition:
                space_before = _space_before_addition(request.answer)
            else:
                space_before = segments[span.first - 1].gap if span.first else ""
            checked, scorings = await _drop_flagged_replacements(
                request, scorer, replaced_in_span, until, span.before + space_before
            )
        text = structure.join(checked.pieces)
        # an addition after the answer brings the white space before it; other replacements find it in the answer
        if text and is_addition:
            text = space_before + text
        use += EditorUse(refused=_count_shortened(replaced_in_span, checked))
        ms = use.ms + sum(scoring.ms for scoring in scorings)
        return Correction(text, ms=ms).with_cost_of([Correction("", editor=use), *scorings])

    async def aclose(self) -> None:
        """Nothing to close: the group belongs to LiteLLM."""


def _with_editor(scorer: AlignerInfo, identity: Mapping[str, Any]) -> AlignerInfo:
    """The scorer's description with a hash of scorer and editor; raises `EngineFault` if it has no detector head."""
    if not scorer.has_head:
        raise EngineFault(f"{scorer.model} has no detector head, so nothing is ever flagged for an editor")
    return replace(scorer, content_hash=digest({"scorer": scorer.content_hash, "editor": identity}))


def _log_failure(request: AlignRequest, error: CorrectionError) -> EditorUse:
    """Log that the editor failed and the aligner edits; return what the failed call cost."""
    log.warning("call %s: the editor failed (%s); the aligner edits instead", request.request_id, type(error).__name__)
    return cost_of_failure(error)


def _read_whole_text(reply: Reply) -> str:
    """The text of a reply; empty if the reply was cut off."""
    return reply.text.strip() if reply.finished else ""


async def _score_text(request: AlignRequest, scorer: Engine, text: str, until: float) -> Correction:
    """The scores of a text in place of the answer, without edits; raises `CorrectionError` if the scorer fails."""
    proof_request = make_proof_request(request.with_deadline(until - time.monotonic()))
    return await scorer.align(make_verdict_request(proof_request).model_copy(update={"answer": text}))


async def _drop_flagged_replacements(
    request: AlignRequest, scorer: Engine, replaced: _ReplacedPassages, until: float, text_before: str = ""
) -> tuple[_ReplacedPassages, list[Correction]]:
    """Judge the replacements as part of the answer, and drop their sentences that the detector head flags.

    `text_before` is the answer's text before `replaced`. Returns (the passages with the rest of their replacements, a
    list of the correction that has the scores and their cost, empty if there was nothing to judge). Raises
    `CorrectionError` if the scorer fails.
    """
    if not any(replaced.texts.values()):
        return replaced, []
    new_answer = text_before + structure.join(replaced.pieces)
    scored = await _score_text(request, scorer, new_answer, until)
    segments = judged_segments(new_answer, scored.segments)
    # A segment without text stands for the end of the answer: no replacement is at fault if something is missing there.
    pairs = zip(segments, scored.segments, strict=True)
    flagged_segments = [segment for segment, verdict in pairs if verdict.flagged and segment.text]
    texts = dict(replaced.texts)
    for passage in replaced.passages:
        index = passage.segment_index
        if texts[index]:
            start, end = replaced.range_of(index)
            place = (len(text_before) + start, len(text_before) + end)
            texts[index] = _drop_flagged_sentences(texts[index], passage, segments, flagged_segments, place)
    return replace(replaced, texts=texts), [scored]


def _space_before_addition(answer: str) -> str:
    """The white space before an addition at the end of an answer: a blank line if the answer has several lines."""
    return "\n\n" if "\n" in answer else " "


def _list_banned_texts(
    segments: Sequence[Segment], scores: Sequence[SegmentScore], passages: Sequence[Passage]
) -> list[str]:
    """Texts that a replacement must not repeat: those of flagged segments and passages, and of long other segments."""
    pairs = zip(segments, scores, strict=True)
    texts = [
        segment.text.strip()
        for segment, score in pairs
        if segment.text and (score.flagged or len(segment.text) >= splice.KEY_CHARS)
    ]
    texts += [passage.text.strip() for passage in passages if passage.text]
    # disguised text must not come back in plain letters either
    return texts + [undisguise(text).text for text in texts]


def _drop_flagged_sentences(
    text: str,
    passage: Passage,
    segments: Sequence[Segment],
    flagged_segments: Sequence[Segment],
    place: tuple[int, int],
) -> str:
    """The replacement `text` of a passage without its flagged sentences; empty if these cannot be dropped alone.

    `place` is (start, end) of the replacement in the new answer, which has these segments.
    """
    start, end = place
    # segments that overlap the replacement count, even if they reach beyond it
    flagged_inside = [segment for segment in flagged_segments if segment.end > start and segment.start < end]
    if not flagged_inside:
        return text
    segments_inside = [segment for segment in segments if segment.end > start and segment.start < end]
    # if a segment has text from outside the replacement, such as a list mark, it cannot be dropped alone
    if passage.list_mark or any(segment.start < start or segment.end > end for segment in segments_inside):
        return ""
    kept_segments = [segment for segment in segments_inside if segment not in flagged_inside]
    return structure.join([(segment.text, segment.gap) for segment in kept_segments])


def _count_shortened(replaced: _ReplacedPassages, checked: _ReplacedPassages) -> int:
    """The number of replacements that lost flagged text between the editor's reply and the check by the detector."""
    return sum(text != checked.texts[index] for index, text in replaced.texts.items())


def _select_span(replaced: _ReplacedPassages, span: Span) -> _ReplacedPassages:
    """The segments of a span, which has all passages; their indexes become relative to the span's first segment."""
    passages = [replace(passage, segment_index=passage.segment_index - span.first) for passage in replaced.passages]
    texts = {index - span.first: text for index, text in replaced.texts.items()}
    return _ReplacedPassages(replaced.segments[span.first : span.stop], passages, texts)
