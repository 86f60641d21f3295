"""Corrector with Stream Aligner (arXiv 2501.05336): revises each sentence given the text already sent before it.

Any completions server can serve its weights. With `stream: sentence`, each sentence is sent as soon as it is revised; a
whole answer is revised the same way. In the paper the upstream model continues from the revision. Here it cannot, since
the upstream is not ours.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignRequest, CompletionRequest, Prediction
from aligner_proxy.engine.client.completions import Completer
from aligner_proxy.errors import DeadlineExceeded
from aligner_proxy.text.disguises import undisguise
from aligner_proxy.text.structure import join, join_so_far, split
from aligner_proxy.types import Correction, DecodeCounts
from aligner_proxy_systems.stream_aligner.prompt import END_OF_TURN, STREAM_ALIGNER, revision_prompt

_MORE_TOKENS = 32
_CHARS_PER_TOKEN = 2
"""Limit of a revision in tokens: one for every two characters of the sentence, and 32 more."""
_MIN_S = 0.01
"""With fewer seconds left than this, no further sentence is sent to the server."""


class StreamAlignerSettings(BaseModel):
    """Settings of the corrector in the policies file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    engine: Annotated[str, Field(pattern=r"^https?://\S+/v1/?$")]
    """http(s)://host:port/v1 of a completions server: vLLM, llama.cpp, or an `aligner-proxy engine`."""
    model: Annotated[str, Field(min_length=1, max_length=400)] | None = None
    """The model's name on that server; can be omitted if the server has only one."""
    gemma: bool = True
    """Whether to wrap the prompt in a turn of Gemma's chat template, as the released weights expect."""


class StreamAligner:
    """Satisfies `SentenceCorrector`."""

    def __init__(self, settings: StreamAlignerSettings, completer: Completer) -> None:
        self._settings = settings
        self._completer = completer

    async def identity(self) -> str:
        """Hash of the server's description of its weights, and of the template."""
        description = await self._completer.describe_model()
        parts = [description.model, description.identity, STREAM_ALIGNER, self._settings.gemma]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    async def correct(self, request: AlignRequest) -> Correction:
        """Correct the whole answer sentence by sentence within the request's deadline."""
        until = time.monotonic() + request.deadline_s
        revised: list[Correction] = []
        pieces = split(request.answer)
        for piece in pieces:
            remaining_s = until - time.monotonic()
            if remaining_s < _MIN_S:
                raise DeadlineExceeded("the time for this answer is used up")
            before = join_so_far((revision.text, piece.gap) for revision, piece in zip(revised, pieces, strict=False))
            revised.append(
                await self.revise(request.model_copy(update={"deadline_s": remaining_s}), before, piece.text)
            )
        changed = any(revision.text != piece.text for revision, piece in zip(revised, pieces, strict=True))
        text = join([(revision.text, piece.gap) for revision, piece in zip(revised, pieces, strict=True)])
        counts = sum((revision.counts for revision in revised), DecodeCounts())
        return Correction(text if changed else request.answer, counts=counts)

    async def revise(self, request: AlignRequest, before: str, sentence: str) -> Correction:
        """Return the revision of one sentence; code and text without letters are returned unchanged without a call.

        The model reads the sentence with disguised characters normalised. If nothing is revised, the original stays as
        it is.
        """
        stripped = sentence.strip()
        plain_sentence = undisguise(stripped).text.strip()
        if plain_sentence.startswith(("```", "~~~")) or not any(char.isalpha() for char in plain_sentence):
            return Correction(sentence)
        query = prompts.query_field(prompts.TEMPLATES["aligner"], request.turns)
        prompt = revision_prompt(query, undisguise(before.strip()).text, plain_sentence, gemma=self._settings.gemma)
        most = _MORE_TOKENS + len(plain_sentence) // _CHARS_PER_TOKEN
        completion_request = CompletionRequest(
            prompt=prompt.text,
            max_tokens=most,
            stop=(END_OF_TURN,) if self._settings.gemma else ("\n",),
            prediction=Prediction(content=plain_sentence),
        )
        completion = await self._completer.complete(completion_request, request.deadline_s)
        text = prompt.restore(completion.text.strip())
        if not completion.finished or text == plain_sentence:  # a reply that was cut off is not used
            return Correction(sentence, counts=completion.counts, prompt_tokens=completion.prompt_tokens)
        body_start = sentence.index(stripped)
        # An empty revision removes the sentence together with the white space around it.
        revised = sentence[:body_start] + text + sentence[body_start + len(stripped) :] if text else ""
        return Correction(revised, counts=completion.counts, prompt_tokens=completion.prompt_tokens)
