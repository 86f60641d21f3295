"""Checkpoints: what survives a full disk, and which ones are refused."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from models.train import checkpoint, train
from models.train.config import StageError
from tests.models.train.test_train import log, stage
from tests.support import tiny


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes: writes fail where they stand, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def stopped(folder: Path) -> Path:
    """The config of a run that has a checkpoint of step 2 and went no further."""
    train.main(stage(folder, checkpoint_every=2, steps=2, schedule=6))
    return stage(folder, checkpoint_every=2, schedule=6)


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    config = stopped(tmp_path)
    kept = tmp_path / "out" / checkpoint.FILE
    before = kept.read_bytes()
    problem = "checkpoint of step 4 could not be written.*the one before is whole"
    with room_for(len(before) // 2), pytest.raises(StageError, match=problem):
        train.main(config)
    assert kept.read_bytes() == before
    assert not (tmp_path / "out" / "checkpoint.partial").exists()
    train.main(config)
    assert [row["step"] for row in log(tmp_path)][-1] == 5
    assert torch.load(kept, weights_only=True)["step"] == 6


def test_without_a_checkpoint_before_it_says_so(tmp_path: Path) -> None:
    config = stage(tmp_path)
    with room_for(20_000), pytest.raises(StageError, match=r"step 3 could not be written.*there is none before it"):
        train.main(config)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"base": "elsewhere"}, r"is of another base \(.*base, not .*elsewhere\)"),
        ({"lora": {"rank": 2, "alpha": 8}}, r"is of another lora \(.*'rank': 4.*, not .*'rank': 2"),
        ({"seed": 2}, r"is of another seed \(1, not 2\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_name(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    stopped(tmp_path)
    if "base" in changes:
        changes = {"base": str(tiny.save(tmp_path / "elsewhere"))}
    with pytest.raises(StageError, match=problem):
        train.main(stage(tmp_path, checkpoint_every=2, schedule=6, **changes))


def test_other_pairs_in_the_same_file_are_noticed(tmp_path: Path) -> None:
    config = stopped(tmp_path)
    text = (tmp_path / "data.jsonl").read_text()
    (tmp_path / "data.jsonl").write_text(text.replace("Question 1?", "Question one?"))
    with pytest.raises(StageError, match=r"another sha256.*the files of pairs have changed"):
        train.main(config)


def test_another_base_under_the_same_name_is_noticed(tmp_path: Path) -> None:
    config = stopped(tmp_path)
    other = AutoConfig.from_pretrained(tmp_path / "base")
    other.hidden_size = 32
    other.intermediate_size = 64
    AutoModelForCausalLM.from_config(other).save_pretrained(tmp_path / "base")
    with pytest.raises(StageError, match=r"does not fit .*base; what is there now is another base"):
        train.main(config)


def test_how_far_and_how_a_run_is_computed_may_change(tmp_path: Path) -> None:
    stopped(tmp_path)
    train.main(stage(tmp_path, checkpoint_every=5, schedule=6, steps=3, gradient_checkpointing=True))
    assert [row["step"] for row in log(tmp_path)] == [0, 1, 2]
