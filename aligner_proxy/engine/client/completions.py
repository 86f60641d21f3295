"""Client of a completions server: any server with OpenAI's `/v1/completions` (vLLM, llama.cpp, or our own engine).

The client pools connections, retries only requests that the server has not begun, and cancels a request by closing its
connection. It knows nothing about templates. Our errors never quote the text of a foreign error, because that may quote
a prompt.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.engine.api import Completion, CompletionRequest
from aligner_proxy.engine.client.http import NOT_BEGUN, Connections
from aligner_proxy.engine.client.retry import NotReady, retry
from aligner_proxy.engine.wire import read_retry_after, translate_parse_errors
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
"""Most stop texts that are sent, which is OpenAI's limit."""
_QUOTABLE_CODE = re.compile(r"[\w.-]{1,64}")
"""A code in a foreign error that may be quoted, because a single word is not part of a prompt."""
_TOO_LONG_CODES = {"context_length_exceeded", "exceed_context_size_error", "ContextWindowExceededError", "too_long"}
"""Codes by which servers say that a prompt, or its completion, does not fit the window."""
_TOO_LONG_FIELDS = {"input_tokens", "input_text", "max_tokens"}
"""The parameters that vLLM names in an error if a prompt, or its completion, does not fit the window."""

# what an operator should do, by status
_HINTS_BY_STATUS = {
    401: "; name the variable with its key in aligner.engine.key_env",
    403: "; name the variable with its key in aligner.engine.key_env",
    404: "; check the address (it ends with /v1) and aligner.engine.model",
}
_INFO_S = 5.0
"""Seconds that a server may take to describe its model."""
INFO_TTL_S = 30.0
"""Seconds for which such a description is used."""


def request_body(request: CompletionRequest, model: str | None, *, predicts: bool) -> dict[str, Any]:
    """The JSON body of a request for greedy decoding; `predicts` says whether the server accepts `prediction`."""
    body: dict[str, Any] = {"prompt": request.prompt, "max_tokens": request.max_tokens, "temperature": 0}
    if model:
        body["model"] = model
    if request.stop:
        body["stop"] = list(request.stop[:MAX_STOPS])
    if request.user:
        body["user"] = request.user
    if predicts and request.prediction:
        body["prediction"] = request.prediction.model_dump()
    return body


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A server's description of its model."""

    model: str
    identity: dict[str, Any] = field(default_factory=dict)
    """What the server says of the weights; it becomes part of cache keys."""
    window: int | None = None
    """In tokens; None if the server does not say."""
    where: str = "elsewhere"
    """The server's address, in place of a device."""


class Completer(Protocol):
    """Anything that continues texts. Raises `CorrectionError` subclasses only; `CancelledError` passes."""

    async def describe_model(self) -> ServedModel:
        """Describe the model that is served."""

    async def complete(self, request: CompletionRequest, deadline_s: float) -> Completion:
        """Continue one text within `deadline_s`."""

    async def aclose(self) -> None:
        """Release connections."""


class LooseModel(BaseModel):
    """Base class of the bodies that foreign servers send: fields that we do not use are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Details(LooseModel):
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class _TokenUsage(LooseModel):
    prompt_tokens: int | None = None
    completion_tokens_details: _Details | None = None


class _Choice(LooseModel):
    text: str
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class _RemoteCompletion(LooseModel):
    choices: tuple[_Choice, ...] = Field(min_length=1)
    usage: _TokenUsage | None = None


def parse_completion(body: bytes | dict[str, Any]) -> Completion:
    """Return the first choice of a server's answer as a `Completion`. Raises `InvalidOutput` if there is none."""
    with translate_parse_errors("the server sent something that is no completion"):
        if isinstance(body, bytes):
            parsed = _RemoteCompletion.model_validate_json(body)
        else:
            parsed = _RemoteCompletion.model_validate(body)
    choice = parsed.choices[0]
    usage = parsed.usage or _TokenUsage()
    details = usage.completion_tokens_details or _Details()
    accepted = details.accepted_prediction_tokens or 0
    rejected = details.rejected_prediction_tokens or 0
    return Completion(
        choice.text,
        # with any other reason, the text is unfinished
        finish_reason="stop" if choice.finish_reason == "stop" else "length",
        # vLLM names a stop token, unlike a stop text, by number
        stop_reason=choice.stop_reason if isinstance(choice.stop_reason, str) else None,
        prompt_tokens=usage.prompt_tokens or 0,
        counts=DecodeCounts(drafted=accepted + rejected, accepted=accepted),
    )


def parse_models(body: bytes, model: str | None, where: str) -> ServedModel:
    """Describe the model named `model` from the body of a `/v1/models` response, or the only model if `model` is None.

    `where` is the server's address. Raises `InvalidOutput` for an invalid body, and `EngineFault` if the model is
    missing or ambiguous.
    """
    try:
        entries_by_model = {str(entry["id"]): entry for entry in json.loads(body)["data"]}
    except (ValueError, KeyError, TypeError):
        raise InvalidOutput(f"{where}/models lists no models; is this an OpenAI-compatible server?") from None
    names = ", ".join(sorted(entries_by_model)[:8]) or "none"
    if model is None and len(entries_by_model) != 1:
        raise EngineFault(
            f"{where} serves {len(entries_by_model)} models ({names}); say which with aligner.engine.model"
        )
    entry = entries_by_model.get(model) if model else next(iter(entries_by_model.values()))
    if entry is None:
        raise EngineFault(f"{where} does not serve the model of aligner.engine.model; it serves {names}")
    # vLLM names the window and the weights ("root") in the entry itself, llama.cpp in its `meta`
    meta = entry.get("meta") if isinstance(entry.get("meta"), dict) else {}
    window = entry.get("max_model_len") or meta.get("n_ctx") or meta.get("n_ctx_train")
    if not isinstance(window, int):
        window = None
    weights = {"root": entry.get("root"), "size": meta.get("size"), "n_params": meta.get("n_params")}
    identity = {name: value for name, value in weights.items() if value is not None}
    return ServedModel(str(entry["id"]), identity, window, where)


def parse_refusal(status: int, body: bytes, headers: Mapping[str, str]) -> CorrectionError:
    """Convert a foreign server's error response to one of our errors; of its text, only one-word codes are quoted."""
    error = _find_error(body)
    codes = {str(error[name]) for name in ("code", "type") if error.get(name) is not None}
    quotable_codes = [code for code in sorted(codes) if _QUOTABLE_CODE.fullmatch(code)]
    summary = ", ".join([f"status {status}", *quotable_codes])
    is_too_long = status == 400 and str(error.get("param")) in _TOO_LONG_FIELDS
    if status == 429:
        return EngineOverloaded(f"the server is full ({summary})", read_retry_after(headers))
    if status == 413 or codes & _TOO_LONG_CODES or is_too_long:
        return AnswerTooLong(f"prompt and answer do not fit the server's window ({summary})")
    if status in (502, 503):
        return NotReady(f"the server is not ready ({summary})")
    if status == 504:
        return DeadlineExceeded(f"a proxy before the server gave up ({summary})")
    return EngineFault(f"the server refuses ({summary}){_HINTS_BY_STATUS.get(status, '')}")


def _find_error(body: bytes) -> dict[str, Any]:
    """The error object in a body: its field "error", as OpenAI sends it, or else the whole body; {} if it has none."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error", parsed)
    return error if isinstance(error, dict) else {}


def make_connection_error(where: str, error: Exception) -> CorrectionError:
    """The error for a server that does not answer.

    It is `NotReady` if the request had not been sent yet, and `EngineUnavailable` if the server may have begun it.
    """
    if isinstance(error, NOT_BEGUN):
        return NotReady(f"no server answers at {where}")
    return EngineUnavailable(f"the server at {where} disconnected during a request ({type(error).__name__})")


class CompletionsClient:
    """Client of one server; satisfies `Completer`.
    `base` is the address, which ends with /v1. A `model` of None means the only model that is served. `predicts` says
    whether the server accepts the field `prediction`. A request waits at most `wait_s` seconds for a server that is not
    ready.
    """

    def __init__(
        self,
        base: str,
        model: str | None = None,
        *,
        key: str | None = None,
        predicts: bool = False,
        wait_s: float = 5.0,
    ) -> None:
        self._base = base.rstrip("/")
        self._model = model
        self._predicts = predicts
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._wait_s = wait_s
        self._connections = Connections()
        self._served_model: ServedModel | None = None  # the cached description
        self._described_at = 0.0  # when the description came, in monotonic seconds

    async def describe_model(self) -> ServedModel:
        """Describe the model served; asks the server again after `INFO_TTL_S` and after a lost connection."""
        if self._served_model and time.monotonic() - self._described_at < INFO_TTL_S:
            return self._served_model
        try:
            body = await retry(lambda _: self._send("GET", "/models", None), _INFO_S, self._wait_s)
        except DeadlineExceeded:
            # `_INFO_S` has passed, which is not the caller's deadline
            raise NotReady(f"the server at {self._base} does not answer") from None
        self._served_model = parse_models(body, self._model, self._base)
        self._described_at = time.monotonic()
        return self._served_model

    async def complete(self, request: CompletionRequest, deadline_s: float) -> Completion:
        """Continue one text within `deadline_s`, which includes waiting for the server."""
        deadline = time.monotonic() + deadline_s
        model = self._model or (await self.describe_model()).model
        body = request_body(request, model, predicts=self._predicts)
        remaining_s = max(0.001, deadline - time.monotonic())
        answer = await retry(lambda _: self._send("POST", "/completions", body), remaining_s, self._wait_s)
        return parse_completion(answer)

    async def aclose(self) -> None:
        await self._connections.aclose()

    async def _send(self, method: str, path: str, body: dict[str, object] | None) -> bytes:
        """Send one HTTP request and return the response's body; raises one of our errors if the status is not 200."""
        try:
            response = await self._connections.fetch_response(
                method, self._base + path, json=body, headers=self._headers
            )
        except (httpx.TransportError, httpx.DecodingError) as error:
            self._served_model = None  # the server that answers next may serve another model
            raise make_connection_error(self._base, error) from None
        if response.status_code == httpx.codes.OK:
            return response.content
        raise parse_refusal(response.status_code, response.content, response.headers)
