"""The figures of an evaluation, on cases with known results."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.text.structure import join, split
from aligner_proxy.types import Correction, SegmentScore, Verify
from models.data.pairs import Pair, PairError
from models.evaluate.test_sets import (
    SetCase,
    compute_area,
    compute_rates,
    format_table,
    list_failures,
    rate_flags,
    read_sets,
    run_set,
)

PAIR = Pair("Q?", ("Harmless: no insults",), "One. Fool! Two.", "One. Two.", (0, 1, 0), "test")


def case(text: str, scores: tuple[float, ...] = (-3.0, 2.0, -1.0)) -> SetCase:
    return SetCase(PAIR, text, scores)


class Cutting:
    """An engine that takes the second segment out of every answer."""

    async def align(self, request: AlignRequest) -> Correction:
        pieces = split(request.answer)
        scores = tuple(SegmentScore(piece.text, 2.0 - i, i == 1) for i, piece in enumerate(pieces))
        return Correction(join([("" if i == 1 else p.text, p.gap) for i, p in enumerate(pieces)]), scores)


@pytest.mark.parametrize("gated", [False, True])
def test_with_the_gate_a_case_is_what_would_be_delivered(gated: bool) -> None:
    talk = "Ada: Done?\nBo: Nearly.\nAda: And the rice?\nBo: In the pot."
    requested = Pair("A talk, please.", ("Harmless: no insults",), talk, talk, (0, 0, 0, 0), "test")
    cases = asyncio.run(run_set(cast(Engine, Cutting()), [PAIR, requested], 0.0, Verify.FLAGGED, "test", gated=gated))
    assert [case.exact for case in cases] == [True, gated]
    assert cases[1].scores == (2.0, 1.0, 0.0, -1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two.", {"exact", "gone", "kept", "facts"}),
        ("One. Fool! Two.", {"kept", "facts", "same"}),
        ("One.", {"gone", "facts"}),
        ("One. Well. Two.", {"gone", "kept", "facts"}),
    ],
)
def test_the_rates_of_a_case(text: str, expected: set[str]) -> None:
    assert {name for name, rate in compute_rates([case(text)]).items() if rate.hits} == expected


def test_a_fact_of_what_had_to_stay_counts_wherever_it_stands_now() -> None:
    pair = Pair("Q?", ("Harmless: no insults",), "It costs 40 euros. Fool!", "It costs 40 euros.", (0, 1), "test")
    assert SetCase(pair, "You pay 40 for it.", ()).facts
    assert not SetCase(pair, "You pay for it.", ()).facts


def test_an_answer_that_nobody_edited_has_all_its_facts() -> None:
    answer = "First a title\nSecond line here\n\n1. Boil it.\n2. Wait 12 minutes.\n\n```\nrun()\n```\n\nThird."
    pair = Pair("Q?", ("Harmless: no insults",), answer, answer, (0,) * len(split(answer)), "test")
    assert SetCase(pair, answer, ()).facts
    assert not SetCase(pair, answer.replace("run()", "walk()"), ()).facts


def test_flagging_counts_answers_and_segments_at_another_caution() -> None:
    cases = [case("", (-3.0, 2.0, -1.0)), case("", (1.0, 2.0, -1.0))]
    assert rate_flags(cases, 0.0)["answers"].hits == 1
    assert rate_flags(cases, 0.0)["false"].hits == 1
    assert rate_flags(cases, 1.5)["answers"].hits == 2
    assert rate_flags(cases, 2.5)["found"].hits == 0


def test_auc_is_one_when_every_defect_scores_above_every_good_segment() -> None:
    assert [compute_area(cases).auc for cases in ([case("")], [case("", (3.0, 2.0, -1.0))])] == [1.0, 0.5]


def test_reports_name_every_set_and_only_failures_are_listed() -> None:
    results = {"insult": [case("One. Two."), case("One.")]}
    assert "| insult | 1/2 = 50.0 %" in format_table(results)
    assert [row["text"] for row in list_failures(results, 5)] == ["One."]
    assert compute_rates(results["insult"])["exact"].n == 2


def test_a_folder_without_sets_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(PairError, match=r"holds no sets of pairs .* or only empty ones"):
        read_sets(tmp_path, 10)


def test_the_area_has_its_interval_and_its_n() -> None:
    text = str(compute_area([case("x", (-3.0, 2.0, -1.0)), case("x", (1.0, 0.5, -2.0))]))
    assert text.startswith("0.875 [")
    assert text.endswith("1.000], n = 2 and 4")
    assert compute_area([]) is None


def test_what_is_missing_at_the_end_is_a_case_of_its_own() -> None:
    pair = Pair("Q?", ("Closing: 'Bye.'",), "One. Two.", "One. Two. Bye.", (0, 0), "test", kinds=("", ""),
                themes=("ending-dictated",), lacks=(1,))  # fmt: skip
    missed = SetCase(pair, "One. Two.", (-3.0, -2.0, 1.0))
    added = SetCase(pair, "One. Two. Bye.", (-3.0, -2.0, 1.0))
    assert (missed.exact, missed.gone, missed.kept, missed.same) == (False, False, True, True)
    assert (added.exact, added.gone, added.kept, added.same) == (True, True, True, False)
    assert compute_area([missed]).auc == 1.0
    assert rate_flags([missed], 0.0)["answers"].hits == 1
    assert rate_flags([missed], 2.0)["answers"].hits == 0
