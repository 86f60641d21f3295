"""The stores of the audit's tests, the reviews in them, and an endpoint for feedback."""

from __future__ import annotations

from pathlib import Path

from aligner_proxy.audit.store import AuditStore
from aligner_proxy.plugins.registry import PluginEndpoint
from aligner_proxy_review.feedback import ENDPOINT, Feedback
from aligner_proxy_review.reviews import Review, Reviews
from tests.audit.conftest import path as path
from tests.audit.conftest import place as place
from tests.audit.conftest import postgres as postgres
from tests.gateway.endpoints.application import Api


def serve_feedback(api: Api, feedback: Feedback) -> None:
    """Let this answer at `POST /v1/feedback`."""
    api.guard.endpoints = {ENDPOINT.path: PluginEndpoint(ENDPOINT, feedback.save_review)}


def reviews_in(path: Path) -> list[Review]:
    """Every review in a store."""
    store = AuditStore(path)
    found = list(Reviews(store).all())
    store.close()
    return found
