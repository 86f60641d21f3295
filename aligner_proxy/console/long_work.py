"""Long work of the console: commands of `aligner-proxy` in processes of their own, one at a time, and how far they are.

So a lesson or a replay takes no memory of the console and no breath of its pages, and is what the command line does.
A command tells of itself in lines of JSON, the last of which is its result; texts go through pipes, never into its
arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cachetools import LRUCache

from aligner_proxy.console.forms import PageError

log = logging.getLogger(__name__)

_LONGEST_LINE = 64 << 20
_MOST_KEPT = 64
_NICE = 10
_BUSY = "This runs already; wait for its end."


@dataclass(slots=True)
class Work:
    """One command: how far it is, and what came of it."""

    done: int = 0
    of: int = 0
    result: dict[str, Any] | None = None
    fault: str | None = None
    about: Any = None
    """What whoever began it wants to find again."""
    waits: bool = True
    """Whether another command has to end first."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.result is None and self.fault is None


class Works:
    """The last command of each kind and owner, by a name."""

    def __init__(self) -> None:
        self._of: LRUCache[str, Work] = LRUCache(_MOST_KEPT)
        self._turn = asyncio.Semaphore(1)

    def of(self, name: str) -> Work | None:
        """The command of this name; None without one."""
        found: Work | None = self._of.get(name)
        return found

    def begin(self, name: str, arguments: Sequence[str], given: str = "", about: Any = None) -> Work:
        """Run `aligner-proxy ARGUMENTS` with `given` on its stdin; raises `PageError` while one of this name runs."""
        known = self.of(name)
        if known is not None and known.runs:
            raise PageError(409, _BUSY)
        work = Work(about=about)
        self._of[name] = work
        work.task = asyncio.ensure_future(self._run(work, arguments, given))
        return work

    def forget(self, name: str) -> None:
        """Give up a command and its result."""
        work = self._of.pop(name, None)
        if work is not None and work.task is not None:
            work.task.cancel()

    async def aclose(self) -> None:
        """End every command."""
        tasks = [work.task for work in self._of.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, work: Work, arguments: Sequence[str], given: str) -> None:
        try:
            async with self._turn:
                work.waits = False
                await _followed(work, arguments, given)
        except (OSError, ValueError) as error:
            log.warning("console: `aligner-proxy %s` failed (%s)", arguments[0], type(error).__name__)
            work.fault = f"it could not be run ({type(error).__name__})"
        finally:
            if work.runs:
                work.fault = "it was ended"


async def _followed(work: Work, arguments: Sequence[str], given: str) -> None:
    tether = [sys.executable, "-m", "aligner_proxy.gateway.process.die_with_parent", str(os.getpid())]
    process = await asyncio.create_subprocess_exec(
        *tether,
        *(sys.executable, "-m", "aligner_proxy", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        limit=_LONGEST_LINE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
    last: dict[str, Any] = {}
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(given.encode())
            await process.stdin.drain()
        process.stdin.close()
        async for line in process.stdout:
            last = json.loads(line)
            if last.keys() == {"done", "of"}:
                work.done = last["done"]
                work.of = last["of"]
        status = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if "error" in last:
        work.fault = str(last["error"].get("message"))
    elif not last or last.keys() == {"done", "of"}:
        work.fault = f"it ended with status {status}; `aligner-proxy {arguments[0]}` on the command line says why"
    else:
        work.result = last
