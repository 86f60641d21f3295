"""Automatic training: teaches objectives that have examples but no head yet, in a subprocess.

The trainer polls the policies file, the examples and the index of heads, so it also notices a reloaded file or an
engine with another aligner. Until a head is ready, the general head judges requests. Objectives that an operator has
forgotten are not taught again, and changed examples wait for `aligner-proxy teach`. Failures are retried after a change
or after ten minutes.
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
from aligner_proxy.gateway.process.die_with_parent import tether_command
from aligner_proxy.plugins import registry
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching import subjects
from aligner_proxy.teaching.store import HeadStore
from aligner_proxy.teaching.subjects import Subject, TeachingState

log = logging.getLogger(__name__)

CHECK_EVERY_S = 5.0
AGAIN_S = 600.0
"""Time until a failed training is retried."""
_MAX_ATTEMPTS = 4096
_NICE = 10
"""Niceness of the training process, which must not slow the gateway down."""
_DUE_STATES = (TeachingState.UNTAUGHT, TeachingState.STALE)
"""States in which training is due: there is no head, or only a head for another text or aligner."""


@dataclass(frozen=True, slots=True)
class ServingEngine:
    """The serving engine: its address for a subprocess (None: the one in the policies file), and how to open it."""

    address: str | None
    open_engine: Callable[[], Engine]


@dataclass(slots=True)
class AutoTrainer:
    """Keeps a policies file's objectives taught; `serving` returns the serving engine, or None before one serves."""

    policies: Path
    serving: Callable[[], ServingEngine | None]
    environment: Mapping[str, str]
    check_every_s: float = CHECK_EVERY_S
    _attempted: TTLCache[tuple[str, ...], bool] = field(default_factory=lambda: TTLCache(_MAX_ATTEMPTS, AGAIN_S))
    """Recent attempts, by title, text, aligner and digests."""
    _fault: str = ""
    """The fault that was logged last; empty after a success."""

    async def keep_training(self) -> None:
        """Check every few seconds which objectives are due, and teach them; runs until cancelled."""
        while True:
            engine = self.serving()
            if engine is not None:
                try:
                    await self.train_due(engine)
                except (AlignerProxyError, OSError, ValueError) as error:
                    self._log_fault(str(error) if isinstance(error, AlignerProxyError) else type(error).__name__)
            await asyncio.sleep(self.check_every_s)

    async def train_due(self, engine: ServingEngine) -> None:
        """Teach the objectives that are due, if there are any, and wait until the training has ended.

        Raises an error of this package, `OSError` or `ValueError` if the files or the engine cannot be read.
        """
        file = registry.load_policies(self.policies)
        if not subjects.list_subjects(file):  # no objective has examples, so the engine need not be asked
            return
        due_subjects = self._take_due_subjects(file, await _read_info(engine))
        self._fault = ""
        if due_subjects:
            await self._run_training(engine, [subject.title for subject in due_subjects])

    def _take_due_subjects(self, file: PolicyFile, info: AlignerInfo) -> list[Subject]:
        """The objectives to teach now, since they lack a head for the engine of `info`; they are noted as attempted.

        An objective is left out if it was attempted recently with the same text, examples and aligner.
        """
        index = HeadStore.for_file(file).index()
        due_subjects = []
        for subject in subjects.list_subjects(file):
            for aligner in subjects.used_aligners(file):
                content_hash = info.find_aligner(aligner).content_hash
                if subjects.teaching_state(subject, index, aligner, content_hash) not in _DUE_STATES:
                    continue
                attempt = (subject.title, subject.text, aligner, content_hash, subject.read_examples().digest)
                if attempt not in self._attempted:
                    self._attempted[attempt] = True  # before the training, so that a failure is not repeated at once
                    due_subjects.append(subject)
        return list(dict.fromkeys(due_subjects))  # one training serves all aligners of an objective

    async def _run_training(self, engine: ServingEngine, titles: Sequence[str]) -> None:
        """Run `aligner-proxy teach` for the objectives with these titles at low priority, and log its report.

        If this is cancelled, the process is killed.
        """
        command = [sys.executable, "-m", "aligner_proxy", "teach", str(self.policies), *titles, "--json"]
        if engine.address:
            command += ["--engine", engine.address]
        log.info("teaching %d objectives that have examples: %s", len(titles), ", ".join(titles))
        process = await asyncio.create_subprocess_exec(
            *tether_command(command),
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C does not reach it
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
        """Log why nothing can be taught, unless the reason is the same as last time."""
        if fault != self._fault:
            log.warning("cannot teach objectives: %s", fault)
        self._fault = fault


async def _read_info(engine: ServingEngine) -> AlignerInfo:
    """The serving engine's description, asked over a connection of its own."""
    client = engine.open_engine()
    try:
        return await client.info()
    finally:
        with contextlib.suppress(CorrectionError):
            await client.aclose()


def _log_result(output: bytes, status: int | None) -> None:
    """Log names and figures, never texts, from what `aligner-proxy teach --json` wrote; `status` is its exit status."""
    try:
        report: dict[str, Any] = json.loads(output.splitlines()[-1])  # the report is the last line
    except (ValueError, IndexError):
        report = {"error": {"message": f"the command ended with status {status}; run `aligner-proxy teach` to see why"}}
    if "error" in report:
        log.error("teaching failed: %s", report["error"].get("message"))
    for result in report.get("objectives", ()):
        if result["taught"]:
            log.info(
                "taught %s for aligner %s from %d examples: found %d of %d held-out examples, head %s",
                result["objective"],
                result["aligner"],
                result["against"],
                result["found"]["hits"],
                result["found"]["of"],
                result["head"][:8],
            )
        else:
            log.error("%s was not taught, so the general head judges it: %s", result["objective"], result["why"])
