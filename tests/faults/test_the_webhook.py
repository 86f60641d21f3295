"""Faults of the webhook that doubtful answers are reported to (`hand_off`): no answer waits for it or is another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tenacity.wait import wait_none

from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.gateway.webhook import ATTEMPTS
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.faults import faults
from tests.faults.cells import Cell, cells, check, every_kind
from tests.faults.conftest import policies
from tests.faults.faulty_upstream import INSULT
from tests.faults.test_by_the_hooks import deliver, open_guardrail
from tests.gateway.test_canary import counted
from tests.gateway.test_webhook import SECRET, opened
from tests.support.background import wait_for_reports, wait_for_shadows
from tests.support.scripted import SegmentEngine
from tests.support.serving import refused_port

DESKS: dict[Any, dict[str, Any]] = {
    faults.DESK_DOWN: {},
    faults.DESK_SLOW: {},
    faults.DESK_500: {"statuses": [500]},
    faults.DESK_REDIRECTS: {"statuses": [302], "extra": "location: http://127.0.0.1:9/\r\n"},
    faults.DESK_ENDLESS: {"statuses": [200], "endless": True},
}
ASKED = {faults.DESK_DOWN: 0, faults.DESK_500: ATTEMPTS}
"""How often the webhook is asked; of the others once."""
SENT = (faults.DESK_SLOW, faults.DESK_ENDLESS)


@every_kind
@pytest.mark.parametrize("cell", cells(faults.BY_WEBHOOK), ids=lambda cell: cell.name)
async def test_the_webhook_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    async with opened(**DESKS[cell.fault]) as desk:
        url = f"http://127.0.0.1:{refused_port()}/" if cell.fault is faults.DESK_DOWN else desk.url
        guarded = guard(tmp_path, monkeypatch, cell, url)
        told = {result: counted("aligner_hand_offs_total", result=result) for result in ("sent", "failed")}
        if cell.fault is faults.DESK_SLOW:
            desk.gate.clear()
        check(cell, await deliver(guarded, cell))
        if cell.mode.stream == "passthrough":
            await wait_for_shadows(guarded._shadows)
        if cell.fault is faults.DESK_SLOW:
            while not desk.bodies:
                await asyncio.sleep(0.001)
            desk.gate.set()  # the client had its answer while it was silent
        await wait_for_reports(guarded._webhook)
        assert len(desk.bodies) == ASKED.get(cell.fault, 1)
        result = "sent" if cell.fault in SENT else "failed"
        assert counted("aligner_hand_offs_total", result=result) == told[result] + 1
        await guarded._webhook.aclose()


def guard(folder: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell, url: str) -> AlignerGuardrail:
    """The guardrail of the cell's policy, whose routes report what is near the threshold; tries follow at once."""
    monkeypatch.setenv("DESK_SECRET", SECRET)
    said = policies(cell)
    said["routes"] = [route | {"hand_off": {"url": url, "secret_env": "DESK_SECRET"}} for route in said["routes"]]
    made = open_guardrail(folder, monkeypatch, said)
    made.pipeline = Pipeline(SegmentEngine(lambda text: 0.2 if text == INSULT.strip() else -4.0))
    made._webhook._backoff = wait_none()
    return made
