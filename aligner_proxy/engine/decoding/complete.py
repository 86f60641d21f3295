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
    """The aligner to use for OpenAI's `model`; if the engine has only one, any name means that one."""
    return aligner if not aligner.others or model in (None, aligner.info.model) else aligner.find_aligner(model or "")


def complete(aligner: Aligner, request: CompletionRequest, sequence: TokenSequence) -> Generator[Ask, Step, Completion]:
    """Complete one prompt: a generator of asks that returns the `Completion`.

    Raises `AnswerTooLong` if the prompt and `max_tokens` together exceed the window.
    """
    tokenizer = aligner.runner.tokenizer
    expected = request.prediction.content if request.prediction else ""
    for name, text in (("prompt", request.prompt), ("prediction", expected)):
        if len(text) > aligner.info.window * CHARS_PER_TOKEN:
            raise AnswerTooLong(
                f"a {name} of {len(text)} characters cannot fit the window of {aligner.info.window} tokens"
            )
    prompt = tokenizer.encode_prompt(request.prompt).ids
    if not prompt or len(prompt) + request.max_tokens > aligner.info.window:
        raise AnswerTooLong(
            f"a prompt of {len(prompt)} tokens and {request.max_tokens} to write do not fit the window of "
            f"{aligner.info.window}; a prompt has at least one"
        )
    # the end mark, too: the completion is expected to end where the prediction does
    draft = [*tokenizer.list_ids(expected), tokenizer.eos] if expected else []
    proposer = DraftProposer(draft, aligner.runner.choose_draft_length)
    tally = Tally()
    stop = tuple(text for text in request.stop if text)
    limits = WritingLimits(
        request.max_tokens, is_done=lambda ids: bool(stop) and _find_stop(tokenizer.decode(ids), stop) is not None
    )
    generated = yield from generate(sequence, Ask(prompt, prompt=True), proposer, limits, tally, tokenizer.eos_ids)
    text = tokenizer.decode(generated.ids)
    stop_reason = None
    if ending := _find_stop(text, stop):
        end, stop_reason = ending
        text = text[:end]
    finish_reason: Literal["stop", "length"] = "stop" if generated.finished or ending else "length"
    return Completion(text, finish_reason, stop_reason, len(prompt), len(generated.ids), tally.counts())


def _find_stop(text: str, stop: tuple[str, ...]) -> tuple[int, str] | None:
    """The index of the earliest stop text and that stop text; None if there is none."""
    return min(((text.index(stop_text), stop_text) for stop_text in stop if stop_text in text), default=None)
