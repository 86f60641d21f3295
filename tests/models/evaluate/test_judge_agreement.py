"""How often a judge says what people said, over a real socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data.preference_sets import JUDGED
from models.evaluate.judge import PairJudge, Verdict, agreement_table, count_agreement, judge_agreement
from tests.models.evaluate.scripted_judge import serve_judge


async def test_the_judge_is_asked_about_pairs_of_every_set(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-scripted")
    with serve_judge(lambda first, second: "1") as server:  # it always names the first place
        judge = PairJudge(server.url, "scripted", tmp_path / "v.jsonl")
        agreements = await judge_agreement(judge, data_dir, 4, seed=1)
        again = await judge_agreement(judge, data_dir, 4, seed=1)
        await judge.aclose()
        assert len(server.questions) == sum(2 * one.agrees.n for one in agreements)
    assert agreements == again
    assert {one.source for one in agreements} == set(JUDGED)
    assert all(one.undecided.percent == 100 and one.decided.n == 0 for one in agreements)


async def test_none_are_asked_where_none_are_wanted(tmp_path: Path, data_dir: Path) -> None:
    assert await judge_agreement(None, data_dir, 0, seed=1) == []  # type: ignore[arg-type]
    assert agreement_table([]) == "Not measured (`--judge-known 0`)."


def test_ties_and_splits_are_neither_right_nor_wrong() -> None:
    verdicts: list[Verdict] = ["win", "win", "lose", "tie", "split", "unreadable"]
    figures = count_agreement("pandalm_pairs", "helpful", verdicts)
    assert (figures.agrees.hits, figures.opposes.hits, figures.undecided.hits, figures.agrees.n) == (2, 1, 3, 6)
    assert "| pandalm_pairs | helpful | 6 | 2/6 = 33.3 %" in agreement_table([figures])
    assert agreement_table([figures]).endswith("| 2/3 = 66.7 % [20.8, 93.9] |")
