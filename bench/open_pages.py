"""`python -m bench.open_pages ADDRESS COUNT`: opens live pages at almost no cost; reads a cookie from standard input.

Real browsers run on other machines. Here they share the cores with what is measured, so this program has the lowest
priority and only counts what arrives. It prints "open" when all pages are connected, and the number of events read when
standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import sys

_NICENESS = 19
_EVENT = b"event: answer"


class _Page(asyncio.Protocol):
    """One page; `events` counts so far, `following` is done once the first bytes arrived."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._end = b""
        self.events = 0
        self.following = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        whole = self._end + data
        self.events += whole.count(_EVENT)
        self._end = whole[-len(_EVENT) + 1 :]
        if not self.following.done() and b": following" in whole:
            self.following.set_result(None)


async def _follow(address: str, count: int, cookie: str) -> int:
    host, _, port = address.removeprefix("http://").partition(":")
    request = f"GET /live/events HTTP/1.1\r\nhost: {host}:{port}\r\ncookie: {cookie}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    connections = [await loop.create_connection(lambda: _Page(request), host, int(port)) for _ in range(count)]
    await asyncio.wait_for(asyncio.gather(*(page.following for _, page in connections)), 60)
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for transport, _ in connections:
        transport.close()
    return sum(page.events for _, page in connections)


if __name__ == "__main__":
    os.nice(_NICENESS)
    cookie = sys.stdin.readline().strip()
    print(asyncio.run(_follow(sys.argv[1], int(sys.argv[2]), cookie)))
