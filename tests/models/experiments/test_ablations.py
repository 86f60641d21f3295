"""The plan of the ablations: checked, and really run with a tiny model on sentences of ours."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.data.pairs import write_pairs
from models.evaluate import calibrate
from models.experiments import ablations
from models.experiments.plan import Plan
from tests.models.evaluate.test_table3 import BAD, GOOD
from tests.models.experiments.stage_configs import ROOT, configs

PLANS = ROOT / "configs" / "evaluate"
SMALL = {"pairs": {"warmup": 30, "equal_preference": 20, "contrastive_preference": 40}, "steps": 10}


def small(folder: Path, name: str, **changes: object) -> Path:
    """A committed plan with a tiny base, few pairs and few steps."""
    document: dict[str, Any] = yaml.safe_load((PLANS / f"{name}.yaml").read_text())
    configs_folder = folder / "configs" if (folder / "configs").exists() else configs(folder)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document | SMALL | {"configs": str(configs_folder)} | changes))
    return path


def run(plan: Path, data: Path, out: Path) -> None:
    paths = ["--data", str(data), "--out", str(out)]
    ablations.main([str(plan), *paths, "--limit", "1", "--calibrated-on", "3"])


def test_every_part_of_the_recipe_is_left_out_once() -> None:
    plan = Plan.read(PLANS / "ablations.yaml")
    assert plan.runs["without_warmup"].leave_out == ("warmup",)
    assert plan.runs["without_equal"].leave_out == ("equal_preference",)
    assert plan.runs["without_edit_like"].examples == "preferences"
    assert plan.runs["without_head"].settings == {"detector_weight": 0.0}
    assert plan.runs["without_correction"].settings == {"target_share": 0.0, "edit_share": 0.0}
    assert [row.name for row in plan.methods if row.run == "all" and not row.calibrated] == [
        "without caution (flagged at even odds)"
    ]
    assert {row.run for row in plan.methods} == set(plan.runs)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"runs": {"all": {"leave_otu": ["warmup"]}}}, r"runs\.all\.leave_otu: Extra inputs"),
        ({"runs": {"all": {"leave_out": ["contrastive_preference"]}}}, "all: the last stage .* cannot be left out"),
        ({"methods": [{"name": "a", "run": "al"}]}, "methods: a: no run 'al'; known: all"),
        ({"methods": [{"name": "a", "run": "all"}] * 2}, "a name of its own"),
        ({"pairs": {"warmpu": 1}}, r"pairs\.warmpu"),
        ({"steps": 8}, "its first stages take 8 steps, and leave none for contrastive_preference"),
        ({"runs": {"all": {"without": ["natrual"]}}}, "all: without: no 'natrual'; known: clean, innocent"),
        ({"runs": {"all": {"compared": ["hh"]}}}, "all: compared: no 'hh'; known: hh_rlhf_harmless_pairs"),
        ({"configs": "nowhere"}, r"configs: .*warmup\.yaml is not there"),
        ({"runs": {"all": {"settings": {"lrr": 1}}}}, r"all/warmup: lrr: Extra inputs"),
    ],
)
def test_a_plan_that_cannot_be_used_says_where(
    tmp_path: Path, data_dir: Path, changes: dict[str, Any], problem: str
) -> None:
    one = {"runs": {"all": {}}, "methods": [{"name": "a", "run": "all"}]}
    plan = small(tmp_path, "ablations", **(one | changes))
    with pytest.raises(SystemExit, match=problem):
        run(plan, data_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()  # nothing was made before all was read


def few_sets(out: Path) -> None:
    """Sets of a case or two, in place of those that the research data make; test_data_sizes has all of them."""
    for side in ("dev", "test"):
        for name in (*calibrate.GOOD, "insult"):
            write_pairs(out / "data" / side / f"{name}.jsonl", [BAD] if name == "insult" else [GOOD] * 3)
        (out / "data" / side / "made").touch()


LAST_STAGE = {"leave_out": ["warmup", "equal_preference"]}
"""What keeps a run short: one stage in place of three."""


@pytest.mark.full
@pytest.mark.slow
def test_the_command_trains_and_measures_what_is_not_there_yet(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    runs = {"without_head": LAST_STAGE | {"settings": {"detector_weight": 0.0}}}
    methods = [{"name": "without_head", "run": "without_head"}]
    plan = small(tmp_path, "ablations", runs=runs, methods=methods)
    out = tmp_path / "out"
    few_sets(out)
    run(plan, data_dir, out)
    rows = json.loads((out / "ablations.json").read_text())["rows"]
    assert [row["name"] for row in rows] == list(runs)
    assert all(row["pooled"]["repaired exactly"]["n"] == 1 for row in rows)
    logs = {path: path.stat().st_mtime_ns for path in out.glob("*/*/log.jsonl")}
    assert [len(path.read_text().splitlines()) for path in logs] == [10]
    run(plan, data_dir, out)
    assert {path: path.stat().st_mtime_ns for path in logs} == logs


@pytest.mark.long
@pytest.mark.timeout(900)  # a minute on two idle cores
def test_the_committed_plan_runs_and_goes_on_where_it_was(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    plan = small(tmp_path, "ablations")
    out = tmp_path / "out"
    few_sets(out)
    run(plan, data_dir, out)
    document = json.loads((out / "ablations.json").read_text())
    assert [row["name"] for row in document["rows"]] == [row.name for row in Plan.read(plan).methods]
    assert all(row["pooled"]["repaired exactly"]["n"] == 1 for row in document["rows"])
    logs = {path: path.read_text() for path in sorted(out.glob("*/*/log.jsonl"))}
    assert len(logs) == 16  # six runs of three stages, but two of them leave one out
    steps: Counter[str] = Counter()
    for path, text in logs.items():
        steps[path.parts[-3]] += len(text.splitlines())
    assert set(steps.values()) == {10}
    first = {path.parts[-3]: json.loads(text.splitlines()[0]) for path, text in logs.items() if "warmup" in path.parts}
    assert first["all"]["correction"] > 0
    assert first["without_correction"]["correction"] == 0

    times = {path: path.stat().st_mtime_ns for path in logs}
    (out / "all" / "contrastive_preference" / "stage.json").unlink()  # as if it had been stopped before its end
    run(plan, data_dir, out)
    again = [path.parent for path in logs if path.stat().st_mtime_ns != times[path]]
    assert again == [out / "all" / "contrastive_preference"]

    runs = yaml.safe_load(plan.read_text())["runs"] | {"without_head": {}}
    with pytest.raises(SystemExit, match=r"head/warmup was trained with detector_weight: 0\.0, and the plan says 0\.2"):
        run(small(tmp_path, "ablations", runs=runs), data_dir, out)
