"""The caller that the options --team and --key of a command describe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from aligner_proxy.policy.keys_file import KeyEntry

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Caller:
    """The team and key by which a tenant of the policies file matches."""

    team: str | None
    """Its id or its alias."""
    key_digest: str | None
    """SHA-256 of the key in hexadecimal; None if it is unknown."""
    key_alias: str | None
    is_known: bool
    """Whether the keys file has the key."""


def find_caller(keys: Mapping[str, KeyEntry], team: str | None, key: str | None) -> Caller:
    """Return the caller with this team and this key, given as alias or sha256; None for an option that is not set.

    `keys` are the entries of the keys file by the sha256 of the key; such an entry adds its alias and team.
    """
    if key is None:
        return Caller(team, key_digest=None, key_alias=None, is_known=False)
    for digest, entry in keys.items():
        if key in (digest, entry.alias):
            return Caller(team or entry.team, key_digest=digest, key_alias=entry.alias, is_known=True)
    digest_or_none = key if _SHA256.fullmatch(key) else None
    return Caller(team, key_digest=digest_or_none, key_alias=key, is_known=False)
