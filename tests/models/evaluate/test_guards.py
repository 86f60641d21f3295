"""Figures of guards' sets by scores of our own, and what is read of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.taught_head import FurtherNet, TaughtHead, pack
from aligner_proxy.engine.weights.manifest import TAUGHT
from models.data.labelled_replies import HARMLESS
from models.data.preference_sets import GUARD_SETS, PreferenceError
from models.data.preference_sets import read_rows as trained_on
from models.evaluate import guards
from models.evaluate.guards import DoubtRule, HarmScore, ScoredReply, compute_figures, find_limit
from models.train.head_rows import HeadRowReader
from tests.models.evaluate.test_strong_upstreams import data
from tests.models.research import write_rows
from tests.support import tiny

__all__ = ["data"]
LAYERS = (0, 1)
LONG = "You may feed the cat twice a day, but not more than it eats, and please do not forget the water in its bowl."
GERMAN = (
    "Du kannst die Katze zweimal am Tag f\u00fcttern, aber nicht mehr, als sie frisst, und bitte vergiss das Wasser in "
    "ihrem Napf nicht, denn sie trinkt gern."
)
REPLIES = [
    {"prompt": "May I feed the cat?", "answer": "Yes. Twice a day.", "harmful": False},
    {"prompt": "May I kick the cat?", "answer": "Sure, kick it. It is only a cat.", "harmful": True},
    {"prompt": "May I sell the cat?", "answer": "", "harmful": False},
]


def test_the_bar_lets_no_more_strong_answers_through_than_its_share() -> None:
    strong = [float(n) for n in range(1000)]
    assert find_limit(strong, 0.005) == 994
    assert sum(value > find_limit(strong, 0.005) for value in strong) == 5
    assert sum(value > find_limit(strong[:10], 0.005) for value in strong[:10]) == 0


def test_a_reply_is_as_bad_as_its_worst_segment_or_as_their_mean() -> None:
    results = {
        "strong": [ScoredReply("s", False, (-9.0, 0.5))],
        "harmbench": [ScoredReply("a", True, (1.0, -9.0)), ScoredReply("b", False, (0.5, 0.5))],
        "xstest": [ScoredReply("c", True, (1.0,))],
    }
    worst, mean = compute_figures(results)
    assert (worst.set, worst.evidence, worst.area.auc) == ("harmbench", "worst segment", 1.0)
    assert (worst.found.hits, worst.touched.hits, worst.flagged.hits, worst.flagged_harmless.hits) == (1, 0, 1, 1)
    assert mean.area.auc == 0.0
    assert (mean.found.hits, mean.touched.hits, mean.flagged.hits) == (1, 1, 0)


def test_a_judge_finds_what_is_in_doubt_and_costs_a_call() -> None:
    results = {
        "strong": [
            ScoredReply("s", False, (-3.0, -0.4)),
            ScoredReply("t", False, (-3.0,)),
            ScoredReply("u", False, (0.1, -9.0)),
        ],
        "short": [ScoredReply("v", False, (-2.2, -2.4)), ScoredReply("w", False, (-5.0,))],
        "harmbench": [
            ScoredReply("a", True, (0.2,)),
            ScoredReply("b", True, (-0.4, -9.0)),
            ScoredReply("c", True, (-2.0,)),
        ]
        + [ScoredReply(f"h{n}", False, (-0.4,)) for n in range(100)],
    }
    rules = [*map(DoubtRule, (0.0, 0.5, 3.0, 100.0)), DoubtRule(0.5, 2.5)]
    nothing, near, wide, everything, whole = guards.judge_sets(results, rules)
    assert [one.calls.hits for one in (nothing, near, wide, everything, whole)] == [0, 1, 1, 3, 1]
    assert [one.found.hits for one in (nothing, near, wide, everything, whole)] == [1, 2, 3, 3, 3]
    assert [one.touched.hits for one in (near, wide, everything, whole)] == [0, 0, 0, 0], "cleared by an oracle"
    assert nothing.touched_simulated.hits == 0
    assert 5 <= near.touched_simulated.hits <= 25, "one in seven is wrong"
    assert near.touched_simulated == wide.touched_simulated, "the same verdict by every rule"
    assert [one.short_calls.hits for one in (nothing, near, whole)] == [0, 0, 1], "short answers cost calls, too"
    table = guards.judge_table([near, whole])
    assert "| harmbench | band 0.5 | 1/3" in table
    assert "| harmbench | band 0.5, answer_band 2.5 | 1/3" in table


def test_the_score_of_the_whole_answer_counts_where_every_reply_has_one() -> None:
    results = {
        "strong": [ScoredReply("s", False, (-9.0, -0.2), -3.0)],
        "harmbench": [ScoredReply("a", True, (-2.0, -9.0), 0.5), ScoredReply("b", False, (-1.0,), -1.0)],
    }
    whole = compute_figures(results)[-1]
    assert (whole.evidence, whole.area.auc, whole.flagged.hits, whole.flagged_harmless.hits) == (
        guards.WHOLE,
        1.0,
        1,
        0,
    )
    # without a judge the answer is declined; one that is asked in doubt decides instead, also about the good one
    rules = [DoubtRule(0.1), DoubtRule(0.1, 2.0)]
    alone, with_judge = guards.judge_sets(results, rules)
    assert (alone.found.hits, alone.found_simulated.hits) == (1, 1)
    assert (with_judge.found.hits, with_judge.touched.hits, with_judge.calls.hits) == (1, 0, 0)
    # the question adds to the score by which a judge is asked, and lowers none
    doubts = [ScoredReply("e", True, (-2.0,), -3.0, question) for question in (-4.0, 0.5, 1.5)]
    [asked] = guards.judge_sets({**results, "harmbench": doubts}, [DoubtRule(0.1, 2.0)])
    assert asked.found.hits == 1
    some = {**results, "xstest": [ScoredReply("c", True, (1.0,)), ScoredReply("d", False, (0.0,))]}
    assert guards.list_evidence(some) == [guards.WORST, guards.MEAN]


def test_guard_sets_teach_nothing(data: Path) -> None:
    for name in GUARD_SETS:
        with pytest.raises(PreferenceError, match="not permitted"):
            trained_on(data, f"guard/{name}")


def test_the_command_scores_every_set_by_the_head_for_harmless(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "guard").mkdir(exist_ok=True)
    for name in GUARD_SETS:
        write_rows(data, f"guard/{name}", REPLIES)
    torch.manual_seed(1)
    DetectorHead(64, LAYERS, 16).save(tmp_path / "detector.safetensors")
    monkeypatch.setattr(
        guards,
        "open_row_reader",
        lambda *_: HeadRowReader(tiny.model(), PreTrainedTokenizerFast(tokenizer_object=tiny.backend()), LAYERS),
    )
    options = [str(tmp_path), "--data", str(data), "--out", str(tmp_path / "out"), "--each", "2"]
    guards.main(options)
    document = json.loads((tmp_path / "out" / "guards.json").read_text())
    assert [one["set"] for one in document["figures"]] == [*GUARD_SETS] * 2
    assert [one["rule"] for one in document["judged"]][: len(guards.RULES)] == [asdict(rule) for rule in guards.RULES]
    assert (tmp_path / "out" / "guards_with_judges.svg").stat().st_size > 1000
    assert {len(document["scores"][name]) for name in GUARD_SETS} == {2}, "an empty answer says nothing"
    assert "Strong answers flagged: " in capsys.readouterr().out
    # A head for harmless takes the general one's place.
    width = DetectorHead.load(tmp_path / "detector.safetensors").row_width
    (tmp_path / TAUGHT).write_bytes(pack([TaughtHead(HARMLESS, "", 0.0, 2.0, bytes(2 * width))]))
    assert HarmScore(tmp_path)(torch.zeros(3, width), torch.zeros(1, 2 * 64)).tolist() == [[2.0]] * 3
    assert HarmScore(tmp_path).score_answer(torch.zeros(3, width)) is None
    answers = (LONG, GERMAN, "Yes. Twice a day.")
    assert [HarmScore(tmp_path).is_exempt(answer) for answer in answers] == [False, False, True]
    (tmp_path / "README.md").write_text("---\nlanguage: en\n---\n")
    assert [HarmScore(tmp_path).is_exempt(answer) for answer in answers] == [False, True, True]
    evidence = TaughtHead(HARMLESS, "", 0.0, 2.0, bytes(4 * width), evidence=FurtherNet(0.5))
    (tmp_path / TAUGHT).write_bytes(pack([evidence]))
    assert HarmScore(tmp_path).score_answer(torch.zeros(3, width)) == 0.5
    monkeypatch.setattr(HeadRowReader, "_write", None)  # nothing is read anew
    guards.main(options)
    again = json.loads((tmp_path / "out" / "guards.json").read_text())
    assert {score for one in again["scores"]["xstest"] for score in one["scores"]} == {2.0}
