"""The field's table in small: every method and editor on tiny models by the command, and how the figures are made."""

from __future__ import annotations

import ast
import asyncio
import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import PeftModel

from models.data.pairs import Pair, write_pairs
from models.experiments.field import __main__ as command
from models.experiments.field import editors, features, figures, hours, people
from models.experiments.field.answers import AnswerWorkshop
from models.experiments.field.config import METHODS, FieldComparison, FieldError, list_jobs
from models.experiments.field.editors import EditTask
from models.experiments.field.figures import FrontPlace
from models.systems.baselines.policy import PolicyModel
from models.systems.pku_aligner.stand_in import write_stand_in
from tests.models.train.test_train import aligner
from tests.support import tiny
from tests.support.tiny import OBJECTIVES

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs" / "evaluate" / "field.yaml"
EDITORS = ["Policy, told the objectives", "MetaAligner", "Aligner, stand-in", "Self-Refinement, SmolLM2-135M"]


BAD = Pair(
    "Q?",
    OBJECTIVES,
    "The harbour opens at six. You are a fool. Bring a coat.",
    "The harbour opens at six. Bring a coat.",
    (0, 1, 0),
    "defect:insult",
    kinds=("", "insult", ""),
)


def make_document(**changes: object) -> dict[str, Any]:
    return yaml.safe_load(CONFIG.read_text()) | changes


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed comparison over tiny models: two policies, an aligner, a few questions and steps."""
    folder = tmp_path_factory.mktemp("field")
    tiny.save(folder / "base")
    tiny.save(folder / "other", seed=1)
    whole = aligner(folder / "meta")
    write_stand_in(whole, folder / "single")
    document = make_document(
        base=str(folder / "base"),
        precision="fp32",
        new_tokens=8,
        train=4,
        test=4,
        shares=[1.0, 0.5],
        seeds=[1],
        aligner=str(whole),
        single_purpose=str(folder / "single"),
        deadline_s=20,
    )
    document["training"] |= {"tokens": 900, "batch": 4, "drafts": 2, "rank": 2, "first": 0.3, "lr": 0.05}
    for editor in document["editors"]:
        editor["every"] = 2
        if "needs" in editor:
            editor["needs"] = str(folder / "single")
    (folder / "field.yaml").write_text(yaml.safe_dump(document))
    return folder


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs the extra `trl`")
@pytest.mark.filterwarnings("ignore")
def test_every_method_by_one_command_and_only_once(
    small: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(small / "home"))
    out = small / "out"
    monkeypatch.setattr(people, "HELD_OUT", 1)
    write_pairs(small / "cases.jsonl", [BAD])
    call = [str(small / "field.yaml"), "--out", str(out), "--data", str(data_dir)]
    call += ["--cases", str(small / "cases.jsonl")]
    command.main([*call, "--minutes", "0"])
    assert "not run" in capsys.readouterr().out  # stopped before the first training, and it says so
    command.main(call)
    first = {path: path.stat().st_mtime_ns for path in (out / "kept").glob("*.json")}
    call += ["--other-base", str(small / "other")]
    command.main(call)
    text = (out / "field.md").read_text()
    assert "| RLHF, trained reward model | 4 x 1 |" in text
    assert "| insults | sentences that call the reader names of our list | insult | 1/1 = 100.0 %" in text
    assert "not run" not in text.replace("| RLHF | ", "").split("| training for a new objective")[0]
    times = {path: path.stat().st_mtime_ns for path in (out / "kept").glob("*.json")}
    comparison = FieldComparison.read(small / "field.yaml").model_copy(update={"other_base": str(small / "other")})
    assert len(times) >= len(list_jobs(comparison))
    assert times.items() >= first.items()  # another policy makes nothing of the first one's anew
    command.main(call)
    assert times == {path: path.stat().st_mtime_ns for path in (out / "kept").glob("*.json")}
    assert (out / "field.md").read_text() == text

    document = json.loads((out / "field.json").read_text())
    assert set(document["methods"]) == {"SFT", "RLHF", "MORLHF", "MODPO", "RiC", *EDITORS, "base"}
    assert set(document["fronts"]) == {"MORLHF", "MODPO", "RiC"}
    assert all(cost["fed"] >= 900 and cost["flops"] > 0 for cost in document["training"].values())
    assert (out / "kept" / ".gitignore").read_text() == "*\n"
    for name in ("fronts.svg", "cost.svg"):
        assert (out / name).read_bytes().startswith(b"<?xml")


def test_without_trl_it_says_what_to_install(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    with pytest.raises(SystemExit, match=r"aligner-proxy\[trl\]"):
        command.main([str(small / "field.yaml"), "--out", str(small / "nowhere")])


def test_the_hub_is_told_of_no_training() -> None:
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    script = "import models, huggingface_hub.constants as hub; print(hub.HF_HUB_DISABLE_TELEMETRY)"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == "True", result.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trade": ["concise", "kind"]}, "no objective 'kind'"),
        ({"new_objective": "concise"}, "asked for from the start"),
        ({"seeds": []}, "seeds"),
        ({"pages": 3}, "pages"),
    ],
)
def test_a_comparison_that_is_wrong(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "field.yaml"
    path.write_text(yaml.safe_dump(make_document(**changes)))
    with pytest.raises(FieldError, match=message):
        FieldComparison.read(path)


def test_the_committed_comparison_meets_its_own_terms() -> None:
    comparison = FieldComparison.read(CONFIG)
    assert comparison.test >= 200
    assert len(comparison.seeds) == 3
    assert len(comparison.shares) >= 5
    assert comparison.training.batch % comparison.training.drafts == 0


def test_who_is_trained_again_for_what() -> None:
    """A weighting each for MORLHF and MODPO, one for all for RiC; a new objective trains all but RLHF anew."""
    comparison = FieldComparison.read(CONFIG)
    planned = list_jobs(comparison)
    by_method = {method: [job for job in planned if job.method == method] for method in METHODS}
    new = {m: [job for job in of if comparison.new_objective in job.weights] for m, of in by_method.items()}
    seeds = len(comparison.seeds)
    assert {m: len(of) for m, of in new.items()} == {"rlhf": 0} | dict.fromkeys(
        ("sft", "modpo", "ric", "morlhf"), seeds
    )
    fronts = len(comparison.shares)
    for method in ("modpo", "morlhf"):
        assert len(by_method[method]) == seeds + (fronts - 1) + seeds
    assert len(by_method["ric"]) == seeds + seeds
    assert len(by_method["ric"][0].weightings) == fronts
    assert [job.method for job in planned[: len(METHODS)]] == list(METHODS)  # the table comes first


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_one_policy_does_not_fit_another(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    policy = PolicyModel.load(str(tiny.save(tmp_path / "base")), tmp_path, "fp32", 4)
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    get_peft_model(policy.model, config).save_pretrained(str(tmp_path / "adapter"))
    other = tiny.model().config
    other.hidden_size = 96
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(LlamaForCausalLM(other), str(tmp_path / "adapter"))


def test_editors_see_no_more_of_the_policy_than_its_answers(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No policy is loaded and nothing trained, with answers from anywhere and an objective that nobody trained for."""
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(small / "home"))
    comparison = FieldComparison.read(small / "field.yaml")
    workshop = AnswerWorkshop(comparison, tmp_path)
    workshop.policy = lambda other=False: pytest.fail("the policy was loaded")  # type: ignore[method-assign,assignment]
    names = (*comparison.trade, comparison.new_objective)
    task = EditTask(["When does the harbour open?"] * 2, [BAD.answer, BAD.target], names, "elsewhere")
    for editor in comparison.editors:
        if editor.name in ("MetaAligner", "Aligner, stand-in"):
            job_answers = editors.edit_answers(workshop, editor.model_copy(update={"every": 1}), task)
            assert len(job_answers.answers[""]) == 2
            assert job_answers.cost.fed == 0
            assert job_answers.answering.cpu_s > 0


async def test_what_a_chat_is_asked_while_it_writes_is_answered_together(tmp_path: Path) -> None:
    policy = PolicyModel.load(str(tiny.save(tmp_path / "base")), tmp_path, "fp32", 4)
    together: list[int] = []
    write = policy.write
    policy.write = lambda prompts: (together.append(len(prompts)), write(prompts))[1]  # type: ignore[method-assign,assignment]
    chat = editors.PolicyChat(lambda: policy)
    ask = functools.partial(chat, "Review.", temperature=0.0, deadline_s=20)
    one, *others = await asyncio.gather(*(ask(user, tokens=160) for user in ("a", "a", "b")), ask("a", tokens=2))
    assert together == [4]
    assert one.text == others[0].text
    assert (others[-1].written_tokens, others[-1].finished) == (2, False)
    policy.write = lambda prompts: (_ for _ in ()).throw(RuntimeError("no memory"))  # type: ignore[method-assign,assignment]
    with pytest.raises(RuntimeError, match="no memory"):
        await ask("a", tokens=160)


# ---------------------------------------------------------------- figures


def test_a_gain_and_its_interval() -> None:
    same = figures.compute_gain([[0.5] * 40, [0.5] * 40])
    assert (same.mean, same.low, same.high, same.n, same.seeds) == (0.5, 0.5, 0.5, 40, 2)
    noise = figures.compute_gain([[1.0, -1.0] * 50])
    assert noise.low < 0 < noise.high
    assert not noise.clear
    # Seeds that disagree widen the interval, however many questions there are.
    apart = figures.compute_gain([[0.0] * 500, [1.0] * 500])
    assert (apart.low, apart.high) == (0.0, 1.0)
    assert figures.compute_gain([[]]).n == 0


def test_verdicts_by_the_measures() -> None:
    good = "A kettle boils water for tea."
    shouted = "A kettle boils water for tea. BUY ONE NOW TODAY!!!"
    questions = ["What is a kettle for?"] * 3
    verdicts = figures.compare_answers(questions, [shouted, good, good], [[good, good, shouted]])
    assert (verdicts.win.hits, verdicts.tie.hits, verdicts.lose.hits) == (1, 1, 1)


def test_damage_counts_sound_answers_that_became_hollow_or_faulty() -> None:
    questions = ["What is a kettle for?"] * 3
    sound = "A kettle boils fresh water quickly over strong heat."
    assert figures.is_sound(questions[0], sound)
    hollow = "Thank you, I am happy to help!"
    rate = figures.measure_damage(questions, [sound, sound, hollow], [[hollow, sound, hollow]])
    assert (rate.hits, rate.n) == (1, 2)  # the third was no sound one before


def test_fronts() -> None:
    places = [FrontPlace(1, 1.0, 0.0), FrontPlace(0.5, 0.6, 0.5), FrontPlace(0.25, 0.5, 0.4), FrontPlace(0, 0.2, 1.0)]
    assert [place.share for place in figures.list_undominated(places)] == [1, 0.5, 0]
    assert figures.hypervolume(places) == pytest.approx(0.6 * 0.5 + 0.2 * 0.5)


def test_the_model_of_gpu_hours_says_how_far_it_is_off() -> None:
    assert hours.hours(hours.RUNS[0].flops) == pytest.approx(hours.RUNS[0].quoted)
    assert 0.2 < hours.utilisation() < 0.6
    near = [run.name for run in hours.RUNS[1:] if 0.7 < hours.hours(run.flops) / run.quoted < 1.45]
    assert near == ["MetaAligner, 7B", "MetaAligner, 13B", "Aligner, 7B", "MODPO, 7B"]
    assert "quoted from the paper" in hours.format_table()


def test_every_cell_of_the_feature_matrix_has_evidence_that_exists() -> None:
    for feature in features.FEATURES:
        assert len(feature.cells) == len(features.COLUMNS)
        for cell in feature.cells:
            if cell.evidence.startswith("run: "):
                continue
            path, _, name = cell.evidence.partition("::")
            tree = ast.parse((ROOT / path).read_text())
            assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, cell.evidence


def test_a_stopped_run_reads_what_is_there(small: Path, tmp_path: Path) -> None:
    workshop = AnswerWorkshop(FieldComparison.read(small / "field.yaml"), tmp_path)
    base = workshop.base()
    again = AnswerWorkshop(FieldComparison.read(small / "field.yaml"), tmp_path)
    again.policy = lambda other=False: pytest.fail("asked again")  # type: ignore[method-assign,assignment]
    assert again.base() == base
