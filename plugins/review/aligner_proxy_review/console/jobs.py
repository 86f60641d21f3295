"""Jobs of the console: `aligner-proxy` commands that run in subprocesses, one at a time.

Teaching and replay run in subprocesses, so that they cannot block the console, and do what the command line does.
A command reports its progress as lines of JSON; the last line is its result. Texts are passed through pipes and never
as arguments.
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

from aligner_proxy.concurrency import end_tasks
from aligner_proxy.gateway.process.die_with_parent import tether_command
from aligner_proxy_review.console.forms import PageError

log = logging.getLogger(__name__)

_MAX_LINE_BYTES = 64 << 20
"""The last line is the whole result, so it may be long."""
_MAX_KEPT = 64
"""How many jobs are kept with their results."""
_NICENESS = 10
"""A job's process has a lower priority than the gateway."""
_BUSY = "This runs already; wait for its end."


@dataclass(slots=True)
class ConsoleJob:
    """One command with its progress and its result."""

    done_steps: int = 0
    """Number of steps that are done, as the command last reported it."""
    total_steps: int = 0
    """Number of all steps, as the command last reported it; 0 before it reports."""
    result: dict[str, Any] | None = None
    """The command's last line; None while it runs, or if it failed."""
    fault: str | None = None
    """Why it failed; None if it did not."""
    subject: Any = None
    """What the job is about, as the caller gave it."""
    is_waiting: bool = True
    """Whether it waits for another command to end."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def is_running(self) -> bool:
        """Whether it has neither a result nor a fault yet; also True while it waits for its turn."""
        return self.result is None and self.fault is None


class ConsoleJobs:
    """Holder of the last job of each name; a name combines the kind and the owner of a job."""

    def __init__(self) -> None:
        self._jobs: LRUCache[str, ConsoleJob] = LRUCache(_MAX_KEPT)
        self._turn = asyncio.Semaphore(1)
        """Lets one command run at a time."""

    def find(self, name: str) -> ConsoleJob | None:
        """Return the job with this name; None if there is none."""
        job: ConsoleJob | None = self._jobs.get(name)
        return job

    def begin(self, name: str, arguments: Sequence[str], stdin_text: str = "", subject: Any = None) -> ConsoleJob:
        """Start `aligner-proxy ARGUMENTS` with `stdin_text` on stdin, and return its job.

        `subject` says what the job is about, and is only kept in the job. Raises `PageError` if a job of this name is
        running.
        """
        earlier_job = self.find(name)
        if earlier_job is not None and earlier_job.is_running:
            raise PageError(409, _BUSY)
        job = ConsoleJob(subject=subject)
        self._jobs[name] = job
        job.task = asyncio.ensure_future(self._run(job, arguments, stdin_text))
        return job

    def forget(self, name: str) -> None:
        """Cancel a job and drop its result."""
        job = self._jobs.pop(name, None)
        if job is not None and job.task is not None:
            job.task.cancel()

    async def aclose(self) -> None:
        """Cancel all jobs, and wait until they have ended."""
        await end_tasks(*(job.task for job in self._jobs.values() if job.task is not None))

    async def _run(self, job: ConsoleJob, arguments: Sequence[str], stdin_text: str) -> None:
        """Run a job when its turn comes, and record a failure as its fault."""
        try:
            async with self._turn:
                job.is_waiting = False
                await _run_command(job, arguments, stdin_text)
        except (OSError, ValueError) as error:
            log.warning("console: `aligner-proxy %s` failed (%s)", arguments[0], type(error).__name__)
            job.fault = f"it could not be run ({type(error).__name__})"
        finally:
            # a job without result or fault was cancelled, or ended by an unexpected error
            if job.is_running:
                job.fault = "it was ended"


async def _run_command(job: ConsoleJob, arguments: Sequence[str], stdin_text: str) -> None:
    """Run a command, and set the job's progress, then its result or fault; kill the command if the job is cancelled.

    The command writes JSON objects as lines: {"done", "of"} for progress, and as its last line the result or {"error"}.
    """
    process = await asyncio.create_subprocess_exec(
        *tether_command([sys.executable, "-m", "aligner_proxy", *arguments]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        limit=_MAX_LINE_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
    last_report: dict[str, Any] = {}
    try:
        # a command that fails at once reads no input; its last line says why
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(stdin_text.encode())
            await process.stdin.drain()
        process.stdin.close()
        async for line in process.stdout:
            last_report = json.loads(line)
            if last_report.keys() == {"done", "of"}:
                job.done_steps = last_report["done"]
                job.total_steps = last_report["of"]
        status = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if "error" in last_report:
        job.fault = str(last_report["error"].get("message"))
    # the command wrote no line, or its last line is only progress
    elif not last_report or last_report.keys() == {"done", "of"}:
        job.fault = f"it ended with status {status}; `aligner-proxy {arguments[0]}` on the command line says why"
    else:
        job.result = last_report
