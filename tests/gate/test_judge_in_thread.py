"""Where the gate works: the event loop stays free while a long answer is judged."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest
from cachetools import LRUCache

from aligner_proxy.gate import judge as gate_judge
from aligner_proxy.gate.judge import Verdict, judge, judge_in_thread
from aligner_proxy.types import Correction, Policy
from bench.gate_cost import POLICY, REFUSED, make_case


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_judge, "_verdict_cache", LRUCache(gate_judge._CACHED_VERDICTS))


@pytest.mark.parametrize("refused", REFUSED.values())
@pytest.mark.parametrize("size", [gate_judge.AT_ONCE_CHARS // 2, gate_judge.AT_ONCE_CHARS * 8])
async def test_the_verdict_is_the_gates(size: int, refused: int) -> None:
    answer, correction = make_case(size, refused)
    assert await judge_in_thread(answer, correction, POLICY) == judge(answer, correction, POLICY)


@pytest.mark.parametrize(
    ("size", "loops"), [(gate_judge.AT_ONCE_CHARS // 2, True), (gate_judge.AT_ONCE_CHARS * 4, False)]
)
async def test_a_long_answer_is_judged_in_a_thread(monkeypatch: pytest.MonkeyPatch, size: int, loops: bool) -> None:
    seen: list[threading.Thread] = []

    def judge(original: str, correction: Correction, policy: Policy) -> Verdict:
        seen.append(threading.current_thread())
        return Verdict(original)

    monkeypatch.setattr(gate_judge, "judge", judge)
    answer, correction = make_case(size, 0)
    await judge_in_thread(answer, correction, POLICY)
    assert (seen[0] is threading.main_thread()) is loops
    await judge_in_thread(answer, Correction(answer), POLICY)
    assert seen[1] is threading.main_thread(), "nothing is to be judged"


async def test_the_loop_goes_on_meanwhile() -> None:
    answer, correction = make_case(60_000, 1)
    judging = asyncio.ensure_future(judge_in_thread(answer, correction, POLICY))
    turns = 0
    while not judging.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 2


async def test_the_same_question_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = gate_judge.judge

    def judge(original: str, correction: Correction, policy: Policy) -> Verdict:
        asked.append(original)
        return real(original, correction, policy)

    monkeypatch.setattr(gate_judge, "judge", judge)
    answer, correction = make_case(800, 1)
    verdicts = [await judge_in_thread(answer, correction, POLICY) for _ in range(3)]
    assert len(asked) == 1
    assert verdicts[0] == verdicts[2]
    bare = replace(POLICY, gate=())
    assert (await judge_in_thread(answer, correction, bare)).reason is None, "another policy is another question"
    assert verdicts[0].reason is not None
    assert len(asked) == 2


async def test_only_the_last_verdicts_and_those_on_ordinary_answers_are_remembered() -> None:
    for number in range(gate_judge._CACHED_VERDICTS + 5):
        await judge_in_thread(f"{number} bad things. Good.", Correction("Good."), POLICY)
    assert len(gate_judge._verdict_cache) == gate_judge._CACHED_VERDICTS
    long, correction = make_case(gate_judge._MAX_CACHED_CHARS * 2, 0)
    await judge_in_thread(long, correction, POLICY)
    assert not any(question[0] == long for question in gate_judge._verdict_cache)
