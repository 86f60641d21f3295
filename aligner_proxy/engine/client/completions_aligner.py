"""Aligners behind completions servers: the whole answer anew, or a detector here with a remote editor.

A completions server alone corrects by the aligner's template. There is no detector head, so the server's own
speculation (n-gram, suffix, or `prediction`) has to find the answer in the prompt, and `caution` has nothing to act on.
Tokens are estimated from bytes, because nobody here knows them.

With a scorer our engine scores every segment, also while the upstream still writes. An answer with nothing flagged
never leaves the machine. Otherwise the editor is asked once for every flagged run, with the edited answer before it as
a prefix; kept segments are copied from the answer and never taken from the editor's text.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace

from aligner_proxy import prompts
from aligner_proxy.concurrency import within
from aligner_proxy.engine.api import (
    AlignerInfo,
    AlignRequest,
    Completion,
    CompletionRequest,
    DeferredSession,
    Engine,
    ForwardingSession,
    Prediction,
    Session,
    Span,
    StatesRequest,
    text_states,
)
from aligner_proxy.engine.client.completions import MAX_STOPS, Completer, ServedModel
from aligner_proxy.engine.decoding import splice
from aligner_proxy.engine.decoding.prompt_fit import fewest_dropped
from aligner_proxy.engine.weights.manifest import digest
from aligner_proxy.errors import AnswerTooLong, EngineFault
from aligner_proxy.text import structure
from aligner_proxy.text.folding import fold, unfold
from aligner_proxy.types import Correction, SegmentScore, Turn, Verify

BYTES_PER_TOKEN = 3.0
"""Fewer than the tokenizers of Llama's family average on prose and on code, so that estimates err on the long side."""
DEFAULT_WINDOW = 4096
_ROOM = 64
_HOLE_ROOM = 16
_TURN_STOPS = ("\nHuman:", "\nAssistant:", "\nUSER:", "\nASSISTANT:")
_CONTROL = re.compile(r"<(?=\||/?s>|(?:pad|unk|bos|eos|start_of_turn|end_of_turn)>)")
_VEIL = "\u2039"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that should fit, and the room (tokens) to write in."""

    prompt: prompts.Prompt
    room: int


class CompletionsAligner:
    """An engine behind a `Completer`.

    `window` goes before the one that the server names; `revision` sets remembered corrections of other weights under
    the same name aside.
    """

    def __init__(
        self, completer: Completer, family: prompts.Template, *, window: int | None = None, revision: str = ""
    ) -> None:
        self._completer = completer
        self._family = family
        self._window = window
        self._revision = revision

    async def info(self) -> AlignerInfo:
        """The aligner served there, as far as the server describes it."""
        return self._info(await self._completer.about())

    async def align(self, request: AlignRequest) -> Correction:
        """Regenerate the whole answer within `request.deadline_s`."""
        started = time.perf_counter()
        async with within(request.deadline_s):
            info = (await self.info()).named(request.aligner)
            if not request.answer.strip():
                return Correction(request.answer, aligner=info.content_hash)
            written = await self.whole(request, info.window)
        pieces = tuple(SegmentScore(s.text, None, flagged=False) for s in structure.split(request.answer))
        ms = (time.perf_counter() - started) * 1000
        return replace(written, segments=pieces, ms=ms, aligner=info.content_hash)

    async def read(self, request: AlignRequest) -> DeferredSession:
        """A completions server reads nothing ahead."""
        return DeferredSession(self)

    async def whole(self, request: AlignRequest, window: int) -> Correction:
        """The whole answer, written anew. Raises `AnswerTooLong`."""
        fitted = fit(request, self._family, window)
        stop = tuple(text for text in _TURN_STOPS if text not in request.answer)
        # Such a server cannot score: one token shows that it works, and no more is paid for.
        room = 1 if request.score_only else fitted.room
        done = await self._completer.complete(
            _completion(fitted.prompt.text, room, stop, fitted.prompt.shown), request.deadline_s
        )
        if request.score_only:
            return _costing(request.answer, [done])
        text = unfold(_restored(fitted.prompt, request.answer, done.text), request.answer)
        return _costing(splice.whole(text, request.answer, finished=done.finished), [done])

    async def rewritten(
        self, request: AlignRequest, pieces: Sequence[structure.Segment], flags: Sequence[bool], window: int
    ) -> Correction:
        """The answer with only its flagged segments written anew; what stands before each is given as prefix."""
        fitted = fit(request, self._family, window)
        completions: list[Completion] = []
        rewriting = splice.rewriting(pieces, flags)
        hole = next(rewriting)
        while True:
            continuation = _hole(fitted.prompt, hole, request.answer)
            completions.append(await self._completer.complete(continuation, request.deadline_s))
            try:
                hole = rewriting.send(_fill(fitted.prompt, hole, request.answer, completions[-1]))
            except StopIteration as end:
                return _costing(str(end.value), completions)

    async def aclose(self) -> None:
        """Release connections."""
        await self._completer.aclose()

    def _info(self, served: ServedModel) -> AlignerInfo:
        """Description of the served model; its content hash changes with model, template and window."""
        family = self._family
        window = self._window or served.window or DEFAULT_WINDOW
        parts = {"model": served.model, **served.identity, "revision": self._revision, "template": family.hash}
        return AlignerInfo(
            model=served.model,
            content_hash=digest(parts | {"window": window}),
            template=family.name,
            template_hash=family.hash,
            window=window,
            has_head=False,
            quantization="as served",
            device=served.where,
        )


def fit(request: AlignRequest, family: prompts.Template, window: int) -> Fitted:
    """As many of the last turns as should leave room, by estimate; the server has the last word."""
    answer = veiled(fold(request.answer).text)
    shown = tokens(answer)
    room = shown + max(_ROOM, shown // 2)

    def attempt(dropped: int) -> Fitted | None:
        turns = tuple(Turn(turn.role, veiled(fold(turn.content).text)) for turn in request.turns[dropped:])
        objectives = [veiled(text) for text in request.objectives]
        prompt = prompts.render(family, prompts.query(family, turns), answer, objectives)
        return Fitted(prompt, room) if tokens(prompt.text) + room <= window else None

    fitted = fewest_dropped(len(request.turns), attempt)
    if fitted is None:
        raise AnswerTooLong(
            f"an answer of {len(request.answer)} characters with its last turn and objectives should not fit the "
            f"server's window of {window} tokens (counted as {BYTES_PER_TOKEN:g} bytes each)"
        )
    return fitted


def tokens(text: str) -> int:
    """How many tokens a text has, at most as a rule."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def veiled(text: str) -> str:
    """Text from outside without what servers would read as a control token; of the same length."""
    return _CONTROL.sub(_VEIL, text)


def _restored(prompt: prompts.Prompt, answer: str, generated: str) -> str:
    """Generated text with the marks that the answer had, if it had any."""
    text = prompt.restore(generated)
    return text.replace(_VEIL, "<") if _VEIL not in answer and _CONTROL.search(answer) else text


def _completion(prompt: str, tokens: int, stop: tuple[str, ...], prediction: str) -> CompletionRequest:
    expected = Prediction(content=prediction) if prediction else None
    return CompletionRequest(prompt=prompt, max_tokens=tokens, stop=stop, prediction=expected)


def _hole(prompt: prompts.Prompt, hole: splice.Hole, answer: str) -> CompletionRequest:
    """The prompt with the edited answer so far behind it; where the next kept segment begins, writing may stop."""
    before, run = (_as_read(text) for text in (hole.before, hole.run.text))
    count = tokens(run)
    # Short keys could occur anywhere; they are looked for afterwards, at the beginning of segments only.
    stop = tuple(key for key in hole.keys if len(key) >= splice.KEY_CHARS)[:MAX_STOPS]
    rest = _as_read(hole.lead + answer[hole.run.segments[0].start :])
    return _completion(prompt.text + before, count + count // 2 + _HOLE_ROOM, stop, rest)


def _as_read(text: str) -> str:
    # What servers would read as a control token may be in disguise, too.
    return prompts.neutralise(veiled(fold(text).text))


def _fill(prompt: prompts.Prompt, hole: splice.Hole, answer: str, done: Completion) -> str:
    """What takes the place of a run. A stop where a kept segment begins is believed only if one begins there."""
    text = _restored(prompt, answer, done.text)
    if done.stop_reason is not None:
        text += done.stop_reason
        return hole.filled(text, finished=splice.before_resumption(text, hole.keys) is not None)
    return hole.filled(text, finished=done.finished and _ends(text, hole))


def _ends(text: str, hole: splice.Hole) -> bool:
    """Whether a text that ended without saying why ended between segments; otherwise its last sentence is dropped."""
    if not hole.keys:
        return True
    return splice.before_resumption(text + hole.keys[0], hole.keys) is not None or splice.complete(text) == text


def _costing(text: str, completions: Sequence[Completion]) -> Correction:
    """A text at the price of all completions that it took."""
    parts = [Correction("", counts=each.counts, prompt_tokens=each.prompt_tokens) for each in completions]
    return Correction(text).with_cost_of(parts)


class ScoredEditor:
    """Two engines as one. `scorer` needs a detector head; closing closes both."""

    def __init__(self, scorer: Engine, editor: CompletionsAligner) -> None:
        self._scorer = scorer
        self._editor = editor

    async def info(self) -> AlignerInfo:
        """Both together: either changes what is answered. The window is the smaller one."""
        judge = await self._scorer.info()
        writer = await self._editor.info()
        if not judge.has_head:
            raise EngineFault(f"the scorer {judge.model} has no detector head; choose an aligner that has one")
        return replace(
            writer,
            model=f"{writer.model} after {judge.model}",
            content_hash=digest({"scorer": judge.content_hash, "editor": writer.content_hash}),
            template_hash=digest({"scorer": judge.template_hash, "editor": writer.template_hash}),
            window=min(judge.window, writer.window),
            has_head=True,
        )

    async def align(self, request: AlignRequest) -> Correction:
        """Score, and ask the editor only where something is flagged, within `request.deadline_s`."""
        return await self.finish(request, self._scorer.align(judged(request)))

    async def states(self, request: StatesRequest) -> list[list[float]]:
        """Hidden states of texts, from the scorer: the editor only writes."""
        return await text_states(self._scorer, request)

    async def read(self, request: AlignRequest) -> Session:
        """Let the scorer read along."""
        return ScoredSession(self, await self._scorer.read(judged(request)))

    async def finish(self, request: AlignRequest, scoring: Awaitable[Correction]) -> Correction:
        """The correction, once the verdicts are there."""
        started = time.perf_counter()
        async with within(request.deadline_s):
            scored = await scoring
            about = (await self.info()).named(request.aligner)
            done = replace(scored, text=request.answer, aligner=about.content_hash)
            if request.answer.strip() and not request.score_only:
                done = await self._edited(request, done)
        return replace(done, ms=(time.perf_counter() - started) * 1000)

    async def _edited(self, request: AlignRequest, scored: Correction) -> Correction:
        window = (await self._editor.info()).window
        if request.verify is Verify.ALWAYS:
            written = await self._editor.whole(request, window)
        else:
            flags = [verdict.flagged for verdict in scored.segments]
            texts = [verdict.text for verdict in scored.segments]
            pieces = structure.judged(structure.split(request.answer), texts)
            if texts != [piece.text for piece in pieces]:
                raise EngineFault("the scorer judged other segments than these; is it of another version?")
            if not any(flags):
                return scored
            written = await self._editor.rewritten(request, pieces, flags, window)
        return replace(written, segments=scored.segments, aligner=scored.aligner)

    async def aclose(self) -> None:
        """Close both."""
        try:
            await self._scorer.aclose()
        finally:
            await self._editor.aclose()


class ScoredSession(ForwardingSession):
    """The scorer's session, before the editor: what is flagged goes to the editor when the answer has ended."""

    def __init__(self, engine: ScoredEditor, session: Session) -> None:
        super().__init__(session)
        self._engine = engine

    async def judged(self, known: int) -> tuple[SegmentScore, ...] | None:
        """No verdict goes out before the end of the answer, when the editor is asked."""
        return None

    async def replace(self, span: Span) -> Correction:
        """Without verdicts there is nothing to replace."""
        raise EngineFault("this engine cannot replace spans while streaming: its editor is asked at the end")

    async def finish(self, request: AlignRequest) -> Correction:
        """The answer has ended; what is flagged goes to the editor."""
        return await self._engine.finish(request, super().finish(judged(request)))


def judged(request: AlignRequest) -> AlignRequest:
    """The request as it asks for verdicts alone."""
    return request.model_copy(update={"score_only": True, "verify": Verify.FLAGGED})
