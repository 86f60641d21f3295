"""How does Stream Aligner (arXiv 2501.05336) correct? Sentence by sentence, each in view of what went out before it.

Its weights are served by any completions server. With `stream: sentence` a sentence goes out as soon as it is revised;
a whole answer is revised in the same way. Unlike there, the upstream does not go on from the revision: it is not ours.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy import prompts
from aligner_proxy.engine.completions import Asked, Completer
from aligner_proxy.engine.openai import OpenAICompleter
from aligner_proxy.engine.protocol import AlignRequest
from aligner_proxy.errors import DeadlineExceeded
from aligner_proxy.hookspecs import Corrector, Kind, hookimpl
from aligner_proxy.segments import join, so_far, split
from aligner_proxy.types import Correction, DecodeCounts

_MORE_TOKENS, _CHARS_PER_TOKEN = 32, 2
_LEAST_S = 0.01


class Settings(BaseModel):
    """What may stand in the policies file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    engine: Annotated[str, Field(pattern=r"^https?://\S+/v1/?$")]
    """http(s)://host:port/v1 of a completions server: vLLM, llama.cpp, or an `aligner-proxy engine`."""
    model: Annotated[str, Field(min_length=1, max_length=400)] | None = None
    """The model's name there; by default the only one."""
    gemma: bool = True
    """Whether the prompt stands in a turn of Gemma's chat form, as for the released weights."""


class StreamAligner:
    """Satisfies `SentenceCorrector`."""

    def __init__(self, settings: Settings, completer: Completer) -> None:
        self._settings, self._completer = settings, completer

    async def identity(self) -> str:
        """The weights there, as far as the server tells, and the template."""
        about = await self._completer.about()
        told = [about.model, about.identity, prompts.STREAM_ALIGNER, self._settings.gemma]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()

    async def correct(self, request: AlignRequest) -> Correction:
        """The whole answer, sentence by sentence, within the request's deadline."""
        until, made = time.monotonic() + request.deadline_s, list[Correction]()
        pieces = split(request.answer)
        for piece in pieces:
            left = until - time.monotonic()
            if left < _LEAST_S:
                raise DeadlineExceeded("the time for this answer is used up")
            before = so_far((one.text, gone.gap) for one, gone in zip(made, pieces, strict=False))
            made.append(await self.revise(request.model_copy(update={"deadline_s": left}), before, piece.text))
        changed = any(one.text != piece.text for one, piece in zip(made, pieces, strict=True))
        text = join([(one.text, piece.gap) for one, piece in zip(made, pieces, strict=True)])
        counts = sum((one.counts for one in made), DecodeCounts())
        return Correction(text if changed else request.answer, counts=counts)

    async def revise(self, request: AlignRequest, before: str, sentence: str) -> Correction:
        """What stands in place of one sentence; code and what has no letters is not asked about."""
        body = sentence.strip()
        if body.startswith(("```", "~~~")) or not any(char.isalpha() for char in body):
            return Correction(sentence)
        query = prompts.query(prompts.TEMPLATES["aligner"], request.turns)
        prompt = prompts.revision(query, before.strip(), body, gemma=self._settings.gemma)
        most = _MORE_TOKENS + len(body) // _CHARS_PER_TOKEN
        asked = Asked(prompt.text, most, (prompts.END_OF_TURN,) if self._settings.gemma else ("\n",), body)
        said = await self._completer.complete(asked, request.deadline_s)
        text = prompt.restore(said.text.strip())
        if not said.finished or text == body:  # what was cut off is no revision
            return Correction(sentence, counts=said.counts, prompt_tokens=said.prompt_tokens)
        at = sentence.index(body)
        made = replace(Correction(""), counts=said.counts, prompt_tokens=said.prompt_tokens)
        return replace(made, text=sentence[:at] + text + sentence[at + len(body) :] if text else "")


def _make(settings: Settings) -> Corrector:
    return StreamAligner(settings, OpenAICompleter(settings.engine, settings.model, patience_s=0.0))


@hookimpl
def correctors() -> Sequence[Kind[Corrector]]:
    """Stream Aligner, on a completions server."""
    about = "Stream Aligner on a completions server; sentence by sentence, reads no objectives"
    return [Kind("stream_aligner", about, _make, Settings)]
