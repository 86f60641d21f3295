"""Who else is told of what was done to an answer? The audit sinks of plugins, each behind the responses' backs.

`note` neither waits nor raises. A sink has a thread of its own and a bounded number of entries that wait for it; what
it does not take is counted and lost, and never costs a response.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from aligner_proxy import plugged, telemetry
from aligner_proxy.apart import Apart, Caller, Here
from aligner_proxy.audit.entry import Noted, Redact, entry
from aligner_proxy.audit.opening import recorder, redaction
from aligner_proxy.errors import CorrectionError
from aligner_proxy.hookspecs import AuditSink
from aligner_proxy.policy_file import PolicyFile

log = logging.getLogger(__name__)
WRITE_S = 10.0
"""An entry that takes longer is lost."""


class Keeper(Protocol):
    """Takes notes."""

    def note(self, noted: Noted) -> None:
        """Keep `noted` when there is time for it."""
        ...

    async def aclose(self) -> None:
        """Keep what waits, and let go."""
        ...


class Keepers:
    """Satisfies `Keeper`: the audit store, if it is turned on, and the sinks that the file names."""

    def __init__(self, keepers: Sequence[Keeper]) -> None:
        self._keepers = tuple(keepers)

    def __bool__(self) -> bool:
        """Whether anything is kept at all."""
        return bool(self._keepers)

    def note(self, noted: Noted) -> None:
        """Tell each of them."""
        for keeper in self._keepers:
            keeper.note(noted)

    async def aclose(self) -> None:
        """Close each of them."""
        for keeper in self._keepers:
            await keeper.aclose()


def keepers(file: PolicyFile) -> Keepers:
    """Whoever is to be told by this file; raises `ConfigError`."""
    store, wanted = recorder(file), plugged.wanted(file)["audit_sinks"]
    redact = redaction(file) if wanted else None
    made: list[Keeper] = [] if store is None else [store]
    for one in wanted:
        caller = Apart(one.name) if one.offer.plugin.third_party else Here()
        made.append(Sink(one.name, one.make(), caller, redact, file.audit.waiting))
    return Keepers(made)


class Sink:
    """Satisfies `Keeper`: one sink of a plugin."""

    def __init__(self, name: str, sink: AuditSink, caller: Caller, redact: Redact | None, waiting: int) -> None:
        self._name, self._sink, self._caller = name, sink, caller
        self._redact, self._waiting = redact, waiting
        self._tasks: set[asyncio.Task[None]] = set()
        self._well = True

    def note(self, noted: Noted) -> None:
        """Hand it over, unless too many wait already."""
        if len(self._tasks) >= self._waiting:
            telemetry.audited("sink_dropped")
            return
        task = asyncio.get_running_loop().create_task(self._write(noted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Wait for what waits."""
        await asyncio.gather(*self._tasks)

    async def _write(self, noted: Noted) -> None:
        async def work() -> None:
            await self._sink.write(entry(noted, self._redact))  # redaction is foreign code, too

        try:
            async with asyncio.timeout(WRITE_S):
                await self._caller.call(work)
        except (CorrectionError, TimeoutError) as error:
            telemetry.audited("sink_lost")
            if self._well:
                name = type(error).__name__
                log.warning("audit sink %s: entries are lost (%s); answers are not affected", self._name, name)
            self._well = False
        else:
            telemetry.audited("sink_written")
            self._well = True
