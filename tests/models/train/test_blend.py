"""The mean of two runs: numbers between theirs, and runs that do not go together are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.weights.manifest import ADAPTER, ADAPTER_WEIGHTS, HEAD
from models.train.blend import STAGE, BlendError, blend, main


def a_run(folder: Path, number: float, layers: tuple[int, ...] = (0, 1), size: int = 4) -> Path:
    folder.mkdir()
    save_file({"lora_A": torch.full((2, size), number)}, str(folder / ADAPTER_WEIGHTS))
    head = DetectorHead(8, layers, width=3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.fill_(number)
    head.save(folder / HEAD)
    (folder / ADAPTER).write_text(json.dumps({"r": 2, "of": number}))
    return folder


def test_every_number_lies_between_those_of_the_runs(tmp_path: Path) -> None:
    before = a_run(tmp_path / "before", 1.0)
    after = a_run(tmp_path / "after", 3.0)
    (after / STAGE).write_text(json.dumps({"config": {"seed": 7}}))
    main([str(tmp_path / "out"), f"{before}=0.25", f"{after}=0.75"])
    assert (load_file(str(tmp_path / "out" / ADAPTER_WEIGHTS))["lora_A"] == 2.5).all()
    head = DetectorHead.load(tmp_path / "out" / HEAD)
    assert all((parameter == 2.5).all() for parameter in head.parameters())
    assert head.layers.tolist() == [0, 1]
    assert json.loads((tmp_path / "out" / ADAPTER).read_text())["of"] == 3.0
    said = json.loads((tmp_path / "out" / STAGE).read_text())
    assert said == {"config": {"seed": 7}, "blended": {str(before): 0.25, str(after): 0.75}}


def test_shares_add_up_to_one(tmp_path: Path) -> None:
    one = a_run(tmp_path / "one", 1.0)
    other = a_run(tmp_path / "other", 2.0)
    with pytest.raises(BlendError, match=r"have to add up to 1 and are 0.5, 0.6"):
        blend({one: 0.5, other: 0.6}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_of_other_shapes_or_layers_are_named(tmp_path: Path) -> None:
    one = a_run(tmp_path / "one", 1.0)
    wider = a_run(tmp_path / "wider", 1.0, size=5)
    elsewhere = a_run(tmp_path / "elsewhere", 1.0, layers=(0, 2))
    with pytest.raises(BlendError, match=r"wider and .*one have weights of other shapes"):
        blend({one: 0.5, wider: 0.5}, tmp_path / "out")
    with pytest.raises(BlendError, match="layers differs between the runs"):
        blend({one: 0.5, elsewhere: 0.5}, tmp_path / "out")


@pytest.mark.parametrize(
    ("runs", "problem"),
    [(["one"], "'one' is not FOLDER=SHARE"), (["gone=1"], "gone/adapter_model.safetensors cannot be read")],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[str], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=problem):
        main(["out", *runs])
