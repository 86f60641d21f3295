"""The comparison that `make gpu-check` makes on a GPU holds here, and tells where something is not equal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.scheduler import Scheduler
from bench import equality, shapes

CASES = 8


def test_alone_and_in_company_the_same_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    companies, schedulers = list[int](), set[Scheduler]()
    run = ModelRunner.run
    schedule = Scheduler.schedule

    def count_adapters(self: ModelRunner, feeds: Any) -> Any:
        companies.append(len({feed.job.sequence.adapter for feed in feeds}))
        return run(self, feeds)

    def note_scheduler(self: Scheduler, now: float) -> Any:
        schedulers.add(self)
        return schedule(self, now)

    monkeypatch.setattr(ModelRunner, "run", count_adapters)
    monkeypatch.setattr(Scheduler, "schedule", note_scheduler)
    assert equality.compare("tiny", "cpu", CASES, 32) == equality.EqualityCounts(CASES, CASES, [])
    assert max(companies) == 3, "all adapters meet in one step"
    assert sum(scheduler.totals.preempted for scheduler in schedulers) > 0, "the cache is too small for everybody"


def test_another_text_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = equality.written_ids
    monkeypatch.setattr(equality, "written_ids", lambda end: [*plain(end)[:-1], 9])
    comparison = equality.compare("tiny", "cpu", 3, 8)
    assert (comparison.alone, comparison.together) == (0, 0)
    assert len(comparison.differences) == 3


def test_another_verdict_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = ModelRunner.score_segments
    shift = iter(range(100))
    monkeypatch.setattr(
        ModelRunner, "score_segments", lambda *given: ([(one + next(shift), by) for one, by in scores(*given)[0]], [])
    )
    assert equality.compare("tiny", "cpu", 3, 8) == equality.EqualityCounts(3, 0, [])


def test_adapters_change_what_is_written() -> None:
    made = shapes.make_model("tiny", "cpu", equality.torch.float32)
    adapters = [equality._make_adapter(made, number) for number in (1, 2)]
    plain = equality._make_case(made, [], 7, 16)
    for adapter in adapters:
        with equality._merge_adapter(made, adapter):
            assert equality._make_case(made, [], 7, 16).target != plain.target
    assert replace(equality._make_case(made, [], 7, 16), draft=plain.draft) == plain
