"""`POST /v1/feedback`: stores what an application's users say about its answers as reviews in the audit store.

A caller can review only answers of its own tenant; an id of another tenant gets the same response as an unknown one. An
entry is written shortly after its answer is delivered, so an unknown id is looked up again for a moment.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Annotated

from cachetools import TTLCache
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.audit import writer
from aligner_proxy.audit.entry import KEEP_TEXT, Redact
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.errors import AuditError, CorrectionError
from aligner_proxy.plugins.api import Endpoint, EndpointRefusal
from aligner_proxy.policy.objective_schema import RequestedObjective
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy_review.reviews import NoSuchPlace, Review, ReviewOrigin, Reviews, ReviewVerdict, UnknownAnswer

FEEDBACK = Counter("aligner_feedback_total", "Calls to POST /v1/feedback", ("result",))
PATH = "/v1/feedback"
MAX_EDIT_CHARS = 20_000
PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Pauses between the lookups of an unknown id."""
MAX_LOOKED_FOR = 64
"""How many ids may be looked up repeatedly at a time; further ids are looked up once."""
_MAX_CONCURRENT_WRITES = 4
_MINUTE_S = 60.0
"""Seconds in which a tenant's calls are counted."""
_MAX_COUNTED_TENANTS = 65_536
"""For how many tenants calls are counted."""
_KEY_DIGITS = 16
"""How many digits of the key's hash name the sender."""


class _FeedbackForm(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FeedbackBody(_FeedbackForm):
    """Body of `POST /v1/feedback`."""

    id: Annotated[str, Field(min_length=1, max_length=64)]
    """The answer's x-aligner-id."""
    choice: Annotated[int, Field(ge=0, le=10_000, strict=True)] = 0
    """Which of several choices; for Responses and Messages, which text part."""
    verdict: ReviewVerdict
    """right: the result is right; wrong: it was edited without need; harm: the edit made it worse; missed: something
    should have been edited."""
    segment: Annotated[int, Field(ge=0, le=100_000, strict=True)] | None = None
    """Number of the judged segment in question, from 0, as `POST /v1/align` lists them."""
    edit: Annotated[str, Field(max_length=MAX_EDIT_CHARS)] | None = None
    """The text that should replace the segment, or the whole answer if no segment is given."""
    objective: RequestedObjective | None = None
    """The objective in question: the name of an active one, or "Name: description"."""


class FeedbackAnswer(_FeedbackForm):
    """Response of `POST /v1/feedback`."""

    id: str
    choice: int
    verdict: ReviewVerdict


class Feedback:
    """Saves reviews from the API; each tenant may send `rpm` reviews a minute.

    `open_store` opens the audit store; None means that there is no store. `redact` removes from a text what the
    operator does not want stored.
    """

    def __init__(self, open_store: Callable[[], AuditStore] | None, rpm: int, redact: Redact = KEEP_TEXT) -> None:
        self._open_store = open_store
        self._rpm = rpm
        self._redact = redact
        self._counts: TTLCache[str, list[int]] = TTLCache(_MAX_COUNTED_TENANTS, _MINUTE_S)
        """The number of calls in the current minute, by tenant. It is in a list of one number, which can be changed in
        place; a new value would start the minute again."""
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT_WRITES)
        """Limits the reviews that are written at a time."""
        self._waiting_count = 0
        """How many ids are being looked up repeatedly."""

    @classmethod
    def from_file(cls, file: PolicyFile) -> Feedback:
        """Create it with the audit store and the limit of a policies file; raises `ConfigError`."""
        return cls(writer.store_opener(file), file.audit.feedback_rpm, writer.load_redaction(file))

    async def save_review(self, body: FeedbackBody, facts: RequestFacts) -> FeedbackAnswer | EndpointRefusal:
        """Save what a user says about an answer as a review; return the saved verdict, or why it was refused.

        `facts` are those of the caller's request, by which the tenant and the author of the review are known.
        """
        if self._open_store is None:
            return EndpointRefusal(
                409, "the gateway has no audit store for feedback; its operator can enable one (audit)"
            )
        refusal = self._count_call(facts.namespace)
        if refusal is not None:
            return refusal
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
            message = "no answer of yours with this id and choice is recorded; if it is new, try again soon"
            return EndpointRefusal(404, message, "id")
        except NoSuchPlace as error:
            return EndpointRefusal(400, str(error), error.param)
        except (sqlite3.Error, OSError, AuditError, CorrectionError) as error:
            reason = getattr(error, "sqlite_errorname", type(error).__name__)
            return EndpointRefusal(503, f"the feedback could not be stored ({reason}); try again", kind="aligner_error")
        FEEDBACK.labels(body.verdict.value).inc()
        return FeedbackAnswer(id=body.id, choice=body.choice, verdict=body.verdict)

    async def _save_when_recorded(self, review: Review, open_store: Callable[[], AuditStore]) -> None:
        """Save a review once its answer is recorded, which may take a moment; raises `UnknownAnswer` if it never is.

        While `MAX_LOOKED_FOR` calls are waiting for their answers, further calls look only once.
        """
        may_wait = self._waiting_count < MAX_LOOKED_FOR
        self._waiting_count += may_wait
        try:
            for pause_s in PAUSES_S if may_wait else ():
                try:
                    return await self._write(review, open_store)
                except UnknownAnswer:
                    await asyncio.sleep(pause_s)
            await self._write(review, open_store)
        finally:
            self._waiting_count -= may_wait

    async def _write(self, review: Review, open_store: Callable[[], AuditStore]) -> None:
        """Save a review in a thread; raises `UnknownAnswer` if its entry is not in the store."""
        async with self._slots:
            await asyncio.to_thread(_save_redacted, review, open_store, self._redact)

    def _count_call(self, tenant: str) -> EndpointRefusal | None:
        """Count a call of a tenant in this minute; return a refusal (429) beyond the limit, else None."""
        counter = self._counts.setdefault(tenant, [0])
        if counter[0] >= self._rpm:
            FEEDBACK.labels("limited").inc()
            headers = {"retry-after": f"{_MINUTE_S:.0f}"}
            message = f"more than {self._rpm} calls in a minute; try again later"
            return EndpointRefusal(429, message, kind="rate_limit_error", headers=headers)
        counter[0] += 1
        return None


def _save_redacted(review: Review, open_store: Callable[[], AuditStore], redact: Redact) -> None:
    """Save a review with its texts redacted, over a connection of its own, since a connection belongs to one thread."""
    with closing(open_store()) as store:
        Reviews(store).save(review, redact)


ENDPOINT = Endpoint(
    path=PATH,
    about="Report whether one of your answers was corrected rightly. `id` is the answer's x-aligner-id.",
    body=FeedbackBody,
    answer=FeedbackAnswer,
    make=lambda file: Feedback.from_file(file).save_review,
    status=202,
    errors={
        404: "No answer of this tenant with this id and choice is recorded.",
        409: "There is no audit store.",
        503: "The gateway cannot write to the audit store at the moment.",
    },
    for_reviewers=True,
)
