"""Where the gate works: the event loop stays free while a long answer is judged."""

from __future__ import annotations

import asyncio
import threading

import pytest

from aligner_proxy import gate
from aligner_proxy.gate import aside
from aligner_proxy.types import Correction, Policy
from bench.gate_cost import POLICY, REFUSED, case


@pytest.mark.parametrize("refused", REFUSED.values())
@pytest.mark.parametrize("size", [aside.AT_ONCE_CHARS // 2, aside.AT_ONCE_CHARS * 8])
async def test_the_verdict_is_the_gates(size: int, refused: int) -> None:
    answer, correction = case(size, refused)
    assert await aside.judge(answer, correction, POLICY) == gate.judge(answer, correction, POLICY)


@pytest.mark.parametrize(("size", "loops"), [(aside.AT_ONCE_CHARS // 2, True), (aside.AT_ONCE_CHARS * 4, False)])
async def test_a_long_answer_is_judged_in_a_thread(monkeypatch: pytest.MonkeyPatch, size: int, loops: bool) -> None:
    seen: list[threading.Thread] = []

    def judge(original: str, correction: Correction, policy: Policy) -> gate.Verdict:
        seen.append(threading.current_thread())
        return gate.Verdict(original)

    monkeypatch.setattr(gate, "judge", judge)
    answer, correction = case(size, 0)
    await aside.judge(answer, correction, POLICY)
    assert (seen[0] is threading.main_thread()) is loops
    await aside.judge(answer, Correction(answer), POLICY)
    assert seen[1] is threading.main_thread(), "nothing is to be judged"


async def test_the_loop_goes_on_meanwhile() -> None:
    answer, correction = case(60_000, 1)
    judging, turns = asyncio.ensure_future(aside.judge(answer, correction, POLICY)), 0
    while not judging.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 2
