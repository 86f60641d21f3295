"""Check of addresses that are asked by HTTP: engines, the gateway, webhooks."""

from __future__ import annotations

from urllib.parse import urlsplit


def is_web_address(text: str) -> bool:
    """Whether a client can ask this address by HTTP: it has a host, and its port, if any, is one."""
    try:
        parts = urlsplit(text)
        # Reading the port checks it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
