"""What would the model write after a prompt? Plain greedy completion, with the client's prediction as the draft.

The form is that of OpenAI's `/v1/completions` with `prediction`, so that any client can use the engine for a text that
it expects to come back with few changes. The result is what greedy decoding without a prediction gives.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.engine.correct import Aligner
from aligner_proxy.engine.decode import Limits, Tally, generate
from aligner_proxy.engine.proposer import EditProposer
from aligner_proxy.engine.sequence import Ask, Sequence, Step
from aligner_proxy.errors import AnswerTooLong
from aligner_proxy.types import DecodeCounts


class Prediction(BaseModel):
    """What the client expects to be written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["content"] = "content"
    content: str


class CompletionRequest(BaseModel):
    """The part of OpenAI's request that greedy completion of one text needs; anything else is refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    model: str | None = None
    max_tokens: int = Field(default=16, ge=1)
    temperature: Literal[0] | None = None
    n: Literal[1] = 1
    stream: Literal[False] = False
    prediction: Prediction | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The text, why it ended, and its cost."""

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    counts: DecodeCounts


def openai_form(done: Completion, name: str, model: str) -> dict[str, object]:
    """The body of OpenAI's answer; draft tokens are told as it tells predicted ones."""
    counts = done.counts
    return {
        "id": name,
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "text": done.text, "finish_reason": done.finish_reason, "logprobs": None}],
        "usage": {
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "total_tokens": done.prompt_tokens + done.completion_tokens,
            "completion_tokens_details": {
                "accepted_prediction_tokens": counts.accepted,
                "rejected_prediction_tokens": counts.drafted - counts.accepted,
            },
        },
    }


def complete(aligner: Aligner, request: CompletionRequest, sequence: Sequence) -> Generator[Ask, Step, Completion]:
    """Complete one prompt. Raises `AnswerTooLong` where prompt and completion exceed the window."""
    tokenizer = aligner.runner.tokenizer
    prompt = tokenizer.prompt(request.prompt).ids
    if not prompt or len(prompt) + request.max_tokens > aligner.info.window:
        raise AnswerTooLong(
            f"a prompt of {len(prompt)} tokens and {request.max_tokens} to write do not fit the window of "
            f"{aligner.info.window}; a prompt has at least one"
        )
    expected = request.prediction.content if request.prediction else ""
    draft = [*tokenizer.continuation(expected), tokenizer.eos] if expected else []
    proposer, tally = EditProposer(draft, aligner.runner.draft_limits), Tally()
    written = yield from generate(
        sequence, prompt, proposer, Limits(request.max_tokens), tally, tokenizer.eos_ids, prompt=True
    )
    return Completion(
        tokenizer.decode(written.ids),
        "stop" if written.finished else "length",
        len(prompt),
        len(written.ids),
        tally.counts(),
    )
