"""The subjects: many of them, none of those kept for the test, sentences that speak of what the objective names."""

from __future__ import annotations

import re
from functools import cache
from random import Random

from models.defects import ALL_KINDS, DefectKind, subjects
from models.defects.objectives import BUILT_IN, SHARED
from models.defects.subjects import KINDS
from tests.support.tables import for_every

QUERY = "How do I write a good application for a bank?"
ANSWER = "A good application to a bank names your last job first. Keep the application to two pages, without photo."
FORBIDDEN = re.compile(
    r"(?i)gambl|\bbet(s|ting)?\b|casino|lottery|astrolog|horoscope|zodiac|star.sign|alcohol|drink|wine\b|\bbeers?\b|"
    r"spoiler|weather|forecast|rhym|\bverse|poe[mt]|lyric"
)
KIND_BY_NAME = {kind.name: kind for kind in KINDS}
by_name = for_every(KINDS, lambda kind: kind.name)


def _made(kind: DefectKind, count: int, held_out: bool = False) -> list[str]:
    return [_make(kind.name, i, held_out) for i in range(count)]


@cache
def _make(name: str, seed: int, held_out: bool) -> str:
    """Several tests look at the same sentences."""
    return KIND_BY_NAME[name].make(Random(seed), QUERY, ANSWER, held_out)


def test_there_are_many_subjects_and_no_name_twice() -> None:
    assert len(KINDS) >= 60
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names)
    assert all(kind.family == kind.name for kind in KINDS)


@by_name
def test_what_is_kept_for_the_test_is_no_subject(kind: DefectKind) -> None:
    for text in (kind.name, *kind.names, *kind.things, *kind.train.templates, *kind.held_out.templates):
        assert not FORBIDDEN.search(text), text


@by_name
def test_a_subject_says_many_things(kind: DefectKind) -> None:
    assert kind.train.count_derivations() >= 40
    assert len(set(_made(kind, 300))) >= 40
    assert 4 <= len(kind.train.templates) <= 5
    assert len(kind.held_out.templates) == 2


@by_name
def test_held_out_wordings_are_never_trained(kind: DefectKind) -> None:
    assert not set(_made(kind, 200)) & set(_made(kind, 200, held_out=True))


@by_name
def test_a_sentence_looks_like_one(kind: DefectKind) -> None:
    for text in {*_made(kind, 200), *_made(kind, 200, held_out=True)}:
        assert re.search(r"[.!?]$", text), text
        assert text[0].isupper(), text
        assert not set("{}[]|") & set(text), text
        assert not re.search(r"\s[\s,.?!]", text), text
        assert len(text.split()) <= 25, text


@by_name
def test_an_objective_can_be_put_together(kind: DefectKind) -> None:
    assert 2 <= len(kind.names) <= 4
    assert 4 <= len(kind.things) <= 6
    assert not any(thing.endswith(".") or thing != thing.strip() for thing in kind.things)
    assert not any(name.endswith(".") or not name[0].isupper() for name in kind.names)
    assert len({kind.draw_objective(Random(i)).text for i in range(300)}) >= 40


@by_name
def test_a_subject_is_found_in_its_own_sentences(kind: DefectKind) -> None:
    made = _made(kind, 200)
    assert sum(kind.occurs_in(text) for text in made) >= 0.6 * len(made)


@by_name
def test_most_sentences_do_not_repeat_the_objective(kind: DefectKind) -> None:
    said = [_stems(text) for text in _made(kind, 100)]
    shared = [_stems(thing) & stems for thing in kind.things for stems in said]
    # matching words must not be enough to find them
    assert sum(map(bool, shared)) <= 0.5 * len(shared)


@by_name
def test_both_editions_can_be_on_the_topic(kind: DefectKind) -> None:
    for held_out in (False, True):
        said = [kind.make(Random(i), QUERY, ANSWER, held_out, about=True).lower() for i in range(10)]
        assert all("application" in text or "bank" in text for text in said)


@by_name
def test_themes_that_leave_a_subject_unclear_exist(kind: DefectKind) -> None:
    known = {*BUILT_IN, *SHARED, *(other.name for other in (*ALL_KINDS, *KINDS))}
    assert not {*kind.unclear} - known
    assert kind.name not in kind.unclear
    assert len({*kind.unclear}) == len(kind.unclear)


def test_close_subjects_are_unclear_both_ways() -> None:
    for group in subjects.TABLE["close"]:
        close = [kind for kind in KINDS if kind.name in group]
        assert len(close) == len(group), group
        assert all(a.name in b.unclear for a in close for b in close if a is not b)
    assert {name for group in subjects.TABLE["also"].values() for name in group} <= {kind.name for kind in KINDS}


def _stems(text: str) -> set[str]:
    common = {"talk", "about", "menti", "remar", "other", "with", "from", "that", "what", "being", "more"}
    return {word.lower()[:5] for word in re.findall(r"[A-Za-z]{4,}", text)} - common
