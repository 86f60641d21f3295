"""Aligners behind completions servers: they rewrite the whole answer, or the segments that a local scorer flags.

A completions server alone corrects an answer with the aligner's template. There is no detector head, so `caution` has
no effect. The server writes faster if it drafts from the prompt (speculation by n-gram, suffix, or `prediction`),
because the prompt contains the answer. The server's tokenizer is unknown here, so tokens are estimated from bytes. A
conversation that does not fit the window is cut, and a long answer is sent part by part, as in our own engine.

Behind a scorer (edited_engine.py) the server is asked once for every run of flagged segments, with the edited answer
before the run as a prefix. The place of a flagged run in the edited answer is called a hole, which the server fills.
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
from aligner_proxy.engine.client.completions import MAX_STOPS, Completer
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
"""Called with a hole and the text written into it; returns the part of the text that may stay, "" if none may."""
_TURN_STOPS = ("\nHuman:", "\nAssistant:", "\nUSER:", "\nASSISTANT:")
"""Beginnings of a further turn, which a model may write after the answer."""
_CONTROL_TOKEN_START = re.compile(r"<(?=\||/?s>|(?:pad|unk|bos|eos|start_of_turn|end_of_turn)>)")
"""The "<" of a text that servers may read as a control token, such as "<|end|>"."""
_VEIL = "\u2039"
"""The character that replaces the "<" of control tokens in prompts."""


class ByteRuler:
    """Measures texts by an estimate from their bytes. Satisfies `Ruler`."""

    def count(self, text: str) -> int:
        return estimate_tokens(text)

    def first(self, text: str, tokens: int) -> str:
        return text.encode("utf-8", "replace")[: int(tokens * BYTES_PER_TOKEN)].decode("utf-8", "ignore")

    def last(self, text: str, tokens: int) -> str:
        byte_count = int(tokens * BYTES_PER_TOKEN)
        if not byte_count:
            return ""  # [-0:] would be the whole text
        return text.encode("utf-8", "replace")[-byte_count:].decode("utf-8", "ignore")


@dataclass(frozen=True, slots=True)
class RemoteFrame:
    """What all prompts of a request have in common: the template, the conversation and the objectives."""

    template: prompts.Template
    conversation_text: str
    """The conversation as the template writes it, cut to what fits the window."""
    objectives: tuple[str, ...]
    answer_tokens: int
    """Most tokens, by estimate, of an answer or a part of it."""

    def render_prompt(self, answer: UndisguisedText) -> prompts.Prompt:
        """The prompt with which the server rewrites an answer, or a part of it."""
        # control tokens are veiled after undisguising, because they may be disguised, too
        veiled_answer = replace(answer, text=veil_controls(answer.text))
        return prompts.render(self.template, self.conversation_text, veiled_answer, self.objectives)

    def divide(self, segments: Sequence[structure.Segment]) -> Division:
        """Divide an answer into parts that should fit; an empty last segment stands for the end of the answer."""
        text_segments = [segment for segment in segments if segment.text]
        division = Division(ByteRuler(), self.answer_tokens, text_segments)
        if segments and not segments[-1].text:
            division.add_end()
        return division


class CompletionsAligner:
    """An engine that lets a completions server (`Completer`) rewrite answers with the aligner's template.
    `window`, in tokens, overrides the window that the server names. The operator changes `revision` when the weights
    change under the same name, so that cached corrections are not used any more.
    """

    def __init__(
        self, completer: Completer, template: prompts.Template, *, window: int | None = None, revision: str = ""
    ) -> None:
        self._completer = completer
        self._template = template
        self._window = window
        self._revision = revision

    async def info(self) -> AlignerInfo:
        """Describe the aligner. The hash covers everything that may change corrections, except the unknown weights."""
        served_model = await self._completer.describe_model()
        template = self._template
        window = self._window or served_model.window or DEFAULT_WINDOW
        hashed = {
            "model": served_model.model,
            **served_model.identity,
            "revision": self._revision,
            "template": template.hash,
            "window": window,
        }
        return AlignerInfo(
            model=served_model.model,
            content_hash=digest(hashed),
            template=template.name,
            template_hash=template.hash,
            window=window,
            has_head=False,
            quantization="as served",
            device=served_model.where,
        )

    async def align(self, request: AlignRequest) -> Correction:
        """Regenerate the whole answer within `request.deadline_s`."""
        started = time.perf_counter()
        async with enforce_deadline(request.deadline_s):
            info = (await self.info()).find_aligner(request.aligner)
            if not request.answer.strip():
                return Correction(request.answer, aligner=info.content_hash)
            # without a detector head, what the server writes is not verified
            # (`rewrite_answer` writes nothing with `score_only`)
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
        """Return the answer rewritten by the server, part by part; `window` is in tokens. Raises `AnswerTooLong`.

        With `score_only`, one completion of one token shows that the server works, and the answer is left unchanged.
        """
        frame = make_frame(request, self._template, window)
        division = frame.divide(structure.split(request.answer))
        completions: list[Completion] = []
        edited: list[tuple[str, str]] = []  # each rewritten part, and the gap after it
        for part in division.parts:
            # a passage is the part with the segments before it that fit, as context
            passage = division.make_passage(part)
            edited_context = passage.trim_edited(structure.join(edited), passage.start) if passage.context_count else ""
            prompt = frame.render_prompt(passage.undisguised)
            part_request = _make_part_request(prompt, passage, edited_context, request)
            completion = await self._completer.complete(part_request, request.deadline_s)
            completions.append(completion)
            if request.score_only:
                return _add_up_costs(request.answer, completions)
            original = passage.text[passage.start :]
            text = _restore_marks(prompt, passage.text, completion.text)
            text = restore_disguises(text, original)
            text = splice.clean_answer(text, original, finished=completion.finished)
            edited.append((text.rstrip(), division.pieces[part.stop - 1].gap))
        edited_answer = splice.clean_answer(structure.join(edited), request.answer, finished=True)
        return _add_up_costs(edited_answer, completions)

    async def rewrite_flagged(
        self,
        request: AlignRequest,
        segments: Sequence[structure.Segment],
        flags: Sequence[bool],
        window: int,
        judge_edit: JudgeEdit,
    ) -> Correction:
        """Return the answer with only its flagged segments rewritten.

        `flags` says for each of the answer's `segments` whether it is flagged; `window` is in tokens. The place of a
        run of flagged segments is a hole. The server continues a prompt that ends with the edited answer before the
        hole, and `judge_edit` returns the part of the new text that may fill the hole.
        """
        frame = make_frame(request, self._template, window)
        division = frame.divide(segments)
        piece_flags: list[bool] = []
        for index, flag in enumerate(flags):
            # a very long segment is several pieces of the division, which all have its flag
            piece_flags += [flag] * len(division.find_piece_range(index, index + 1))
        completions: list[Completion] = []
        edited: list[tuple[str, str]] = []  # each piece of the edited answer, and the gap after it
        for part in division.parts:
            # a passage is the part with the pieces before it that fit, as context
            passage = division.make_passage(part)
            # the context was edited with the parts before, so it counts as unflagged here
            part_flags = [False] * passage.context_count + piece_flags[part.first_own : part.stop]
            prompt = frame.render_prompt(passage.undisguised) if any(part_flags) else None
            # a generator: it yields each hole, gets the text for it by `send`, and appends all pieces to `edited`
            rewriting = splice.rewrite_flagged_runs(passage.pieces, part_flags, edited, passage.context_count)
            try:
                hole = next(rewriting)  # raises `StopIteration` if nothing is flagged, and so if `prompt` is None
                while prompt is not None:
                    text_before = passage.trim_edited(hole.text_before, hole.run.segments[0].start)
                    trimmed_hole = replace(hole, text_before=text_before)
                    hole_request = _make_hole_request(prompt, trimmed_hole, passage.text, request.tenant)
                    completion = await self._completer.complete(hole_request, request.deadline_s)
                    completions.append(completion)
                    text = _cut_replacement(prompt, trimmed_hole, passage.text, completion)
                    passed_text = await judge_edit(trimmed_hole, text) if text else ""
                    hole = rewriting.send(passed_text)  # returns the next hole; raises `StopIteration` after the last
            except StopIteration:
                pass
        return _add_up_costs(structure.join(edited), completions)

    replaces_spans = False
    """See `Writer.replaces_spans`: as a writer, this engine is asked only at the end of an answer."""

    async def describe(self, scorer: AlignerInfo) -> AlignerInfo:
        """Describe scorer and writer as one aligner; raises `EngineFault` if the scorer has no detector head."""
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
        """Rewrite the flagged segments of an answer, whose verdicts are in `scored`.

        New sentences that the scorer flags again, or nearly flags, are dropped. If `request.verify` is `ALWAYS` and
        `request.write` is `FREE`, the whole answer is rewritten instead. `until` is not needed: the caller enforces it.
        """
        started = time.perf_counter()
        window = (await self.info()).window
        if request.verify is Verify.ALWAYS and request.write is Write.FREE:
            correction = await self.rewrite_answer(request, window)
        else:
            flags = [verdict.flagged for verdict in scored.segments]
            segments = judged_segments(request.answer, scored.segments)
            if not any(flags):
                return scored
            verdicts_on_edits: list[Correction] = []

            async def judge_edit(hole: splice.Hole, text: str) -> str:
                """Return the sentences of `text` that the scorer does not flag; keep the verdicts for their cost."""
                passed_text, verdicts = await _judge_in_place(request, scorer, hole, text)
                verdicts_on_edits.append(verdicts)
                return passed_text

            correction = await self.rewrite_flagged(request, segments, flags, window, judge_edit)
            correction = correction.with_cost_of([correction, *verdicts_on_edits])
        ms = scored.ms + (time.perf_counter() - started) * 1000
        return replace(correction, segments=scored.segments, aligner=scored.aligner, untaught=scored.untaught, ms=ms)

    async def replace(self, session: EditedSession, span: Span, scorer: Engine) -> Correction:
        raise EngineFault("this engine cannot replace spans while streaming: its editor is asked at the end")

    async def aclose(self) -> None:
        await self._completer.aclose()


async def _judge_in_place(
    request: AlignRequest, scorer: Engine, hole: splice.Hole, text: str
) -> tuple[str, Correction]:
    """Let the scorer judge the text written in place of flagged segments (the hole), after the answer before the hole.

    Returns the sentences of `text` that score at least `CLEAR_MARGIN` below the threshold ("" if none does), and the
    scorer's correction, whose cost the caller adds.
    """
    answer = hole.fill_in(text)
    # not open-ended: the answer goes on after the hole, so nothing may be added at the end of this text
    verdict_request = make_verdict_request(make_proof_request(request))
    scored = await scorer.align(verdict_request.model_copy(update={"answer": answer, "open_ended": False}))
    segment_verdicts = list(zip(judged_segments(answer, scored.segments), scored.segments, strict=True))
    stripped_text = text.lstrip()
    leading_space = text.removesuffix(stripped_text)
    sentences = structure.split(stripped_text)
    scores = []
    for sentence in sentences:
        # `stripped_text` is the end of `answer`; the scorer may have divided it into other segments
        start = sentence.start + len(answer) - len(stripped_text)
        end = sentence.end + len(answer) - len(stripped_text)
        overlapping = [verdict for segment, verdict in segment_verdicts if segment.end > start and segment.start < end]
        scores.append(max(verdict.score or 0.0 for verdict in overlapping))
    allowed_text = splice.join_unflagged(request.caution - splice.CLEAR_MARGIN, sentences, scores)
    return (leading_space + allowed_text if allowed_text else ""), scored


def make_frame(request: AlignRequest, template: prompts.Template, window: int) -> RemoteFrame:
    """Return what all prompts of a request have in common, cut to fit `window` tokens. Raises `AnswerTooLong`.

    Tokens are estimated, so the server may still refuse a prompt.
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
    """Estimated number of tokens of a text; the estimate is usually too high."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def veil_controls(text: str) -> str:
    """Replace the "<" of everything that servers would read as a control token; the text's length is unchanged."""
    return _CONTROL_TOKEN_START.sub(_VEIL, text)


def _restore_marks(prompt: prompts.Prompt, answer: str, generated: str) -> str:
    """Return generated text with the marks that were replaced in the prompt, such as the "<" of control tokens."""
    text = prompt.restore(generated)
    # only if the character must come from `veil_controls`: the answer has a control token and no such character
    if _VEIL not in answer and _CONTROL_TOKEN_START.search(answer):
        return text.replace(_VEIL, "<")
    return text


def _make_request(
    prompt: str, max_tokens: int, stop: tuple[str, ...], prediction: str, tenant: str
) -> CompletionRequest:
    """The request to continue `prompt`; `prediction` is the likely continuation, "" if there is none."""
    # the tenant "-" stands for requests that name none
    user = None if tenant == "-" else tenant
    expected_text = Prediction(content=prediction) if prediction else None
    return CompletionRequest(prompt=prompt, max_tokens=max_tokens, stop=stop, prediction=expected_text, user=user)


def _make_part_request(
    prompt: prompts.Prompt, passage: AnswerPassage, edited_context: str, request: AlignRequest
) -> CompletionRequest:
    """The request to rewrite one part: its prompt, followed by the edited text of the passage before the part."""
    # a stop text that also occurs in the answer would cut the rewritten answer off
    stop = tuple(text for text in _TURN_STOPS if text not in request.answer)
    shown_answer = prompt.text[prompt.offset_in_prompt(passage.start) : prompt.end]
    # with `score_only`, one token shows that the server works, and costs least
    max_tokens = 1 if request.score_only else count_writing_room(estimate_tokens(shown_answer))
    return _make_request(prompt.text + _clean_text(edited_context), max_tokens, stop, shown_answer, request.tenant)


def _make_hole_request(prompt: prompts.Prompt, hole: splice.Hole, answer: str, tenant: str) -> CompletionRequest:
    """The request to write in place of flagged segments (the hole): the prompt, and the edited answer before the hole.

    The beginnings of kept segments after the hole are the stop texts. The original text from the hole on is the
    prediction.
    """
    before = _clean_text(hole.text_before)
    run_tokens = estimate_tokens(_clean_text(hole.run.text))
    max_tokens = run_tokens + run_tokens // 2 + _HOLE_ROOM
    # short beginnings could occur anywhere, so they are no stop texts; `_cut_replacement` looks for them
    stop = tuple(beginning for beginning in hole.kept_beginnings if len(beginning) >= splice.KEY_CHARS)[:MAX_STOPS]
    original_text = _clean_text(hole.gap_before + answer[hole.run.segments[0].start :])
    return _make_request(prompt.text + before, max_tokens, stop, original_text, tenant)


def _clean_text(text: str) -> str:
    """The text as prompts show it: undisguised, and without anything that a server could take for a control mark."""
    return prompts.neutralise_marks(veil_controls(undisguise(text).text))


def _cut_replacement(prompt: prompts.Prompt, hole: splice.Hole, answer: str, completion: Completion) -> str:
    """Return the part of a completion that replaces the flagged run; the rest of the completion repeats kept segments.

    A completion that a stop text ended counts as finished only if a kept segment begins with the stop text.
    """
    text = _restore_marks(prompt, answer, completion.text)
    if completion.stop_reason is None:
        finished = completion.finished and _ends_between_segments(text, hole)
    else:
        text += completion.stop_reason  # servers leave the stop text out; `cut_replacement` cuts where it begins
        finished = splice.cut_before_resumption(text, hole.kept_beginnings) is not None
    return hole.cut_replacement(text, finished=finished)


def _ends_between_segments(text: str, hole: splice.Hole) -> bool:
    """Whether generated text ends after a sentence; if not, `_cut_replacement` drops the last sentence.

    Needed because some servers do not say which stop text ended a completion: it may have been inside a sentence.
    """
    if not hole.kept_beginnings:
        return True
    ends_before_key = splice.cut_before_resumption(text + hole.kept_beginnings[0], hole.kept_beginnings) is not None
    return ends_before_key or splice.drop_unfinished_end(text) == text


def _add_up_costs(text: str, completions: Sequence[Completion]) -> Correction:
    """A correction with this text and the summed cost of all completions."""
    costs = [
        Correction("", counts=completion.counts, prompt_tokens=completion.prompt_tokens) for completion in completions
    ]
    return Correction(text).with_cost_of(costs)
