"""Requests to the gateway: an answer of the playground, judged by `POST /v1/align`, and the metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from aligner_proxy.errors import AlignerProxyError
from aligner_proxy_review.console.escaping import show_plain

TIMEOUT_S = 120.0
"""Seconds for one request to the gateway."""
_METRICS_S = 3.0
"""Seconds for reading the gateway's metrics."""
_MIN_COLOURED_SCORE = -6.0
"""A segment with a lower score has no colour; scores are log-odds, in nats."""
_NATS_PER_STEP = 1.5
"""How much higher the score is at each colour step."""
HOTTEST = 7
_MAX_MESSAGE_CHARS = 300
"""How many characters of the gateway's error message are shown."""


class GatewayRefused(AlignerProxyError):
    """The gateway cannot be reached or refuses the request."""


class _Reported(BaseModel):
    """Base of what the gateway reports; fields of later versions are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ReportedSegment(_Reported):
    """A judged segment."""

    text: str
    score: float | None = None
    flagged: bool = False
    against: str | None = None

    @property
    def heat(self) -> int:
        """How close it is to being flagged, as a colour step from 0 to `HOTTEST`; 0 without a score."""
        if self.score is None:
            return 0
        step = int((self.score - _MIN_COLOURED_SCORE) / _NATS_PER_STEP)
        return min(HOTTEST, max(0, step))


class PlaygroundResult(_Reported):
    """The gateway's result for one answer."""

    answer: str
    status: str
    reason: str | None = None
    segments: tuple[ReportedSegment, ...] = ()
    edits: tuple[dict[str, Any], ...] = ()
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class PlaygroundQuestion:
    """An answer to judge, with its question, model and objectives."""

    answer: str = field(repr=False)
    question: str = field(repr=False)
    model: str = ""
    objectives: tuple[str, ...] = field(default=(), repr=False)

    def request_body(self) -> dict[str, Any]:
        """The body of `POST /v1/align`."""
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": self.question}],
            "answer": self.answer,
            "objectives": list(self.objectives),
        }
        return body | ({"model": self.model} if self.model else {})


class GatewayClient:
    """Client of the gateway, with the master key: judges answers of the playground, and reads metrics."""

    def __init__(self, address: str, master_key: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        # no-store, because a trial in the playground is no traffic: its text is not stored, and no cache is used
        headers = {"Authorization": f"Bearer {master_key}", "Cache-Control": "no-store"}
        self._client = httpx.AsyncClient(
            base_url=address, headers=headers, timeout=TIMEOUT_S, transport=transport, trust_env=False
        )

    async def judge(self, question: PlaygroundQuestion) -> PlaygroundResult:
        """Have the gateway judge an answer, and return its result; raises `GatewayRefused` if it gives none."""
        response = await self._send(self._client.build_request("POST", "/v1/align", json=question.request_body()))
        if response.status_code != httpx.codes.OK:
            raise GatewayRefused(f"the gateway refused it with {response.status_code}: {_error_message(response)}")
        try:
            return PlaygroundResult.model_validate_json(response.content)
        except ValidationError:
            raise GatewayRefused("the gateway answered in an unknown form; is it of the same version?") from None

    async def read_metrics(self) -> str:
        """Read the gateway's metrics; raises `GatewayRefused` if it has none, or takes longer than `_METRICS_S`."""
        response = await self._send(self._client.build_request("GET", "/metrics", timeout=_METRICS_S))
        if response.status_code != httpx.codes.OK:
            raise GatewayRefused(f"the gateway serves no metrics ({response.status_code})")
        return response.text

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """Send a request; raises `GatewayRefused` if the gateway does not answer. Only GET requests are redirected."""
        try:
            return await self._client.send(request, follow_redirects=request.method == "GET")
        except (httpx.HTTPError, UnicodeError) as error:
            raise GatewayRefused(f"the gateway does not answer ({type(error).__name__}); does it run?") from None

    async def aclose(self) -> None:
        await self._client.aclose()


def _error_message(response: httpx.Response) -> str:
    """The gateway's error message, which names fields but never their content."""
    try:
        error = response.json()["error"]
        return show_plain(error["message"], _MAX_MESSAGE_CHARS)
    except (ValueError, KeyError, TypeError):
        return "no reason given"
