"""The study of heads trained alone, really run over the tiny model on sentences of ours."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError
from transformers import PreTrainedTokenizerFast

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.taught_head import unpack
from aligner_proxy.engine.weights.manifest import TAUGHT
from models.data import labelled_replies
from models.data.answers import preference_bags
from models.data.labelled_replies import AGAINST, COMPANIES, HARMLESS, TEACHING, TEST_KINDS, UNKNOWN
from models.data.mixture import build_examples
from models.data.pairs import write_pairs
from models.evaluate.calibrate import GOOD
from models.experiments import head_alone
from models.experiments import head_measures as measures
from models.experiments.head_alone import BEFORE, AttemptPlan
from models.train.head_rows import HeadRowReader
from models.train.labelled_cases import read_written_cases
from tests.support import tiny

PLAN = Path(__file__).parents[3] / "configs" / "evaluate" / "head_alone.yaml"
LAYERS = (0, 1)


def test_the_plan_names_only_what_exists() -> None:
    plan = AttemptPlan.read(PLAN)
    names = {"settle", "wishes", "good", "written", "own", *TEACHING}
    assert len(plan.attempts) >= 5
    for name in plan.attempts:
        attempt = plan.attempt(name)
        assert attempt.shares.keys() | attempt.held <= names
    with pytest.raises(ValidationError):
        AttemptPlan.model_validate({"tests": {}, "attempts": {}, "stepz": 1})


@pytest.fixture
def few_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten thousand written answers some of each author, and all of the kinds that are kept apart."""
    answers = labelled_replies.read_written_answers()
    few = [reply for number, reply in enumerate(answers) if number % 20 == 0 or reply.slug in TEST_KINDS]
    monkeypatch.setattr(labelled_replies, "read_written_answers", lambda: few)


@pytest.mark.usefixtures("few_written")
def test_written_answers_keep_the_kinds_of_another_test_apart() -> None:
    assert {reply.slug for reply in labelled_replies.read_written_answers()} & TEST_KINDS
    harm, own = read_written_cases()
    assert not {case.slug for case in (*harm, *own)} & TEST_KINDS
    assert all(HARMLESS in case.objectives for case in harm)
    assert {len(case.objectives) for case in harm} == {len(company) for company in COMPANIES}
    # Of what goes against another objective it is not known whether it harms.
    other = next(case for case in own if case.harmful and HARMLESS in case.objectives)
    at = other.objectives.index(HARMLESS)
    mine = other.objectives.index(other.own)
    assert all(row[at] == (UNKNOWN if row[mine] == AGAINST else row[mine]) for row in other.labels)


@pytest.mark.usefixtures("few_written")
def test_the_command_measures_each_attempt(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    DetectorHead(64, LAYERS, 16).save(tmp_path / "detector.safetensors")
    pairs = list(build_examples(data_dir, 5, 5, "warmup"))
    for name in (*(f"dev/{good}" for good in GOOD), "test/insult"):
        write_pairs(tmp_path / "sets" / f"{name}.jsonl", pairs)
    write_pairs(tmp_path / "sets/test/compared_replies.jsonl", islice(preference_bags(data_dir, "test"), 4))
    # Of the written answers a few of each author.
    harm, own = read_written_cases()
    few = tuple(
        [case for a in "abcd" for case in [c for c in each if c.source == f"author_{a}"][:6:2]] for each in (harm, own)
    )
    monkeypatch.setattr(head_alone.labelled_cases, "read_written_cases", lambda: few)
    monkeypatch.setattr(head_alone.labelled_replies, "read_strong_replies", lambda *_: few_replies(data_dir))
    further = labelled_replies.read_further_good_replies
    monkeypatch.setattr(labelled_replies, "read_further_good_replies", lambda *given: further(*given)[:40])
    monkeypatch.setattr(
        head_alone,
        "open_row_reader",
        lambda *_: HeadRowReader(tiny.model(), PreTrainedTokenizerFast(tokenizer_object=tiny.backend()), LAYERS),
    )
    plan = {
        "sizes": {
            "natural": 8,
            "good": 6,
            "strong": 2,
            "unseen": 4,
            "planted": 4,
            "phrases": 4,
            "settle": 8,
            "wishes": 2,
        },
        "tests": {"insult": 4, "compared_replies": 4},
        "common": {"shares": {"settle": 1, "good": 1, "written": 1, "gptfuzz": 1}, "steps": 3, "batch": 4, "lr": 1e-3},
        "attempts": {
            "all": {"held": ["settle"]},
            "harmless": {"alone": True, "budget": 0.2},
            "fresh": {"fresh": {"weights": {"phrases": 1, "written": 1}, "hidden": 4, "parts": 8, "epochs": 2}},
        },
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    options = ["--data", str(data_dir), "--sets", str(tmp_path / "sets"), "--out", str(tmp_path / "out")]
    (tmp_path / "aligner.json").write_text('{"files": {}}')
    head_alone.main([str(tmp_path), str(tmp_path / "plan.yaml"), *options, "--ship", "fresh", "--into", str(tmp_path)])
    (shipped,) = unpack((tmp_path / TAUGHT).read_bytes())
    assert (shipped.objective, shipped.hidden) == (HARMLESS, 4)
    document = json.loads((tmp_path / "out" / "head_alone.json").read_text())
    assert list(document) == [BEFORE, "all", "fresh", "harmless"]
    assert set(document["all"]["written"]) == {"author_a", "author_b", "author_c", "author_d"}
    assert document["all"]["whole"]["gptfuzz"]["harmful"]["n"] == 4
    assert document["all"]["sets"]["compared_replies"]["n"] == 2
    assert len({one["point"] for one in document.values()}) == len(document)
    assert "author never seen" in capsys.readouterr().out
    assert (tmp_path / "out" / "head_alone.svg").stat().st_size
    # Run again it reads and trains nothing.
    monkeypatch.setattr(HeadRowReader, "_write", None)
    monkeypatch.setattr(head_alone, "train_head", None)
    monkeypatch.setattr(head_alone, "learn_head", None)
    head_alone.main([str(tmp_path), str(tmp_path / "plan.yaml"), *options])
    assert json.loads((tmp_path / "out" / "head_alone.json").read_text()) == document


def few_replies(data: Path) -> list[head_alone.labelled_replies.LabelledReply]:
    return head_alone.labelled_replies.read_good_replies(data, 3)


@pytest.mark.usefixtures("few_written")
def test_a_head_for_harmless_alone_leaves_other_objectives_to_the_one_before(tmp_path: Path) -> None:
    reader = HeadRowReader(tiny.model(), PreTrainedTokenizerFast(tokenizer_object=tiny.backend()), LAYERS)
    rows = reader.read(read_written_cases()[0][:3], tmp_path)
    torch.manual_seed(1)
    heads = [DetectorHead(64, LAYERS, 16).eval() for _ in range(2)]
    alone = measures.score_cases(heads[0], rows, 0.5, heads[1])
    for one, new, old in zip(alone, rows.scores(heads[0]), rows.scores(heads[1]), strict=True):
        at = one.case.objectives.index(HARMLESS)
        assert torch.allclose(one.column(HARMLESS), new[:, at] - 0.5)
        others = [place for place in range(len(one.case.objectives)) if place != at]
        assert torch.equal(one.scores[:, others], old[:, others])
