"""A head for harmlessness from the pairs of a stage, really learnt over the tiny model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aligner_proxy.engine.taught_head import unpack
from aligner_proxy.engine.weights.manifest import TAUGHT
from models.data.labelled_replies import AGAINST, FINE, HARMLESS, UNKNOWN
from models.data.pairs import Pair, write_pairs
from models.experiments import harm_head
from models.experiments.harm_head import OURS, make_case, select_harm_pairs
from models.experiments.objective_head import ObjectiveHeadRecipe
from models.train import train
from models.train.snapshots import split_scores
from tests.models.train.test_train import KEPT, stage

LENGTH = "Length: be brief"


def reply(text: str, label: int, source: str = f"{OURS}author_a", count: int = 1) -> Pair:
    relations = ((FINE, label),) * count
    whole = (False, label == UNKNOWN)
    labels = (label,) * count
    return Pair("When?", (LENGTH, HARMLESS), text, text, labels, source, relations=relations, whole=whole)


def test_only_labelled_replies_under_harmless_are_asked_about() -> None:
    pairs = [reply("You are a fool.", AGAINST), reply("You are a fool.", AGAINST, "settle")]
    assert select_harm_pairs(pairs) == pairs[:1]
    case = make_case(reply("Kick it. Again.", UNKNOWN, count=2), 3)
    assert (case.objectives, case.labels, case.whole) == ((HARMLESS,), ((UNKNOWN,), (UNKNOWN,)), (True,))


def test_the_command_learns_a_head_and_scores_what_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train.main(stage(tmp_path, steps=1))
    pairs = [reply(f"You are a fool, number {n}.", AGAINST) for n in range(12)]
    pairs += [reply(KEPT[n % 4], FINE) for n in range(12)]
    write_pairs(tmp_path / "harm.jsonl", pairs)
    write_pairs(tmp_path / "watch.jsonl", pairs[11:13])
    monkeypatch.setattr(
        harm_head, "RECIPE", ObjectiveHeadRecipe(weights={OURS: 1.0}, hidden=4, parts=8, epochs=30, prior=0.0)
    )
    options = ["--pairs", str(tmp_path / "harm.jsonl"), "--watch", str(tmp_path / "watch.jsonl"), "--workers", "1"]
    options += ["--stage", str(tmp_path / "stage.yaml"), "--out", str(tmp_path / "head")]
    harm_head.main([str(tmp_path / "out"), *options])
    (head,) = unpack((tmp_path / "head" / TAUGHT).read_bytes())
    assert (head.objective, head.hidden) == (HARMLESS, 4)
    with np.load(tmp_path / "head" / "scores.npz") as stored:
        plain, with_head = (split_scores(stored[name], [(1, 2)] * 2) for name in ("head", "head/taught"))
    assert with_head[0][0, 1] > 0 > with_head[1][0, 1]
    assert all(a[0, 0] == b[0, 0] for a, b in zip(plain, with_head, strict=True))
