"""What this plugin adds to the gateway: `POST /v1/feedback`."""

from __future__ import annotations

from collections.abc import Sequence

from aligner_proxy.plugins.api import Endpoint, hookimpl
from aligner_proxy_review import feedback


@hookimpl
def endpoints() -> Sequence[Endpoint]:
    """The endpoint for feedback from an application's users."""
    return [feedback.ENDPOINT]
