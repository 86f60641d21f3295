"""How does a server that only completes texts correct an answer? By the aligner's template, the whole answer anew.

There is no detector head, so the server's own speculation (n-gram, suffix, or `prediction`) has to find the answer in
the prompt, and `caution` has nothing to act on. Tokens are estimated from bytes, because nobody here knows them.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from aligner_proxy import prompts, segments
from aligner_proxy.engine import splice
from aligner_proxy.engine.completions import MAX_STOPS, Asked, Completer, Served, Written
from aligner_proxy.engine.fit import fewest_dropped
from aligner_proxy.engine.manifest import digest
from aligner_proxy.engine.patience import within
from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest, Unread
from aligner_proxy.errors import AnswerTooLong
from aligner_proxy.types import Correction, DecodeCounts, SegmentScore, Turn

BYTES_PER_TOKEN = 3.0
"""Fewer than the tokenizers of Llama's family average on prose and on code, so that estimates err on the long side."""
DEFAULT_WINDOW = 4096
_ROOM, _HOLE_ROOM = 64, 16
_TURN_STOPS = ("\nHuman:", "\nAssistant:", "\nUSER:", "\nASSISTANT:")
_CONTROL = re.compile(r"<(?=\||/?s>|(?:pad|unk|bos|eos|start_of_turn|end_of_turn)>)")
_VEIL = "\u2039"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that should fit, and the room (tokens) to write in."""

    prompt: prompts.Prompt
    room: int


class ForeignAligner:
    """An aligner behind a `Completer`. Satisfies `Engine`.

    `window` goes before what the server tells; `revision` sets remembered corrections of other weights under the same
    name aside.
    """

    def __init__(
        self, completer: Completer, family: prompts.Template, *, window: int | None = None, revision: str = ""
    ) -> None:
        self._completer, self._family = completer, family
        self._window, self._revision = window, revision

    async def info(self) -> AlignerInfo:
        """The aligner served there, as far as the server tells."""
        return self._info(await self._completer.about())

    async def align(self, request: AlignRequest) -> Correction:
        """Regenerate the whole answer within `request.deadline_s`."""
        started = time.perf_counter()
        async with within(request.deadline_s):
            info = (await self.info()).named(request.aligner)
            if not request.answer.strip():
                return Correction(request.answer, aligner=info.content_hash)
            text, done = await self.whole(request, info.window)
        pieces = tuple(SegmentScore(s.text, None, flagged=False) for s in segments.split(request.answer))
        ms = (time.perf_counter() - started) * 1000
        return Correction(text, pieces, done.counts, done.prompt_tokens, ms, info.content_hash)

    async def read(self, request: AlignRequest) -> Unread:
        """A completions server reads nothing ahead."""
        return Unread(self)

    async def whole(self, request: AlignRequest, window: int) -> tuple[str, Written]:
        """The whole answer, written anew. Raises `AnswerTooLong`."""
        fitted = fit(request, self._family, window)
        stop = tuple(text for text in _TURN_STOPS if text not in request.answer)
        asked = Asked(fitted.prompt.text, fitted.room, stop, fitted.prompt.shown)
        done = await self._completer.complete(asked, request.deadline_s)
        text = _restored(fitted.prompt, request.answer, done.text)
        return splice.whole(text, request.answer, finished=done.finished), done

    async def rewritten(
        self, request: AlignRequest, pieces: Sequence[segments.Segment], flags: Sequence[bool], window: int
    ) -> tuple[str, list[Written]]:
        """The answer with only its flagged segments written anew; what stands before each is given as prefix."""
        fitted, done = fit(request, self._family, window), list[Written]()
        rewriting = splice.rewriting(pieces, flags)
        hole = next(rewriting)
        while True:
            asked = _hole(fitted.prompt, hole, request.answer)
            done.append(await self._completer.complete(asked, request.deadline_s))
            try:
                hole = rewriting.send(_fill(fitted.prompt, hole, request.answer, done[-1]))
            except StopIteration as end:
                return str(end.value), done

    async def aclose(self) -> None:
        """Release connections."""
        await self._completer.aclose()

    def _info(self, found: Served) -> AlignerInfo:
        family, window = self._family, self._window or found.window or DEFAULT_WINDOW
        parts = {"model": found.model, **found.identity, "revision": self._revision, "template": family.hash}
        return AlignerInfo(
            model=found.model,
            content_hash=digest(parts | {"window": window}),
            template=family.name,
            template_hash=family.hash,
            window=window,
            has_head=False,
            quantization="as served",
            device=found.where,
        )


def fit(request: AlignRequest, family: prompts.Template, window: int) -> Fitted:
    """As many of the last turns as should leave room, by estimate; the server has the last word."""
    shown = tokens(request.answer)
    room = shown + max(_ROOM, shown // 2)

    def attempt(dropped: int) -> Fitted | None:
        turns = tuple(Turn(turn.role, veiled(turn.content)) for turn in request.turns[dropped:])
        objectives = [veiled(text) for text in request.objectives]
        prompt = prompts.render(family, prompts.query(family, turns), veiled(request.answer), objectives)
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


def _hole(prompt: prompts.Prompt, hole: splice.Hole, answer: str) -> Asked:
    """The prompt with the edited answer so far behind it; where the next kept segment begins, writing may stop."""
    before, run = (prompts.neutralise(veiled(text)) for text in (hole.before, hole.run.text))
    count = tokens(run)
    # Short keys could occur anywhere; they are looked for afterwards, at the beginning of segments only.
    stop = tuple(key for key in hole.keys if len(key) >= splice.KEY_CHARS)[:MAX_STOPS]
    rest = prompts.neutralise(veiled(hole.lead + answer[hole.run.segments[0].start :]))
    room = count + count // 2 + _HOLE_ROOM
    return Asked(prompt.text + before, room, stop, rest)


def _fill(prompt: prompts.Prompt, hole: splice.Hole, answer: str, done: Written) -> str:
    """What takes the place of a run. Who stopped where a kept segment begins is believed only if one begins there."""
    text = _restored(prompt, answer, done.text)
    if done.stopped_at is not None:
        text += done.stopped_at
        return hole.filled(text, finished=splice.before_resumption(text, hole.keys) is not None)
    return hole.filled(text, finished=done.finished and _ends(text, hole))


def _ends(text: str, hole: splice.Hole) -> bool:
    """Whether a text that ended without saying why ended between segments; otherwise its last sentence is dropped."""
    if not hole.keys:
        return True
    return splice.before_resumption(text + hole.keys[0], hole.keys) is not None or splice.complete(text) == text


def together(done: Sequence[Written]) -> Written:
    """The cost of several completions."""
    counts = [w.counts for w in done]
    total = DecodeCounts(drafted=sum(c.drafted for c in counts), accepted=sum(c.accepted for c in counts))
    return Written("", finished=True, prompt_tokens=sum(w.prompt_tokens for w in done), counts=total)
