"""Defects that are written out: the files hold together, and training never sees what is kept for the test."""

from __future__ import annotations

from collections import Counter
from random import Random

from aligner_proxy.text.structure import split
from models.data.labels import ALIKE, relation
from models.data.pairs import CHANGES, STAYS, UNKNOWN
from models.defects import ALL_KINDS, UNSEEN_KINDS, UNSEEN_WRITTEN, WRITTEN, DefectKind
from models.defects.natural import FAULTS, NATURAL, THEMES
from models.defects.written import CONCEPTS
from tests.support.tables import for_every

by_name = for_every(CONCEPTS, lambda kind: kind.name)


def test_there_are_hundreds_and_no_name_stands_twice() -> None:
    assert len(CONCEPTS) >= 280
    assert max(Counter(kind.name for kind in ALL_KINDS).values()) == 1


def test_one_in_twelve_is_kept_for_the_test_and_all_others_are_trained() -> None:
    assert sorted(k.name for k in (*WRITTEN, *UNSEEN_WRITTEN)) == sorted(k.name for k in CONCEPTS)
    assert 0.05 < len(UNSEEN_WRITTEN) / len(CONCEPTS) < 0.12


@by_name
def test_wordings_of_the_test_are_not_those_of_training(concept: DefectKind) -> None:
    trained = set(concept.train.templates)
    kept = set(concept.held_out.templates)
    assert len(kept) >= 2
    assert not trained & kept
    assert not set(concept.texts) & set(concept.held_out_texts)
    assert len(concept.texts) >= 5
    assert concept.held_out_texts
    assert len(concept.alike) >= 5


@by_name
def test_sentences_are_made_as_they_are_written(concept: DefectKind) -> None:
    rng = Random(1)
    for held_out in (False, True):
        grammar = concept.held_out if held_out else concept.train
        made = concept.make(rng, "How do I bake bread?", "Mix flour and water.", held_out)
        assert made.lower() in {text.lower() for text in grammar.templates}
    assert all(split(text) for text in (*concept.train.templates, *concept.alike))


@by_name
def test_themes_are_known_and_none_is_asked_and_unclear_at_once(concept: DefectKind) -> None:
    names = {kind.name for kind in ALL_KINDS}
    assert set(concept.asks) <= THEMES
    assert set(concept.unclear) <= THEMES | names
    assert not set(concept.asks) & set(concept.unclear)


@by_name
def test_what_looks_alike_stays_under_the_concept_itself(concept: DefectKind) -> None:
    assert relation(concept.name, concept.name) == CHANGES
    assert relation(concept.name + ALIKE, concept.name) == STAYS
    assert relation(concept.name + ALIKE, "relevance") == UNKNOWN


def test_relations_of_two_concepts_are_the_same_either_way() -> None:
    def known(one: DefectKind, other: DefectKind) -> bool:
        return relation(one.name, other.name) != UNKNOWN

    pairs = [(one, other) for one in CONCEPTS[::7] for other in CONCEPTS[::5] if one is not other]
    assert all(known(one, other) == known(other, one) for one, other in pairs)


def test_nothing_comes_near_the_kinds_of_the_test() -> None:
    forbidden = ("gambl", "casino", "horoscope", "zodiac", "astrolog", "alcohol", "beer", "wine", "spoiler", "rhyme")
    for concept in CONCEPTS:
        texts = " ".join((*concept.train.templates, *concept.held_out.templates, *concept.alike)).lower().split()
        assert not [word for word in texts if word.strip(".,!?") in forbidden], concept.name
    assert not {kind.name for kind in UNSEEN_KINDS} & {kind.name for kind in CONCEPTS}


def test_faults_name_known_themes() -> None:
    for asks, unclear in FAULTS.values():
        assert asks | unclear <= THEMES
        assert not asks & unclear


def test_a_third_of_the_natural_answers_has_no_fault() -> None:
    faultless = sum(not any(s.kind and FAULTS[s.kind][0] for s in answer.sentences) for answer in NATURAL)
    assert 0.25 < faultless / len(NATURAL) < 0.45
