"""Rejection sampling for the next stage: which draft is learned, by which weights, and the command on tiny models."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.text.structure import split
from aligner_proxy.types import Correction, SegmentScore
from models.data.pairs import CHANGES, STAYS, Pair, read_pairs, write_pairs
from models.systems.meal import rejection
from tests.models.train.test_train import aligner
from tests.support.scripted import ScriptedEngine
from tests.support.tiny import OBJECTIVES

PAIR = Pair("Q?", OBJECTIVES, "One. You fool. Two.", "-", (0, 1, 0), "test")


def reader(request: AlignRequest) -> Correction:
    scores = (SegmentScore(one.text, 3.0 if "fool" in one.text else -3.0, False, 0) for one in split(request.answer))
    return Correction(request.answer, tuple(scores))


@pytest.mark.parametrize(
    ("drafts", "target", "labels"),
    [
        (["One.", "One. Two.", "One. You fool."], "One. Two.", (STAYS, CHANGES, STAYS)),
        (["Two fools. You fool.", ""], PAIR.answer, (STAYS, STAYS, STAYS)),
        ([], PAIR.answer, (STAYS, STAYS, STAYS)),
    ],
)
async def test_the_draft_that_costs_least_is_learned(drafts: list[str], target: str, labels: tuple[int, ...]) -> None:
    choice = await rejection.choose_target(ScriptedEngine(reader), PAIR, drafts, uniform=False)
    assert (choice.pair.target, choice.pair.labels, choice.pair.source) == (target, labels, "rejection:test")
    assert choice.best <= choice.first
    assert choice.best <= choice.original


async def test_what_sampling_brought_is_told_with_n() -> None:
    choices = await rejection.choose_targets(
        ScriptedEngine(reader), lambda pair, k: ["One.", "One. Two."][:k], [PAIR] * 5, 2, uniform=True
    )
    lines = list(rejection.summarise(choices))
    assert all("n = 5" in line for line in lines[:4])
    assert lines[-1] == "5 of 5 answers are changed by their target"


def test_the_command_writes_pairs_of_the_next_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    folder = str(aligner(tmp_path))
    write_pairs(tmp_path / "pairs.jsonl", [PAIR, PAIR])
    out = tmp_path / "best.jsonl"
    asked = [folder, str(tmp_path / "pairs.jsonl"), "--reader", folder, "--k", "3", "--seed", "1", "--limit", "1"]
    rejection.main([*asked, "--out", str(out)])
    first = out.read_bytes()
    (pair,) = read_pairs(out)
    assert (pair.query, pair.answer, pair.source) == (PAIR.query, PAIR.answer, "rejection:test")
    assert "best below first" in capsys.readouterr().out
    rejection.main([*asked, "--out", str(out)])
    assert out.read_bytes() == first
