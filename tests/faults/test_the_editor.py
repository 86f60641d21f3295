"""Faults of an editor, by the hooks that LiteLLM calls: a scripted model group that fails as it is told.

Where an editor fails the aligner edits, so that nearly every cell is a correction; what the editor was paid for and
how it failed is in tests/correctors/test_editor.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.correctors.editor_prompt import MIN_CHARS
from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.errors import EngineOverloaded, EngineUnavailable
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.faults import faults
from tests.faults.cells import CORRECTED, FOR_THE_RECORD, NOBODY, ORIGINAL, Cell, Fault, Seen, cells, check, every_kind
from tests.faults.conftest import policies
from tests.faults.faulty_upstream import INSULT, KIND
from tests.faults.test_by_the_hooks import deliver, open_guardrail
from tests.support.editors import Script, ScriptedChat, editors, marked, replying
from tests.support.scripted import SegmentEngine

BEFORE, AFTER = KIND.split(". ")
_THINGS = ("river", "tower", "market", "garden", "bridge", "museum", "harbour", "theatre", "library", "square")
_ENDLESS = " ".join(f"It has a {old} {thing}." for old in ("large", "small", "new", "fine") for thing in _THINGS)
_HALF = '{"replacements": [{"number": 1, "text": "It is a fine ci'


@dataclass(slots=True)
class WaitingChat(ScriptedChat):
    """Answers only when it is let go."""

    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0
    answered: int = 0

    async def ask(self, messages: Sequence[Mapping[str, str]], **given: Any) -> Reply:
        """Wait, then play the script."""
        try:
            reply = await ScriptedChat.ask(self, messages, **given)
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.answered += 1
        return reply


def removing(messages: Sequence[Mapping[str, str]]) -> str:
    return replying(dict.fromkeys(marked(messages), ""))


SCRIPTS: dict[Fault, Script] = {
    faults.EDITOR_DOWN: lambda _: EngineUnavailable("scripted 500"),
    faults.EDITOR_FULL: lambda _: EngineOverloaded("scripted 429", 30.0),
    faults.EDITOR_NOISE: lambda _: "Certainly! Here is a better answer.",
    faults.EDITOR_CUT: lambda _: Reply(_HALF, 50, 12, finished=False),
    faults.EDITOR_SAME: lambda messages: replying(marked(messages)),
    faults.EDITOR_AGAIN: lambda _: replying({1: "What an idiot you are!"}),
    faults.EDITOR_LONG: lambda _: replying({1: _ENDLESS}),
}
assert set(SCRIPTS) == set(faults.BY_EDITOR)


@every_kind
@pytest.mark.parametrize("cell", cells(faults.BY_EDITOR), ids=lambda cell: cell.name)
async def test_the_editor_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    chat = ScriptedChat(SCRIPTS[cell.fault])
    guarded = guard(tmp_path, monkeypatch, cell, chat)
    check(cell, corrected(await deliver(guarded, cell)))
    await until(lambda: len(chat.asked) == 1, "the editor was never asked")


@every_kind
@pytest.mark.parametrize("cell", cells((faults.EDITOR_SLOW,)), ids=lambda cell: cell.name)
async def test_the_editor_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    chat = WaitingChat(removing)
    check(cell, await deliver(guard(tmp_path, monkeypatch, cell, chat), cell))
    await until(lambda: chat.cancelled == 1, "the editor was never given up")


@every_kind
@pytest.mark.parametrize("cell", cells((faults.EDITOR_QUOTA,)), ids=lambda cell: cell.name)
async def test_the_quota_of_the_editor_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    chat = ScriptedChat(removing)
    guarded = guard(tmp_path, monkeypatch, cell, chat, quota=1e-6)
    assert (await deliver(guarded, cell)).what == (ORIGINAL if cell.mode.stream == "passthrough" else CORRECTED)
    await until(lambda: len(chat.asked) == 1, "the editor was never asked")
    check(cell, await deliver(guarded, cell))
    assert len(chat.asked) == 1, "beyond the quota nobody is asked"


@every_kind
@pytest.mark.parametrize("cell", cells((faults.EDITOR_LEFT,)), ids=lambda cell: cell.name)
async def test_the_client_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    chat = WaitingChat(removing)
    await check_leaving(cell, chat, guard(tmp_path, monkeypatch, cell, chat))


async def check_leaving(
    cell: Cell, chat: WaitingChat, guarded: AlignerGuardrail, *, most_calls: int = 1, **texts: str
) -> None:
    """Leave while the model is asked, and check what became of the calls."""
    client = asyncio.create_task(deliver(guarded, cell, **texts))
    await until(lambda: bool(chat.asked), "the model was never asked")
    client.cancel()
    await asyncio.wait([client])
    calls = len(chat.asked)
    chat.let_go.set()
    await until(lambda: chat.cancelled + chat.answered == calls, "the model goes on for ever")
    assert len(chat.asked) == calls <= most_calls, "nobody is there to ask again for"
    check(cell, Seen(FOR_THE_RECORD if chat.answered else NOBODY))


def corrected(got: Seen) -> Seen:
    """A text that is kind and whole, with what the editor wrote cut to what it may write."""
    added = got.what.removeprefix(f"{BEFORE}. ").removesuffix(AFTER).strip()
    whole = got.what == f"{BEFORE}. {added} {AFTER}" and INSULT.strip() not in added
    return Seen(CORRECTED) if whole and added in _ENDLESS and len(added) <= MIN_CHARS + 2 * len(INSULT) else got


def guard(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell, chat: ScriptedChat, quota: float | None = None
) -> AlignerGuardrail:
    """The guardrail of the cell's policy with this editor, and a quota for everybody where one is given."""
    settings = policies(cell) | {"defaults": {"editor": {"model": "strong"}}}
    return guard_with(folder, monkeypatch, settings, quota, editors=editors(chat))


def guard_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], quota: float | None, **parts: Any
) -> AlignerGuardrail:
    """The guardrail of these settings, whose engine flags the insult, with these parts of the pipeline."""
    if quota is not None:
        settings["tenants"] = [{"match": {}, "quota": quota}]
    made = open_guardrail(folder, monkeypatch, settings)
    made.pipeline = Pipeline(SegmentEngine(lambda text: 4.0 if "idiot" in text else -4.0), **parts)
    return made


async def until(true: Any, what: str) -> None:
    """Let other tasks run until something has happened."""
    try:
        async with asyncio.timeout(30):
            while not true():
                await asyncio.sleep(0)
    except TimeoutError:
        pytest.fail(what)
