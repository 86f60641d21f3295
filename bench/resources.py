"""Resources held by a gateway's processes: memory, file descriptors, asyncio tasks, sequences and blocks.

A LiteLLM worker counts its own tasks, because no other process can.
`LITELLM_WORKER_STARTUP_HOOKS=bench.resources:tell_tasks` makes it write their number next to the gateway's other files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

TASKS_IN = "ALIGNER_BENCH_TASKS"
_BLOCKS = re.compile(r'^aligner_engine_kv_blocks\{use="(\w+)"\} (\S+)', re.MULTILINE)
_SEQUENCES = re.compile(r"^aligner_engine_sequences\{[^}]*\} (\S+)", re.MULTILINE)
_ANON = re.compile(r":?\[\d+\]$")
"""Matches the number in the link of an unnamed pipe, socket or event."""
_telling: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class ResourceCount:
    """One count, summed over the gateway's workers, including those being replaced.

    `worker_mb` is the largest worker's. `blocks` and `sequences` are None if the engine does not answer.
    """

    at: float
    gateway_mb: float
    engine_mb: float
    gateway_fds: int
    engine_fds: int
    tasks: int
    blocks: int | None
    sequences: int | None
    worker_mb: float = 0.0


class ResourceSampler:
    """Counts the resources of the gateway whose `serve` has this process id and whose files are in `folder`."""

    def __init__(self, serve: int, folder: Path) -> None:
        self._serve = serve
        self._folder = folder
        self._socket = folder / "home" / "run" / "engine.sock"
        self.began = time.monotonic()
        """The time from which samples count."""
        self.counts: list[ResourceCount] = []

    async def take(self) -> ResourceCount:
        """Take one sample."""
        at = round(time.monotonic() - self.began, 1)
        return await asyncio.to_thread(count, self._serve, self._socket, self._folder, at)

    async def collect(self) -> None:
        """Add a sample to `counts` every second, until cancelled."""
        while True:
            self.counts.append(await self.take())
            await asyncio.sleep(1.0)


def list_processes(serve: int) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """The processes of the gateway, and those of the engine."""
    gateways = list[psutil.Process]()
    engines = list[psutil.Process]()
    for process in psutil.Process(serve).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            (engines if "engine" in process.cmdline() else gateways).append(process)
    return gateways, engines


def count(serve: int, socket: Path, tasks: Path, at: float) -> ResourceCount:
    """Count the resources of the processes below `serve`."""
    gateways, engines = list_processes(serve)
    blocks, sequences = _read_engine(socket)
    return ResourceCount(
        at,
        _sum(gateways, _memory_mb),
        _sum(engines, _memory_mb),
        int(_sum(gateways, psutil.Process.num_fds)),
        int(_sum(engines, psutil.Process.num_fds)),
        sum(_read_number(tasks / f"{process.pid}.tasks") for process in gateways),
        blocks,
        sequences,
        max((_sum([process], _memory_mb) for process in gateways), default=0.0),
    )


def count_descriptors(serve: int) -> dict[str, int]:
    """Count the gateway's descriptors by purpose: sockets by state and peer, everything else by name."""
    counts: Counter[str] = Counter()
    for process in list_processes(serve)[0]:
        with contextlib.suppress(psutil.Error, OSError):
            sockets = {one.fd: _describe_socket(one) for one in process.net_connections("all")}
            for entry in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    counts[sockets.get(int(entry.name)) or _ANON.sub("", os.readlink(entry))] += 1
    return dict(counts)


def _describe_socket(one: Any) -> str:
    """A socket's state and the port or path of its peer, or else its own."""
    there = one.raddr
    here = one.laddr
    if isinstance(there, tuple) or isinstance(here, tuple):
        return f"{one.status} to {there.port}" if there else f"{one.status} at {here.port if here else '-'}"
    return f"unix {there or here or '-'}"


async def tell_tasks() -> None:
    """Start writing this worker's task count regularly; LiteLLM calls this when a worker starts."""
    _telling.add(asyncio.create_task(_tell(Path(os.environ[TASKS_IN]))))


async def _tell(folder: Path) -> None:
    file = folder / f"{os.getpid()}.tasks"
    while True:
        file.write_text(str(len(asyncio.all_tasks())))
        await asyncio.sleep(0.5)


def _read_engine(socket: Path) -> tuple[int | None, int | None]:
    """Used blocks and open sequences of the engine; None if it does not answer."""
    if not socket.exists():
        return None, None  # else httpcore would leave a socket open
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=2) as client:
            text = client.get("http://engine/metrics").raise_for_status().text
    except httpx.HTTPError:
        return None, None
    blocks = {use: int(float(value)) for use, value in _BLOCKS.findall(text)}
    return blocks.get("used"), sum(int(float(value)) for value in _SEQUENCES.findall(text))


def _sum(processes: Iterable[psutil.Process], measure: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += measure(process)
    return round(total, 1)


def _memory_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


def _read_number(path: Path) -> int:
    try:
        return int(path.read_text() or 0)
    except (OSError, ValueError):
        return 0
