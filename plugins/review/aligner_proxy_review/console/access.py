"""Access to the console: the operator logs in with LiteLLM's master key, a reviewer with a key from the keys file."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from aligner_proxy.policy.keys_file import KeyEntry, Role

TEAM = "team:"
"""Prefix of a team's tenant name, as in the policy resolver."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """A person who has logged in."""

    name: str
    """The alias of their key; "operator" for the master key."""
    digest: str = field(repr=False)
    """The hash of their key."""
    tenants: frozenset[str] | None
    """The tenants whose answers this person may see; None for all."""

    @property
    def is_operator(self) -> bool:
        """Whether this person used the master key."""
        return self.tenants is None

    def may_see(self, tenant: str) -> bool:
        """Whether this person may see answers of this tenant."""
        return self.tenants is None or tenant in self.tenants


def key_digest(key: str) -> str:
    """Return the SHA-256 of a key in hex digits; characters that UTF-8 cannot encode (in no key) are replaced."""
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


def find_viewer(sha256: str, master: str, keys: Mapping[str, KeyEntry], now: datetime) -> Viewer | None:
    """Return who logs in with the key that has this SHA-256 hash; None if the key gives no access.

    `master` is the hash of the master key; `keys` are the entries of the keys file by hash.
    """
    # this comparison takes as long for any key, so that its time reveals nothing
    if hmac.compare_digest(sha256, master):
        return Viewer("operator", sha256, None)
    entry = keys.get(sha256)
    # keys of applications do not open the console
    if entry is None or entry.role is not Role.REVIEWER or entry.is_expired(now):
        return None
    return Viewer(entry.alias, sha256, frozenset(TEAM + team for team in entry.reviewed_teams))
