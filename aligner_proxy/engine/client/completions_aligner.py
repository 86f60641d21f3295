"""Aligners behind completions servers: they rewrite the whole answer, or the segments that a local scorer flags.

A completions server alone corrects an answer with the aligner's template. There is no detector head, so `caution` has
no effect. The server writes faster if it drafts from the prompt (speculation by n-gram, suffix, or `prediction`),
because the answer is there. The server's tokenizer is unknown here, so tokens are estimated from bytes. As in our own
engine, a conversation that does not fit the window is cut, and a long answer is sent part by part.

Behind a scorer (edited_engine.py) the server is asked once for every run of flagged segments, with the edited answer
before the run as a prefix. The place of such a run in the edited answer is a hole, which the server fills.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from aligner_proxy import prompts
from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.engine.api import (
    AlignerInfo,
    AlignRequest,
    Completion,
    CompletionRequest,
    DeferredSession,
    Engine,
    Prediction,
    Span,
    make_proof_request,
)
from aligner_proxy.engine.client.completions import MAX_STOPS, Completer, ServedModel
from aligner_proxy.engine.client.edited_engine import EditedSession, judged_segments, make_verdict_request
from aligner_proxy.engine.decoding import conversation, splice
from aligner_proxy.engine.decoding.parts import AnswerPassage, Division
from aligner_proxy.engine.decoding.prompt_fit import (
    CONVERSATION_SHARE,
    LONGEST_ANSWER_CHARS,
    MIN_ROOM,
    compute_answer_room,
    count_writing_room,
)
from aligner_proxy.engine.weights.manifest import digest
from aligner_proxy.errors import AnswerTooLong, EngineFault
from aligner_proxy.text import structure
from aligner_proxy.text.disguises import UndisguisedText, restore_disguises, undisguise
from aligner_proxy.types import Correction, SegmentScore, Verify, Write

BYTES_PER_TOKEN = 3.0
"""Below the average of Llama-family tokenizers on prose and code, so that token estimates are rather too high."""
DEFAULT_WINDOW = 4096
"""Window in tokens if neither the settings nor the server name one."""
_HOLE_ROOM = 16
"""Tokens that a replacement may have in addition to one and a half times those of the text that it replaces."""
JudgeEdit = Callable[[splice.Hole, str], Awaitable[str]]
"""Is given a hole and the text written into it; returns the part of the text that may stay, "" if none may."""
_TURN_STOPS = ("\nHuman:", "\nAssistant:", "\nUSER:", "\nASSISTANT:")
"""Beginnings of a further turn, which a model may write after the answer."""
_CONTROL = re.compile(r"<(?=\||/?s>|(?:pad|unk|bos|eos|start_of_turn|end_of_turn)>)")
"""The "<" of texts that servers may read as a control token."""
_VEIL = "\u2039"
"""The character that stands for such a "<" in prompts."""


class ByteRuler:
    """Measures texts by an estimate from their bytes. Satisfies `Ruler`."""

    def count(self, text: str) -> int:
        return estimate_tokens(text)

    def first(self, text: str, tokens: int) -> str:
        return text.encode("utf-8", "replace")[: int(tokens * BYTES_PER_TOKEN)].decode("utf-8", "ignore")

    def last(self, text: str, tokens: int) -> str:
        size = int(tokens * BYTES_PER_TOKEN)
        # [-0:] would be the whole text
        return text.encode("utf-8", "replace")[-size:].decode("utf-8", "ignore") if size else ""


@dataclass(frozen=True, slots=True)
class RemoteFrame:
    """What all prompts of a request share, around its answer: the template, the conversation and the objectives."""

    template: prompts.Template
    conversation_text: str
    """The conversation, cut, as the template writes it."""
    objectives: tuple[str, ...]
    answer_tokens: int
    """Most tokens, by estimate, of an answer or a part of it."""

    def render_prompt(self, answer: UndisguisedText) -> prompts.Prompt:
        """The prompt by which the server rewrites this answer, or this part of an answer."""
        # Veil control tokens after undisguising, because they may be disguised, too.
        return prompts.render(
            self.template, self.conversation_text, replace(answer, text=veil_controls(answer.text)), self.objectives
        )

    def divide(self, segments: Sequence[structure.Segment]) -> Division:
        """Divide an answer into parts that should fit; an empty last segment means the end of the answer."""
        texts = [segment for segment in segments if segment.text]
        division = Division(ByteRuler(), self.answer_tokens, texts)
        if segments and not segments[-1].text:
            division.add_end()
        return division


class CompletionsAligner:
    """An engine behind a `Completer`.

    `window` overrides the one that the server names. A changed `revision` invalidates cached corrections, for weights
    that change under the same name.
    """

    def __init__(
        self, completer: Completer, template: prompts.Template, *, window: int | None = None, revision: str = ""
    ) -> None:
        self._completer = completer
        self._template = template
        self._window = window
        self._revision = revision

    async def info(self) -> AlignerInfo:
        return self._info(await self._completer.describe_model())

    async def align(self, request: AlignRequest) -> Correction:
        """Regenerate the whole answer within `request.deadline_s`."""
        started = time.perf_counter()
        async with enforce_deadline(request.deadline_s):
            info = (await self.info()).find_aligner(request.aligner)
            if not request.answer.strip():
                return Correction(request.answer, aligner=info.content_hash)
            # without a head nothing vouches for what the server writes
            may_write = request.write is Write.FREE or request.score_only
            correction = await self.rewrite_answer(request, info.window) if may_write else Correction(request.answer)
        segments = structure.split(request.answer)
        unscored = tuple(SegmentScore(segment.text, None, flagged=False) for segment in segments)
        ms = (time.perf_counter() - started) * 1000
        return replace(correction, segments=unscored, ms=ms, aligner=info.content_hash)

    async def read(self, request: AlignRequest) -> DeferredSession:
        """Return a session that corrects the answer at its end, because a completions server cannot read ahead."""
        return DeferredSession(self)

    async def rewrite_answer(self, request: AlignRequest, window: int) -> Correction:
        """Return the answer rewritten by the server, part by part. Raises `AnswerTooLong`.

        With `score_only` one completion is requested and the answer is left unchanged.
        """
        frame = make_frame(request, self._template, window)
        division = frame.divide(structure.split(request.answer))
        completions: list[Completion] = []
        edited: list[tuple[str, str]] = []
        for part in division.parts:
            passage = division.make_passage(part)
            before = passage.trim_edited(structure.join(edited), passage.start) if passage.context_count else ""
            prompt = frame.render_prompt(passage.undisguised)
            part_request = _request_part(prompt, passage, before, request)
            completion = await self._completer.complete(part_request, request.deadline_s)
            completions.append(completion)
            if request.score_only:
                return _add_up_costs(request.answer, completions)
            original = passage.text[passage.start :]
            text = _restore_marks(prompt, passage.text, completion.text)
            text = restore_disguises(text, original)
            text = splice.clean_answer(text, original, finished=completion.finished)
            edited.append((text.rstrip(), division.pieces[part.stop - 1].gap))
        return _add_up_costs(splice.clean_answer(structure.join(edited), request.answer, finished=True), completions)

    async def rewrite_flagged(
        self,
        request: AlignRequest,
        pieces: Sequence[structure.Segment],
        flags: Sequence[bool],
        window: int,
        judge_edit: JudgeEdit,
    ) -> Correction:
        """Return the answer with only its flagged segments rewritten; `flags` says of each of `pieces` if it is.

        Each prompt ends with the edited answer before the hole. `judge_edit` returns the part of each new text that
        may stay.
        """
        frame = make_frame(request, self._template, window)
        division = frame.divide(pieces)
        piece_flags: list[bool] = []
        for number, flag in enumerate(flags):
            # a very long segment is several pieces of the division, which all have its flag
            piece_flags += [flag] * len(division.find_piece_range(number, number + 1))
        completions: list[Completion] = []
        edited: list[tuple[str, str]] = []
        for part in division.parts:
            passage = division.make_passage(part)
            # the context was decided on with the part before
            part_flags = [False] * passage.context_count + piece_flags[part.first_own : part.stop]
            prompt = frame.render_prompt(passage.undisguised) if any(part_flags) else None
            rewriting = splice.rewrite_flagged_runs(passage.pieces, part_flags, edited, passage.context_count)
            try:
                hole = next(rewriting)  # ends at once if nothing is flagged, so that there is always a prompt below
                while prompt is not None:
                    text_before = passage.trim_edited(hole.text_before, hole.run.segments[0].start)
                    trimmed_hole = replace(hole, text_before=text_before)
                    continuation = _request_replacement(prompt, trimmed_hole, passage.text, request.tenant)
                    completion = await self._completer.complete(continuation, request.deadline_s)
                    completions.append(completion)
                    text = _cut_replacement(prompt, trimmed_hole, passage.text, completion)
                    passed_text = await judge_edit(trimmed_hole, text) if text else ""
                    hole = rewriting.send(passed_text)  # the next hole; `StopIteration` after the last
            except StopIteration:
                pass
        return _add_up_costs(structure.join(edited), completions)

    replaces_spans = False
    """As a writer, it is asked only at the end of an answer."""

    async def describe(self, scorer: AlignerInfo) -> AlignerInfo:
        """Describe scorer and writer together, with the smaller window; raises `EngineFault` if there is no head."""
        writer = await self.info()
        if not scorer.has_head:
            raise EngineFault(f"the scorer {scorer.model} has no detector head; choose an aligner that has one")
        return replace(
            writer,
            model=f"{writer.model} after {scorer.model}",
            content_hash=digest({"scorer": scorer.content_hash, "editor": writer.content_hash}),
            template_hash=digest({"scorer": scorer.template_hash, "editor": writer.template_hash}),
            window=min(scorer.window, writer.window),
            has_head=True,
            taught=scorer.taught,
            languages=scorer.languages,
            judges=scorer.judges,
        )

    async def write(self, request: AlignRequest, scored: Correction, scorer: Engine, until: float) -> Correction:
        """Rewrite the flagged segments of a scored answer, or the whole answer with `verify` set to always.

        With `verify` set otherwise, rewritten sentences that the scorer flags again, or nearly so, are dropped.
        """
        started = time.perf_counter()
        window = (await self.info()).window
        if request.verify is Verify.ALWAYS and request.write is Write.FREE:
            correction = await self.rewrite_answer(request, window)
        else:
            flags = [verdict.flagged for verdict in scored.segments]
            pieces = judged_segments(request.answer, scored.segments)
            if not any(flags):
                return scored
            judging: list[Correction] = []

            async def judge_edit(hole: splice.Hole, text: str) -> str:
                """The sentences of a replacement that the scorer does not flag in their place; notes its cost."""
                passed_text, cost = await _judge_in_place(request, scorer, hole, text)
                judging.append(cost)
                return passed_text

            correction = await self.rewrite_flagged(request, pieces, flags, window, judge_edit)
            correction = correction.with_cost_of([correction, *judging])
        ms = scored.ms + (time.perf_counter() - started) * 1000
        return replace(correction, segments=scored.segments, aligner=scored.aligner, untaught=scored.untaught, ms=ms)

    async def replace(self, session: EditedSession, span: Span, scorer: Engine) -> Correction:
        raise EngineFault("this engine cannot replace spans while streaming: its editor is asked at the end")

    async def aclose(self) -> None:
        await self._completer.aclose()

    def _info(self, served_model: ServedModel) -> AlignerInfo:
        """Describe the aligner. The weights are unknown, so its hash covers all else that may change corrections."""
        template = self._template
        window = self._window or served_model.window or DEFAULT_WINDOW
        parts = {
            "model": served_model.model,
            **served_model.identity,
            "revision": self._revision,
            "template": template.hash,
        }
        return AlignerInfo(
            model=served_model.model,
            content_hash=digest(parts | {"window": window}),
            template=template.name,
            template_hash=template.hash,
            window=window,
            has_head=False,
            quantization="as served",
            device=served_model.where,
        )


async def _judge_in_place(
    request: AlignRequest, scorer: Engine, hole: splice.Hole, text: str
) -> tuple[str, Correction]:
    """Score a replacement in its place, after the text before its hole.

    Returns its sentences that score at least `CLEAR_MARGIN` below the threshold ("" if none does), and the scorer's
    correction, whose cost the caller adds.
    """
    answer = hole.fill_in(text)
    # not open-ended: the answer goes on after the hole, so nothing may be added at the end of this text
    scored = await scorer.align(
        make_verdict_request(make_proof_request(request)).model_copy(update={"answer": answer, "open_ended": False})
    )
    verdicts = list(zip(judged_segments(answer, scored.segments), scored.segments, strict=True))
    body = text.lstrip()
    pieces = structure.split(body)
    scores = []
    for piece in pieces:
        # the text stands at the end of `answer`
        placed = structure.shift_segment(piece, len(answer) - len(body))
        overlapping = [verdict for part, verdict in verdicts if part.end > placed.start and part.start < placed.end]
        scores.append(max(verdict.score or 0.0 for verdict in overlapping))
    allowed_text = splice.join_unflagged(request.caution - splice.CLEAR_MARGIN, pieces, scores)
    return text.removesuffix(body) + allowed_text if allowed_text else "", scored


def make_frame(request: AlignRequest, template: prompts.Template, window: int) -> RemoteFrame:
    """Build the frame of a request's prompts, by estimated tokens. Raises `AnswerTooLong`.

    The server may still refuse a prompt, because only it knows the exact tokens.
    """
    if len(request.answer) > LONGEST_ANSWER_CHARS:
        raise AnswerTooLong(f"an answer of {len(request.answer)} characters; at most {LONGEST_ANSWER_CHARS} are read")
    objectives = tuple(veil_controls(text) for text in request.objectives)
    room_left = window - estimate_tokens(prompts.render(template, "", "", objectives).text)
    if room_left < MIN_ROOM:
        raise AnswerTooLong(
            f"the objectives should fill the server's window of {window} tokens (counted as {BYTES_PER_TOKEN:g} bytes "
            "each); write shorter ones"
        )
    turns = conversation.cut_turns(request.turns, ByteRuler(), int(room_left * CONVERSATION_SHARE))
    shown_turns = [replace(turn, content=veil_controls(undisguise(turn.content).text)) for turn in turns]
    conversation_text = prompts.query_field(template, shown_turns)
    answer_tokens = compute_answer_room(room_left - estimate_tokens(conversation_text))
    return RemoteFrame(template, conversation_text, objectives, answer_tokens)


def estimate_tokens(text: str) -> int:
    """Estimated number of tokens of a text, usually too high."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def veil_controls(text: str) -> str:
    """Replace the "<" of anything that servers would read as a control token; the text's length is unchanged."""
    return _CONTROL.sub(_VEIL, text)


def _restore_marks(prompt: prompts.Prompt, answer: str, generated: str) -> str:
    """Return generated text with the marks that the prompt had replaced, such as the "<" of control tokens."""
    text = prompt.restore(generated)
    # Only if the mark must come from a veil: the answer has a control token and no such character.
    if _VEIL not in answer and _CONTROL.search(answer):
        return text.replace(_VEIL, "<")
    return text


def _make_request(prompt: str, tokens: int, stop: tuple[str, ...], prediction: str, tenant: str) -> CompletionRequest:
    """The request to continue `prompt` by at most `tokens` tokens; `prediction` is the likely text, or empty."""
    expected = Prediction(content=prediction) if prediction else None
    # the tenant "-" stands for requests that name none
    user = None if tenant == "-" else tenant
    return CompletionRequest(prompt=prompt, max_tokens=tokens, stop=stop, prediction=expected, user=user)


def _request_part(
    prompt: prompts.Prompt, passage: AnswerPassage, before: str, request: AlignRequest
) -> CompletionRequest:
    """The request for one part: its prompt, followed by the edited answer `before` this part."""
    # a stop text that the answer has itself would cut it off there
    stop = tuple(text for text in _TURN_STOPS if text not in request.answer)
    shown_answer = prompt.text[prompt.offset_in_prompt(passage.start) : prompt.end]
    size = estimate_tokens(shown_answer)
    # Such a server cannot score. One token shows that it works, and costs least.
    room = 1 if request.score_only else count_writing_room(size)
    return _make_request(prompt.text + _clean_text(before), room, stop, shown_answer, request.tenant)


def _request_replacement(prompt: prompts.Prompt, hole: splice.Hole, answer: str, user: str) -> CompletionRequest:
    """The request to fill one hole: the prompt, followed by the edited answer so far.

    The beginnings of kept segments after the hole are the stop texts. The original text from the hole on goes along as
    the predicted output, for servers that use one.
    """
    before = _clean_text(hole.text_before)
    run_tokens = estimate_tokens(_clean_text(hole.run.text))
    # Short keys could occur anywhere, so they are no stop texts; `_cut_replacement` looks for them.
    stop = tuple(key for key in hole.kept_beginnings if len(key) >= splice.KEY_CHARS)[:MAX_STOPS]
    rest = _clean_text(hole.gap_before + answer[hole.run.segments[0].start :])
    return _make_request(prompt.text + before, run_tokens + run_tokens // 2 + _HOLE_ROOM, stop, rest, user)


def _clean_text(text: str) -> str:
    """The text as prompts show it: undisguised, with marks and control tokens disarmed."""
    return prompts.neutralise_marks(veil_controls(undisguise(text).text))


def _cut_replacement(prompt: prompts.Prompt, hole: splice.Hole, answer: str, completion: Completion) -> str:
    """Return the part of a completion that replaces the flagged run; the rest of it repeats kept segments.

    A completion that a stop text ended counts as finished only if a kept segment really begins there.
    """
    text = _restore_marks(prompt, answer, completion.text)
    if completion.stop_reason is not None:
        text += completion.stop_reason  # servers leave it out, but the cut is made where it begins
        return hole.cut_replacement(text, finished=splice.cut_before_resumption(text, hole.kept_beginnings) is not None)
    return hole.cut_replacement(text, finished=completion.finished and _ends_between_segments(text, hole))


def _ends_between_segments(text: str, hole: splice.Hole) -> bool:
    """Whether a text that ended without a named stop ended between segments; if not, its last sentence is dropped.

    Some servers do not say which stop text ended a completion.
    """
    if not hole.kept_beginnings:
        return True
    ends_before_key = splice.cut_before_resumption(text + hole.kept_beginnings[0], hole.kept_beginnings) is not None
    return ends_before_key or splice.drop_unfinished_end(text) == text


def _add_up_costs(text: str, completions: Sequence[Completion]) -> Correction:
    """A correction with this text and the summed cost of all completions."""
    parts = [Correction("", counts=each.counts, prompt_tokens=each.prompt_tokens) for each in completions]
    return Correction(text).with_cost_of(parts)
