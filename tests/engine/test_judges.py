"""Token classifiers beside an aligner: loaded with it, asked over the wire, and no trouble to it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aligner_proxy.engine.admission import LocalAdmission
from aligner_proxy.engine.api import TokenLabels, TokenLabelsRequest, require_judges
from aligner_proxy.engine.client.circuit_breaker import THRESHOLD
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.client.replicas import Replicas
from aligner_proxy.engine.client.vllm_scorer import VllmScorer
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.loop import correct_alone
from aligner_proxy.engine.model import cost
from aligner_proxy.engine.model.token_classifier import TokenClassifier, open_classifier
from aligner_proxy.errors import (
    DeadlineExceeded,
    EngineFault,
    EngineUnavailable,
    InvalidOutput,
    QuotaSpent,
    UnknownJudge,
    WeightsError,
)
from aligner_proxy.types import Quota
from scripts.imported_modules import ROOT, imported_files
from tests.engine.server.test_app import serving
from tests.support import tiny
from tests.support.scripted import ScriptedEngine
from tests.support.tiny_classifiers import CATEGORIES, save_guard, save_pair_model


def request(name: str = "guard", **more: Any) -> TokenLabelsRequest:
    settings: dict[str, Any] = {"question": "When?", "answer": tiny.ANSWER, "deadline_s": 30} | more
    return TokenLabelsRequest(request_id="t", model=name, **settings)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("judges")
    return {"guard": save_guard(folder / "guard"), "facts": save_pair_model(folder / "facts")}


@pytest.fixture(scope="module")
def judges(folders: dict[str, Path]) -> dict[str, TokenClassifier]:
    return {name: open_classifier(name, str(folder), "none", torch.float32) for name, folder in folders.items()}


def judged_aligner(judges: dict[str, TokenClassifier]) -> Aligner:
    aligner = tiny.aligner()
    infos = {name: judge.info for name, judge in judges.items()}
    return replace(aligner, judges=judges, info=replace(aligner.info, judges=infos))


@pytest.fixture
async def engine(judges: dict[str, TokenClassifier]) -> AsyncIterator[LocalEngine]:
    local = LocalEngine(lambda: judged_aligner(judges))
    await local.start()
    yield local
    await local.aclose()


async def test_judges_are_asked_over_the_wire_as_in_the_process(
    engine: LocalEngine, judges: dict[str, TokenClassifier], tmp_path: Path
) -> None:
    async with serving(LocalAdmission(engine), tmp_path / "e.sock") as client:
        about = await client.info()
        assert {name: info.categories for name, info in about.judges.items()} == {"guard": CATEGORIES, "facts": None}
        for name, judge in judges.items():
            expected = judge.label_tokens(request(name))
            assert expected.spans
            for one in (client, Replicas([("a", client)])):
                labels = await require_judges(one).label_tokens(request(name))
                assert (labels.spans, labels.read) == (expected.spans, expected.read)


async def test_a_judge_that_is_not_there_is_named_with_those_that_are(engine: LocalEngine, tmp_path: Path) -> None:
    async with serving(engine, tmp_path / "e.sock") as client:
        replicas = Replicas([("a", client)])
        with pytest.raises(UnknownJudge, match="this engine has no judge 'x'; it has: guard, facts"):
            await replicas.label_tokens(request("x"))
        assert replicas.replicas[0].healthy, "it did nothing wrong"
    without = LocalEngine(tiny.aligner)
    await without.start()
    with pytest.raises(UnknownJudge, match="it has: none"):
        await without.label_tokens(request())
    await without.aclose()
    with pytest.raises(UnknownJudge, match="this engine has no judges"):
        require_judges(VllmScorer("vllm://127.0.0.1:1"))


async def test_a_call_takes_a_slot_and_its_tenants_quota(engine: LocalEngine) -> None:
    admission = LocalAdmission(engine)
    quota = Quota("acme", 1e-9)
    await admission.label_tokens(request(tenant="acme", quota=quota))
    with pytest.raises(QuotaSpent):
        await admission.label_tokens(request(tenant="acme", quota=quota))


async def test_a_slow_judge_is_given_up_and_holds_no_correction(
    engine: LocalEngine, judges: dict[str, TokenClassifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    monkeypatch.setattr(judges["guard"], "label_tokens", lambda _: stop.wait(30))
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await engine.label_tokens(request(deadline_s=0.1))
    correction = await engine.align(tiny.request())
    assert time.monotonic() - began < 20
    stop.set()
    assert correction.text == correct_alone(tiny.aligner(), tiny.request()).text


async def test_an_error_of_a_model_is_ours_and_quotes_nothing(
    engine: LocalEngine, judges: dict[str, TokenClassifier], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(asked: TokenLabelsRequest) -> TokenLabels:
        raise RuntimeError(asked.answer)

    monkeypatch.setattr(judges["guard"], "label_tokens", fail)
    async with serving(engine, tmp_path / "e.sock") as client:
        with pytest.raises(EngineFault, match=r"^the aligner failed: RuntimeError$"):
            await client.label_tokens(request())


async def test_labels_of_another_form_are_refused(tmp_path: Path) -> None:
    scripted = ScriptedEngine()
    scripted.add_judge("guard", lambda _: TokenLabels.model_construct(spans=("x",), read=1))  # type: ignore[arg-type]
    async with serving(scripted, tmp_path / "e.sock") as client:
        assert isinstance(client, HttpEngine)
        with pytest.raises(InvalidOutput, match="no labels of tokens"):
            await client.label_tokens(request())


async def test_a_replica_whose_judge_fails_keeps_its_aligner() -> None:
    scripted = ScriptedEngine()
    scripted.add_judge("wrong", lambda _: EngineFault("scripted"))
    scripted.add_judge("late", lambda _: TokenLabels(spans=(), read=1))
    scripted.add_judge("down", lambda _: EngineUnavailable("scripted"))
    scripted.labels_s = 0.05
    replicas = Replicas([("a", scripted)], wait_s=0)
    for name, error in (("wrong", EngineFault), ("late", DeadlineExceeded)):
        for _ in range(THRESHOLD + 1):
            with pytest.raises(error):
                await replicas.label_tokens(request(name, deadline_s=0.01 if name == "late" else 1.0))
        assert replicas.replicas[0].healthy, name
    with pytest.raises(EngineUnavailable):
        await replicas.label_tokens(request("down"))
    assert not replicas.replicas[0].healthy, "an engine that cannot be reached has no aligner either"


def test_judges_are_loaded_with_the_aligner(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_ROUNDS", 1)
    full = tiny.save(tmp_path / "full")
    settings = EngineSettings(full, "ultrafeedback", "none", judges=folders)
    steps: list[str] = []
    aligner = open_aligner(settings, tmp_path / "home", steps.append)
    assert {*aligner.info.judges} == {*aligner.judges} == {"guard", "facts"}
    assert aligner.judges["guard"].label_tokens(request()).spans
    assert {"loading judge guard", "loading judge facts"} <= {*steps}
    without = open_aligner(replace(settings, judges={}), tmp_path / "home")
    assert (without.judges, without.info) == ({}, replace(aligner.info, judges={}))
    with pytest.raises(WeightsError, match=r"judge 'guard': .*gone holds no config\.json"):
        open_aligner(replace(settings, judges={"guard": tmp_path / "gone"}), tmp_path / "home")


def test_without_judges_nothing_of_them_is_imported_by_the_source() -> None:
    """What the test below sees in a process of its own, which imports torch for seconds."""
    files = set[Path]()
    waiting = [ROOT / "aligner_proxy" / "engine" / name for name in ("loader.py", "local.py")]
    while waiting:
        file = waiting.pop()
        if file not in files:
            files.add(file)
            waiting.extend(imported_files(file, everywhere=False))
    names = {file.stem for file in files}
    assert {"loader", "local", "runner"} <= names
    assert "token_classifier" not in names


@pytest.mark.full
@pytest.mark.slow
def test_without_judges_nothing_of_them_is_imported() -> None:
    code = "import sys, aligner_proxy.engine.loader, aligner_proxy.engine.local; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "aligner_proxy.engine.loader" in modules
    assert "aligner_proxy.engine.model.token_classifier" not in modules
