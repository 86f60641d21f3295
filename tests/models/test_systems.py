"""The comparison of systems in small: the command on tiny models with a scripted refiner, and how figures are made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from aligner_proxy.chat_group import Said
from aligner_proxy.engine.scripted import ScriptedEngine
from aligner_proxy.pipeline import Pipeline
from aligner_proxy.types import METAALIGNER, Mode, Outcome, Policy, Status
from aligner_proxy.wishes import Wish, WishKind, WishSource
from models import adherence, systems, systems_table, train
from models import refiner as refining
from models.export import export
from models.pairs import Pair, write_pairs
from models.systems import Asked, Comparison, Found, SystemsError
from tests.engine.tiny import OBJECTIVES
from tests.models.test_train import aligner, stage

CONFIG = Path(__file__).parents[2] / "configs" / "evaluate" / "systems.yaml"
TARGET = "The harbour opens at six. Bring a coat."
FOOL = "The harbour opens at six. You are a fool. Bring a coat."
BAD = Pair("Q?", OBJECTIVES, FOOL, TARGET, (0, 1, 0), "defect:insult", kinds=("", "insult", ""))
GOOD = Pair("Q?", OBJECTIVES, "The harbour opens at six.", "The harbour opens at six.", (0,), "clean:x")


async def refiner(system: str, user: str, *, tokens: int, temperature: float, deadline_s: float) -> Said:
    """Finds the insult, and takes it out."""
    told = json.loads(user)
    if "review" not in told:
        return Said("'You are a fool.' is rude" if "fool" in told["answer"] else "NOTHING", 9, 4, finished=True)
    marks = re.search(r"between the marks (\S+) and (\S+),", system)
    assert marks
    return Said(f"{marks[1]}{told['answer'].replace(' You are a fool.', '')}{marks[2]}", 9, 8, finished=True)


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
    told = yaml.safe_load(CONFIG.read_text()) | {
        "aligner": str(aligner(folder / "meta")),
        "single_purpose": str(single_purpose(folder / "single")),
        "sets": str(folder / "sets"),
        "faulty": ["insult"],
        "good": ["clean"],
        "not_asked": ["not_asked"],
        "sources": ["hh"],
        "each": 1,
    }
    for system in told["systems"]:
        if "needs" in system:
            system["needs"] = told["single_purpose"]
        if "single_purpose" in system:
            system["single_purpose"] = str(folder / "nowhere")
    (folder / "systems.yaml").write_text(yaml.safe_dump(told))
    return folder


def test_the_committed_comparison_runs_in_small_and_only_once(
    small: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(small / "home"))
    told, out = Comparison.read(small / "systems.yaml"), small / "out"
    text = systems.run(told, out, data_dir, lambda: refiner)
    kept = {path: path.stat().st_mtime_ns for path in (out / "systems").iterdir()}
    assert systems.run(told, out, data_dir, lambda: refiner) == text
    assert kept == {path: path.stat().st_mtime_ns for path in (out / "systems").iterdir()}
    figures = json.loads((out / "systems.json").read_text())["rates"]
    assert [system.name for system in told.systems if system.name not in figures] == ["Aligner, trained briefly"]
    one = "1/1 = 100.0 % [20.7, 100.0]"
    row = next(line for line in text.splitlines() if line.startswith("| Self-Refinement"))
    assert row.startswith(f"| Self-Refinement, SmolLM2-135M | {one} | {one} |")
    assert figures["uncorrected"]["repaired exactly"]["hits"] == 0
    assert figures["uncorrected"]["good ones identical"]["hits"] == 1
    assert figures["MetaAligner + Meal"]["not asked, identical"]["n"] == 0
    assert systems_table.MISSING in text
    assert "fool" not in text + (out / "systems.json").read_text()
    assert (out / "systems.svg").read_bytes().startswith(b"<?xml")


def test_each_system_is_a_line_of_policy() -> None:
    told = Comparison.read(CONFIG)
    asked = Asked("good", "Q?", "So.", OBJECTIVES)
    found = {system.name: systems.policy(system, asked, told) for system in told.systems}
    assert found["uncorrected"].mode is Mode.OFF
    assert [
        found[name].corrector for name in ("Self-Refinement, SmolLM2-135M", "Aligner, stand-in", "MetaAligner")
    ] == [
        "self_refine",
        "aligner",
        METAALIGNER,
    ]
    assert found["MetaAligner, best of 4"].drafts == 4
    assert [one.text for one in found["MetaAligner"].objectives] == list(OBJECTIVES)
    meal, listed = found["MetaAligner + Meal"], found["MetaAligner, eight more objectives"]
    assert meal.auto is not None
    assert (meal.auto.keep, len(meal.auto.candidates)) == (3, 9)
    assert {one.text for one in meal.objectives} == {one.text for one in listed.objectives} > set(OBJECTIVES)
    assert found["MetaAligner + MetaAlign"].preferences == (WishSource.REQUEST,)


def test_a_preference_is_in_force_where_the_route_reads_it() -> None:
    told = Comparison.read(CONFIG)
    said = adherence.Asked("No lists, please.", Wish(WishKind.NO_LISTS))
    asked = Asked("preference", "Q?", "So.", OBJECTIVES, preference=said)
    wished = {
        system.name: [one.wish.kind for one in systems.policy(system, asked, told).objectives if one.wish]
        for system in told.systems
    }
    assert wished["MetaAligner + MetaAlign"] == [WishKind.NO_LISTS]
    assert wished["MetaAligner"] == []


def outcome(text: str, status: Status = Status.CORRECTED) -> Outcome:
    return Outcome(status, None, text, Policy("p"), ms=1500.0)


def test_one_answer_in_figures() -> None:
    repaired = systems.judged(Asked("faulty", "Q?", BAD.answer, OBJECTIVES, pair=BAD), outcome(BAD.target))
    assert (repaired.exact, repaired.gone, repaired.kept, repaired.same) == (True, True, True, False)
    assert repaired.seconds == 1.5
    spoilt = systems.judged(Asked("good", "Q?", GOOD.answer, OBJECTIVES, pair=GOOD), outcome("The harbour opens."))
    assert (spoilt.exact, spoilt.kept, spoilt.same) == (None, False, False)
    said = adherence.Asked("No exclamation marks.", Wish(WishKind.NO_EXCLAMATION))
    asked = Asked("preference", "Q?", "It costs 3 euros!", OBJECTIVES, preference=said)
    met = systems.judged(asked, outcome("It costs 3 euros."))
    assert (met.before, met.after, met.kept) == (False, True, True)
    assert systems.judged(asked, outcome("It costs euros.")).kept is False
    assert systems.judged(asked, outcome(asked.answer, Status.FAILED)).failed


def found(group: systems.Group, seconds: float = 1.0, **told: bool | None) -> Found:
    plain = {"exact": None, "gone": None, "kept": True, "same": True, "before": None, "after": None}
    return Found(group, **{**plain, **told}, failed=False, refused=False, seconds=seconds, written=2, forwards=1)  # type: ignore[arg-type]


def test_the_table_says_where_each_loses() -> None:
    good, bad = found("good"), found("faulty", exact=True, gone=True, same=False)
    missed = found("faulty", 3.0, exact=False, gone=False)
    spoilt = found("good", 3.0, kept=False, same=False)
    rows = {"MetaAligner": [good, bad], "other": [spoilt, missed]}
    lines = systems_table.losing(rows)
    assert lines[0] == "- MetaAligner: last in nothing"
    assert lines[1] == "- other: repaired exactly (0 %), fault gone (0 %), harmed (50 %), good ones identical (0 %)"
    told = systems_table.text(rows)
    assert "| other | 2 | 3.00 | 3.00 | 3.00 | 2.0 | 1.0 | 0/2 = 0.0 %" in told
    wished = [found("preference", before=False, after=True, same=False)] * 3
    assert systems_table.changes(wished)[1:3] == (3, 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"systms": []}, "systms: Extra inputs"), ({"systems": []}, "systems: Tuple should have at least 1")],
)
def test_a_file_that_cannot_be_used_says_where(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    path = tmp_path / "systems.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(CONFIG.read_text()) | changes))
    with pytest.raises(SystemsError, match=problem):
        Comparison.read(path)


def test_sets_that_are_not_there_are_named(tmp_path: Path) -> None:
    told = Comparison.read(CONFIG).model_copy(update={"sets": tmp_path})
    with pytest.raises(SystemsError, match=r"insult\.jsonl cannot be read"):
        systems.answers(told, None)


def test_a_corrector_without_its_aligner_is_refused(tmp_path: Path) -> None:
    told = Comparison.read(CONFIG).model_copy(update={"single_purpose": None})
    system = next(one for one in told.systems if one.name == "Aligner, stand-in")
    with pytest.raises(SystemsError, match="single_purpose"):
        systems._measured(system, [], told, tmp_path, lambda: refiner)


async def test_a_slow_system_is_measured_on_every_so_many() -> None:
    told = Comparison.read(CONFIG)
    asked = [Asked("good", "Q?", f"So {n}.", OBJECTIVES) for n in range(9)]
    system = next(one for one in told.systems if one.name == "MetaAligner")
    made = Pipeline(ScriptedEngine())
    slow = await systems.measure(made, system.model_copy(update={"every": 4}), asked, told)
    assert (len(slow), len(await systems.measure(made, system, asked, told))) == (3, 9)


def test_who_refines_may_be_anywhere(tmp_path: Path) -> None:
    with refining.served("http://there/v1", tmp_path) as address:
        assert address == "http://there/v1"
