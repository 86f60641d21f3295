"""Teacher beside a gateway: teaches what has examples and no head yet, in a process of its own.

It looks again and again at the policies file, the examples and the index of heads, so that a reloaded file is taught,
too, and an engine with another aligner. Requests are judged by the general head meanwhile. What an operator has
forgotten stays so, examples that changed wait for `aligner-proxy teach`, and what failed waits until something changes,
or ten minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cachetools import TTLCache

from aligner_proxy.engine.api import AlignerInfo, Engine
from aligner_proxy.errors import AlignerProxyError, CorrectionError
from aligner_proxy.plugins import registry
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching import subjects
from aligner_proxy.teaching.store import HeadStore
from aligner_proxy.teaching.subjects import Subject, TeachingState

log = logging.getLogger(__name__)

LOOK_S = 5.0
AGAIN_S = 600.0
"""What failed is tried again after this."""
_MOST_TRIED = 4096
_NICE = 10
_TO_TEACH = (TeachingState.UNTAUGHT, TeachingState.STALE)


@dataclass(frozen=True, slots=True)
class Served:
    """The engine of the processes that serve: its address for a child (None: as the policies file says), and itself."""

    address: str | None
    opened: Callable[[], Engine]


@dataclass(slots=True)
class Teacher:
    """Keeps the objectives of one policies file taught. `serving` gives the engine that serves, None before it does."""

    policies: Path
    serving: Callable[[], Served | None]
    environment: Mapping[str, str]
    look_s: float = LOOK_S
    _tried: TTLCache[tuple[str, ...], bool] = field(default_factory=lambda: TTLCache(_MOST_TRIED, AGAIN_S))
    """Title, aligner and digests of what was tried lately."""
    _fault: str = ""

    async def keep_taught(self) -> None:
        """Look and teach; runs until cancelled."""
        while True:
            served = self.serving()
            if served is not None:
                try:
                    await self.look(served)
                except (AlignerProxyError, OSError, ValueError) as error:
                    self._log_fault(str(error) if isinstance(error, AlignerProxyError) else type(error).__name__)
            await asyncio.sleep(self.look_s)

    async def look(self, served: Served) -> None:
        """Teach what is to be taught now."""
        file = registry.load_policies(self.policies)
        if not subjects.subjects(file):
            return
        due = self._due(file, await _about(served))
        self._fault = ""
        if due:
            await self._teach(served, [subject.title for subject in due])

    def _due(self, file: PolicyFile, about: AlignerInfo) -> list[Subject]:
        """What was not taught for the aligner that is served, and not tried yet as it is now."""
        index = HeadStore.for_file(file).index()
        due = []
        for subject in subjects.subjects(file):
            for called in subjects.aligner_names(file):
                content_hash = about.named(called).content_hash
                if subjects.teaching_state(subject, index, called, content_hash) not in _TO_TEACH:
                    continue
                mark = (subject.title, subject.text, called, content_hash, subject.read().digest)
                if mark not in self._tried:
                    self._tried[mark] = True
                    due.append(subject)
        return list(dict.fromkeys(due))

    async def _teach(self, served: Served, titles: Sequence[str]) -> None:
        engine = ["--engine", served.address] if served.address else []
        command = [sys.executable, "-m", "aligner_proxy", "teach", str(self.policies), *titles, "--json", *engine]
        tether = [sys.executable, "-m", "aligner_proxy.gateway.process.die_with_parent", str(os.getpid())]
        log.info("teaching %d objectives that have examples: %s", len(titles), ", ".join(titles))
        process = await asyncio.create_subprocess_exec(
            *tether,
            *command,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        _log_result(output, process.returncode)

    def _log_fault(self, fault: str) -> None:
        """Log why nothing can be taught, once for each reason."""
        if fault != self._fault:
            log.warning("nothing is taught: %s", fault)
        self._fault = fault


async def _about(served: Served) -> AlignerInfo:
    engine = served.opened()
    try:
        return await engine.info()
    finally:
        with contextlib.suppress(CorrectionError):
            await engine.aclose()


def _log_result(output: bytes, status: int | None) -> None:
    """Log names and figures of what the child says; never a text."""
    try:
        report: dict[str, Any] = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        report = {"error": {"message": f"it ended with status {status}; `aligner-proxy teach` says why"}}
    if "error" in report:
        log.error("nothing is taught: %s", report["error"].get("message"))
    for lesson in report.get("objectives", ()):
        if lesson["taught"]:
            log.info(
                "taught %s for aligner %s from %d examples: %d of %d found that were held out, head %s",
                lesson["objective"],
                lesson["aligner"],
                lesson["against"],
                lesson["found"]["hits"],
                lesson["found"]["of"],
                lesson["head"][:8],
            )
        else:
            log.error("%s is not taught, the general head judges it: %s", lesson["objective"], lesson["why"])
