"""What may be taken of a sentence that somebody else wrote: facts of the references, and nothing besides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy_grounding.matching import Matcher
from aligner_proxy_grounding.page import read_page
from aligner_proxy_grounding.rewriting import accept_rewriting, merge_edits
from aligner_proxy_grounding.sentences import FactEdit, apply_fact_edits

MATCHER = Matcher([read_page("PAGE.md", "Orders can be returned within 28 days. Posting costs £2.95, express £6.\n")])
OLD = "You have thirty days, and it costs £5.00."


def test_facts_of_the_references_are_taken_each_with_its_line() -> None:
    edits = accept_rewriting(OLD, "You have twenty-eight days, and it costs £6.00.", MATCHER, 100)
    assert edits is not None
    assert [(edit.start, edit.text, edit.source) for edit in edits] == [
        (109, "twenty-eight days", "PAGE.md:1"),
        (135, "£6.00", "PAGE.md:1"),
    ]
    assert apply_fact_edits(" " * 100 + OLD, edits).endswith("You have twenty-eight days, and it costs £6.00.")


@pytest.mark.parametrize(
    "new",
    [
        "You have thirty days, and it costs £7.00.",
        "You have thirty days, and it costs nothing.",
        "You have thirty days, but it costs £6.00.",
        "You have 28 days.",
        "You have thirty days, and it costs £6.00. Write to ann@example.org.",
        "You have thirty days, and it costs 28 days.",
        "",
    ],
)
def test_nothing_else_is(new: str) -> None:
    assert accept_rewriting(OLD, new, MATCHER, 0) is None


@given(st.text(max_size=80))
def test_what_is_the_same_changes_nothing(text: str) -> None:
    assert accept_rewriting(text, text, MATCHER, 0) == []


@given(st.text(max_size=60), st.text(max_size=60))
def test_words_are_never_changed(old: str, new: str) -> None:
    edits = accept_rewriting(old, new, MATCHER, 0)
    if edits is not None:
        assert apply_fact_edits(old, edits).split() == new.split()


def test_what_the_references_decided_stays() -> None:
    decided = [FactEdit(4, 6, "28", "duration", "PAGE.md:1")]
    further = [FactEdit(4, 11, "29 days", "duration", "PAGE.md:9"), FactEdit(0, 2, "it", "name", "PAGE.md:2")]
    assert [(edit.start, edit.text) for edit in merge_edits(decided, further)] == [(0, "it"), (4, "28")]
