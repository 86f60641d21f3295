"""The second stage: what it needs, and, where TRL is installed, that it learns from where the first one ended."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from aligner_proxy.engine.weights.manifest import MANIFEST
from models.systems.metaalign import dpo
from models.systems.metaalign.dpo import DpoStage, read_comparisons
from models.train import train
from models.train.config import StageConfig, StageError
from models.train.export import export
from tests.models.train.test_train import stage, trained

CONFIGS = Path(__file__).parents[3] / "configs" / "train"


def second(folder: Path, **changes: object) -> Path:
    """A config over what the first stage left in `folder`."""
    told = [{"prompt": f"Question {i}? ", "chosen": "Bring a coat.", "rejected": "You are a fool."} for i in range(8)]
    (folder / "dpo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    config = {
        "stage": "dpo",
        "base": str(folder / "base"),
        "data": str(folder / "dpo.jsonl"),
        "out": str(folder / "second"),
        "init": str(folder / "out"),
        "seed": 1,
        "beta": 0.5,
        "lr": 1e-2,
        "steps": 6,
        "batch": 4,
        "max_tokens": 128,
    } | changes
    path = folder / "dpo.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_the_configs_of_both_stages_fit_each_other() -> None:
    first = StageConfig.read(CONFIGS / "metaalign.yaml")
    told = yaml.safe_load((CONFIGS / "metaalign_dpo.yaml").read_text())
    assert (told["base"], told["init"]) == (first.base, str(first.out))
    assert set(told) == set(DpoStage.model_fields)


@pytest.mark.parametrize(
    ("changes", "message"), [({"bta": 1}, "bta"), ({"beta": 0}, "beta"), ({"init": "/nowhere"}, "holds no adapter")]
)
def test_a_config_that_is_wrong(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(StageError, match=message):
        DpoStage.read(second(tmp_path, **changes))


@pytest.mark.parametrize("line", ['{"prompt": "a", "chosen": "b"}', "[]", ""])
def test_rows_that_are_no_comparison(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.jsonl").write_text(line + "\n" if line else "")
    with pytest.raises(StageError, match=r"x\.jsonl"):
        read_comparisons(tmp_path / "x.jsonl", "")


def test_without_trl_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpo, "find_spec", lambda _: None)
    with pytest.raises(StageError, match=r"aligner-proxy\[trl\]"):
        dpo.main(tmp_path / "any.yaml")


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs the extra `trl`")
@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore")
def test_two_stages_on_a_tiny_model(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=2))
    dpo.main(second(tmp_path))
    log = [json.loads(line) for line in (tmp_path / "second" / "log.jsonl").read_text().splitlines()]
    # It starts at its own reference: the loss of an even choice.
    assert log[0]["loss"] == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-3)
    assert log[-1]["loss"] < log[0]["loss"]
    before = trained(tmp_path)
    after = load_file(str(tmp_path / "second" / "adapter_model.safetensors"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    export(tmp_path / "second", tmp_path / "aligner", window=1024)
    assert (tmp_path / "aligner" / MANIFEST).exists()
