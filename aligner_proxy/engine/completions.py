"""Requests and answers of servers that only complete texts: OpenAI's `/v1/completions`.

The forms alone: no connection, no template. Text of a foreign error never gets into ours: it may quote a prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.engine.patience import NotReady
from aligner_proxy.engine.protocol import Completion, CompletionRequest
from aligner_proxy.engine.wire import parsing, retry_after
from aligner_proxy.errors import (
    AnswerTooLong,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    InvalidOutput,
)
from aligner_proxy.types import DecodeCounts

MAX_STOPS = 4
"""OpenAI's bound; servers that take more lose nothing."""
_PLAIN = re.compile(r"[\w.-]{1,64}")
_TOO_LONG = {"context_length_exceeded", "exceed_context_size_error", "ContextWindowExceededError", "too_long"}
_TOO_LONG_FIELDS = {"input_tokens", "input_text", "max_tokens"}
"""How vLLM names what is at fault when a prompt, or what is to be written after it, does not fit."""


def request_body(request: CompletionRequest, model: str | None, *, predicts: bool) -> dict[str, Any]:
    """The request as JSON, greedy; what a server may not know is left out."""
    body: dict[str, Any] = {"prompt": request.prompt, "max_tokens": request.max_tokens, "temperature": 0}
    if model:
        body["model"] = model
    if request.stop:
        body["stop"] = list(request.stop[:MAX_STOPS])
    if predicts and request.prediction:
        body["prediction"] = request.prediction.model_dump()
    return body


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A server's description of its model. `identity` goes into the cache's key; the window may be unknown."""

    model: str
    identity: dict[str, Any] = field(default_factory=dict)
    window: int | None = None
    where: str = "elsewhere"


class Completer(Protocol):
    """Anything that continues texts. Raises `CorrectionError` subclasses only; `CancelledError` passes."""

    async def about(self) -> ServedModel:
        """The model that is served there."""
        ...

    async def complete(self, request: CompletionRequest, deadline_s: float) -> Completion:
        """Continue one text within the deadline."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...


class _Loose(BaseModel):
    """Of a foreign answer only what is used is looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Details(_Loose):
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class _Usage(_Loose):
    prompt_tokens: int | None = None
    completion_tokens_details: _Details | None = None


class _Choice(_Loose):
    text: str
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class _Completion(_Loose):
    choices: tuple[_Choice, ...] = Field(min_length=1)
    usage: _Usage | None = None


def parse_completion(body: bytes | dict[str, Any]) -> Completion:
    """The first choice of an answer. Raises `InvalidOutput` where there is none."""
    with parsing("the server sent something that is no completion"):
        parsed = _Completion.model_validate_json(body) if isinstance(body, bytes) else _Completion.model_validate(body)
    choice = parsed.choices[0]
    usage = parsed.usage or _Usage()
    details = usage.completion_tokens_details or _Details()
    accepted = details.accepted_prediction_tokens or 0
    return Completion(
        choice.text,
        finish_reason="stop" if choice.finish_reason == "stop" else "length",
        stop_reason=choice.stop_reason if isinstance(choice.stop_reason, str) else None,
        prompt_tokens=usage.prompt_tokens or 0,
        counts=DecodeCounts(drafted=accepted + (details.rejected_prediction_tokens or 0), accepted=accepted),
    )


def parse_models(body: bytes, model: str | None, where: str) -> ServedModel:
    """The model meant by `model`, of what `/v1/models` lists; without a name the only one."""
    try:
        listed = {str(entry["id"]): entry for entry in json.loads(body)["data"]}
    except (ValueError, KeyError, TypeError):
        raise InvalidOutput(f"{where}/models lists no models; is this an OpenAI-compatible server?") from None
    names = ", ".join(sorted(listed)[:8]) or "none"
    if model is None and len(listed) != 1:
        raise EngineFault(f"{where} serves {len(listed)} models ({names}); say which with aligner.engine.model")
    entry = listed.get(model) if model else next(iter(listed.values()))
    if entry is None:
        raise EngineFault(f"{where} does not serve the model of aligner.engine.model; it serves {names}")
    meta = entry.get("meta") if isinstance(entry.get("meta"), dict) else {}
    window = entry.get("max_model_len") or meta.get("n_ctx") or meta.get("n_ctx_train")
    parts = {"root": entry.get("root"), "size": meta.get("size"), "n_params": meta.get("n_params")}
    identity = {name: value for name, value in parts.items() if value is not None}
    return ServedModel(str(entry["id"]), identity, window if isinstance(window, int) else None, where)


def refused(status: int, body: bytes, headers: Mapping[str, str]) -> CorrectionError:
    """The error that a foreign server meant by a status; of its answer only one-word codes are quoted."""
    error = _error(body)
    codes = {str(error.get(name)) for name in ("code", "type") if error.get(name) is not None}
    summary = f"status {status}" + "".join(f", {code}" for code in sorted(codes) if _PLAIN.fullmatch(code))
    if status == 429:
        return EngineOverloaded(f"the server is full ({summary})", retry_after(headers))
    if status == 413 or codes & _TOO_LONG or (status == 400 and str(error.get("param")) in _TOO_LONG_FIELDS):
        return AnswerTooLong(f"prompt and answer do not fit the server's window ({summary})")
    if status in (502, 503):
        return NotReady(f"the server is not ready ({summary})")
    if status == 504:
        return DeadlineExceeded(f"a proxy before the server gave up ({summary})")
    return EngineFault(f"the server refuses ({summary}){_HINTS.get(status, '')}")


_HINTS = {
    401: "; name the variable with its key in aligner.engine.key_env",
    403: "; name the variable with its key in aligner.engine.key_env",
    404: "; check the address (it ends with /v1) and aligner.engine.model",
}


def _error(body: bytes) -> dict[str, Any]:
    """The error object of a body, in OpenAI's form or bare."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
    return error if isinstance(error, dict) else {}


def unreachable(where: str, error: Exception, *, begun: bool) -> CorrectionError:
    """No server answered there, or the connection was lost on the way."""
    if begun:
        return EngineUnavailable(f"the server at {where} went away in mid-request ({type(error).__name__})")
    return NotReady(f"no server answers at {where}")
