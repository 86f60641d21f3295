"""The streams of training: shares, seeds, kinds, and labels that follow from kinds and themes."""

from __future__ import annotations

import gzip
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from aligner_proxy.text.structure import join, split
from models.data.answers import preference_bags, prompt_key
from models.data.labels import MIXED, relation
from models.data.mixture import RECIPES, STAGES, build_examples, main
from models.data.pairs import CHANGES, STAYS, UNKNOWN, Pair, read_pairs
from models.defects.objectives import BUILT_IN
from tests.support.sampling import examples


@pytest.fixture(scope="module")
def trained(data_dir: Path) -> list[Pair]:
    return list(build_examples(data_dir, 1, examples(500, 250)))


def test_the_same_seed_gives_the_same_examples(data_dir: Path, trained: list[Pair]) -> None:
    assert list(build_examples(data_dir, 1, 10)) == trained[:10]
    assert list(build_examples(data_dir, 2, 10)) != trained[:10]


def test_the_stream_is_lazy(data_dir: Path) -> None:
    assert len(list(islice(build_examples(data_dir, 1, 10**9), 3))) == 3


@pytest.mark.parametrize("stage", STAGES)
def test_shares_of_a_stage_add_up(stage: str) -> None:
    assert sum(RECIPES[stage].values()) == pytest.approx(1.0)  # type: ignore[index]


@pytest.mark.some(1)
@pytest.mark.parametrize("stage", ["warmup", "equal_preference"])
def test_the_first_two_stages_change_nothing(data_dir: Path, stage: str) -> None:
    made = list(build_examples(data_dir, 1, 150, stage))  # type: ignore[arg-type]
    assert all(p.target == p.answer and not any(p.labels) for p in made if p.source != "innocent:relevance")


def test_the_last_stage_asks_for_nothing_in_nearly_half_of_the_cases(trained: list[Pair]) -> None:
    assert 0.35 < sum(not any(p.labels) for p in trained) / len(trained) < 0.55


def test_the_last_stage_has_every_kind_of_example(trained: list[Pair]) -> None:
    sources = Counter(p.source.split(":")[0] for p in trained)
    made = {"clean", "defect", "not-asked", "innocent", "inside", "inside-not-asked", "turn", "marked"}
    assert set(sources) == made | {"alike", "natural"}
    assert "turn:real" in {p.source for p in trained}


def test_labels_say_what_the_kinds_and_themes_say(trained: list[Pair]) -> None:
    for p in trained:
        for kind, label in zip(p.kinds, p.labels, strict=True):
            related = {relation(kind, theme) for theme in p.themes}
            doubt = UNKNOWN if UNKNOWN in related else STAYS
            assert label == (CHANGES if CHANGES in related else doubt) or kind == MIXED, (p.source, kind, p.themes)


def test_labels_and_target_agree_where_segments_are_taken_out(trained: list[Pair]) -> None:
    for p in trained:
        kept = [("" if label == CHANGES else s.text, s.gap) for s, label in zip(split(p.answer), p.labels, strict=True)]
        if not p.source.startswith(("inside", "natural")):
            assert join(kept) == p.target, p.source
        else:
            assert all(text in p.target for text, _ in kept)


def test_every_example_has_one_to_four_objectives_in_no_fixed_order(trained: list[Pair]) -> None:
    assert {len(p.objectives) for p in trained} == {1, 2, 3, 4}
    assert all(len(set(p.objectives)) == len(p.objectives) for p in trained)
    built_in = sum(o in BUILT_IN.values() for p in trained for o in p.objectives)
    assert 0.25 < built_in / sum(len(p.objectives) for p in trained) < 0.6


def test_conversations_have_earlier_turns_before_many_questions(data_dir: Path) -> None:
    made = list(build_examples(data_dir, 1, 80, "conversation"))
    assert 0.3 < sum(p.query.count("Human:") > 1 for p in made) / len(made) < 0.9


def test_bags_are_judgements_with_the_exact_objective(data_dir: Path) -> None:
    train = list(preference_bags(data_dir))
    test = list(preference_bags(data_dir, "test"))
    assert train
    assert test
    assert {bag.objectives for bag in (*train, *test)} == {(BUILT_IN["harmless"],)}
    assert not {prompt_key(bag.query) for bag in train} & {prompt_key(bag.query) for bag in test}
    assert [bag.source for bag in train[:4]] == ["bag:chosen", "bag:rejected"] * 2


def test_the_command_writes_a_stage(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.jsonl"
    main(["--data", str(data_dir), "--stage", "warmup", "--n", "5", "--out", str(out)])
    assert len(list(read_pairs(out))) == 5


def test_the_data_folder_must_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "x")])
    assert "--data" in capsys.readouterr().err


def test_a_side_without_an_answer_is_an_error(tmp_path: Path, data_dir: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(data_dir, few)
    for path in few.glob("*.jsonl.gz"):
        with gzip.open(path, "wt") as out:
            out.write("")
    with pytest.raises(SystemExit, match="no usable answer is on this side of the split"):
        main(["--data", str(few), "--n", "3", "--out", str(tmp_path / "x.jsonl")])
    assert not list(tmp_path.glob("x.jsonl*"))
