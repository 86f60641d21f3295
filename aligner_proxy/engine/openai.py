"""How is a completions server reached? Any server with OpenAI's `/v1/completions`: vLLM, llama.cpp, or our own engine.

Pooled, patient only with what was not begun, and cancelled by closing the connection. It knows nothing about templates.
"""

from __future__ import annotations

import asyncio
import time

import httpx

from aligner_proxy.engine.completions import Asked, Served, Written, refused, served, unreachable, written
from aligner_proxy.engine.patience import NotYet, patiently
from aligner_proxy.errors import DeadlineExceeded

_INFO_S = 5.0


class OpenAICompleter:
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
        self._base, self._model, self._predicts = base.rstrip("/"), model, predicts
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._patience_s, self._info_ttl_s = patience_s, info_ttl_s
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._about: tuple[float, Served] | None = None

    async def about(self) -> Served:
        """The model served there; asked again after `info_ttl_s` and after every lost connection."""
        if self._about and time.monotonic() - self._about[0] < self._info_ttl_s:
            return self._about[1]
        try:
            body = await patiently(lambda _: self._send("GET", "/models", None), _INFO_S, self._patience_s)
        except DeadlineExceeded:
            raise NotYet(f"the server at {self._base} does not answer") from None
        found = served(body, self._model, self._base)
        self._about = (time.monotonic(), found)
        return found

    async def complete(self, asked: Asked, deadline_s: float) -> Written:
        """Continue one text within the deadline, waiting for the server included."""
        until = time.monotonic() + deadline_s
        model = self._model or (await self.about()).model
        body = asked.body(model, predicts=self._predicts)
        left = max(0.001, until - time.monotonic())
        return written(await patiently(lambda _: self._send("POST", "/completions", body), left, self._patience_s))

    async def aclose(self) -> None:
        """Close the pooled connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _send(self, method: str, path: str, body: dict[str, object] | None) -> bytes:
        try:
            response = await self._pooled().request(method, self._base + path, json=body, headers=self._headers)
        except (httpx.TransportError, httpx.DecodingError) as error:
            self._about = None
            raise unreachable(self._base, error, begun=not isinstance(error, httpx.ConnectError)) from None
        if response.status_code == httpx.codes.OK:
            return response.content
        raise refused(response.status_code, response.content, response.headers)

    def _pooled(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # No timeouts of its own: the request's deadline covers every phase. As many connections as requests.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
            self._client = httpx.AsyncClient(limits=limits, timeout=None, trust_env=False)
            self._loop = loop
        return self._client
