"""Webhook that reports doubtful answers to the operator (`hand_off` of a route) after they were delivered.

`offer` neither waits nor raises: reports wait in a bounded queue, and one task per worker sends them one by one. The
address comes only from the policies file. Redirects are not followed and proxies from the environment are not used, so
no other address is reached. A report is signed, and contains no text unless the route asks for it.

    x-aligner-signature: t=1732400000,v1=<hex of HMAC-SHA256 over "1732400000." and the body>
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import WaitBaseT, wait_exponential, wait_random

from aligner_proxy.audit.entry import Redact
from aligner_proxy.concurrency import end_tasks
from aligner_proxy.errors import CorrectionError
from aligner_proxy.observability.metrics import HAND_OFFS
from aligner_proxy.plugins.extensions import Boundary
from aligner_proxy.policy import config
from aligner_proxy.types import Exchange, HandOff, Outcome, Status, last_question

log = logging.getLogger(__name__)
SIGNATURE = "x-aligner-signature"
MAX_WAITING = 256
"""Most reports queued in each worker; further ones are dropped and counted."""
ATTEMPTS = 4
LAST_S = 2.0
"""Seconds for which queued reports are still sent when the process ends."""
_TIMEOUT_S = 5.0
"""Seconds that connecting, or one read or write, may take."""
_RETRIED_STATUSES = frozenset({408, 425, 429})
"""Statuses below 500 after which the same report may be accepted later."""
_BACKOFF = wait_exponential(multiplier=0.5, max=10.0) + wait_random(0, 0.25)
"""Growing pause between two attempts, partly random so that workers do not all return at once."""


class _RetryLater(Exception):
    """The webhook did not accept a report for now; the report is sent again later."""


class _Rejected(Exception):
    """The webhook rejected a report for good; the message is a reason without conversation text."""


@dataclass(frozen=True, slots=True)
class _WebhookReport:
    """One queued report; its body is created only when it is sent, so that redaction does not delay answers."""

    exchange: Exchange
    outcome: Outcome
    aligner_id: str
    at: float
    """When it was queued, in seconds since the epoch."""
    target: HandOff
    """Where to send it, and what may be in it."""


def is_doubtful(outcome: Outcome) -> bool:
    """Whether to report an answer: it was judged, and the score of a segment is near the threshold."""
    target = outcome.policy.hand_off
    is_judged = outcome.status not in (Status.SKIPPED, Status.FAILED)
    if target is None or outcome.margin is None or not is_judged:
        return False
    return outcome.margin <= target.within


def sign_report(secret: bytes, sent_at: int, body: bytes) -> str:
    """The value of the signature header for a body sent at this time (seconds since the epoch)."""
    signed_bytes = f"{sent_at}.".encode() + body
    signature = hmac.new(secret, signed_bytes, hashlib.sha256).hexdigest()
    return f"t={sent_at},v1={signature}"


class WebhookSender:
    """Queue and sender of one worker's reports."""

    def __init__(
        self, redact: Redact | None = None, *, max_waiting: int = MAX_WAITING, backoff: WaitBaseT = _BACKOFF
    ) -> None:
        self._redact = redact or str
        """Returns a text without what may not be sent; `str` leaves it as it is."""
        self._queue: asyncio.Queue[_WebhookReport] = asyncio.Queue(max_waiting)
        self._backoff = backoff
        self._task: asyncio.Task[None] | None = None
        """Sends the queued reports; None before the first one."""
        self._last_failed = False
        """Whether the last report failed, so that only the first of a series of failures is logged."""

    def offer(self, exchange: Exchange, outcome: Outcome, aligner_id: str) -> None:
        """Queue a report if the answer is doubtful; drop and count it if the queue is full."""
        target = outcome.policy.hand_off
        if target is None or not is_doubtful(outcome):
            return
        try:
            self._queue.put_nowait(_WebhookReport(exchange, outcome, aligner_id, time.time(), target))
        except asyncio.QueueFull:
            HAND_OFFS.labels("dropped", outcome.policy.name).inc()
            return
        # The task is started with the first report, since most workers never have one.
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send_reports())

    async def aclose(self) -> None:
        """Send queued reports for at most `LAST_S` seconds; drop and count the rest."""
        sending_task = self._task
        if sending_task is None:
            return
        all_sent = asyncio.ensure_future(self._queue.join())
        await asyncio.wait([all_sent], timeout=LAST_S)
        await end_tasks(sending_task)
        while not self._queue.empty():
            HAND_OFFS.labels("dropped", self._queue.get_nowait().outcome.policy.name).inc()
            self._queue.task_done()

    async def _send_reports(self) -> None:
        """Send queued reports one after another until cancelled, and count each."""
        async with httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=_TIMEOUT_S) as client:
            while True:
                report = await self._queue.get()
                result = "dropped"  # stays if the process ends while the report is sent
                try:
                    result = await self._send_report(client, report)
                finally:
                    HAND_OFFS.labels(result, report.outcome.policy.name).inc()
                    self._queue.task_done()

    async def _send_report(self, client: httpx.AsyncClient, report: _WebhookReport) -> str:
        """Send one report and return "sent" or "failed"; log the reason only when a series of failures begins."""
        try:
            with Boundary():  # redaction is the operator's code
                body = await asyncio.to_thread(_report_body, report, self._redact)
            await self._send_retrying(client, report.target, body)
        except (_RetryLater, _Rejected, CorrectionError) as error:
            self._log_failure(str(error))
            return "failed"
        self._last_failed = False
        return "sent"

    def _log_failure(self, reason: str) -> None:
        """Log the reason, unless the report before this one failed, too."""
        if not self._last_failed:
            log.error("hand_off: reports of doubtful answers fail (%s); answers are not affected", reason)
        self._last_failed = True

    async def _send_retrying(self, client: httpx.AsyncClient, target: HandOff, body: bytes) -> None:
        """Post a report; repeat this up to `ATTEMPTS` times in all if the webhook may accept the report later."""
        retries = retry_if_exception_type(_RetryLater)
        retrying = AsyncRetrying(retry=retries, wait=self._backoff, stop=stop_after_attempt(ATTEMPTS), reraise=True)
        await retrying(_post_report, client, target, body)


async def _post_report(client: httpx.AsyncClient, target: HandOff, body: bytes) -> None:
    """Post a signed report once; raises `_RetryLater` or `_Rejected` if it is not accepted."""
    secret = config.hand_off_secret(target.secret_env)
    if secret is None:
        raise _Rejected(f"{target.secret_env} holds no secret")
    headers = {"content-type": "application/json", SIGNATURE: sign_report(secret, int(time.time()), body)}
    try:
        # The response body is not read, since it is not needed and may be endless.
        async with client.stream("POST", target.url, content=body, headers=headers) as response:
            status = response.status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _RetryLater(type(error).__name__) from None
    if status >= 500 or status in _RETRIED_STATUSES:
        raise _RetryLater(f"HTTP {status}")
    if not 200 <= status < 300:
        raise _Rejected(f"HTTP {status}")


def _report_body(report: _WebhookReport, redact: Redact) -> bytes:
    """The JSON body of a report, with redacted texts if the route asks for them and storing them is allowed."""
    outcome = report.outcome
    policy = outcome.policy
    fields: dict[str, Any] = {
        "event": "doubtful",
        "id": report.aligner_id,
        "choice": outcome.index,
        "at": report.at,
        "tenant": policy.tenant,
        "policy": policy.name,
        "status": outcome.status.value,
        "reason": outcome.reason,
        "aligner": outcome.correction.aligner if outcome.correction else None,
        "objectives": [objective.name for objective in policy.objectives],
        "margin": outcome.margin,
        "segments": [
            {
                "segment": number,
                "score": segment.score,
                "flagged": segment.flagged,
                "objective": outcome.objective_of(segment),
            }
            for number, segment in enumerate(outcome.segments)
            if segment.score is not None and math.isfinite(segment.score)  # JSON has no infinity
        ],
    }
    if report.target.text and not report.exchange.no_store:
        fields |= _report_texts(report, redact)
    return json.dumps(fields).encode()


def _report_texts(report: _WebhookReport, redact: Redact) -> Mapping[str, str | None]:
    """The last question before the answer, the answer and its edited form, all redacted; None where there is none."""
    exchange = report.exchange
    question = last_question(exchange.turns)
    edited = report.outcome.edited
    return {
        "question": None if question is None else redact(question),
        "answer": redact(exchange.answer or ""),
        "edited": None if edited is None else redact(edited),
    }
