"""As whom does an engine know a tenant? By digests: it shares places and time among tenants and learns no name."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from aligner_proxy.types import Policy, Quota


def account(policy: Policy) -> tuple[str, Quota | None]:
    """The tenant of a policy, and what it may use."""
    quota = policy.quota
    return _digest(policy.tenant), quota and replace(quota, account=_digest(quota.account))


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
