"""Check of the URL of the Redis that gateways share.

The faults never quote the URL, because it may contain a password.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

REDIS_FORMS = "redis://[user:password@]host[:port][/database], rediss://... over TLS, or unix:///path/to/socket"
_DATABASE_PATH = re.compile(r"/?|/\d{1,5}")
"""The path of a URL: the database's number, if any."""
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_UNIX_OPTIONS = frozenset({"db", "username", "password"})
_OPTIONS_BY_SCHEME = {"redis": frozenset[str](), "rediss": _TLS_OPTIONS, "unix": _UNIX_OPTIONS}
"""Allowed query options for each scheme; none can turn off the check of the server's certificate."""


def redis_fault(url: str) -> str | None:
    """What is wrong with a URL, in words; None if it is valid."""
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
