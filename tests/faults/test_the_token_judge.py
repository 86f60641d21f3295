"""Faults of a token classifier as judge, by the hooks that LiteLLM calls: the engine that has it fails as it is told.

The head flags the insult, and a classifier that works the sentence with the Seine. So each answer shows whether it was
heard, and that the aligner beside it still corrects.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.correctors.judge import Judges
from aligner_proxy.correctors.token_judge import EngineClassifier
from aligner_proxy.engine.api import LabelledSpan, TokenLabels, TokenLabelsRequest
from aligner_proxy.errors import (
    AnswerTooLong,
    CorrectionError,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    InvalidOutput,
)
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from tests.faults import faults
from tests.faults.cells import Cell, Fault, cells, check, every_kind
from tests.faults.conftest import policies
from tests.faults.test_by_the_hooks import deliver
from tests.faults.test_the_editor import guard_with, until
from tests.faults.test_the_judge import name_judged_text
from tests.support.scripted import LabelsScript, SegmentEngine, labelling

NAME = "guard"
honest = labelling("Seine")


def label_all_but_letters(request: TokenLabelsRequest) -> TokenLabels:
    """Spans that hold no letter of the answer: white space inside it, and characters behind its end."""
    blank = request.answer.find(" ")
    places = [(blank, blank + 1)] if blank >= 0 else []
    places.append((len(request.answer) + 5, len(request.answer) + 9))
    return TokenLabels(spans=tuple(LabelledSpan(start=at, end=end, label="bad") for at, end in places), read=9)


def raise_error(error: CorrectionError) -> LabelsScript:
    return lambda _: error


SCRIPTS: dict[Fault, LabelsScript] = {
    faults.TOKENS_DOWN: raise_error(EngineUnavailable("scripted")),
    faults.TOKENS_FULL: raise_error(EngineOverloaded("scripted", 30.0)),
    faults.TOKENS_BUG: raise_error(EngineFault("scripted")),
    faults.TOKENS_WINDOW: raise_error(AnswerTooLong("scripted")),
    faults.TOKENS_NOISE: raise_error(InvalidOutput("scripted")),
    faults.TOKENS_OUTSIDE: label_all_but_letters,
    faults.TOKENS_FLAGS: honest,
}
assert {*SCRIPTS, faults.TOKENS_MISSING, faults.TOKENS_DOWN_ONCE} == set(faults.BY_TOKENS)


def fail_once_about_it(error: CorrectionError) -> LabelsScript:
    """The script of a classifier that fails once about the sentence which it would flag."""
    failures = iter([error])
    return lambda request: (next(failures, None) if "Seine" in request.answer else None) or honest(request)


@every_kind
@pytest.mark.parametrize("cell", cells(faults.BY_TOKENS), ids=lambda cell: cell.name)
async def test_the_token_classifier_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    fault = cell.fault
    script = SCRIPTS.get(fault, honest)
    if fault is faults.TOKENS_DOWN_ONCE:
        script = fail_once_about_it(EngineUnavailable("scripted"))
    guarded, engine = guard(tmp_path, monkeypatch, cell, script)
    if fault is faults.TOKENS_MISSING:
        engine.judges.clear()
    check(cell, name_judged_text(await deliver(guarded, cell)))
    if fault is not faults.TOKENS_MISSING:
        await until(lambda: bool(engine.labelled), "the classifier was never asked")


@every_kind
@pytest.mark.parametrize("cell", cells((faults.TOKENS_SLOW,)), ids=lambda cell: cell.name)
async def test_the_token_classifier_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    guarded, engine = guard(tmp_path, monkeypatch, cell, honest)
    engine.labels_s = 120.0
    check(cell, name_judged_text(await deliver(guarded, cell)))
    await until(lambda: bool(engine.labelled), "the classifier was never asked")


def guard(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell, script: Callable[[TokenLabelsRequest], Any]
) -> tuple[AlignerGuardrail, SegmentEngine]:
    """The guardrail of the cell's policy, and its engine, whose classifier is asked about all that is not flagged."""
    judge = {"tokens": NAME, "band": 5.0}
    settings: dict[str, Any] = policies(cell) | {"defaults": {"judge": judge}, "aligner": {"judges": {NAME: "./guard"}}}
    for route in settings["routes"]:
        if "on_error" in route:
            route["on_error"] = {"judge": route["on_error"]}
    guarded = guard_with(folder, monkeypatch, settings, None)
    engine: Any = guarded.pipeline.engine
    engine.add_judge(NAME, script)

    def refuse(name: str) -> Any:
        raise AssertionError(f"a model group was asked for: {name}")

    guarded.pipeline.judges = Judges(refuse, refuse, open_classifier=lambda name: EngineClassifier(engine, name))
    return guarded, engine
