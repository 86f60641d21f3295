"""What does a client get where the policy prefers an error to an answer that could not be corrected? A 503."""

from __future__ import annotations

from litellm.proxy._types import ProxyException

from aligner_proxy import failures
from aligner_proxy.types import Outcome


class Blocked(ProxyException):
    """A correction failed where the policy says `block` for this class of failure (HTTP 503)."""

    # LiteLLM reads `code` on whole responses and `status_code` on streams.
    status_code = 503

    def __init__(self, reason: str | None) -> None:
        super().__init__(f"the answer could not be aligned ({reason})", "aligner_error", None, self.status_code)


def refuse(outcome: Outcome) -> None:
    """Raise where the policy wants an error in place of an answer that could not be corrected."""
    if failures.blocks(outcome):
        raise Blocked(outcome.reason)
