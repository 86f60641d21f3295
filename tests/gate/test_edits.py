"""Edits are found, put in and left out, and what no edit covers never moves."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligner_proxy.gate.edits import (
    Edit,
    apply,
    bundle_groups,
    detector_flags,
    edits_by_comparison,
    independent_groups,
)
from aligner_proxy.gate.flagged_runs import edits_in_place
from aligner_proxy.text.structure import join, split
from aligner_proxy.types import Correction, SegmentScore
from tests.support.sampling import examples

pytestmark = pytest.mark.timeout(900)
EXAMPLES = settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
ASKED = "One stays. Two is rude. Three stays.\n\nFour is rude."


def found(original: str, edited: str, flagged: set[int]) -> list[Edit] | None:
    pieces = split(original)
    return edits_in_place(original, pieces, [i in flagged for i in range(len(pieces))], edited)


def test_each_changed_run_is_one_edit_with_its_white_space() -> None:
    assert found(ASKED, "One stays. Two is kind. Three stays.", {1, 3}) == [
        Edit(10, 24, " Two is kind. ", 1, 2),
        Edit(36, 51, "", 3, 4),
    ]


def test_a_flagged_run_that_did_not_change_is_no_edit() -> None:
    assert found(ASKED, "One stays. Three stays.\n\nFour is rude.", {1, 3}) == [Edit(10, 24, " ", 1, 2)]


@pytest.mark.parametrize(
    "edited",
    [
        "One stays! Two is rude. Three stays.\n\nFour is rude.",
        "Two is rude. Three stays.\n\nFour is rude.",
        "One stays. Three remains.\n\nFour is rude.",
        "Three stays. One stays.",
        "One stays. Two is kind. Three staysonly. Four.",
        "",
    ],
)
def test_what_was_not_flagged_must_be_there(edited: str) -> None:
    assert found(ASKED, edited, {1, 3}) is None


def test_a_text_before_the_first_segment_is_no_edit_where_that_was_not_flagged() -> None:
    assert found("One. Two.", "So: One. Two.", {1}) is None
    assert found("One. Two.", "So. Two.", {0}) == [Edit(0, 5, "So. ", 0, 1)]


def test_white_space_at_the_very_end_is_no_edit() -> None:
    assert found("One. Two.\n", "One. Two.", set()) == []
    assert found("One. Two.", "One. Two.\n", {0}) == []
    assert apply("One. Two.\n", found("One. Two.\n", "One.", {1}) or []) == "One.\n"


def test_a_word_is_not_taken_for_a_segment_inside_another_word() -> None:
    original = "Rude. It. Rude again. End."
    edits = found(original, "Bit of it. It. Fit. End.", {0, 2})
    assert edits is not None
    assert [edit.text for edit in edits] == ["Bit of it. ", " Fit. "]


def test_a_sentence_that_stands_several_times_is_taken_for_itself() -> None:
    original = "You oaf! Take 20 mg. You oaf! Rest. You oaf!"
    assert found(original, "You oaf! Take 20 mg. You oaf! You oaf!", {0, 1, 3}) == [Edit(29, 36, " ", 3, 4)]
    twice = "It is so. He said it. It is so. Buy now! It is so."
    assert found(twice, "It is so. He said it. It is so. It is so.", {0, 1, 3}) == [Edit(31, 41, " ", 3, 4)]


def test_what_stands_unchanged_leaves_enough_for_the_sentences_behind_it() -> None:
    edits = found("Go. Go. Buy now! Go.", "Go. Go.", {0, 2})
    assert edits is not None
    assert apply("Go. Go. Buy now! Go.", edits) == "Go. Go."


def test_the_detectors_word_must_be_about_these_segments_and_have_scores() -> None:
    pieces = split("One. Two.")
    scores = [SegmentScore("One.", 1.0, True), SegmentScore("Two.", -1.0, False)]
    assert detector_flags(pieces, Correction("x", tuple(scores))) == [True, False]
    assert detector_flags(pieces, Correction("x", tuple(scores[:1]))) is None
    assert detector_flags(pieces, Correction("x", (scores[0], SegmentScore("Two.", None, False)))) is None


def test_by_comparison_equal_segments_part_the_edits() -> None:
    original = "One. Two. Three. Four."
    edits = edits_by_comparison(original, split(original), "One. 2. Three. Four. Five.")
    assert edits == [Edit(4, 10, " 2. ", 1, 2), Edit(22, 22, " Five.", 4, 4)]


def test_by_comparison_white_space_between_segments_is_an_edit() -> None:
    original = "One. Two."
    assert edits_by_comparison(original, split(original), "One.\n\nTwo.") == [Edit(4, 5, "\n\n", 1, 1)]
    assert edits_by_comparison(original, split(original), "One. Two.\n") == []


def test_a_segment_that_moved_binds_its_two_edits() -> None:
    original = "One. Two. Three. Four. Five."
    edits = edits_by_comparison(original, split(original), "Two. Three. One. Four. 5.")
    assert [len(group) for group in independent_groups(edits, split(original))] == [2, 1]


def test_bundles_are_neighbours() -> None:
    groups = [(Edit(i, i + 1, "", i, i + 1),) for i in range(7)]
    assert bundle_groups(groups, 7) == groups
    assert [len(bundle) for bundle in bundle_groups(groups, 3)] == [3, 3, 1]
    assert [edit for bundle in bundle_groups(groups, 2) for edit in bundle] == [edit for (edit,) in groups]
    assert bundle_groups([], 4) == []


WORDS = st.sampled_from(["One is.", "Two is!", "- Three", "4. Four", "Five?", "```\nx\n```", "六。"])
TEXTS = st.builds(
    lambda pieces: "".join(word + gap for word, gap in pieces),
    st.lists(st.tuples(WORDS, st.sampled_from([" ", "\n", "\n\n", "  "])), max_size=9),
)


@EXAMPLES
@given(TEXTS, TEXTS)
def test_any_two_texts_have_edits_between_them(original: str, edited: str) -> None:
    edits = edits_by_comparison(original, split(original), edited)
    assert apply(original, edits).rstrip() == edited.rstrip()
    assert apply(original, []) == original
    assert sorted(edits) == edits
    assert all(one.last <= other.first for one, other in pairwise(edits))


@EXAMPLES
@given(TEXTS, st.data())
def test_replacing_flagged_runs_is_understood(original: str, data: st.DataObject) -> None:
    pieces = split(original)
    flagged = {i for i in range(len(pieces)) if data.draw(st.booleans())}
    texts = [
        data.draw(st.sampled_from(["", "New.", "One is."])) if i in flagged else p.text for i, p in enumerate(pieces)
    ]
    edited = join([(text, piece.gap or " ") for text, piece in zip(texts, pieces, strict=True)])
    edits = found(original, edited, flagged)
    assert edits is not None
    assert apply(original, edits).rstrip() == edited.rstrip()
    for chosen in (edits[::2], edits[1::2]):
        part = apply(original, chosen)
        at = 0
        for i, piece in enumerate(pieces):
            if i not in flagged:
                at = part.index(piece.text, at) + len(piece.text)


@EXAMPLES
@given(st.text(max_size=60), st.text(max_size=60))
def test_no_two_texts_raise(original: str, edited: str) -> None:
    pieces = split(original)
    edits_by_comparison(original, pieces, edited)
    edits_in_place(original, pieces, [True] * len(pieces), edited)
    edits_in_place(original, pieces, [i % 2 == 0 for i in range(len(pieces))], edited)
