"""Dynamic multi-objective reformulation, and each of the ten defects of the released builders by name.

a: any difference counts as better. b: equal prompts name the wrong objectives. c: one direction per pair. d: full
ties among the contrastive pairs. e: equal pairs for the last response only. f: one prompt on both sides, no seed.
g: objective lists of two families swapped. h: several copies of template and objective texts. i: family guessed from
a path, a flag that holds a text. j: stages without a builder.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy import prompts
from aligner_proxy.errors import ConfigError
from models.data import answers, inject, metaaligner, mixture, pairs, preference_sets
from models.data.metaaligner import PARTS, SIDES, Margin, SplitShares, main, select_side, side_of
from models.data.metaaligner import reformulate as pairs_of
from models.data.pairs import Pair, PairError, read_pairs
from models.data.preference_sets import RankedResponses, ScoredResponse
from models.defects.objectives import BUILT_IN

SHORT = "Length: be brief"
KIND = "Kindness: be kind"
CLEAR = "Clarity: be clear"
FUNNY = "Humour: be funny"
HALF = Margin(better=0.5, equal=0.0)
MODULES = (answers, inject, mixture, pairs, preference_sets, metaaligner)


def _ranked(*scores: dict[str, float], query: str = "How do I fold a map?") -> RankedResponses:
    texts = ("Fold it in half.", "Start at the long side. Then press.", "Ask the ranger.", "Roll it up instead.")
    return RankedResponses(query, tuple(ScoredResponse(text, s) for text, s in zip(texts, scores, strict=False)), "own")


def _made(item: RankedResponses, direction: str, margin: Margin = HALF, seed: int = 1) -> list[Pair]:
    return [p for p in pairs_of([item], margin, seed) if p.direction == direction and not p.source.startswith("warmup")]


def test_defect_a_a_small_lead_counts_for_neither_side() -> None:
    item = _ranked({SHORT: 0.5, KIND: 0.0, CLEAR: 1.0}, {SHORT: 0.6, KIND: 1.0, CLEAR: 1.0})
    made = _made(item, "better", Margin(better=0.5, equal=0.05)) + _made(item, "equal", Margin(better=0.5, equal=0.05))
    assert [p.objectives for p in made] == [(KIND,), (CLEAR,)]


def test_defect_b_equal_prompts_use_the_equal_objectives() -> None:
    item = _ranked({SHORT: 1, KIND: 0, CLEAR: 2, FUNNY: 3}, {SHORT: 0, KIND: 1, CLEAR: 2, FUNNY: 3})
    (equal,) = _made(item, "equal")
    assert set(equal.objectives) == {CLEAR, FUNNY}


def test_defect_c_both_directions_of_a_pair_are_made() -> None:
    item = _ranked({SHORT: 1, KIND: 0}, {SHORT: 0, KIND: 1})
    made = {(p.answer, p.target): p.objectives for p in _made(item, "better")}
    one, two = (r.text for r in item.responses)
    assert made == {(one, two): (KIND,), (two, one): (SHORT,)}


def test_defect_d_full_ties_never_enter_the_contrastive_set() -> None:
    item = _ranked({SHORT: 0, KIND: 0}, {SHORT: 0, KIND: 0})
    assert _made(item, "better") == []
    assert len(_made(item, "equal")) == 1


def test_defect_d_no_pair_has_an_empty_objective_list() -> None:
    item = _ranked({SHORT: 0}, {KIND: 1})
    assert _made(item, "better") == _made(item, "equal") == []


def test_defect_e_every_two_responses_give_their_equal_pair() -> None:
    item = _ranked(*[{SHORT: 1.0, KIND: float(i)} for i in range(4)])
    made = {frozenset((p.answer, p.target)) for p in _made(item, "equal")}
    assert made == {frozenset((a.text, b.text)) for a, b in combinations(item.responses, 2)}


@given(st.lists(st.text(), min_size=1, max_size=20), st.integers(), st.integers())
def test_defect_f_a_prompt_is_on_one_side_whatever_the_seed(queries: list[str], first: int, second: int) -> None:
    items = [_ranked({SHORT: 1}, {SHORT: 0}, query=q) for q in queries]
    for seed in (first, second):
        sides = {side: {p.query for p in pairs_of(select_side(items, side), HALF, seed)} for side in SIDES}
        assert sum(len(s) for s in sides.values()) == len(set().union(*sides.values())) == len(set(queries))


def test_defect_f_the_same_seed_gives_the_same_pairs_in_any_order_of_queries() -> None:
    items = [_ranked({SHORT: 1, KIND: 1, CLEAR: 1}, {SHORT: 0, KIND: 0, CLEAR: 0}, query=f"q{i}") for i in range(30)]
    forth = list(pairs_of(items, HALF, 5))
    back = list(pairs_of(items[::-1], HALF, 5))
    assert sorted(forth, key=repr) == sorted(back, key=repr)
    assert list(pairs_of(items, HALF, 5)) == forth != list(pairs_of(items, HALF, 6))


def test_defect_f_spelling_and_white_space_do_not_change_the_side() -> None:
    assert side_of("How  do I\nfold a Map?") == side_of("how do i fold a map?")


def test_defect_g_objectives_are_those_the_scores_were_given_for() -> None:
    one = {BUILT_IN["harmless"]: 1.0, BUILT_IN["humour"]: 0.0}
    two = {BUILT_IN["harmless"]: 0.0, BUILT_IN["humour"]: 1.0}
    scored = {text for made in (_made(_ranked(one, two), "better"),) for p in made for text in p.objectives}
    assert scored == {BUILT_IN["harmless"], BUILT_IN["humour"]}


def test_defect_h_templates_and_objective_texts_have_one_copy() -> None:
    """Templates stand in aligner_proxy/prompts.py, built-in texts in objectives.yaml, and nowhere in this package."""
    folder = Path(inspect.getfile(metaaligner)).parent
    sources = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.py")}
    texts = [*BUILT_IN.values(), "edit the answer to", "Edit the following Question-Answer pair", "##Correction"]
    assert [(path.name, text) for path, source in sources.items() for text in texts if text in source] == []


def test_defect_i_the_family_is_named_and_never_guessed() -> None:
    with pytest.raises(ConfigError, match="unknown template 'models/HH-RLHF-7B'; known: "):
        prompts.find_template("models/HH-RLHF-7B")


def test_defect_i_a_direction_is_one_of_two_words_and_not_a_flag() -> None:
    with pytest.raises(PairError, match="unknown direction True"):
        Pair("q", ("o",), "a", "b", (0,), "s", True)  # type: ignore[arg-type]
    flags = [m for module in MODULES for m in re.findall(r"(\w+): bool = [\"']", inspect.getsource(module))]
    assert flags == []


def test_defect_j_every_stage_and_every_family_has_a_builder() -> None:
    """Warm-up, better and equal from scores of any family (IMHI here), besides the stages of the mixture."""
    names = ("correct", "informative", "professional")
    item = _ranked(
        {BUILT_IN[n]: 3.0 for n in names}, {BUILT_IN[names[0]]: 0.0, BUILT_IN[names[1]]: 3.0, BUILT_IN[names[2]]: 0.0}
    )
    made = {part: list(pairs_of([item], HALF, 1, part)) for part in PARTS}
    assert {part: len(found) for part, found in made.items()} == {"warmup": 2, "better": 1, "equal": 1}
    assert {"warmup", "equal_preference", "contrastive_preference"} <= set(mixture.STAGES)


def test_warm_up_pairs_are_identities() -> None:
    assert all(p.answer == p.target for p in pairs_of([_ranked({SHORT: 1}, {SHORT: 0})], HALF, 1, "warmup"))


def test_the_order_of_objectives_is_shuffled() -> None:
    better = dict.fromkeys((SHORT, KIND, CLEAR, FUNNY), 1.0)
    worse = dict.fromkeys((SHORT, KIND, CLEAR, FUNNY), 0.0)
    orders = {_made(_ranked(better, worse, query=f"q{i}"), "better")[0].objectives for i in range(60)}
    assert len(orders) > 12


def test_the_stream_reads_one_query_at_a_time() -> None:
    taken = 0

    def source() -> Iterator[RankedResponses]:
        nonlocal taken
        for i in range(1000):
            taken += 1
            yield _ranked({SHORT: 1}, {SHORT: 0}, query=f"q{i}")

    next(pairs_of(source(), HALF, 1))
    assert taken == 1


def test_an_edit_labels_what_changed_and_a_rewrite_blames_nothing() -> None:
    worse = ScoredResponse("Open the lid. Nobody cares, fool. Pour the water.", {KIND: 0.0})
    better = ScoredResponse("Open the lid. Pour the water.", {KIND: 1.0})
    other = ScoredResponse("Lift the cover first and fill it up.", {KIND: 2.0})
    made = {
        p.target: p.labels for p in pairs_of([RankedResponses("q", (worse, better, other), "own")], HALF, 1, "better")
    }
    assert made[better.text] == (0, 1, 0)
    assert made[other.text] in {(-1, -1, -1), (-1, -1)}


def test_equal_and_empty_responses_give_nothing() -> None:
    same = ScoredResponse("Go left.", {SHORT: 1.0})
    for other in (ScoredResponse("Go left.", {SHORT: 0.0}), ScoredResponse("  ", {SHORT: 0.0})):
        assert [
            p for p in pairs_of([RankedResponses("q", (same, other), "own")], HALF, 1) if p.source == "preference:own"
        ] == []


@pytest.mark.parametrize(("better", "equal"), [(0.0, 0.0), (0.5, 0.5), (0.5, -0.1)])
def test_a_margin_that_lets_ties_be_better_is_refused(better: float, equal: float) -> None:
    with pytest.raises(ValueError, match="0 <= equal < better"):
        Margin(better, equal)


def test_shares_must_leave_something_to_train_on() -> None:
    with pytest.raises(ValueError, match="leave something to train on"):
        SplitShares(50, 50)


def test_shares_are_about_what_was_asked_for() -> None:
    sides = [side_of(f"Where is platform {i}?", SplitShares(validation=20, test=30)) for i in range(2000)]
    assert 0.25 < sides.count("test") / 2000 < 0.35
    assert 0.15 < sides.count("validation") / 2000 < 0.25


def test_the_command_writes_one_part_of_one_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored = tmp_path / "s.jsonl"
    row = {"responses": [{"text": "One way.", "scores": {SHORT: 1}}, {"text": "Another way.", "scores": {SHORT: 0}}]}
    scored.write_text("\n".join(json.dumps({"query": f"q{i}", **row}) for i in range(50)), encoding="utf-8")
    out = tmp_path / "better.jsonl"
    main(["--scored", str(scored), "--better", "0.5", "--part", "better", "--out", str(out)])
    made = list(read_pairs(out))
    assert {p.target for p in made} == {"One way."}
    assert {side_of(p.query) for p in made} == {"train"}
    assert f"{len(made)} pairs" in capsys.readouterr().out.replace("\n", "")


def command(folder: Path, rows: list[object], *options: str) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "s.jsonl").write_text("\n".join(lines), encoding="utf-8")
    paths = ["--scored", str(folder / "s.jsonl"), "--out", str(folder / "out.jsonl")]
    main([*paths, "--better", "0.5", "--part", "better", *options])


def row(query: str, *scores: dict[str, float]) -> dict[str, object]:
    return {"query": query, "responses": [{"text": f"Way {i}.", "scores": s} for i, s in enumerate(scores)]}


@pytest.mark.parametrize(
    ("rows", "options", "problem"),
    [
        ([row("q1", {}, {}), row("q2", {SHORT: 1}, {KIND: 1})], [], r"s\.jsonl has no objectives: in none of its rows"),
        ([], [], r"s\.jsonl has no objectives"),
        ([row("q1", {SHORT: 1}, {SHORT: 0})], ["--side", "validation"], "none of its queries is on the side 'validat"),
        ([row(f"q{i}", {SHORT: 1}, {SHORT: 1}) for i in range(9)], [], "no pairs for 'better' on the side 'train'"),
        ([row("q1", {SHORT: 1}, {SHORT: 0}), '{"query": "q2"}'], [], r"s\.jsonl:2: missing field responses"),
        ([row("q1", {SHORT: 1}, {SHORT: 0})], ["--equal", "0.9"], "0 <= equal < better"),
    ],
)
def test_what_gives_no_pairs_is_an_error_and_leaves_no_file(
    tmp_path: Path, rows: list[object], options: list[str], problem: str
) -> None:
    with pytest.raises(SystemExit, match=problem):
        command(tmp_path, rows, *options)
    assert [path.name for path in tmp_path.iterdir()] == ["s.jsonl"]


def test_bad_rows_are_left_out_and_counted_where_that_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*(row(f"q{i}", {SHORT: 1}, {SHORT: 0}) for i in range(9)), "{", '{"query": "q"}']
    command(tmp_path, rows, "--bad-rows", "skip")
    told = capsys.readouterr().out.replace("\n", "")
    assert "2 bad rows left out, the first:" in told
    assert "s.jsonl:10: not JSON" in told
    assert list(read_pairs(tmp_path / "out.jsonl"))
