"""Examples from labelled replies: what is known of a segment under each objective, and what is left out."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from models.data import own_voice
from models.data.labelled_replies import (
    AGAINST,
    FINE,
    HARMLESS,
    HELPFUL,
    TEST_KINDS,
    UNKNOWN,
    LabelledReply,
    read_written_answers,
)
from models.data.own_voice import Sizes, make_examples, pair_reply
from models.data.pairs import CHANGES, STAYS

OWN = "Promises: The response should not promise a date"
OTHER = "Prices: The response should not name a price"
REPLY = LabelledReply(
    "a/1",
    "author_a",
    "a/1",
    "When?",
    "It left today. You have it by noon.",
    OWN,
    True,
    (FINE, AGAINST),
    "promises",
    "against",
    ("It left today.", " The courier knows."),
)


def _all_but(*authors: str) -> set[str]:
    """The sources that are left out for examples of these authors alone, which are few of ten thousand."""
    return {"gptfuzz", "jailbreakbench", *(r.source for r in read_written_answers())} - {*authors}


def test_each_objective_has_its_own_labels() -> None:
    pair = pair_reply(REPLY, (HARMLESS, OWN, OTHER))
    assert pair.relations == ((FINE, FINE, FINE), (UNKNOWN, AGAINST, FINE))
    assert pair.labels == (STAYS, CHANGES)
    assert pair.target == "It left today. The courier knows."
    assert not any(pair.whole)


def test_an_answer_that_is_asked_about_something_else_stays() -> None:
    pair = pair_reply(REPLY, (OTHER,))
    assert pair.relations == ((FINE,), (FINE,))
    assert pair.target == pair.answer


def test_a_reply_with_one_label_says_so_of_its_own_objective_alone() -> None:
    reply = LabelledReply("g-1", "gptfuzz", "q", "How?", "Sure. Here.", HARMLESS, True, (UNKNOWN, UNKNOWN))
    pair = pair_reply(reply, (HELPFUL, HARMLESS))
    assert pair.whole == (False, True)
    assert {label for labels in pair.relations for label in labels} == {UNKNOWN}
    assert pair.target == pair.answer


@pytest.mark.full
def test_written_answers_stand_there_as_they_are_and_put_right_and_whole_authors_are_left_out(data_dir: Path) -> None:
    sizes = Sizes(natural=0, good=4, planted=3, phrases=2)
    excluded = _all_but("author_b", "author_d")
    pairs = list(make_examples(data_dir, excluded, 1, 1, sizes))
    sources = {pair.source.removeprefix("own voice:") for pair in pairs}
    assert {"author_b", "author_d", "good", "harm"} <= sources
    assert not sources & excluded
    texts = {pair.answer for pair in pairs}
    harmful = [r for r in read_written_answers() if r.harmful and r.source == "author_b" and r.corrected_answer]
    assert all(r.answer in texts and r.corrected_answer in texts for r in harmful)
    assert pairs == list(make_examples(data_dir, excluded, 1, 1, sizes))


def test_what_the_test_of_taught_objectives_keeps_apart_is_not_trained(data_dir: Path) -> None:
    apart = {r.answer for r in read_written_answers() if r.slug in TEST_KINDS}
    assert apart
    author = "author_d"
    assert author in {r.source for r in read_written_answers() if r.slug in TEST_KINDS}
    sizes = Sizes(natural=0, good=0, planted=1, phrases=0)
    trained = {pair.answer for pair in make_examples(data_dir, _all_but(author), 1, 1, sizes)}
    assert trained & {r.answer for r in read_written_answers() if r.source == author}
    assert not apart & trained


def test_an_answer_is_asked_about_with_its_objective_at_any_place() -> None:
    rng = Random(1)
    others = (OTHER, OWN, "Tone: The response should not be rude")
    companies = [own_voice._ask_written_reply(rng, REPLY, others).objectives for _ in range(80)]
    assert any(OWN not in company for company in companies)
    assert {company.index(OWN) for company in companies if OWN in company} >= {0, 1}
    assert any(OTHER in company for company in companies)
