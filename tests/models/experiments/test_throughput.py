"""Tokens a second beside TRL: the real trainers on a tiny model, in a process of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.experiments import throughput
from models.experiments.throughput import TRL, TimedRound, format_table, measure, plot, rows_a_batch
from models.train.base_model import load_base
from models.train.batches import load_examples
from models.train.config import StageConfig
from tests.models.train.test_train import stage

ROOT = Path(__file__).parents[3]


def test_trainers_take_turns_and_the_median_counts(tmp_path: Path) -> None:
    order: list[str] = []

    def trainer(name: str, speeds: list[int]) -> throughput.Trainer:
        rest = iter(speeds)

        def run() -> TimedRound:
            order.append(name)
            return TimedRound(next(rest) * 10, 10.0, 4)

        return run

    speeds = measure({"ours": trainer("ours", [100, 900, 300]), TRL: trainer(TRL, [100, 150, 200])}, 3)
    assert order == ["ours", TRL] * 3
    assert [(one.median, one.faster, one.steps) for one in speeds] == [(300, 2.0, 12), (150, 1.0, 12)]
    assert "| ours | 300 | 100 to 900 | 2.00 | 12 | 13000 | 30 |" in format_table(speeds)
    plot(speeds, tmp_path / "p.svg")
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_a_batch_has_as_many_rows_as_ours_on_average(tmp_path: Path) -> None:
    config = StageConfig.read(stage(tmp_path, batch_tokens=1500))
    examples = load_examples(config, load_base(config.base, tmp_path)[1])
    wide = -(-len(examples[0].ids) // 64) * 64
    assert rows_a_batch(config, examples[:1]) == 1500 // wide


def test_without_trl_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.experiments.throughput.find_spec", lambda _: None)
    with pytest.raises(SystemExit, match=r"pip install 'aligner-proxy\[trl\]'"):
        throughput.main([str(stage(tmp_path)), "--out", str(tmp_path / "out")])


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs the extra `trl`")
def test_both_real_trainers_see_the_same_tokens(tmp_path: Path) -> None:
    config = stage(tmp_path, batch_tokens=1600)
    first, *_ = (tmp_path / "data.jsonl").read_text().splitlines()
    (tmp_path / "data.jsonl").write_text(f"{first}\n" * 24)  # rows of one length: batches of both have as many
    options = ["--out", str(tmp_path / "out"), "--steps", "2", "--unseen", "1", "--rounds", "1"]
    command = [sys.executable, "-m", "models.experiments.throughput", str(config), *options]
    done = subprocess.run(command, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads(done.stdout.strip().splitlines()[-1])
    assert [one["trainer"] for one in document] == ["ours", TRL]
    assert all(one["median"] > 0 and one["rounds"][0]["steps"] == 2 for one in document)
    assert document[0]["rounds"][0]["tokens"] == document[1]["rounds"][0]["tokens"]
    assert (tmp_path / "out" / "throughput.svg").exists()
