"""Schema of `cache` and `audit`: where corrections are cached, and where answers and their corrections are recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from aligner_proxy.policy.yaml_file import Block, FilePath

AUDIT_REQUIRED = "required"
"""The short form of `audit: {enabled: true, required: true}`."""


class CacheSettings(Block):
    """Where corrections are cached, and for how long."""

    enabled: Annotated[bool, Field(strict=True)] = True
    """false: correct every answer again; identical requests in flight still share one correction."""
    dir: FilePath | None = None
    """Folder of the cache, relative to this file; by default a folder in the user's cache folder."""
    ttl_s: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] = 86_400.0
    """Seconds after which a cache entry expires."""
    max_mb: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 512
    """Maximum size in MiB; the least recently used entries are deleted first."""
    redis_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Environment variable with the URL of a Redis that several gateways share. They share corrections, compute each
    one only once, and share quotas. `dir` and `max_mb` then describe the disk cache used while Redis is unavailable."""
    key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Environment variable with the key that encrypts the data in Redis: 32 bytes in base64, the same on all hosts."""

    @model_validator(mode="after")
    def _check_key_env(self) -> CacheSettings:
        """Refuse an encryption key without the Redis whose entries the key would encrypt."""
        if self.key_env and not self.redis_env:
            raise ValueError("key_env encrypts entries in Redis, so redis_env must name the variable with its URL")
        return self


class AuditSettings(Block):
    """Whether answers and their corrections are stored. Nothing else stores text."""

    enabled: Annotated[bool, Field(strict=True)] = False
    """true: store the conversation, the answer and the correction of every answer that was processed."""
    file: FilePath | None = None
    """SQLite file, relative to this file; by default a file in the user's cache folder."""
    database_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Environment variable with the URL of a PostgreSQL database, used instead of the file; several gateways share
    it."""
    keep_days: Annotated[float, Field(gt=0, le=36_500, strict=True, allow_inf_nan=False)] = 30.0
    """Days after which an entry is deleted."""
    max_mb: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 1024
    """Maximum size in MiB; the oldest entries are deleted first."""
    redact: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")] | None = None
    """package.module.function, called with every text; it returns the text to store."""
    key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Environment variable with the key that encrypts the fields with text: 32 bytes in base64."""
    required: Annotated[bool, Field(strict=True)] = False
    """true: deliver an answer only once its entry is on disk; otherwise the client gets an error (503)."""
    waiting_mb: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 64
    """Memory in MiB for entries that wait for the disk, in each worker; when it is full, entries are dropped and
    counted."""
    waiting: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    """Maximum number of entries that wait for the disk; by default only their memory is limited."""
    feedback_rpm: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 600
    """Calls of POST /v1/feedback a minute, for each tenant in each worker; further calls get 429."""

    @model_validator(mode="after")
    def _check_store(self) -> AuditSettings:
        """Refuse a file beside a database, and `required` if the store is off."""
        if self.file and self.database_env:
            raise ValueError("entries go into one store: remove file, or database_env")
        if self.required and not self.enabled:
            raise ValueError("required needs the store: set enabled: true, too, or write audit: required")
        return self


def expand_audit(value: object) -> object:
    """Expand the short form `audit: required` into a block; raises `ValueError` for any other single value."""
    if value == AUDIT_REQUIRED:
        return {"enabled": True, "required": True}
    if isinstance(value, Mapping | BaseModel):
        return value
    raise ValueError(f"must be a block such as {{enabled: true}}, or the word {AUDIT_REQUIRED}")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """What opens a connection to a server that hosts share. Errors must not quote `url` (a password) or `key`."""

    setting: str
    """The setting in the policies file with its file and line; error messages begin with it."""
    variable: str
    """The environment variable that holds the URL."""
    url: str | None = field(repr=False)
    """The URL; None if the variable is not set."""
    key: bytes | None = field(default=None, repr=False)
    """The key that encrypts the data on the server, 32 bytes; None without encryption."""
