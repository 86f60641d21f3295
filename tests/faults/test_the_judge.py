"""Faults of a judge, by the hooks that LiteLLM calls: a scripted model group that fails as it is told.

A judge that works flags one sentence that the head does not, so that each answer shows whether it was heard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.errors import CorrectionError, EngineOverloaded, EngineUnavailable
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.types import OnError
from tests.faults import faults
from tests.faults.cells import JUDGED, Cell, Fault, Seen, cells, check, every_kind
from tests.faults.conftest import policies
from tests.faults.faulty_upstream import KIND
from tests.faults.test_by_the_hooks import deliver
from tests.faults.test_the_editor import WaitingChat, check_leaving, guard_with, until
from tests.support.editors import Script, ScriptedChat, marked
from tests.support.judges import judges, judging, verdict_reply

Messages = Sequence[Mapping[str, str]]
WITHOUT_SEINE = KIND.partition(". ")[0] + "."
honest = judging(lambda text: "Seine" in text)
careless = judging(lambda _: False)


def then_honest(first: str | CorrectionError) -> Script:
    """The script of a judge that fails once about the sentence which it would flag."""
    failures = iter([first])

    def script(messages: Messages) -> str | Reply | CorrectionError:
        # a stream may ask about the others before
        about_it = any("Seine" in text for text in marked(messages).values())
        return next(failures, None) or honest(messages) if about_it else honest(messages)

    return script


def doubling(messages: Messages) -> str:
    return verdict_reply(dict.fromkeys(marked(messages), False)).replace("]}", ', {"number": 1}]}')


def contradicting(messages: Messages) -> str:
    return str(careless(messages)).replace("0.1", "0.9")


def judging_others(messages: Messages) -> str:
    return verdict_reply(dict.fromkeys([*marked(messages), 63], False))


NOISE = "Certainly! Nothing in it violates anything."
SCRIPTS: dict[Fault, Script] = {
    faults.JUDGE_DOWN: lambda _: EngineUnavailable("scripted 500"),
    faults.JUDGE_FULL: lambda _: EngineOverloaded("scripted 429", 30.0),
    faults.JUDGE_NOISE: lambda _: NOISE,
    faults.JUDGE_CUT: lambda messages: Reply(str(careless(messages))[:-9], 50, 12, finished=False),
    faults.JUDGE_DOUBLES: doubling,
    faults.JUDGE_CONTRADICTS: contradicting,
    faults.JUDGE_OTHERS: judging_others,
    faults.JUDGE_QUOTES: lambda messages: messages[-1]["content"],
    faults.JUDGE_CLEARS: careless,
    faults.JUDGE_CLEARS_ALL: careless,
    faults.JUDGE_FLAGS: honest,
}
ONCE: dict[Fault, str | CorrectionError] = {
    faults.JUDGE_DOWN_ONCE: EngineUnavailable("scripted 500"),
    faults.JUDGE_NOISE_ONCE: NOISE,
}
assert {*SCRIPTS, *ONCE} == set(faults.BY_JUDGE)


@every_kind
@pytest.mark.parametrize("cell", cells(faults.BY_JUDGE), ids=lambda cell: cell.name)
async def test_the_judge_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    fault = cell.fault
    chat = ScriptedChat(then_honest(ONCE[fault]) if fault in ONCE else SCRIPTS[fault])
    ask = "all" if fault is faults.JUDGE_CLEARS_ALL else "doubt"
    check(cell, name_judged_text(await deliver(guard(tmp_path, monkeypatch, cell, chat, ask), cell)))
    await until(lambda: bool(chat.asked), "the judge was never asked")


@every_kind
@pytest.mark.parametrize("cell", cells((faults.JUDGE_SLOW,)), ids=lambda cell: cell.name)
async def test_the_judge_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    chat = WaitingChat(honest)
    check(cell, name_judged_text(await deliver(guard(tmp_path, monkeypatch, cell, chat), cell)))
    tries = 2 if cell.policy is OnError.RETRY else 1
    await until(lambda: chat.cancelled >= tries, "the judge was never given up")


@every_kind
@pytest.mark.parametrize("cell", cells((faults.JUDGE_QUOTA,)), ids=lambda cell: cell.name)
async def test_the_quota_of_the_judge_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    chat = ScriptedChat(honest)
    guarded = guard(tmp_path, monkeypatch, cell, chat, quota=1e-6)
    await deliver(guarded, cell)
    await until(lambda: bool(chat.asked), "the judge was never asked")
    before = len(chat.asked)
    guarded.pipeline.judges._known_verdicts.clear()  # so that its verdicts of the first request are not known
    check(cell, name_judged_text(await deliver(guarded, cell)))
    assert len(chat.asked) == before, "beyond the quota nobody is asked"


@every_kind
@pytest.mark.parametrize("cell", cells((faults.JUDGE_LEFT,)), ids=lambda cell: cell.name)
async def test_the_client_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    chat = WaitingChat(honest)
    # a held stream asks early and again about what is left at its end, at the same time
    most_calls = 2 if cell.mode.stream == "hold" else 1
    await check_leaving(cell, chat, guard(tmp_path, monkeypatch, cell, chat), most_calls=most_calls)


def name_judged_text(got: Seen) -> Seen:
    """What the client got; a text without the sentence that the judge flags is named so."""
    return Seen(JUDGED) if got.what == WITHOUT_SEINE else got


def guard(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    cell: Cell,
    chat: ScriptedChat,
    ask: str = "doubt",
    quota: float | None = None,
) -> AlignerGuardrail:
    """The guardrail of the cell's policy with this judge, which doubts every sentence that the head does not flag."""
    band = {"band": 5.0} if ask == "doubt" else {}
    settings: dict[str, Any] = policies(cell) | {"defaults": {"judge": {"chat": "strong", "ask": ask, **band}}}
    for route in settings["routes"]:
        if "on_error" in route:
            route["on_error"] = {"judge": route["on_error"]}
    return guard_with(folder, monkeypatch, settings, quota, judges=judges(chat))
