"""`bench.gpu_floor` from end to end on a tiny shape and the CPU, and what it says where there is no GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aligner_proxy.engine.model import cost
from bench import gpu_floor

PARTS = ["ceilings", "products", "equality", "forwards", "edits"]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "gpu_floor.jsonl").read_text().splitlines()]


@pytest.mark.full
def test_a_rehearsal_measures_sixteen_at_once(tmp_path: Path) -> None:
    assert gpu_floor.main(["--rehearse", "--parts", "sixteen", "--out", str(tmp_path)]) == 0
    assert {row["part"] for row in rows(tmp_path) if row.get("complete")} == {"sixteen"}


def test_a_rehearsal_measures_every_other_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_ROUNDS", 1)
    assert gpu_floor.main(["--rehearse", "--parts", *PARTS, "--out", str(tmp_path)]) == 0
    measured = rows(tmp_path)
    assert {row["part"] for row in measured if row.get("complete")} == set(PARTS)
    [equal] = [row for row in measured if row.get("name") == "tiny equality"]
    assert (equal["alone"], equal["together"], equal["differences"]) == (equal["cases"], equal["cases"], [])
    [recording] = [row for row in measured if row.get("name") == "recording"]
    assert recording["recorded"], "the stack must be what is measured"
    unchanged = next(row for row in measured if row.get("name") == "edits 0% drafts")
    assert unchanged["forwards"] == 1


def test_what_is_complete_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = {"part": "equality", "shape": "", "complete": True, "s": 1.0}
    (tmp_path / "gpu_floor.jsonl").write_text(json.dumps(done) + "\n")
    calls: list[str] = []

    def fail(_bench: gpu_floor.DeviceBench) -> Any:
        calls.append("products")
        raise RuntimeError("no room on the card")

    monkeypatch.setitem(gpu_floor.OF_THE_CARD, "products", fail)
    assert gpu_floor.main(["--rehearse", "--parts", "equality", "products", "--out", str(tmp_path)]) == 1
    last = rows(tmp_path)[-1]
    assert calls == ["products"]
    assert (last["part"], last["complete"], last["error"]) == ("products", False, "RuntimeError: no room on the card")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_floor.main(["--out", str(tmp_path / "none")]) == 1
    assert "needs a CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
