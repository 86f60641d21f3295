"""Client of a completions server: any with OpenAI's `/v1/completions`, so vLLM, llama.cpp, or our own engine.

Pooled, patient only with what was not begun, and cancelled by closing the connection. It knows nothing about templates.
"""

from __future__ import annotations

import time

import httpx

from aligner_proxy.engine.completions import (
    ServedModel,
    parse_completion,
    parse_models,
    refused,
    request_body,
    unreachable,
)
from aligner_proxy.engine.patience import NotReady, retry
from aligner_proxy.engine.pool import HttpPool
from aligner_proxy.engine.protocol import Completion, CompletionRequest
from aligner_proxy.errors import DeadlineExceeded

_INFO_S = 5.0


class CompletionsClient:
    """Satisfies `Completer`. `base` ends with /v1; `model` None means the only one served there.

    `predicts` says that the server knows `prediction`. `info_ttl_s` is how long its description is believed.
    """

    def __init__(
        self,
        base: str,
        model: str | None = None,
        *,
        key: str | None = None,
        predicts: bool = False,
        patience_s: float = 5.0,
        info_ttl_s: float = 30.0,
    ) -> None:
        self._base = base.rstrip("/")
        self._model = model
        self._predicts = predicts
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._patience_s = patience_s
        self._info_ttl_s = info_ttl_s
        self._pool = HttpPool()
        self._about: tuple[float, ServedModel] | None = None

    async def about(self) -> ServedModel:
        """The model served there; asked again after `info_ttl_s` and after every lost connection."""
        if self._about and time.monotonic() - self._about[0] < self._info_ttl_s:
            return self._about[1]
        try:
            body = await retry(lambda _: self._send("GET", "/models", None), _INFO_S, self._patience_s)
        except DeadlineExceeded:
            raise NotReady(f"the server at {self._base} does not answer") from None
        served = parse_models(body, self._model, self._base)
        self._about = (time.monotonic(), served)
        return served

    async def complete(self, request: CompletionRequest, deadline_s: float) -> Completion:
        """Continue one text within the deadline, waiting for the server included."""
        until = time.monotonic() + deadline_s
        model = self._model or (await self.about()).model
        body = request_body(request, model, predicts=self._predicts)
        left = max(0.001, until - time.monotonic())
        answer = await retry(lambda _: self._send("POST", "/completions", body), left, self._patience_s)
        return parse_completion(answer)

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._pool.aclose()

    async def _send(self, method: str, path: str, body: dict[str, object] | None) -> bytes:
        try:
            response = await self._pool.client.request(method, self._base + path, json=body, headers=self._headers)
        except (httpx.TransportError, httpx.DecodingError) as error:
            self._about = None
            raise unreachable(self._base, error, begun=not isinstance(error, httpx.ConnectError)) from None
        if response.status_code == httpx.codes.OK:
            return response.content
        raise refused(response.status_code, response.content, response.headers)
