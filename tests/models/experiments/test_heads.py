"""What heads tell apart, and the plan of the sources, really run with a tiny model on sentences of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from models.data.mixture import build_examples
from models.data.pairs import PairError, read_pairs, write_pairs
from models.evaluate.table3 import MethodTests
from models.experiments import heads
from models.experiments.heads import PUT_IN, format_table, plot, score_heads
from models.experiments.plan import Plan
from models.reporting.statistics import Area, Rate
from tests.models.evaluate.test_table3 import BAD, BAG, GOOD, NATURAL
from tests.models.experiments.test_ablations import LAST_STAGE, PLANS, small
from tests.models.train.test_train import aligner


def test_every_source_that_the_issue_names_is_left_out_once() -> None:
    plan = Plan.read(PLANS / "sources.yaml")
    assert {run.without for run in plan.runs.values()} == {(), ("marked",), ("natural",), ("inside",)}
    assert plan.runs["without_compared"].compared == ()
    assert len(plan.runs["more_compared"].compared) == 4
    assert {row.run for row in plan.methods} == set(plan.runs)
    same = Plan.read(PLANS / "ablations.yaml")
    assert (plan.runs["all"], plan.pairs, plan.steps, plan.seed) == (
        same.runs["all"],
        same.pairs,
        same.steps,
        same.seed,
    )


def test_what_is_left_out_leaves_the_others_as_they_were(data_dir: Path) -> None:
    whole = list(build_examples(data_dir, 3, 60))
    without = list(build_examples(data_dir, 3, 40, excluded_kinds=("natural", "inside")))
    others = [pair for pair in whole if pair.source.partition(":")[0] not in ("natural", "inside", "inside-not-asked")]
    assert len(others) < 60
    assert without[: len(others)] == others[:40]


def test_something_has_to_be_left_in(data_dir: Path) -> None:
    with pytest.raises(PairError, match="none for warmup; leave one of them in"):
        build_examples(data_dir, 3, 1, "warmup", excluded_kinds=("clean",))


def test_natural_sets_are_scored_whole_and_the_others_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    sets = tmp_path / "sets"
    for name, pairs in {"insult": [BAD] * 3, "clean": [GOOD] * 3, "natural": [NATURAL] * 3, "pairs": [BAG] * 6}.items():
        write_pairs(sets / f"{name}.jsonl", pairs)
    scores = score_heads(aligner(tmp_path), MethodTests(sets, tmp_path / "out", limit=1))
    assert set(scores) == {"insult", "natural", "pairs", PUT_IN}
    natural = scores["natural"]
    put_in = scores[PUT_IN]
    compared = scores["pairs"]
    assert isinstance(natural, Area)
    assert (natural.high, natural.low) == (3, 6)
    assert isinstance(put_in, Area)
    assert (put_in.high, put_in.low) == (1, 4)  # one answer a set: an insult between two sentences, and two good ones
    assert isinstance(compared, Rate)
    assert compared.n == 3


def test_the_table_has_a_row_a_set_and_a_column_a_run(tmp_path: Path) -> None:
    rows: dict[str, heads.HeadScores] = {
        "all": {"natural": Area(0.75, 4, 4)},
        "less": {"pairs": Rate.from_counts(1, 2)},
    }
    table = format_table(rows).splitlines()
    assert table[0] == "| set | all | less |"
    assert table[2].startswith("| natural | 0.750 [")
    assert table[2].endswith("n = 4 and 4 | - |")
    plot(rows, tmp_path / "p.svg")
    assert "<svg" in (tmp_path / "p.svg").read_text()


@pytest.mark.full
@pytest.mark.slow
def test_the_command_trains_and_scores(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    changes = {"all": {}, "less": {"compared": [], "without": ["natural"]}, "more": {"compared": ["llmbar_pairs"]}}
    runs = {name: LAST_STAGE | change for name, change in changes.items()}
    methods = [{"name": name, "run": name, "calibrated": False} for name in runs]
    path = small(tmp_path, "sources", runs=runs, methods=methods)
    out = tmp_path / "out"
    for side in ("dev", "test"):
        write_pairs(out / "data" / side / "insult.jsonl", [BAD])
        (out / "data" / side / "made").touch()
    heads.main([str(path), "--data", str(data_dir), "--out", str(out), "--limit", "1"])
    document = json.loads((out / "heads_sources.json").read_text())
    assert {name: set(sets) for name, sets in document.items()} == {name: {"insult", PUT_IN} for name in runs}
    stage = "contrastive_preference"
    themes = {p.themes for p in read_pairs(out / "data" / "bags-llmbar.jsonl")}
    assert themes == {("instruction-following",)}
    bags = {name: json.loads((out / name / stage / "stage.json").read_text())["config"]["bags"] for name in runs}
    assert bags["less"] is None
    assert not (out / "data" / "bags-.jsonl").exists()
    assert Path(bags["more"]).name == "bags-llmbar.jsonl"
    pairs = read_pairs(out / "data" / f"{stage}-edits-no_natural-40.jsonl")
    assert not [pair for pair in pairs if pair.source.startswith("natural")]
    assert not (out / "all" / "aligner").exists()
    assert yaml.safe_load((out / "all" / stage / "config.yaml").read_text())["data"].endswith(f"{stage}-edits-40.jsonl")
