"""The trainer on a tiny model: learns, resumes exactly, exports what the gateway reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file

from aligner_proxy.engine.detector import DetectorHead
from models import train
from models.export import export
from models.pairs import Pair, write_pairs
from tests.engine import tiny

KEPT = ["The harbour opens at six.", "Bring a coat.", "The first ferry leaves at seven.", "Small boats stay close."]


def stage(folder: Path, **changes: object) -> Path:
    """A stage config for the tiny model; data are a few sentences with one defect each."""
    tiny.save(folder / "base")
    pairs = []
    for i in range(24):
        kept = [KEPT[i % 4], KEPT[(i + 1) % 4]]
        answer = f"{kept[0]} You are a fool. {kept[1]}"
        pairs.append(Pair(f"Question {i}?", tiny.OBJECTIVES, answer, " ".join(kept), (0, 1, 0), "test"))
    write_pairs(folder / "data.jsonl", pairs)
    config = {
        "stage": "warmup",
        "base": str(folder / "base"),
        "data": str(folder / "data.jsonl"),
        "out": str(folder / "out"),
        "init": None,
        "template": "ultrafeedback",
        "seed": 1,
        "lora": {"rank": 4, "alpha": 8, "first_layer": 1},
        "lr": 1e-2,
        "lr_floor": 0.1,
        "lr_warmup_steps": 2,
        "steps": 6,
        "batch_tokens": 1200,
        "max_tokens": 512,
        "target_share": 1.0,
        "detector_weight": 1.0,
        "checkpoint_every": 3,
    } | changes
    path = folder / "stage.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def trained(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(str(folder / "out" / "adapter_model.safetensors"))


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()]


def test_both_losses_fall(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=25))
    rows = log(tmp_path)
    assert rows[-1]["detection"] < rows[0]["detection"] / 2
    assert rows[-1]["correction"] < rows[0]["correction"]


def test_a_run_that_was_killed_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train.main(stage(whole))
    config = stage(halves)

    class Killed(Exception):
        pass

    real = train.checkpoint

    def checkpoint_then_die(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        raise Killed

    monkeypatch.setattr(train, "checkpoint", checkpoint_then_die)
    with pytest.raises(Killed):
        train.main(config)
    monkeypatch.setattr(train, "checkpoint", real)
    train.main(config)
    expected, found = trained(whole), trained(halves)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    losses = [[(row["step"], row["detection"]) for row in log(folder)] for folder in (whole, halves)]
    assert losses[0] == losses[1]


def test_a_later_stage_starts_from_the_one_before(tmp_path: Path) -> None:
    train.main(stage(tmp_path / "a"))
    train.main(stage(tmp_path / "b", init=str(tmp_path / "a" / "out"), steps=1, lr=0.0))
    before, after = trained(tmp_path / "a"), trained(tmp_path / "b")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_layers_below_the_first_are_left_alone(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1))
    assert all(".layers.1." in name for name in trained(tmp_path))


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="lr_warmpu"):
        train.main(stage(tmp_path, lr_warmpu=3))


def test_the_export_names_base_template_and_hashes(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1))
    export(tmp_path / "out", tmp_path / "aligner", window=2048, shift=1.5)
    manifest = json.loads((tmp_path / "aligner" / "aligner.json").read_text())
    assert manifest["template"] == "ultrafeedback"
    assert set(manifest["files"]) == {"adapter_model.safetensors", "adapter_config.json", "detector.safetensors"}
    adapter = load_file(str(tmp_path / "aligner" / "adapter_model.safetensors"))
    assert {tensor.dtype for tensor in adapter.values()} == {torch.bfloat16}


def test_the_operating_point_moves_every_score_by_the_shift(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1))
    export(tmp_path / "out", tmp_path / "aligner", window=2048, shift=1.5)
    states = torch.randn(5, 64)
    before = DetectorHead.load(tmp_path / "out" / "detector.safetensors")(states)
    after = DetectorHead.load(tmp_path / "aligner" / "detector.safetensors")(states)
    torch.testing.assert_close(after, before + 1.5)
