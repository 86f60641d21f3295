"""Corrections for the record: at once for the client, a bounded number at a time, every one of them counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest

from aligner_proxy.gateway import shadow
from aligner_proxy.gateway.shadow import ShadowCorrections
from aligner_proxy.types import Exchange, Mode, Objective, Policy, Status, Turn
from tests.support.background import wait_for_shadows

POLICY = Policy("p", (Objective("kind", "Kindness: be kind"),), mode=Mode.SHADOW)


def asked(number: int) -> Exchange:
    return Exchange(f"call-{number}", 0, (Turn("user", "What?"),), "It is so.")


class Work:
    """Settles nothing before it is let go; knows how much ran at once."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = self.most = 0
        self.settled: list[str] = []

    async def __call__(self, texts: Sequence[Exchange]) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        self.settled += [exchange.call_id for exchange in texts]


async def test_the_answer_is_there_before_the_work() -> None:
    shadows = ShadowCorrections(1, 0)
    work = Work()
    (outcome,) = shadows.start([asked(1)], POLICY, work)
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SHADOW, None, "It is so.")
    work.gate.set()
    await wait_for_shadows(shadows)
    assert work.settled == ["call-1"]


async def test_beyond_the_limits_answers_are_skipped_by_name() -> None:
    shadows = ShadowCorrections(2, 3)
    work = Work()
    outcomes = [shadows.start([asked(n)], POLICY, work)[0] for n in range(7)]
    assert [outcome.reason for outcome in outcomes] == [None] * 5 + ["shadow_full"] * 2
    await asyncio.sleep(0)
    work.gate.set()
    await wait_for_shadows(shadows)
    assert (work.most, len(work.settled)) == (2, 5)
    assert shadows.start([asked(8)], POLICY, work)[0].status is Status.SHADOW
    await wait_for_shadows(shadows)


async def test_what_is_not_eligible_takes_no_place() -> None:
    (outcome,) = ShadowCorrections(1, 0).start([replace(asked(1), logprobs=True)], POLICY, Work())
    assert (outcome.status, outcome.reason) == (Status.SKIPPED, "logprobs")


async def test_a_lost_correction_is_told_by_its_type_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(texts: Sequence[Exchange]) -> None:
        raise ValueError(f"secret {texts[0].answer}")

    shadows = ShadowCorrections(1, 0)
    shadows.start([asked(1)], POLICY, broken)
    with caplog.at_level(logging.DEBUG):
        await wait_for_shadows(shadows)
        await asyncio.sleep(0)
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


async def test_at_the_end_what_was_taken_is_settled_before_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shadows, work, kept = ShadowCorrections(1, 4), Work(), list[int]()

    async def keep() -> None:
        kept.append(len(work.settled))

    for number in range(3):
        shadows.start([asked(number)], POLICY, work)
    ending = asyncio.create_task(shadows.finish(keep))
    await asyncio.sleep(0.01)
    assert kept == []
    work.gate.set()
    await ending
    assert kept == [3]
    await shadows.finish(keep)
    monkeypatch.setattr(shadow, "LAST_S", 0.01)
    work.gate.clear()
    shadows.start([asked(4)], POLICY, work)
    await shadows.finish(keep)
    assert kept == [3, 3, 3]
    work.gate.set()
    await wait_for_shadows(shadows)
