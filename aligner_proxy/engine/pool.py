"""HTTP connections of one client, kept open between its requests."""

from __future__ import annotations

import asyncio

import httpx


class HttpPool:
    """Connections to one server, which belong to the event loop in which they are first used."""

    def __init__(self, base: str = "", socket: str | None = None, *, idle: int = 64) -> None:
        self._base = base
        self._socket = socket
        self._idle = idle
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def client(self) -> httpx.AsyncClient:
        """The client of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # As many connections as requests: which of them wait or are turned away is decided by the engine, which
            # sees all tenants of all workers. A bound here would be a queue that knows no shares.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._idle)
            transport = httpx.AsyncHTTPTransport(uds=self._socket, limits=limits)
            # No timeouts of its own: the request's deadline covers every phase.
            self._client = httpx.AsyncClient(transport=transport, base_url=self._base, timeout=None, trust_env=False)
            self._loop = loop
        return self._client

    async def aclose(self) -> None:
        """Close the connections."""
        client = self._client
        self._client = None
        if client is not None:
            await client.aclose()
