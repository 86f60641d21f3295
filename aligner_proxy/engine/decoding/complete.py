"""Plain greedy completion of a prompt, with the client's prediction as the draft.

The format is OpenAI's `/v1/completions` with `prediction`, so that any client can use the engine for text that it
expects back with few changes. The result equals greedy decoding without a prediction.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal

from aligner_proxy.engine.api import Completion, CompletionRequest
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.parts import CHARS_PER_TOKEN
from aligner_proxy.engine.decoding.proposer import DraftProposer
from aligner_proxy.engine.decoding.speculative import Tally, WritingLimits, generate
from aligner_proxy.engine.scheduling.sequence import Ask, Step, TokenSequence
from aligner_proxy.errors import AnswerTooLong


def choose_aligner(aligner: Aligner, model: str | None) -> Aligner:
    """Return the aligner that the field `model` of OpenAI's API names; an engine with one aligner ignores the name."""
    if not aligner.others or model is None or model == aligner.info.model:
        return aligner
    return aligner.find_aligner(model)


def complete(aligner: Aligner, request: CompletionRequest, sequence: TokenSequence) -> Generator[Ask, Step, Completion]:
    """Complete one prompt; raises `AnswerTooLong` if it and `max_tokens` together exceed the window."""
    tokenizer = aligner.runner.tokenizer
    prediction = request.prediction.content if request.prediction else ""
    for name, text in (("prompt", request.prompt), ("prediction", prediction)):
        if len(text) > aligner.info.window * CHARS_PER_TOKEN:
            raise AnswerTooLong(
                f"a {name} of {len(text)} characters cannot fit the window of {aligner.info.window} tokens"
            )
    prompt_ids = tokenizer.encode_prompt(request.prompt).ids
    if not prompt_ids or len(prompt_ids) + request.max_tokens > aligner.info.window:
        raise AnswerTooLong(
            f"a prompt of {len(prompt_ids)} tokens and {request.max_tokens} to write do not fit the window of "
            f"{aligner.info.window}; a prompt has at least one"
        )
    # the draft includes the end mark, because the completion is expected to end where the prediction does
    draft = [*tokenizer.list_ids(prediction), tokenizer.eos] if prediction else []
    proposer = DraftProposer(draft, aligner.runner.choose_draft_length)
    tally = Tally()
    stop_texts = tuple(text for text in request.stop if text)
    limits = WritingLimits(
        request.max_tokens,
        is_done=lambda ids: bool(stop_texts) and _find_stop(tokenizer.decode(ids), stop_texts) is not None,
    )
    generated = yield from generate(sequence, Ask(prompt_ids, prompt=True), proposer, limits, tally, tokenizer.eos_ids)
    text = tokenizer.decode(generated.ids)
    stop_reason = None
    found_stop = _find_stop(text, stop_texts)
    if found_stop:
        end, stop_reason = found_stop
        text = text[:end]
    finish_reason: Literal["stop", "length"] = "stop" if generated.finished or found_stop else "length"
    return Completion(text, finish_reason, stop_reason, len(prompt_ids), len(generated.ids), tally.counts())


def _find_stop(text: str, stop_texts: tuple[str, ...]) -> tuple[int, str] | None:
    """Return the stop text that occurs first in `text`, as (index in `text`, stop text); None if none occurs."""
    occurrences = ((text.index(stop_text), stop_text) for stop_text in stop_texts if stop_text in text)
    return min(occurrences, default=None)
