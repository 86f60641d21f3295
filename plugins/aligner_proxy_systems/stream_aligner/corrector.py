"""Corrector with Stream Aligner (arXiv 2501.05336): revises each sentence, given the text before it that was already
sent.

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

_RESERVE_TOKENS = 32
_CHARS_PER_TOKEN = 2
"""Limit of a revision in tokens: one for every two characters of the sentence, and the reserve."""
_MIN_SECONDS = 0.01
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
    """Lets a model on a completions server revise answers sentence by sentence. Satisfies `SentenceCorrector`."""

    def __init__(self, settings: StreamAlignerSettings, completer: Completer) -> None:
        self._settings = settings
        self._completer = completer

    async def identity(self) -> str:
        """Return a hash of the server's description of its weights, and of the template."""
        description = await self._completer.describe_model()
        parts = [description.model, description.identity, STREAM_ALIGNER, self._settings.gemma]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    async def correct(self, request: AlignRequest) -> Correction:
        """Correct the whole answer sentence by sentence within the request's deadline."""
        deadline = time.monotonic() + request.deadline_s
        revisions: list[Correction] = []
        segments = split(request.answer)
        for segment in segments:
            remaining_s = deadline - time.monotonic()
            if remaining_s < _MIN_SECONDS:
                raise DeadlineExceeded("the time for this answer is used up")
            # `strict=False`: only the first segments are revised so far
            text_before = join_so_far(
                (revision.text, revised_segment.gap)
                for revision, revised_segment in zip(revisions, segments, strict=False)
            )
            segment_request = request.model_copy(update={"deadline_s": remaining_s})
            revisions.append(await self.revise(segment_request, text_before, segment.text))
        revised_segments = list(zip(revisions, segments, strict=True))
        is_changed = any(revision.text != segment.text for revision, segment in revised_segments)
        text = join([(revision.text, segment.gap) for revision, segment in revised_segments])
        counts = sum((revision.counts for revision in revisions), DecodeCounts())
        # joined segments may differ from the answer in white space, so an unchanged answer is returned itself
        return Correction(text if is_changed else request.answer, counts=counts)

    async def revise(self, request: AlignRequest, before: str, sentence: str) -> Correction:
        """Return the revision of one sentence, which follows the text `before` in the answer.

        Code and text without letters are returned unchanged without a call. The model reads the sentence with disguised
        characters normalised; if it revises nothing, the sentence keeps its disguised characters.
        """
        stripped = sentence.strip()
        plain_sentence = undisguise(stripped).text.strip()
        if plain_sentence.startswith(("```", "~~~")) or not any(char.isalpha() for char in plain_sentence):
            return Correction(sentence)
        query = prompts.query_field(prompts.TEMPLATES["aligner"], request.turns)
        prompt = revision_prompt(query, undisguise(before.strip()).text, plain_sentence, gemma=self._settings.gemma)
        max_tokens = _RESERVE_TOKENS + len(plain_sentence) // _CHARS_PER_TOKEN
        completion_request = CompletionRequest(
            prompt=prompt.text,
            max_tokens=max_tokens,
            stop=(END_OF_TURN,) if self._settings.gemma else ("\n",),
            prediction=Prediction(content=plain_sentence),
        )
        completion = await self._completer.complete(completion_request, request.deadline_s)
        revision = prompt.restore(completion.text.strip())
        # a reply that was cut off is not used
        if not completion.finished or revision == plain_sentence:
            return Correction(sentence, counts=completion.counts, prompt_tokens=completion.prompt_tokens)
        body_start = sentence.index(stripped)
        # an empty revision removes the sentence together with the white space around it
        revised_sentence = ""
        if revision:
            revised_sentence = sentence[:body_start] + revision + sentence[body_start + len(stripped) :]
        return Correction(revised_sentence, counts=completion.counts, prompt_tokens=completion.prompt_tokens)
