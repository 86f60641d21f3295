"""Faults of a judge that is asked about facts which references leave in doubt, by the hooks that LiteLLM calls.

Words are certain of one outdated fact, and a judge that works says of another what the page has in its place: each
answer shows whether it was heard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.errors import CorrectionError, EngineUnavailable
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.types import OnError
from tests.faults import faults
from tests.faults.cells import JUDGED, Cell, Fault, Seen, cells, check, every_kind
from tests.faults.conftest import policies
from tests.faults.test_by_the_hooks import deliver
from tests.faults.test_the_editor import WaitingChat, check_leaving, guard_with, until
from tests.plugins.grounding.held import EXTENSIONS
from tests.support.editors import Script, ScriptedChat
from tests.support.judges import asked_facts, contradicting, fact_reply, judges

Messages = Sequence[Mapping[str, str]]
PAGE = """# Returns

Online orders can be returned within 28 days of delivery.

# Gifts

Wrapping a present costs £4 in paper and £6 in a box.
"""
WRONG = "Online orders can be returned within 30 days of delivery. We do presents for £5."
BY_WORDS = WRONG.replace("30", "28")
TEXTS = {"said": WRONG, "corrected": BY_WORDS}
honest = contradicting({"30 days": "28 days", "£5": "£6"})
careless = contradicting({})


def then_honest(first: CorrectionError) -> Script:
    """The script of a judge that fails once about the fact that words leave as it is."""
    failures = iter([first])

    def script(messages: Messages) -> str | Reply | CorrectionError:
        # a stream may ask about the other one before
        about_it = any(one.fact == "£5" for one in asked_facts(messages).values())
        return next(failures, None) or honest(messages) if about_it else honest(messages)

    return script


def judging_others(messages: Messages) -> str:
    return fact_reply(dict.fromkeys([*asked_facts(messages), 63], ("supported", 0)))


def inventing(messages: Messages) -> str:
    return fact_reply(dict.fromkeys(asked_facts(messages), ("contradicted", 9)))


SCRIPTS: dict[Fault, Script] = {
    faults.FACT_JUDGE_DOWN: lambda _: EngineUnavailable("scripted 500"),
    faults.FACT_JUDGE_NOISE: lambda _: "Certainly! The page says so.",
    faults.FACT_JUDGE_CUT: lambda messages: Reply(str(careless(messages))[:-9], 50, 12, finished=False),
    faults.FACT_JUDGE_OTHERS: judging_others,
    faults.FACT_JUDGE_INVENTS: inventing,
    faults.FACT_JUDGE_QUOTES: lambda messages: messages[-1]["content"],
    faults.FACT_JUDGE_DOWN_ONCE: honest,
    faults.FACT_JUDGE_CLEARS: careless,
    faults.FACT_JUDGE_CHOOSES: honest,
}
assert set(SCRIPTS) == set(faults.BY_FACT_JUDGE)


@every_kind
@pytest.mark.parametrize("cell", cells(faults.BY_FACT_JUDGE), ids=lambda cell: cell.name)
async def test_the_judge_of_facts_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    is_once = cell.fault is faults.FACT_JUDGE_DOWN_ONCE
    chat = ScriptedChat(then_honest(EngineUnavailable("scripted 500")) if is_once else SCRIPTS[cell.fault])
    check(cell, name_judged_text(await deliver(guard(tmp_path, monkeypatch, cell, chat), cell, **TEXTS)))
    await until(lambda: bool(chat.asked), "the judge was never asked")


@every_kind
@pytest.mark.parametrize("cell", cells((faults.FACT_JUDGE_SLOW,)), ids=lambda cell: cell.name)
async def test_the_judge_of_facts_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    chat = WaitingChat(honest)
    check(cell, name_judged_text(await deliver(guard(tmp_path, monkeypatch, cell, chat), cell, **TEXTS)))
    tries = 2 if cell.policy is OnError.RETRY else 1
    await until(lambda: chat.cancelled >= tries, "the judge was never given up")


@every_kind
@pytest.mark.parametrize("cell", cells((faults.FACT_JUDGE_QUOTA,)), ids=lambda cell: cell.name)
async def test_the_quota_of_the_judge_of_facts_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell
) -> None:
    chat = ScriptedChat(honest)
    guarded = guard(tmp_path, monkeypatch, cell, chat, quota=1e-6)
    await deliver(guarded, cell, **TEXTS)
    await until(lambda: bool(chat.asked), "the judge was never asked")
    before = len(chat.asked)
    guarded.pipeline.judges.replies.clear()  # so that its verdicts of the first request are not known
    check(cell, name_judged_text(await deliver(guarded, cell, **TEXTS)))
    assert len(chat.asked) == before, "beyond the quota nobody is asked"


@every_kind
@pytest.mark.parametrize("cell", cells((faults.FACT_JUDGE_LEFT,)), ids=lambda cell: cell.name)
async def test_the_client_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    chat = WaitingChat(honest)
    await check_leaving(cell, chat, guard(tmp_path, monkeypatch, cell, chat), **TEXTS)


def name_judged_text(got: Seen) -> Seen:
    """What the client got; a text with the fact that only the judge puts right is named so."""
    return Seen(JUDGED) if got.what == BY_WORDS.replace("£5", "£6") else got


def guard(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell, chat: ScriptedChat, quota: float | None = None
) -> AlignerGuardrail:
    """The guardrail of the cell's policy with this judge and the page."""
    (folder / "PAGE.md").write_text(PAGE)
    settings: dict[str, Any] = policies(cell)
    settings["defaults"] = {"judge": {"chat": "strong"}, "references": [{"file": "PAGE.md"}]}
    for route in settings["routes"]:
        if "on_error" in route:
            route["on_error"] = {"judge": route["on_error"]}
    return guard_with(folder, monkeypatch, settings, quota, judges=judges(chat), extensions=EXTENSIONS)
