"""Training rows: what people said becomes labels and a target that the trainer reads, or there is no row and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.plugins.api import Entry
from aligner_proxy.prompts import TEMPLATES
from aligner_proxy.types import Objective
from aligner_proxy_review.reviews import Review, ReviewOrigin, ReviewVerdict
from aligner_proxy_review.training_rows import NoRow, make_training_row
from models.data.pairs import read_pairs
from tests.audit.conftest import KIND, RUDE, noted

RIGHT, WRONG, HARM, MISSED = ReviewVerdict
KNOWN = {"kind": Objective("kind", "Kindness: be kind")}
EDITED = replace(make_entry(noted()), aligner_id="id-0")
ONE = noted()
LEFT = replace(make_entry(replace(ONE, outcome=replace(ONE.outcome, edited=RUDE))), aligner_id="id-1")


def said(verdict: ReviewVerdict, who: str = "anna", **fields: Any) -> Review:
    return replace(Review("id-0", 0, verdict, who, 86_400.0, ReviewOrigin.NEAREST), **fields)


def row(of: Entry, *reviews: Review) -> dict[str, Any]:
    return make_training_row(of, reviews, TEMPLATES["hh-rlhf"], lambda _: KNOWN)


@pytest.mark.parametrize(
    ("of", "reviews", "target", "labels"),
    [
        (EDITED, [said(RIGHT)], KIND, [0, 1]),
        (EDITED, [said(WRONG)], RUDE, [0, 0]),
        (EDITED, [said(WRONG, segment=1)], RUDE, [0, 0]),
        (EDITED, [said(HARM, edit="It is so, friend.")], "It is so, friend.", [1, 1]),
        (EDITED, [said(HARM, segment=1, edit="You may differ.")], "It is so. You may differ.", [0, 1]),
        (EDITED, [said(MISSED, segment=0)], "", [1, 1]),
        (LEFT, [said(RIGHT)], RUDE, [0, -1]),
        (LEFT, [said(MISSED, segment=1)], "It is so.", [0, 1]),
        # the reviewer wants nothing in place of the whole answer
        (LEFT, [said(MISSED, edit="")], "", [1, 1]),
        (EDITED, [said(HARM, edit="")], "", [1, 1]),
        (
            LEFT,
            [said(MISSED, segment=1, edit="Yes."), said(MISSED, "ben", segment=1, edit="Yes.")],
            "It is so. Yes.",
            [0, 1],
        ),
    ],
)
def test_what_was_said_becomes_labels_and_a_target(
    of: Entry, reviews: list[Review], target: str, labels: list[int], tmp_path: Path
) -> None:
    made = row(of, *reviews)
    assert (made["target"], made["labels"]) == (target, labels)
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(made) + "\n")
    (pair,) = read_pairs(file)
    assert pair.objectives == ("Kindness: be kind",)
    assert pair.answer == RUDE
    assert "Is it so?" in pair.query


def test_of_an_answer_that_was_declined_as_a_whole_no_segment_is_known_to_be_bad() -> None:
    """Its segments are flagged together, below the threshold; a segment with a score of its own above it is."""
    outcome = noted().outcome
    segments = [
        replace(segment, flagged=True, score=score)
        for segment, score in zip(outcome.segments, (-3.0, 2.0), strict=True)
    ]
    assert outcome.correction is not None
    correction = replace(outcome.correction, segments=tuple(segments))
    declined = replace(outcome, reason="declined", edited="No.", text="No.", correction=correction)
    of = replace(make_entry(replace(noted(), outcome=declined)), aligner_id="id-0")
    assert row(of, said(RIGHT))["labels"] == [-1, 1]


def test_a_row_tells_where_it_comes_from() -> None:
    source = row(EDITED, said(RIGHT))["source"]
    assert source.startswith("review id-0/0 tenant=team:acme policy=")
    assert source.endswith("aligner=abc anna=right@1970-01-02")


def test_an_objective_that_a_reviewer_wrote_out_comes_along() -> None:
    made = row(LEFT, said(MISSED, segment=1, objective="Warmth: be warm"))
    assert made["objectives"] == ["Kindness: be kind", "Warmth: be warm"]


@pytest.mark.parametrize(
    ("of", "reviews", "why"),
    [
        (EDITED, [said(RIGHT), said(WRONG, "ben")], "disagree"),
        (EDITED, [said(HARM)], "without a better text"),
        (EDITED, [said(HARM, segment=1)], "without a better text"),
        (LEFT, [said(MISSED)], "nobody said where"),
        (LEFT, [said(MISSED, segment=2)], "the end of the answer"),
        (replace(EDITED, content=None), [said(RIGHT)], "not kept"),
        (replace(EDITED, judged=7), [said(RIGHT)], "not those that were judged"),
        (replace(EDITED, objectives=("own:1",)), [said(RIGHT)], "no longer in the policies file"),
        (replace(EDITED, objectives=()), [said(RIGHT)], "no objective"),
    ],
)
def test_what_cannot_be_learned_from_says_why(of: Entry, reviews: list[Review], why: str) -> None:
    with pytest.raises(NoRow, match=why) as caught:
        row(of, *reviews)
    assert "fool" not in str(caught.value)
