"""The whole recipe on a tiny model: from data to a folder that the engine loads, stopped on the way and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.loop import correct_alone
from models.data import mixture
from models.data.pairs import write_pairs
from models.recipe import aligner_training
from models.recipe.aligner_training import Training, launch_command
from models.recipe.command import main
from models.recipe.settings import DEFAULT, read_settings
from models.train import train
from models.train.export import export
from tests.models.recipe.shapes import save_base
from tests.support import tiny


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The committed recipe with two stages of a few steps; the tiny tokenizer needs three times the tokens."""
    document = yaml.safe_load(DEFAULT.read_text())
    few = {"steps": 2, "max_tokens": 1500, "batch_tokens": 1500, "compile": False}
    for stage in document["stages"].values():
        stage["config"] = str(DEFAULT.parent / stage["config"])
        stage["examples"] = 6
        stage["changes"] = {**stage.get("changes", {}), **few}
    document["sizes"] = {"small": {"stages": ["warmup", "settle"], "head_stages": ["head"], "share": 1.0, "answers": 2}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


class Stopped(Exception):
    pass


def test_stopped_it_goes_on_to_an_aligner_that_the_engine_loads(
    tmp_path: Path, data_dir: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    base = save_base(tmp_path / "base", "llama")
    command = ["--base", str(base), "--data", str(data_dir), "--out", str(tmp_path / "out"), "--config", str(config)]
    real = aligner_training.calibrate

    def stop(*_: object, **__: object) -> None:
        raise Stopped

    monkeypatch.setattr(aligner_training, "calibrate", stop)
    with pytest.raises(Stopped):
        main(command)
    assert "step 6 of 12: train warmup, " in capsys.readouterr().out
    monkeypatch.setattr(aligner_training, "calibrate", real)
    main(command)
    lines = capsys.readouterr().out
    assert "train settle (done before)" in lines
    assert "export uncalibrated (done before)" in lines
    opened = open_aligner(EngineSettings(tmp_path / "out" / "aligner"), tmp_path / "home")
    assert opened.info.languages == ("en",)
    assert correct_alone(opened, tiny.request()).segments[0].objective == 0
    card = (tmp_path / "out" / "aligner" / "README.md").read_text()
    assert str(base) in card
    assert f"torch {torch.__version__.partition('+')[0]}" in card


def test_a_head_alone_is_trained_over_an_adapter_that_stays_as_it_is(
    tmp_path: Path, data_dir: Path, config: Path
) -> None:
    base = save_base(tmp_path / "base", "llama")
    place = {"base": str(base), "init": None, "out": str(tmp_path / "run")}
    settings = read_settings(config)
    pairs = mixture.build_examples(data_dir, 1, 4, "warmup")
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    warmup = settings.stages["warmup"]
    train.main(warmup.config, {**warmup.changes, **place, "data": str(tmp_path / "pairs.jsonl"), "steps": 1})
    export(tmp_path / "run", tmp_path / "aligner", window=1024)
    (tmp_path / "aligner" / "detector.safetensors").unlink()  # as a released aligner comes
    training = Training(str(tmp_path / "aligner"), data_dir, tmp_path / "out", "small", settings, head_only=True)
    steps = {step.name: step for step in training.list_steps()}
    steps["data head"].run()
    steps["train head"].run()
    before = load_file(str(tmp_path / "aligner" / "adapter_model.safetensors"))
    after = load_file(str(tmp_path / "out" / "runs" / "head" / "adapter_model.safetensors"))
    assert all(torch.equal(before[name], after[name].to(torch.bfloat16)) for name in before)
    assert (tmp_path / "out" / "runs" / "head" / "detector.safetensors").exists()


def test_several_gpus_share_each_step_by_accelerate() -> None:
    words = launch_command(Path("warmup.yaml"), {"out": "runs/a", "init": None, "lora": {"rank": 1}}, 4)
    assert words[words.index("--num_processes") + 1] == "4"
    assert words[-4:] == ["warmup.yaml", 'out="runs/a"', "init=null", 'lora={"rank": 1}']
