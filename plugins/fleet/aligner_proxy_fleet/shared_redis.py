"""A Redis that gateways share, with everything that a gateway uses it for; it connects only at first use."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from aligner_proxy import extras
from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway.reload import Policies
from aligner_proxy.plugins.api import ServerAddress
from aligner_proxy.plugins.findings import DoctorFinding
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy_fleet.diagnosis import examine_redis
from aligner_proxy_fleet.entries import EntryCodec
from aligner_proxy_fleet.fleet import Fleet
from aligner_proxy_fleet.leases import SharedEntries
from aligner_proxy_fleet.quotas import SharedAccounts
from aligner_proxy_fleet.server import RedisServer
from aligner_proxy_fleet.shared_cache import SharedCache

REDIS_FORMS = "redis://[user:password@]host[:port][/database], rediss://... over TLS, or unix:///path/to/socket"
_DATABASE_PATH = re.compile(r"/?|/\d{1,5}")
"""The path of a URL: the database's number, if any."""
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_UNIX_OPTIONS = frozenset({"db", "username", "password"})
_OPTIONS_BY_SCHEME = {"redis": frozenset[str](), "rediss": _TLS_OPTIONS, "unix": _UNIX_OPTIONS}
"""Allowed query options for each scheme; none can turn off the check of the server's certificate."""


class SharedRedis:
    """The Redis at an address. Satisfies `SharedServer`; raises `ConfigError`, which never quotes the URL."""

    def __init__(self, address: ServerAddress) -> None:
        self._address = address
        self._url = check_url(address)

    @cached_property
    def server(self) -> RedisServer:
        """This process's connections to the Redis; creating them also starts their metrics."""
        return RedisServer(self._url, self._address.variable)

    @cached_property
    def _entries(self) -> EntryCodec:
        return EntryCodec(self._address.key)

    def open_cache(self, directory: Path, ttl_s: float, max_mb: int) -> SharedCache:
        shared = SharedEntries(self.server, self._entries.prefix, ttl_s)
        return SharedCache(directory, ttl_s, max_mb, shared, self._entries)

    def open_accounts(self, work: str) -> SharedAccounts:
        work_digest = hashlib.sha256(work.encode()).hexdigest()[:16]
        return SharedAccounts(self.server, f"{self._entries.prefix}{work_digest}:")

    def join(self, policies: Policies) -> Fleet:
        return Fleet(self.server, policies)

    def examine(self, file: PolicyFile) -> Iterator[DoctorFinding]:
        return examine_redis(self.server, self._address.key, file)


def check_url(address: ServerAddress) -> str:
    """Check the URL of an address and return it; raises `ConfigError` if it is missing or invalid."""
    name = address.variable
    if address.url is None:
        raise ConfigError(f"{address.setting}: {name} is not set; set it to the URL of the shared Redis: {REDIS_FORMS}")
    fault = redis_fault(address.url)
    if fault is not None:
        raise ConfigError(f"{address.setting}: {name} holds no URL of a Redis ({fault}); use {REDIS_FORMS}")
    extras.require_extra(extras.FLEET, address.setting, ["redis"])
    return address.url


def redis_fault(url: str) -> str | None:
    """What is wrong with a URL, in words; None if it is valid.

    It never quotes the URL, because it may contain a password.
    """
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query, keep_blank_values=True).keys()
        port = parts.port  # raises ValueError for an invalid port, which `urlsplit` does not
    except ValueError:
        return "it cannot be taken apart"
    allowed_options = _OPTIONS_BY_SCHEME.get(parts.scheme)
    if allowed_options is None:
        return "its scheme is none of redis, rediss and unix"
    if options - allowed_options:
        return f"the options it may have are: {', '.join(sorted(allowed_options)) or 'none'}"
    if parts.scheme == "unix":
        return None if url.startswith("unix:///") else "it names no absolute path"
    if not parts.hostname or port == 0:
        return "it names no host, or no port"
    return None if _DATABASE_PATH.fullmatch(parts.path) else "the database behind the host is no number"
