"""Format of entries in the shared Redis: compressed, bound to their name, and encrypted if there is a key.

An entry is a marker, a length and a body. The body is the compressed content: encrypted with AES-GCM if there is a key,
else preceded by its SHA-256. Both cover the name, so an entry moved to another name (for example of another tenant) is
refused. Without a key, anyone who can write to the server can forge entries. Names depend on the key, so gateways with
different keys never share entries.
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
_PLAIN = b"alp:"
_SEALED = b"als:"
"""Markers at the beginning of entries: with a digest, and encrypted."""
_LENGTH = struct.Struct(">I")
"""Length of the body, in four bytes."""
_HEAD = len(_PLAIN) + _LENGTH.size
"""Bytes of the marker and the length."""
_DIGEST = hashlib.sha256().digest_size
"""Bytes of the SHA-256 that precedes a body without encryption."""
_NONCE = 12
"""Bytes of the random number with which an encrypted body begins."""
_LEVEL = 1
"""The fastest level of zlib: texts shrink to about half, in some ten microseconds."""


class EntryCodec:
    """Encoder and decoder of entries; `key` is the encryption key of 32 bytes, None for no encryption."""

    def __init__(self, key: bytes | None = None) -> None:
        cipher_key = hmac.digest(key, b"aligner-proxy shared corrections", "sha256") if key else None
        self._cipher = AESGCM(cipher_key) if cipher_key else None
        """None without a key."""
        key_part = f":{hashlib.sha256(cipher_key).hexdigest()[:12]}" if cipher_key else ""
        self.prefix = f"aligner:{FORM}{key_part}:"
        """The prefix of all names."""

    def pack(self, name: str, content: bytes) -> bytes | None:
        """Return `content` encoded as the entry `name`; None if it is larger than half of `LARGEST`."""
        compressed = zlib.compress(content, _LEVEL)
        if max(len(compressed), len(content)) > LARGEST // 2:
            return None
        if self._cipher is None:
            return _PLAIN + _LENGTH.pack(_DIGEST + len(compressed)) + _digest(name, compressed) + compressed
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, compressed, name.encode())
        return _SEALED + _LENGTH.pack(len(sealed)) + sealed

    def unpack(self, name: str, entry: bytes) -> bytes:
        """Decode an entry and return its content; raises `RefusedEntry` if it is incomplete, altered or misplaced."""
        if entry[: len(_PLAIN)] != (_SEALED if self._cipher else _PLAIN):
            raise RefusedEntry(FOREIGN)
        if len(entry) < _HEAD or len(entry) - _HEAD < _LENGTH.unpack_from(entry, len(_PLAIN))[0]:
            raise RefusedEntry(TRUNCATED)
        return _decompress(self._verify_body(name, entry[_HEAD:]))

    def _verify_body(self, name: str, body: bytes) -> bytes:
        """Verify a body and return the compressed content; raises `RefusedEntry` if anything was changed."""
        if self._cipher is None:
            if not hmac.compare_digest(_digest(name, body[_DIGEST:]), body[:_DIGEST]):
                raise RefusedEntry(ALTERED)
            return body[_DIGEST:]
        try:
            return self._cipher.decrypt(body[:_NONCE], body[_NONCE:], name.encode())
        except (InvalidTag, ValueError):
            raise RefusedEntry(ALTERED) from None


def _digest(name: str, body: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + body).digest()


def _decompress(compressed: bytes) -> bytes:
    """Decompress a content; raises `RefusedEntry` if it is damaged or larger than `LARGEST`."""
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(compressed, LARGEST)
    except zlib.error:
        raise RefusedEntry(ALTERED) from None
    # The content goes on after `LARGEST` bytes, or its end is missing.
    if not decompressor.eof:
        raise RefusedEntry(ALTERED)
    return content
