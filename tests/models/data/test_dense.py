"""Answers of which nearly every sentence is for or against one of several objectives."""

from __future__ import annotations

from pathlib import Path
from random import Random
from statistics import mean

import pytest

from aligner_proxy.text.structure import split
from models.data.answers import AnswerPool, load_pool
from models.data.dense import join_objectives, make_dense_pair, vary_objective
from models.data.inject import themes_in
from models.data.labels import ALIKE, AND, INNOCENT, MIXED, relation
from models.data.mixture import Mixer
from models.data.pairs import CHANGES, STAYS, UNKNOWN, Pair
from models.defects import UNSEEN_KINDS, UNSEEN_WRITTEN
from models.defects.more import LOOKS
from models.defects.objectives import ObjectiveWording


@pytest.fixture(scope="module")
def pool(data_dir: Path) -> AnswerPool:
    return load_pool(data_dir, "train")


@pytest.fixture(scope="module")
def pairs(pool: AnswerPool) -> list[Pair]:
    mixer = Mixer(pool, Random("dense"))
    return [mixer.make_pair("dense") for _ in range(200)]


def test_the_same_seed_gives_the_same_answers(pool: AnswerPool, pairs: list[Pair]) -> None:
    mixer = Mixer(pool, Random("dense"))
    assert [mixer.make_pair("dense") for _ in range(5)] == pairs[:5]


def test_an_answer_tells_ten_times_as_much_as_one_of_natural_density(pairs: list[Pair]) -> None:
    told = [[relation(kind, theme) for kind in p.kinds for theme in p.themes] for p in pairs]
    assert mean(row.count(CHANGES) for row in told) > 4
    assert mean(row.count(STAYS) for row in told) > 20


def test_there_is_every_sort_of_sentence(pairs: list[Pair]) -> None:
    kinds = {kind for p in pairs for kind in p.kinds}
    assert {"", INNOCENT} < kinds
    assert any(kind.endswith(ALIKE) for kind in kinds)
    assert sum(kind == MIXED for p in pairs for kind in p.kinds) < 0.1 * sum(len(p.kinds) for p in pairs)


def test_some_of_what_offends_is_asked_about_by_nobody(pairs: list[Pair]) -> None:
    offending = [
        (kind, p) for p in pairs for kind in p.kinds if kind not in ("", INNOCENT, MIXED) and ALIKE not in kind
    ]
    spared = [kind for kind, p in offending if all(relation(kind, theme) == STAYS for theme in p.themes)]
    assert 0.05 < len(spared) / len(offending) < 0.6


def test_labels_say_what_the_kinds_and_themes_say(pairs: list[Pair]) -> None:
    for p in pairs:
        for kind, label in zip(p.kinds, p.labels, strict=True):
            told = {relation(kind, theme) for theme in p.themes}
            assert label == (CHANGES if CHANGES in told else UNKNOWN if UNKNOWN in told else STAYS)


def test_no_sentence_that_is_said_to_be_spared_speaks_of_what_an_objective_is_against(pairs: list[Pair]) -> None:
    for p in pairs:
        for segment, kind in zip(split(p.answer), p.kinds, strict=True):
            if kind in ("", INNOCENT, MIXED):
                continue
            doubts = themes_in(segment.text) & {one for theme in p.themes for one in theme.split(AND)}
            doubts -= {kind, kind.removesuffix(ALIKE)}
            assert not any(relation(kind, theme) == STAYS for theme in doubts)


def test_what_is_kept_for_the_test_is_never_in_it(pairs: list[Pair]) -> None:
    hidden = {kind.name for kind in (*UNSEEN_KINDS, *UNSEEN_WRITTEN)}
    assert not hidden & {kind for p in pairs for kind in p.kinds}
    assert not hidden & {one for p in pairs for theme in p.themes for one in theme.split(AND)}


def test_a_sentence_that_was_rewritten_comes_back_in_the_target(pairs: list[Pair]) -> None:
    answers = [(p, {s.text for s in split(p.answer)}) for p in pairs]
    back = [s.text for p, there in answers for s in split(p.target) if s.text not in there]
    assert len(back) >= 5


def test_two_wishes_as_one_are_offended_by_what_offends_either() -> None:
    wish = join_objectives(
        Random(1), ObjectiveWording("No insults.", "insult"), ObjectiveWording("No emoji.", "slang-emoji")
    )
    assert "No insults" in wish.text
    assert "No emoji." in wish.text
    assert [relation(kind, wish.theme) for kind in ("insult", "slang-emoji", "sign-off", "mockery")] == [
        CHANGES,
        CHANGES,
        STAYS,
        UNKNOWN,
    ]


def test_a_built_in_objective_stays_to_the_letter() -> None:
    wish = ObjectiveWording("Harmlessness: nothing harmful.", "harmless")
    assert all(vary_objective(Random(seed), wish) == wish for seed in range(20))
    texts = {
        vary_objective(Random(seed), ObjectiveWording("Tone: no shouting.", "shouting")).text for seed in range(60)
    }
    assert texts == {"Tone: no shouting.", "Tone: no shouting", "No shouting.", "No shouting"}


def test_sentences_that_look_like_an_older_kind_do_not_go_against_it() -> None:
    assert all(relation(name + ALIKE, name) == STAYS for name in LOOKS)


def test_an_answer_that_cannot_be_cut_again_gives_nothing_or_something_whole(pool: AnswerPool) -> None:
    answer = pool.answers[0]
    pairs = [make_dense_pair(Random(seed), answer, ["The harbour opens at six."]) for seed in range(30)]
    assert all(p is None or len(split(p.answer)) == len(p.labels) for p in pairs)
