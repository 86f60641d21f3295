"""What is asked of a server that only completes texts, and what does its answer mean? OpenAI's `/v1/completions`.

The forms alone: no connection, no template. Text of a foreign error never gets into ours: it may quote a prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.engine.patience import NotYet
from aligner_proxy.engine.wire import again_in, parsing
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


@dataclass(frozen=True, slots=True)
class Asked:
    """One text to continue, greedily. `prediction` is what is likely to follow, for servers that draft from it."""

    prompt: str
    tokens: int
    stop: tuple[str, ...] = ()
    prediction: str | None = None

    def body(self, model: str | None, *, predicts: bool) -> dict[str, object]:
        """The request as JSON; what a server may not know is left out."""
        stop = list(self.stop[:MAX_STOPS])
        return {
            **({"model": model} if model else {}),
            "prompt": self.prompt,
            "max_tokens": self.tokens,
            "temperature": 0,
            **({"stop": stop} if stop else {}),
            **({"prediction": {"type": "content", "content": self.prediction}} if predicts and self.prediction else {}),
        }


@dataclass(frozen=True, slots=True)
class Written:
    """What a server wrote. `finished` is False when the limit cut it off; `stopped_at` the stop text, where it says."""

    text: str
    finished: bool
    stopped_at: str | None = None
    prompt_tokens: int = 0
    counts: DecodeCounts = field(default_factory=DecodeCounts)


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says about its model. `identity` goes into the cache's key; the window is None when not told."""

    model: str
    identity: dict[str, Any] = field(default_factory=dict)
    window: int | None = None
    where: str = "elsewhere"


class Completer(Protocol):
    """Anything that continues texts. Raises `CorrectionError` subclasses only; `CancelledError` passes."""

    async def about(self) -> Served:
        """The model that is served there."""
        ...

    async def complete(self, asked: Asked, deadline_s: float) -> Written:
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


def written(body: bytes | dict[str, Any]) -> Written:
    """The first choice of an answer. Raises `InvalidOutput` where there is none."""
    with parsing("the server sent something that is no completion"):
        parsed = _Completion.model_validate_json(body) if isinstance(body, bytes) else _Completion.model_validate(body)
    choice, usage = parsed.choices[0], parsed.usage or _Usage()
    details = usage.completion_tokens_details or _Details()
    accepted = details.accepted_prediction_tokens or 0
    return Written(
        choice.text,
        choice.finish_reason == "stop",
        choice.stop_reason if isinstance(choice.stop_reason, str) else None,
        usage.prompt_tokens or 0,
        DecodeCounts(drafted=accepted + (details.rejected_prediction_tokens or 0), accepted=accepted),
    )


def served(body: bytes, model: str | None, where: str) -> Served:
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
    told = {"root": entry.get("root"), "size": meta.get("size"), "n_params": meta.get("n_params")}
    identity = {name: value for name, value in told.items() if value is not None}
    return Served(str(entry["id"]), identity, window if isinstance(window, int) else None, where)


def refused(status: int, body: bytes, headers: Mapping[str, str]) -> CorrectionError:
    """The error that a foreign server meant by a status; told are only its status and its one-word codes."""
    error = _error(body)
    words = {str(error.get(name)) for name in ("code", "type") if error.get(name) is not None}
    said = f"status {status}" + "".join(f", {word}" for word in sorted(words) if _PLAIN.fullmatch(word))
    if status == 429:
        return EngineOverloaded(f"the server is full ({said})", again_in(headers))
    if status == 413 or words & _TOO_LONG or (status == 400 and str(error.get("param")) in _TOO_LONG_FIELDS):
        return AnswerTooLong(f"prompt and answer do not fit the server's window ({said})")
    if status in (502, 503):
        return NotYet(f"the server is not ready ({said})")
    if status == 504:
        return DeadlineExceeded(f"a proxy before the server gave up ({said})")
    return EngineFault(f"the server refuses ({said}){_HINTS.get(status, '')}")


_HINTS = {
    401: "; name the variable with its key in aligner.engine.key_env",
    403: "; name the variable with its key in aligner.engine.key_env",
    404: "; check the address (it ends with /v1) and aligner.engine.model",
}


def _error(body: bytes) -> dict[str, Any]:
    """The error object of a body, in OpenAI's form or bare."""
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    found = told.get("error", told) if isinstance(told, dict) else {}
    return found if isinstance(found, dict) else {}


def unreachable(where: str, error: Exception, *, begun: bool) -> CorrectionError:
    """Nobody answered there, or the connection was lost on the way."""
    if begun:
        return EngineUnavailable(f"the server at {where} went away in mid-request ({type(error).__name__})")
    return NotYet(f"no server answers at {where}")
