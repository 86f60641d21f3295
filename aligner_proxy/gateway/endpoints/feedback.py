"""`POST /v1/feedback`: what an application's users say of its answers, kept as reviews in the audit store.

A caller may speak of the answers of its own tenant; another tenant's id is answered like one that does not exist. An
entry is written behind its answer, so an id that is not on record is looked for again for a moment.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace

from cachetools import TTLCache
from litellm.proxy._types import ProxyException, UserAPIKeyAuth

from aligner_proxy.audit import writer
from aligner_proxy.audit.entry import Redact
from aligner_proxy.audit.reviews import Review, ReviewOrigin, Reviews
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.errors import AuditError, CorrectionError, NoSuchPlace, UnknownAnswer
from aligner_proxy.gateway import request_policy
from aligner_proxy.gateway.endpoints.forms import FeedbackBody
from aligner_proxy.observability.metrics import FEEDBACK
from aligner_proxy.plugins.extensions import Boundary
from aligner_proxy.policy.schema import PolicyFile

PATH = "/v1/feedback"
PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Pauses before an id that is not on record is looked for again."""
MOST_LOOKED_FOR = 64
"""Ids that are looked for again at a time; further ones are looked for once."""
_AT_ONCE = 4
_MINUTE_S = 60.0
_TENANTS = 65_536
_KEY_DIGITS = 16


class Feedback:
    """Reviews from the API, into the store that `opened` opens; None: there is none. `rpm` holds for each tenant."""

    def __init__(self, open_store: Callable[[], AuditStore] | None, rpm: int, redact: Redact = str) -> None:
        self._open_store = open_store
        self._rpm = rpm
        self._redact = redact
        self._counts: TTLCache[str, list[int]] = TTLCache(_TENANTS, _MINUTE_S)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting_count = 0

    @classmethod
    def from_file(cls, file: PolicyFile) -> Feedback:
        """What a policies file says of it; raises `ConfigError`."""
        return cls(writer.store_opener(file), file.audit.feedback_rpm, writer.load_redaction(file) or str)

    async def save_review(self, body: FeedbackBody, caller: UserAPIKeyAuth) -> None:
        """Keep a review; raises LiteLLM's error for what the caller may not say."""
        if self._open_store is None:
            raise _refusal("there is no audit store to keep it in; its operator can turn it on (audit)", None, 409)
        facts = request_policy.request_facts({}, caller)
        self._count_call(facts.namespace)
        review = Review(
            aligner_id=body.id,
            choice=body.choice,
            verdict=body.verdict,
            who=f"key:{facts.key_hash[:_KEY_DIGITS]}" if facts.key_hash else f"user:{facts.user_id or '-'}",
            at=time.time(),
            chosen=ReviewOrigin.FEEDBACK,
            segment=body.segment,
            edit=body.edit,
            objective=body.objective,
            tenant=facts.namespace,
        )
        try:
            await self._save_when_recorded(review, self._open_store)
        except UnknownAnswer:
            FEEDBACK.labels("unknown").inc()
            message = "no answer of yours with this id and choice is on record; one that was just given may be soon"
            raise _refusal(message, "id", 404) from None
        except NoSuchPlace as error:
            raise _refusal(str(error), error.param, 400) from None
        except (sqlite3.Error, OSError, AuditError, CorrectionError) as error:
            reason = getattr(error, "sqlite_errorname", type(error).__name__)
            raise ProxyException(f"it could not be kept ({reason}); try again", "aligner_error", None, 503) from None
        FEEDBACK.labels(body.verdict.value).inc()

    async def _save_when_recorded(self, review: Review, open_store: Callable[[], AuditStore]) -> None:
        """Keep a review as soon as its entry is on record."""
        again = self._waiting_count < MOST_LOOKED_FOR
        self._waiting_count += again
        try:
            for pause in PAUSES_S if again else ():
                try:
                    return await self._write(review, open_store)
                except UnknownAnswer:
                    await asyncio.sleep(pause)
            await self._write(review, open_store)
        finally:
            self._waiting_count -= again

    async def _write(self, review: Review, open_store: Callable[[], AuditStore]) -> None:
        async with self._slots:
            await asyncio.to_thread(_save_redacted, review, open_store, self._redact)

    def _count_call(self, tenant: str) -> None:
        """Count one more of a tenant in this minute; HTTP 429 beyond the limit."""
        count = self._counts.setdefault(tenant, [0])
        if count[0] >= self._rpm:
            FEEDBACK.labels("limited").inc()
            headers = {"retry-after": f"{_MINUTE_S:.0f}"}
            message = f"more than {self._rpm} in a minute; send them later"
            raise ProxyException(message, "rate_limit_error", None, 429, headers)
        count[0] += 1


def _save_redacted(review: Review, open_store: Callable[[], AuditStore], redact: Redact) -> None:
    store = open_store()
    try:
        with Boundary():  # redaction is the operator's code; only the type of its errors may be told
            edit = None if review.edit is None else redact(review.edit)
            objective = review.objective
            if objective is not None and ":" in objective:
                objective = redact(objective)
        Reviews(store).save(replace(review, edit=edit, objective=objective))
    finally:
        store.close()


def _refusal(message: str, param: str | None, code: int) -> ProxyException:
    return ProxyException(message, "invalid_request_error", param, code)
