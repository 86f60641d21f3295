"""Format of entries in the shared Redis: compressed, bound to their name, and encrypted if there is a key.

An entry is a marker, a length and a body. The body is the compressed content: encrypted with AES-GCM if there is a key,
else preceded by a SHA-256 digest. Encryption and digest cover the name, so an entry that was moved to another name (for
example of another tenant) is refused. Without a key, anyone who can write to the server can forge entries. Names depend
on the key, so gateways with different keys never share entries.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import zlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aligner_proxy_fleet.errors import RefusedEntry

FORM = 1
"""Format version, part of every name, so that versions never mix."""
LARGEST = 8 * 2**20
"""Maximum size of an entry and of its content, in bytes."""
TRUNCATED = "truncated"
ALTERED = "altered"
FOREIGN = "foreign"
"""Reasons for refusing an entry; it is foreign if another program, or a gateway with another key, wrote it."""
_DIGEST_MARKER = b"alp:"
_ENCRYPTED_MARKER = b"als:"
"""The first bytes of an entry: of an entry with a digest, and of an encrypted one."""
_LENGTH = struct.Struct(">I")
"""Length of the body, in four bytes."""
_HEADER_BYTES = len(_DIGEST_MARKER) + _LENGTH.size
"""Bytes of the marker and the length."""
_DIGEST_BYTES = hashlib.sha256().digest_size
"""Bytes of the digest with which a body without encryption begins."""
_NONCE_BYTES = 12
"""Bytes of the random number with which an encrypted body begins."""
_LEVEL = 1
"""The fastest level of zlib: texts shrink to about half, in some ten microseconds."""


class EntryCodec:
    """Encodes and decodes entries; `key` is the encryption key of 32 bytes, None for no encryption."""

    def __init__(self, key: bytes | None = None) -> None:
        cipher_key = hmac.digest(key, b"aligner-proxy shared corrections", "sha256") if key else None
        self._cipher = AESGCM(cipher_key) if cipher_key else None
        """None without a key."""
        key_suffix = f":{hashlib.sha256(cipher_key).hexdigest()[:12]}" if cipher_key else ""
        self.prefix = f"aligner:{FORM}{key_suffix}:"
        """The beginning of all names on the server."""

    def pack(self, name: str, content: bytes) -> bytes | None:
        """Return `content` encoded as the entry `name`; None if it is larger than half of `LARGEST`."""
        compressed = zlib.compress(content, _LEVEL)
        if max(len(compressed), len(content)) > LARGEST // 2:
            return None
        if self._cipher is None:
            body = _digest(name, compressed) + compressed
            return _DIGEST_MARKER + _LENGTH.pack(len(body)) + body
        nonce = os.urandom(_NONCE_BYTES)
        body = nonce + self._cipher.encrypt(nonce, compressed, name.encode())
        return _ENCRYPTED_MARKER + _LENGTH.pack(len(body)) + body

    def unpack(self, name: str, entry: bytes) -> bytes:
        """Decode the entry `name` and return its content; raises `RefusedEntry` if the entry is not intact."""
        marker = _ENCRYPTED_MARKER if self._cipher else _DIGEST_MARKER
        if not entry.startswith(marker):
            raise RefusedEntry(FOREIGN)
        if len(entry) < _HEADER_BYTES:
            raise RefusedEntry(TRUNCATED)
        (body_length,) = _LENGTH.unpack_from(entry, len(marker))
        body = entry[_HEADER_BYTES:]
        if len(body) < body_length:
            raise RefusedEntry(TRUNCATED)
        return _decompress(self._verify_body(name, body))

    def _verify_body(self, name: str, body: bytes) -> bytes:
        """Verify a body and return the compressed content; raises `RefusedEntry` if body or name were changed."""
        if self._cipher is None:
            digest = body[:_DIGEST_BYTES]
            compressed = body[_DIGEST_BYTES:]
            if not hmac.compare_digest(_digest(name, compressed), digest):
                raise RefusedEntry(ALTERED)
            return compressed
        try:
            return self._cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            raise RefusedEntry(ALTERED) from None


def _digest(name: str, body: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + body).digest()


def _decompress(compressed: bytes) -> bytes:
    """Return the decompressed content; raises `RefusedEntry` if it is damaged or larger than `LARGEST`."""
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(compressed, LARGEST)
    except zlib.error:
        raise RefusedEntry(ALTERED) from None
    # the content is longer than `LARGEST`, or its end is missing
    if not decompressor.eof:
        raise RefusedEntry(ALTERED)
    return content
