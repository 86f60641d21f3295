"""The quickest number of threads does the work, also when another one becomes the quickest."""

from __future__ import annotations

import pytest

from aligner_proxy.engine.model import threads
from aligner_proxy.engine.model.threads import PASSES_UNTIL_RETRY, ThreadTuner


class Machine:
    """A machine on which a forward costs what a test says; the clock stands still otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.now = 0.0
        self.threads = most
        self.costs = dict.fromkeys(range(1, most + 1), 1.0)
        monkeypatch.setattr(threads, "perf_counter", lambda: self.now)
        self.crew = ThreadTuner(most, self.set_threads)

    def set_threads(self, threads: int) -> None:
        self.threads = threads

    def forward(self, tokens: int, times: int = 1) -> list[int]:
        used = []
        for _ in range(times):
            with self.crew.choose_threads_for(tokens):
                used.append(self.threads)
                self.now += self.costs[self.threads]
            assert self.threads == self.crew.most
        return used


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch, 2)


def test_the_quicker_one_does_nearly_all_of_the_work(two: Machine) -> None:
    two.costs = {1: 1.0, 2: 0.6}
    used = two.forward(200, 100)
    assert used[:2] == [2, 1]
    assert used.count(1) == 1 + 100 // PASSES_UNTIL_RETRY


def test_each_size_has_its_own(two: Machine) -> None:
    two.costs = {1: 1.0, 2: 0.6}
    two.forward(200, 4)
    two.costs = {1: 1.0, 2: 2.0}
    assert two.forward(1, 4) == [2, 1, 1, 1]
    two.costs = {1: 1.0, 2: 0.6}
    assert two.forward(100, 4) == [2, 2, 2, 2], "more than 64 tokens are one size"


def test_who_becomes_slow_is_replaced_and_comes_back(two: Machine) -> None:
    two.costs = {1: 1.0, 2: 0.6}
    two.forward(200, 4)
    two.costs = {1: 1.0, 2: 1.5}
    assert two.forward(200, 4)[-1] == 1
    two.costs = {1: 1.0, 2: 0.6}
    assert two.forward(200, PASSES_UNTIL_RETRY + 1)[-1] == 2


def test_a_moment_of_somebody_elses_work_changes_nothing(two: Machine) -> None:
    two.costs = {1: 1.0, 2: 0.6}
    two.forward(200, 4)
    two.costs = {1: 1.0, 2: 1.5}
    two.forward(200)
    two.costs = {1: 1.0, 2: 0.6}
    assert two.forward(200) == [2]


def test_of_many_cores_half_is_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    many = Machine(monkeypatch, 8)
    many.costs.update({1: 1.0, 4: 0.4, 8: 0.5})
    used = many.forward(200, 200)
    assert used[:3] == [8, 4, 1]
    assert set(used[3:]) == {1, 4, 8}
    assert used.count(4) > 180


def test_one_core_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Machine(monkeypatch, 1)
    monkeypatch.setattr(alone, "set_threads", None)
    assert alone.forward(5, 3) == [1, 1, 1]


def test_a_forward_that_fails_gives_the_threads_back(two: Machine) -> None:
    def failing() -> None:
        with two.crew.choose_threads_for(3):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert two.threads == 2
    assert two.forward(3, 2) == [2, 1]
