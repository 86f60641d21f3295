"""Several processes make the same steps as one; over real processes and gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from models.data.pairs import Pair, write_pairs
from models.train import train
from models.train.config import StageError
from models.train.distributed import open_accelerator
from tests.models.train.test_train import log, stage
from tests.support import tiny

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs" / "accelerate" / "fsdp.yaml"
STEPS: dict[str, Any] = {"accumulate": 4, "batch_tokens": 300, "checkpoint_every": 2, "schedule": 4}


def launch(module: str, *configs: Path) -> None:
    """Two processes on the CPU, by the config for four GPUs."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG)]
    command += ["--num_processes", "2", "-m", module, *map(str, configs)]
    settings = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def bags(folder: Path) -> Path:
    """Replies in twos: their batches have no target, so that not every process uses every weight by itself."""
    replies = ("Bring a coat.", "You are a fool.")
    write_pairs(
        folder / "bags.jsonl",
        [Pair(f"Q{i}?", tiny.OBJECTIVES, text, text, (-1,), "bag") for i in range(8) for text in replies],
    )
    return folder / "bags.jsonl"


def same_run(alone: Path, shared: Path, weights: str) -> None:
    """Steps and final weights of two runs agree up to the order of sums."""
    assert [row["step"] for row in log(shared)] == [row["step"] for row in log(alone)]
    for one, two in zip(log(alone), log(shared), strict=True):
        assert (two["tokens"], two["bags"]) == (one["tokens"], one["bags"])
        for name in ("correction", "detection", "norm"):
            # The forward pass is bf16, so sums in another order differ by up to half a percent on some CPUs.
            assert two[name] == pytest.approx(one[name], rel=0.01, abs=0.002), (one, two)
    for file in (weights, "detector.safetensors"):
        expected, found = (load_file(folder / "out" / file) for folder in (alone, shared))
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0.05, atol=5e-3)


@pytest.mark.long
@pytest.mark.timeout(900)  # twenty seconds on two idle cores; imports take most of it
def test_two_processes_that_shard_the_whole_model_make_the_steps_of_one(tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shared = tmp_path / "shared"
    changes = STEPS | {"lora": None, "lr": 1e-3, "bags": str(bags(tmp_path)), "bag_every": 2, "steps": 3}
    train.main(stage(alone, **changes))
    launch("models.train", stage(shared, **changes, gradient_checkpointing=True))
    same_run(alone, shared, "model.safetensors")


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(900)  # twenty seconds on two idle cores
def test_a_sharded_adapter_goes_on_from_its_shards(tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shared = tmp_path / "shared"
    train.main(stage(alone, **STEPS, steps=4))
    half = stage(shared, **STEPS, steps=2).rename(shared / "half.yaml")
    launch("tests.models.train.launched", half, stage(shared, **STEPS, steps=4, gradient_checkpointing=True))
    assert (shared / "out" / "checkpoint" / "step").read_text() == "4"
    same_run(alone, shared, "adapter_model.safetensors")


def test_one_process_computes_all_batches_as_they_are() -> None:
    alone = open_accelerator(3)
    assert (alone.num_processes, alone.is_main_process, alone.gradient_accumulation_steps) == (1, True, 1)
    weight = torch.ones(1, requires_grad=True)
    for _ in range(3):
        alone.backward(weight.sum() / 3)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.ones(1))


def test_batches_that_cannot_be_dealt_out_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two:
        num_processes = 2

    monkeypatch.setattr("models.train.distributed._make_accelerator", Two)
    with pytest.raises(StageError, match=r"accumulate: 3 batches .* 2 processes; make it a multiple of 2"):
        open_accelerator(3)


def test_a_checkpoint_of_several_processes_is_not_passed_over_by_one(tmp_path: Path) -> None:
    config = stage(tmp_path, steps=1)
    (tmp_path / "out" / "checkpoint").mkdir(parents=True)
    with pytest.raises(StageError, match="is of a run by several processes"):
        train.main(config)


def test_the_config_is_what_accelerate_reads() -> None:
    settings = yaml.safe_load(CONFIG.read_text())
    config = load_config_from_file(str(CONFIG))
    assert isinstance(config, ClusterConfig)
    assert config.distributed_type is DistributedType.FSDP
    assert config.num_processes == 4
    assert config.fsdp_config == settings["fsdp_config"]
    assert config.mixed_precision == "no"
