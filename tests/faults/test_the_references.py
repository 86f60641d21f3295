"""Faults of references, by the hooks that LiteLLM calls: files that go bad while requests run, headers, and time.

Every route has references. Those of `ENGINE_GONE` have an objective, too; the others need no engine.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.errors import EngineUnavailable
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy_grounding import references
from aligner_proxy_grounding.matching import Matcher
from aligner_proxy_grounding.page import MAX_CHARS
from aligner_proxy_grounding.sentences import Grounder
from tests.faults import faults
from tests.faults.cells import FOR_THE_RECORD, NOBODY, Cell, Fault, Seen, cells, check, every_kind
from tests.faults.conftest import policies
from tests.faults.test_by_the_hooks import deliver, open_guardrail
from tests.faults.test_the_editor import until
from tests.support.scripted import ScriptedEngine

PAGE = "# Returns\n\nOnline orders can be returned within 28 days of delivery.\n\n" + (
    "Write to us where something is missing, and say what it is. " * 20
)
WRONG = "Gladly. Online orders can be returned within 30 days of delivery."
RIGHT = WRONG.replace("30", "28")
TEXTS = {"said": WRONG, "corrected": RIGHT}
HEADER = "x-account-facts"


def bad(page: Path, other: Path, fault: Fault) -> None:
    """What happens to the files."""
    if fault is faults.NO_PAGE:
        page.unlink()
    elif fault is faults.OTHER_PAGE:
        other.write_text(PAGE.replace("28", "14"))
    else:
        page.write_bytes(
            {
                faults.NOISY_PAGE: bytes(range(256)),
                faults.LONG_PAGE: (PAGE + " word" * MAX_CHARS).encode(),
                faults.EMPTY_PAGE: b"\n",
            }[fault]
        )


@every_kind
@pytest.mark.parametrize("cell", cells(faults.BAD_PAGES), ids=lambda cell: cell.name)
async def test_a_file_goes_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    """What was read last holds, and the operator is told."""
    guarded = guard(tmp_path, monkeypatch, cell)
    looked = guarded._policies
    bad(tmp_path / "PAGE.md", tmp_path / "OTHER.md", cell.fault)
    for _ in range(2):
        looked.check_files()
    assert looked.refusal is not None
    check(cell, await deliver(guarded, cell, **TEXTS))


@every_kind
@pytest.mark.parametrize("cell", cells((faults.CHANGED_PAGE,)), ids=lambda cell: cell.name)
async def test_a_file_changes_in_mid_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    """An answer is held to the page that its request found, the next one to the new page."""
    guarded = guard(tmp_path, monkeypatch, cell)

    def change() -> None:
        (tmp_path / "PAGE.md").write_text(PAGE.replace("28", "14"))
        for _ in range(2):
            guarded._policies.check_files()

    check(cell, await deliver(guarded, cell, **TEXTS, meanwhile=change))
    check(cell, await deliver(guarded, cell, WRONG, WRONG.replace("30", "14")))


@every_kind
@pytest.mark.parametrize("cell", cells(faults.BY_HEADER), ids=lambda cell: cell.name)
async def test_a_header_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    granted = cell.fault is not faults.NO_GRANT
    guarded = guard(tmp_path, monkeypatch, cell, [{"header": HEADER}], granted=granted)
    page = "Online orders can be returned within 28 days of delivery."
    sent = {faults.NO_GRANT: page, faults.NOISY_HEADER: f"base64:{page}"}.get(cell.fault, page + " word" * MAX_CHARS)
    check(cell, await deliver(guarded, cell, **TEXTS, headers={HEADER: sent}))
    if granted:  # it was the header that did not count
        again = await deliver(guarded, cell, **TEXTS, headers={HEADER: page})
        assert (again.what == "corrected") == (cell.mode.stream != "passthrough")


@every_kind
@pytest.mark.parametrize("cell", cells((faults.PAGE_SLOW,)), ids=lambda cell: cell.name)
async def test_it_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event, cell: Cell
) -> None:
    try:
        check(cell, await deliver(guard(tmp_path, monkeypatch, cell), cell, **TEXTS))
    finally:
        gate.set()  # the loop waits for its threads when it is closed


@every_kind
@pytest.mark.parametrize("cell", cells((faults.PAGE_BUG,)), ids=lambda cell: cell.name)
async def test_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Grounder, "check_answer", fail)
    monkeypatch.setattr(Grounder, "check_segments", fail)
    check(cell, await deliver(guard(tmp_path, monkeypatch, cell), cell, **TEXTS))


@every_kind
@pytest.mark.parametrize("cell", cells((faults.ENGINE_GONE, faults.NO_ENGINE)), ids=lambda cell: cell.name)
async def test_the_engine_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    """What could not be judged goes out as `on_error` says, not held to anything; references alone need no engine."""
    guarded = guard(tmp_path, monkeypatch, cell, objectives=["kind"] if cell.fault is faults.ENGINE_GONE else [])
    check(cell, await deliver(guarded, cell, **TEXTS))


@every_kind
@pytest.mark.parametrize("cell", cells((faults.PAGE_LEFT,)), ids=lambda cell: cell.name)
async def test_the_client_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event, cell: Cell
) -> None:
    guarded = guard(tmp_path, monkeypatch, cell)
    finished: list[object] = []
    outcome = Pipeline.align

    async def align(*given: Any) -> Any:
        got = await outcome(*given)
        finished.append(got)
        return got

    monkeypatch.setattr(Pipeline, "align", align)
    client = asyncio.create_task(deliver(guarded, cell, **TEXTS))
    try:
        await until(lambda: bool(WAITING), "nobody ever took it apart")
        client.cancel()
        await asyncio.wait([client])
    finally:
        gate.set()  # the loop waits for its threads when it is closed
    if cell.mode.stream == "passthrough":
        await until(lambda: bool(finished), "the record was never finished")
    check(cell, Seen(FOR_THE_RECORD if finished else NOBODY))


WAITING: list[None] = []
"""One for each that waits at the gate."""


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nobody finishes taking references apart before it is set."""
    opened = threading.Event()
    real: Callable[[Any], Matcher] = references._make_matcher.__wrapped__
    WAITING.clear()

    def taken_apart(texts: Any) -> Matcher:
        WAITING.append(None)
        opened.wait(20)
        return real(texts)

    monkeypatch.setattr(references, "_make_matcher", taken_apart)
    yield opened
    opened.set()


def guard(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    cell: Cell,
    references: list[Any] | None = None,
    *,
    objectives: list[str] | None = None,
    granted: bool = False,
) -> AlignerGuardrail:
    """The guardrail of the cell's policy with two reference files or these references, and an engine that is gone."""
    (folder / "PAGE.md").write_text(PAGE)
    (folder / "OTHER.md").write_text("Gift cards are valid for three years.\n")
    said = policies(cell)
    held = references or [{"file": "PAGE.md"}, {"file": "OTHER.md"}]
    said["routes"] = [route | {"objectives": objectives or [], "references": held} for route in said["routes"]]
    if granted:
        said["tenants"] = [{"match": {}, "allow_references": True}]
    made = open_guardrail(folder, monkeypatch, said)
    engine = ScriptedEngine(lambda _: EngineUnavailable("scripted"))
    made.pipeline = Pipeline(engine, extensions=made.pipeline.extensions)
    return made
