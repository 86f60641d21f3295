"""The costs of forwards: measured once a machine, kept, never in the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.engine.model import cost
from aligner_proxy.engine.model.runner import ModelRunner
from tests.support import tiny


class Counting:
    """Counts the forwards of a runner."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forwards = 0
        run = ModelRunner.run

        def counted(runner: ModelRunner, feeds: Any) -> list[list[int]]:
            self.forwards += 1
            return run(runner, feeds)

        monkeypatch.setattr(ModelRunner, "run", counted)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def test_costs_are_measured_once_and_kept(tmp_path: Path, counting: Counting) -> None:
    file = tmp_path / "models" / "x.costs.json"
    runner = tiny.together().runner
    first = cost.load_or_measure_costs(runner, file)
    assert [tokens for tokens, _ in first.points] == [1, 4, 8, 16, 32, 64, 128, 256]
    assert first.estimate_cost(256) > first.estimate_cost(1) > 0
    assert (runner.pool.count_uses().used, runner.pool.count_uses().cached) == (0, 0)
    before = counting.forwards
    assert cost.load_or_measure_costs(runner, file) == first
    assert counting.forwards == before


def test_every_machine_has_costs_of_its_own(
    tmp_path: Path, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.costs.json"
    runner = tiny.together().runner
    cost.load_or_measure_costs(runner, file)
    here = runner.machine
    monkeypatch.setattr(ModelRunner, "machine", "another")
    cost.load_or_measure_costs(runner, file)
    assert set(json.loads(file.read_text())) == {here, "another"}


@pytest.mark.parametrize("content", ["{", '{"x": [[1]]}', "[]"])
def test_a_damaged_file_costs_a_measurement(tmp_path: Path, counting: Counting, content: str) -> None:
    file = tmp_path / "x.costs.json"
    runner = tiny.together().runner
    file.write_text(content)
    assert len(cost.load_or_measure_costs(runner, file).points) == 8
    assert runner.machine in json.loads(file.read_text())


def test_a_place_that_cannot_be_written_is_no_obstacle(tmp_path: Path, counting: Counting) -> None:
    (tmp_path / "models").write_text("a file")
    assert len(cost.load_or_measure_costs(tiny.together().runner, tmp_path / "models" / "x.costs.json").points) == 8


def test_a_small_cache_gives_a_short_curve(tmp_path: Path) -> None:
    runner = tiny.together(tokens=64).runner
    assert max(tokens for tokens, _ in cost.load_or_measure_costs(runner, tmp_path / "x.json").points) <= 32
    assert runner.pool.count_uses().used == 0
