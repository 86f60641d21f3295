"""How is a block of text kept from those who can read the file? AES-256-GCM, bound to the row in which it stands."""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aligner_proxy.errors import AuditError

_NONCE = 12


class Seal:
    """One key. `name` tells keys apart without telling them."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.name = hashlib.sha256(b"aligner-proxy audit " + key).hexdigest()[:8]

    def close(self, content: bytes, row: bytes) -> bytes:
        """Encrypt `content`; it opens in the place that `row` names and in no other."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, content, row)

    def open(self, sealed: bytes, row: bytes) -> bytes:
        """Decrypt; raises `AuditError` when a bit or the place is wrong."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], row)
        except InvalidTag:
            raise AuditError("an entry of the audit store was changed, moved or cut off") from None
