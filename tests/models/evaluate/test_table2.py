"""The layout of Table 2: what stands in it, by measures and by a judge over a real socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.data.pairs import Pair, write_pairs
from models.data.upstream_completions import UpstreamCompletion
from models.evaluate.gateway import deliver, find_objectives, open_caching_pipeline
from models.evaluate.judge import PairJudge, Verdict
from models.evaluate.measures import Result, accuracy
from models.evaluate.table2 import (
    MeasureVerdicts,
    UpstreamRow,
    format_tables,
    judge_deliveries,
    list_objective_sets,
    main,
    make_row,
    plot,
)
from tests.models.evaluate.scripted_judge import serve_judge
from tests.models.evaluate.test_accuracy import CASES
from tests.models.evaluate.test_gateway import GOOD, REFUSED, RUDE, polite
from tests.models.train.test_train import aligner
from tests.support.scripted import ScriptedEngine

OVERRUN = UpstreamCompletion("m", "When?", "It opens at six.\n\nHuman: And on Sundays?", "hh")
SETS = {("harmless",): [RUDE, GOOD, REFUSED, OVERRUN]}


def shorter(first: str, second: str) -> str:
    return "1" if len(first) < len(second) else "2"


async def make_example_row(verdicts: dict[str, list[Verdict]] | None = None) -> UpstreamRow:
    async with open_caching_pipeline(ScriptedEngine(polite), None) as pipeline:
        delivered = await deliver(pipeline, SETS["harmless",], find_objectives(["harmless"]))
    return make_row(delivered, verdicts or {})


async def test_a_row_counts_what_became_of_the_completions() -> None:
    row = await make_example_row()
    assert (row.source, row.upstream, row.name, row.n, row.skipped) == ("hh", "m", "harmless", 3, 1)
    assert (row.edited.hits, row.identical.hits, row.harmed.hits) == (1, 2, 0)
    assert (row.measures.win.hits, row.measures.tie.hits, row.measures.lose.hits) == (1, 2, 0)
    assert (row.measures.decided.hits, row.measures.decided.n) == (1, 1)
    assert {name: n for name, n in row.better.items() if n} == {"insults": 1}
    # Measures see the insult and the invented turn: one answer is left that is good as far as they know.
    assert (row.benign_edited.hits, row.benign_edited.n, row.benign_harmed.n) == (0, 1, 1)


async def test_only_what_was_edited_is_judged_and_the_rest_ties(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-scripted")
    async with open_caching_pipeline(ScriptedEngine(polite), None) as pipeline:
        delivered = await deliver(pipeline, SETS["harmless",], find_objectives(["harmless", "helpful"]))
    with serve_judge(shorter) as server:
        judge = PairJudge(server.url, "scripted", tmp_path / "v.jsonl")
        verdicts = await judge_deliveries(judge, delivered)
        await judge.aclose()
        assert len(server.questions) == 4  # one edited answer, two objectives, two places
    assert verdicts == {"harmless": ["win"], "helpful": ["win"]}
    row = make_row(delivered, verdicts)
    assert (row.judged["helpful"].win.hits, row.judged["helpful"].tie.hits) == (1, 2)
    assert row.replies == {"win": 2}


async def test_the_accuracy_of_the_measures_stands_beside_their_figures(tmp_path: Path) -> None:
    figures = accuracy(CASES)
    rows = [await make_example_row({"harmless": ["split"]})]
    tables = format_tables(rows, figures, "a judge")
    assert "| known cases | the right edit | ought to win | 3 |" in tables
    assert str(figures.measures["insults"]) in tables
    assert "win 0, tie 0, lose 0, split 1, unreadable 0" in tables
    assert "| hh | m | harmless | 1 | 0/1 = 0.0 % [0.0, 79.3] | 0/1 = 0.0 % [0.0, 79.3] |" in tables
    assert (
        f"| known cases | a sound sentence lost | harm: yes | 3 | - | {figures.harm['a sound sentence lost']} |"
        in tables
    )
    assert "Not measured (`--judge-known 0`)." in tables
    for one in SETS["harmless",]:
        assert one.answer not in tables
    plot(rows, tmp_path / "p.svg")
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_results_make_verdicts_with_the_ties_apart() -> None:
    results: list[Result] = ["win", "win", "lose", "tie"]
    verdicts = MeasureVerdicts.from_results(results)
    assert (verdicts.win.hits, verdicts.win.n, verdicts.decided.hits, verdicts.decided.n) == (2, 4, 2, 3)


def test_objectives_are_asked_alone_and_together() -> None:
    assert [len(wishes) for wishes in list_objective_sets("hh", together=True)] == [1, 1, 1, 3]
    assert [len(wishes) for wishes in list_objective_sets("hh", together=False)] == [1, 1, 1]


def test_the_command_runs_a_real_aligner_over_a_source(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-scripted")
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    cases = write_pairs(tmp_path / "cases.jsonl", [p for p in CASES if isinstance(p, Pair)])
    assert cases == len(CASES)
    with serve_judge(shorter) as server:
        judge = ["--judge-url", server.url, "--judge-model", "scripted"]
        options = ["--sources", "hh", "--models", "LLaMA2-chat-70B", "--each", "2", "--no-together", *judge]
        options += ["--judge-known", "3"]
        paths = ["--data", str(data_dir), "--cases", str(tmp_path / "cases.jsonl"), "--out", str(tmp_path / "out")]
        main([str(aligner(tmp_path)), *paths, *options])
    table = capsys.readouterr().out
    assert "By a judge, scripted" in table
    assert "| pandalm_pairs | helpful | 3 |" in table
    document = json.loads((tmp_path / "out" / "by_upstream.json").read_text())
    assert [r["asked"] for r in document["rows"]] == [["harmless"], ["helpful"], ["humour"]]
    assert all(r["n"] + r["skipped"] + r["failed"] == 2 for r in document["rows"])
    assert (tmp_path / "out" / "by_upstream.svg").exists()


def test_an_unknown_source_and_a_judge_without_a_model_are_refused(tmp_path: Path) -> None:
    paths = ["x", "--data", "d", "--cases", "c", "--out", str(tmp_path)]
    for wrong in (["--sources", "hhh"], ["--judge-url", "http://127.0.0.1:1/v1"]):
        with pytest.raises(SystemExit):
            main([*paths, *wrong])
