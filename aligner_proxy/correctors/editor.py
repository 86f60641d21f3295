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
from aligner_proxy.errors import (
    CorrectionError,
    EngineFault,
    QuotaSpent,
)
from aligner_proxy.text import structure
from aligner_proxy.text.disguises import undisguise
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import Correction, EditorUse, Policy, SegmentScore, Write

log = logging.getLogger(__name__)
EDITING_SHARE = 0.7
"""Share of the remaining time that the editor may take; the rest is for judging its text, or for the aligner."""
_NO_ALIGNER = "none"
"""The aligner of a new answer that is missing. It is in no cache key, so this is not stored: the next may be whole."""
_PROMPTS = hashlib.sha256(f"{editor_prompt.INSTRUCTION}\n{editor_prompt.NEW_ANSWER_INSTRUCTION}".encode()).hexdigest()
"""Hash of the prompts' wording: other words lead to other replies, so they need another cache key."""
_Read = TypeVar("_Read")


class Editors(ModelGroups):
    """The editors by model group."""

    def __init__(self, open_chat: OpenChat, accounts: OpenAccounts | None = None) -> None:
        super().__init__(open_chat, accounts, role="editor")

    def add_editor(self, scorer: Engine, policy: Policy) -> Engine:
        """The engine combined with the policy's editor; the engine itself if the aligner edits."""
        name = policy.editor_group
        if name is None:
            return scorer
        writer = ChatWriter(self.group(name), dict(policy.payer), policy.write)
        return EditedEngine(scorer, writer, policy.write)


@dataclass(frozen=True, slots=True)
class _ReplacedPassages:
    """Passages and their replacements, by segment index."""

    segments: Sequence[Segment]
    passages: Sequence[Passage]
    texts: Mapping[int, str]
    """The replacement of each passage, by segment index; empty if the passage is removed."""

    @property
    def pieces(self) -> list[tuple[str, str]]:
        """(text, gap) of every segment, with the replacements applied."""
        leads = {passage.at: passage.lead for passage in self.passages}
        texts = {at: leads[at] + text if text else "" for at, text in self.texts.items()}
        pieces = [(texts.get(at, segment.text), segment.gap) for at, segment in enumerate(self.segments)]
        if self.segments and not self.segments[-1].text and pieces[-1][0] and len(pieces) > 1:
            # The empty last segment: an addition continues the line, or begins a paragraph if the answer has several
            # lines.
            pieces[-2] = (pieces[-2][0], _addition_gap(structure.join(pieces[:-1])))
        return pieces

    def range_of(self, at: int) -> tuple[int, int]:
        """The start and end offset of a segment's replacement in the edited text."""
        pieces = self.pieces
        # `join` drops the last gap; the "x" keeps the one before the replacement, and is not counted
        start = len(structure.join([*pieces[:at], ("x", "")])) - 1
        return start, start + len(pieces[at][0])


class ChatWriter:
    """Rewrites flagged passages with a model group. Satisfies `Writer`; made for one request and its payer."""

    replaces_spans = True

    def __init__(self, editor: ModelGroup, payer: Payer | None = None, aligner_write: Write = Write.FREE) -> None:
        self._editor = editor
        self._payer = payer or {}
        self._aligner_write = aligner_write
        """What the aligner may write where the editor fails."""

    async def describe(self, scorer: AlignerInfo) -> AlignerInfo:
        """The description of the scorer, with hashes that include the editor."""
        identity = {**self._editor.identity(), "prompts": _PROMPTS}
        others = {name: _with_editor(other, identity) for name, other in scorer.others.items()}
        return replace(_with_editor(scorer, identity), others=others)

    async def write(self, request: AlignRequest, scored: Correction, scorer: Engine, until: float) -> Correction:
        """Replace the flagged passages by the editor's text; if the editor fails, the aligner edits."""
        if not any(verdict.flagged for verdict in scored.segments):
            return scored
        pieces = judged_segments(request.answer, scored.segments)
        try:
            replaced, use = await self._write_replacements(request, pieces, scored.segments, until)
        except QuotaSpent:
            raise
        except CorrectionError as error:
            own_request = request.model_copy(update={"write": self._aligner_write})
            by_aligner = await scorer.align(own_request.with_deadline(until - time.monotonic()))
            return replace(by_aligner, editor=_log_failure(request, error))
        kept_passages, scorings = await _drop_flagged_replacements(request, scorer, replaced, until)
        text = structure.join(kept_passages.pieces)
        use += EditorUse(refused=_count_shortened(replaced, kept_passages))
        ms = scored.ms + use.ms + sum(judging.ms for judging in scorings)
        return replace(scored, text=text, ms=ms).with_cost_of([replace(scored, editor=use), *scorings])

    async def _write_replacements(
        self, request: AlignRequest, segments: Sequence[Segment], scores: Sequence[SegmentScore], until: float
    ) -> tuple[_ReplacedPassages, EditorUse]:
        """Ask the editor in one call to replace all flagged segments; return (replacements cut to length, cost)."""
        marked = editor_prompt.make_passages(segments, scores, request.objectives)
        messages = editor_prompt.make_edit_messages(request.turns, segments, marked)
        question = Question(messages, editor_prompt.limit_reply_tokens(marked), editor_prompt.REPLY_SCHEMA)
        replies, use = await self._ask(
            request, question, lambda reply: editor_prompt.read_replacements(reply.text, marked), until
        )
        banned = _list_banned_texts(segments, scores, marked)
        texts = {at: splice.find_replacement(text, (), banned, finished=True) for at, text in replies.items()}
        return _ReplacedPassages(segments, marked, texts), use

    async def write_new_answer(self, request: AlignRequest, scorer: Engine, *, tokens: int) -> Correction:
        """A new answer to the conversation, as a correction; its text is empty if the answer is flagged or missing."""
        until = time.monotonic() + request.deadline_s
        question = Question(editor_prompt.make_new_answer_messages(request.turns, request.objectives), tokens)
        async with enforce_deadline(request.deadline_s):
            text, use = await self._ask(request, question, _whole_text, until)
            if not text:
                return Correction("", aligner=_NO_ALIGNER, editor=use)
            verdict = await _score_text(request, scorer, text, until)
        good = not any(segment.flagged for segment in verdict.segments)
        return replace(verdict, text=text if good else "", aligner="", editor=use)

    async def _ask(
        self, request: AlignRequest, question: Question, read: Callable[[Reply], _Read], until: float
    ) -> tuple[_Read, EditorUse]:
        """Ask the group within the editor's share of the time left; return (what `read` makes of the reply, cost)."""
        seconds = max(0.001, (until - time.monotonic()) * EDITING_SHARE)
        return await self._editor.ask(request, question, read, self._payer, seconds)

    async def replace(self, session: EditedSession, span: Span, scorer: Engine) -> Correction:
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
            replaced_in_span = _within_span(replaced, span)
            is_addition = not segments[span.first].text
            # An addition after the answer brings its own leading white space.
            lead = _addition_gap(request.answer) if is_addition else segments[span.first - 1].gap if span.first else ""
            kept_passages, scorings = await _drop_flagged_replacements(
                request, scorer, replaced_in_span, until, span.before + lead
            )
        text = structure.join(kept_passages.pieces)
        # before a replacement the answer already has its white space; nothing is added for an empty addition
        text = lead + text if text and is_addition else text
        use += EditorUse(refused=_count_shortened(replaced_in_span, kept_passages))
        ms = use.ms + sum(judging.ms for judging in scorings)
        return Correction(text, ms=ms).with_cost_of([Correction("", editor=use), *scorings])

    async def aclose(self) -> None:
        """Nothing to close: the group belongs to LiteLLM."""


def _with_editor(scorer: AlignerInfo, identity: Mapping[str, Any]) -> AlignerInfo:
    """The scorer's description with a hash of both; raises `EngineFault` if the scorer has no detector head."""
    if not scorer.has_head:
        raise EngineFault(f"{scorer.model} has no detector head, so nothing is ever flagged for an editor")
    return replace(scorer, content_hash=digest({"scorer": scorer.content_hash, "editor": identity}))


def _log_failure(request: AlignRequest, error: CorrectionError) -> EditorUse:
    """Log that the editor failed and the aligner edits; return what the failed call cost."""
    log.warning("call %s: the editor failed (%s); the aligner edits instead", request.request_id, type(error).__name__)
    return cost_of_failure(error)


def _whole_text(reply: Reply) -> str:
    """The text of a reply; empty if the reply was cut off."""
    return reply.text.strip() if reply.finished else ""


async def _score_text(request: AlignRequest, scorer: Engine, text: str, until: float) -> Correction:
    """The scores of a text in place of the answer, without edits; raises `CorrectionError` if the scorer fails."""
    proof_request = make_proof_request(request.with_deadline(until - time.monotonic()))
    return await scorer.align(make_verdict_request(proof_request).model_copy(update={"answer": text}))


async def _drop_flagged_replacements(
    request: AlignRequest, scorer: Engine, replaced: _ReplacedPassages, until: float, before: str = ""
) -> tuple[_ReplacedPassages, list[Correction]]:
    """Judge the editor's replacements in the answer, and drop the sentences that the detector head flags.

    `before` is the text of the answer before the passages. Returns (the passages with what is left of their
    replacements, the scores as a correction, or none if there was nothing to judge). Raises `CorrectionError` if the
    scorer fails.
    """
    if not any(replaced.texts.values()):
        return replaced, []
    candidate = before + structure.join(replaced.pieces)
    # the replacements are judged in the answer that they would become part of
    scores = await _score_text(request, scorer, candidate, until)
    segments = judged_segments(candidate, scores.segments)
    # an empty segment is the end of the answer: something missing there is no fault of a replacement
    pairs = zip(segments, scores.segments, strict=True)
    flagged = [segment for segment, verdict in pairs if verdict.flagged and segment.text]
    texts = dict(replaced.texts)
    for passage in replaced.passages:
        if texts[passage.at]:
            start, end = (len(before) + at for at in replaced.range_of(passage.at))
            texts[passage.at] = _drop_flagged_sentences(texts[passage.at], passage, segments, flagged, (start, end))
    return replace(replaced, texts=texts), [scores]


def _addition_gap(answer: str) -> str:
    """The white space before an addition at the end of an answer; a blank line if the answer has several lines."""
    return "\n\n" if "\n" in answer else " "


def _list_banned_texts(
    segments: Sequence[Segment], scores: Sequence[SegmentScore], marked: Sequence[Passage]
) -> list[str]:
    """Texts that a replacement must not repeat: flagged segments, and long unflagged ones."""
    pairs = zip(segments, scores, strict=True)
    texts = [
        segment.text.strip()
        for segment, score in pairs
        if segment.text and (score.flagged or len(segment.text) >= splice.KEY_CHARS)
    ]
    texts += [passage.text.strip() for passage in marked if passage.text]
    # disguised text must not come back in plain letters either
    return texts + [undisguise(text).text for text in texts]


def _drop_flagged_sentences(
    text: str, passage: Passage, segments: Sequence[Segment], flagged: Sequence[Segment], place: tuple[int, int]
) -> str:
    """A replacement without its flagged sentences; empty if these cannot be dropped alone.

    `place` is the range (start, end) of the replacement in the text of `segments`, of which `flagged` are flagged.
    """
    start, end = place
    # segments that overlap the replacement, even if they reach beyond it
    flagged_inside = [segment for segment in flagged if segment.end > start and segment.start < end]
    if not flagged_inside:
        return text
    inside = [segment for segment in segments if segment.end > start and segment.start < end]
    # part of such a segment is not the replacement's own, so it cannot be dropped alone
    if passage.lead or any(segment.start < start or segment.end > end for segment in inside):
        return ""
    return structure.join([(segment.text, segment.gap) for segment in inside if segment not in flagged_inside])


def _count_shortened(before: _ReplacedPassages, after: _ReplacedPassages) -> int:
    """How many replacements lost text between `before` and `after`, because it was flagged again."""
    return sum(text != after.texts[at] for at, text in before.texts.items())


def _within_span(replaced: _ReplacedPassages, span: Span) -> _ReplacedPassages:
    """The replacements within a span, with indexes relative to its first segment."""
    passages = [replace(passage, at=passage.at - span.first) for passage in replaced.passages]
    texts = {at - span.first: text for at, text in replaced.texts.items()}
    return _ReplacedPassages(replaced.segments[span.first : span.stop], passages, texts)
