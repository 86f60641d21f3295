"""What a run leaves on its way, and that it ends when its time is over."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.taught_head import TaughtHead, pack
from aligner_proxy.engine.weights.manifest import TAUGHT
from models.data.pairs import Pair, write_pairs
from models.train import train
from models.train.config import StageConfig, StageError
from models.train.export import export
from models.train.snapshots import split_scores
from tests.models.train.test_train import log, stage, trained
from tests.support import tiny

WATCHED = [
    Pair("When?", tiny.OBJECTIVES, "Bring a coat. You are a fool.", "Bring a coat.", (0, 1), "test"),
    Pair("Where?", (*tiny.OBJECTIVES, "Length: be brief"), "At the pier.", "At the pier.", (0,), "test"),
]


def watching(folder: Path, **changes: object) -> Path:
    write_pairs(folder / "watch.jsonl", WATCHED)
    return stage(folder, **{"watch": str(folder / "watch.jsonl"), "snapshots": [0, 0.5], "blends": [0.5]} | changes)


def scores(folder: Path) -> dict[str, list[torch.Tensor]]:
    with np.load(folder / "out" / "snapshots" / "scores.npz") as stored:
        return {name: split_scores(stored[name], [(2, 1), (1, 2)]) for name in stored.files}


def test_a_run_keeps_its_weights_and_scores_at_its_snapshots(tmp_path: Path) -> None:
    train.main(watching(tmp_path, snapshots=[0, 0.5], blends=[0.0, 0.5, 1.0]))
    found = scores(tmp_path)
    assert list(found) == ["step-0", "step-3", "step-6", "blend-0", "blend-0.5", "blend-1"]
    assert [one.shape for one in found["step-0"]] == [(2, 1), (1, 2)]
    assert sorted(path.name for path in (tmp_path / "out" / "snapshots").glob("*.tar")) == ["step-3.tar", "step-6.tar"]
    for blend, step in (("blend-0", "step-0"), ("blend-1", "step-6")):
        assert all(torch.equal(a, b) for a, b in zip(found[blend], found[step], strict=True))
    assert not torch.equal(found["step-0"][0], found["step-6"][0])
    assert not torch.equal(found["blend-0.5"][0], found["step-6"][0])
    # What blends need is put back: the end is as it would have been without them.
    train.main(stage(tmp_path / "plain"))
    assert all(torch.equal(tensor, trained(tmp_path)[name]) for name, tensor in trained(tmp_path / "plain").items())


def test_a_snapshot_is_a_folder_that_is_exported(tmp_path: Path) -> None:
    train.main(watching(tmp_path, blends=[]))
    with tarfile.open(tmp_path / "out" / "snapshots" / "step-6.tar") as packed:
        packed.extractall(tmp_path / "end", filter="data")
    export(tmp_path / "end", tmp_path / "aligner", window=1024)
    end = load_file(str(tmp_path / "end" / "adapter_model.safetensors"))
    assert {tensor.dtype for tensor in end.values()} == {torch.bfloat16}
    for name, tensor in trained(tmp_path).items():
        torch.testing.assert_close(end[name].float(), tensor, rtol=1e-2, atol=1e-3)


def test_scores_by_the_heads_that_the_beginning_comes_with(tmp_path: Path) -> None:
    train.main(stage(tmp_path / "a", steps=1))
    before = tmp_path / "a" / "out"
    width = DetectorHead.load(before / "detector.safetensors").row_width
    head = TaughtHead(tiny.OBJECTIVES[0], "", 0.0, 3.0, bytes(2 * width))
    (before / TAUGHT).write_bytes(pack([head]))
    train.main(watching(tmp_path, init=str(before), steps=2, blends=[]))
    first, second = scores(tmp_path)["step-2/taught"]
    assert first.tolist() == [[3.0], [3.0]]
    assert second[0, 0] == 3.0
    assert second[0, 1] == scores(tmp_path)["step-2"][1][0, 1]


def test_a_run_is_over_when_its_time_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.0, 0.4, 0.8, 1.0])
    monkeypatch.setattr(train.RunClock, "share", lambda _self: next(shares))
    train.main(watching(tmp_path, steps=500, max_seconds=60.0, snapshots=[0.7]))
    assert len(log(tmp_path)) == 3
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    names = {path.stem for path in (tmp_path / "out" / "snapshots").glob("*.tar")}
    assert names == {"step-2", "step-3"}


def test_the_rate_falls_with_the_time_that_is_over(tmp_path: Path) -> None:
    config = StageConfig.read(stage(tmp_path, steps=1000))
    assert train.learning_rate_share(config, 10, 1.0) == pytest.approx(config.lr_floor)
    assert train.learning_rate_share(config, 10, 0.5) < train.learning_rate_share(config, 10)
    assert train.learning_rate_share(config, 10, 0.0) == train.learning_rate_share(config, 10)


def test_time_counts_from_the_first_step_and_not_without_a_limit(tmp_path: Path) -> None:
    free = StageConfig.read(stage(tmp_path))
    assert train.RunClock(free, 0.0).share() == 0.0
    late = StageConfig.read(stage(tmp_path, max_seconds=1e-6))
    assert train.RunClock(late, 0.0).share() >= 1.0


def test_nothing_is_left_where_no_snapshots_are_asked_for(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1))
    assert not (tmp_path / "out" / "snapshots").exists()


def test_several_processes_have_no_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two:
        num_processes = 2

    monkeypatch.setattr(train, "open_accelerator", lambda _count: Two())
    with pytest.raises(StageError, match="one process"):
        train.main(stage(tmp_path, max_seconds=5.0))


def test_settings_are_changed_where_a_run_is_started(tmp_path: Path) -> None:
    config = stage(tmp_path)
    train.main(config, {"steps": 1, "out": str(tmp_path / "elsewhere")})
    assert (tmp_path / "elsewhere" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "out").exists()
    with pytest.raises(StageError, match="stepz"):
        train.main(config, {"stepz": 1})


def test_a_base_that_lies_ready_is_taken_for_the_one_named(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1, base="gguf:nowhere/file.gguf", base_folder=str(tmp_path / "base")))
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
