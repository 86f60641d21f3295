"""Audit sinks of plugins: told behind the response, redacted, bounded, and never in anybody's way."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.audit.entry import AuditEvent, estimate_event_bytes
from aligner_proxy.audit.recorder import QueueLimits
from aligner_proxy.audit.writer import SinkWriter, make_audit_writers
from aligner_proxy.plugins.api import Entry
from aligner_proxy.plugins.isolation import ThreadRunner
from aligner_proxy.policy import config
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Correction, Exchange, Outcome, Policy, Status, Turn

ROOM = QueueLimits(2**20)


class Told:
    """A sink that keeps what it is told; `wrong` is called before."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.wrong: Any = lambda: None

    async def write(self, entry: Entry) -> None:
        self.wrong()
        self.entries.append(entry)


def noted(number: int = 0, **more: Any) -> AuditEvent:
    exchange = Exchange(f"call-{number}", 0, (Turn("user", "Who is Ann?"),), "Ann is a fool.", **more)
    outcome = Outcome(
        Status.CORRECTED, None, "Ann is.", Policy("p"), edited="Ann is.", correction=Correction("Ann is.")
    )
    return AuditEvent(1.0, "/v1/chat/completions", RequestFacts("gpt"), exchange, outcome)


def sink(told: Told, *, waiting: QueueLimits = ROOM, redact: Any = None) -> SinkWriter:
    return SinkWriter("test", told, ThreadRunner("sink"), redact, waiting)


async def test_it_is_told_what_the_audit_store_would_keep() -> None:
    told = Told()
    made = sink(told, redact=lambda text: text.replace("Ann", "X"))
    made.note(noted())
    made.note(noted(1, no_store=True))
    await made.aclose()
    first, second = told.entries
    assert first.content is not None
    assert (first.content.exchange.answer, first.content.edited) == ("X is a fool.", "X is.")
    assert second.content is None


async def test_one_that_raises_costs_its_entry_and_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()

    def raises() -> None:
        raise OSError("Ann")

    told.wrong = raises
    made = sink(told)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            made.note(noted(number))
        await made.aclose()
    assert told.entries == []
    assert caplog.text.count("entries are lost") == 1
    assert "Ann" not in caplog.text


@pytest.mark.parametrize("bounds", [QueueLimits(2**20, 2), QueueLimits(2 * estimate_event_bytes(noted()) + 1)])
async def test_one_that_blocks_keeps_bounded_entries_waiting(
    monkeypatch: pytest.MonkeyPatch, bounds: QueueLimits
) -> None:
    monkeypatch.setattr("aligner_proxy.audit.writer.SINK_WRITE_S", 0.1)
    door = threading.Event()
    told = Told()
    told.wrong = door.wait
    made = sink(told, waiting=bounds)
    for number in range(5):
        made.note(noted(number))
    assert len(made._tasks) == 2
    await made.aclose()
    assert not made._tasks
    door.set()


async def test_without_store_and_sinks_nobody_is_told(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text("")
    made = make_audit_writers(config.load(tmp_path / "policies.yaml"))
    made.note(noted())
    assert made._writers == ()
    await asyncio.wait_for(made.aclose(), 10)
