"""More wordings of the older kinds: training has them, the test does not."""

from __future__ import annotations

from random import Random

from models.defects import SUBJECTS, TRAINING_KINDS, UNSEEN_KINDS, WRITTEN, chatter, turns
from models.defects.kind import load_kinds
from models.defects.more import FILE, LOOKS, widen_kinds

NARROW = (*load_kinds("hostile"), *chatter.KINDS, *load_kinds("foreign_matter"), *turns.KINDS)

MOULDS = {template for kind in NARROW for template in kind.train.templates}
ADDED = [text for kind in TRAINING_KINDS for text in kind.train.templates if text not in MOULDS]


def test_every_name_in_the_file_is_a_kind_of_training() -> None:
    assert set(LOOKS) < {kind.name for kind in TRAINING_KINDS}
    assert not set(LOOKS) & {kind.name for kind in (*SUBJECTS, *WRITTEN, *UNSEEN_KINDS)}


def test_kinds_have_more_wordings_in_training_and_the_same_in_the_test() -> None:
    for narrow, wide in zip(NARROW, TRAINING_KINDS, strict=True):
        assert wide.held_out == narrow.held_out
        assert wide.train.templates[: len(narrow.train.templates)] == narrow.train.templates
    assert len(ADDED) > 350


def test_no_wording_of_the_test_is_among_them() -> None:
    assert not set(ADDED) & {template for kind in NARROW for template in kind.held_out.templates}


def test_each_sentence_stands_there_once_and_is_made_as_it_is_written() -> None:
    sentences = [*ADDED, *(text for looks in LOOKS.values() for text in looks)]
    assert len(set(sentences)) == len(sentences)
    insult = next(kind for kind in TRAINING_KINDS if kind.name == "insult")
    assert "You disgust me." in {insult.make(Random(seed), "", "", about=False) for seed in range(400)}


def test_a_kind_that_is_not_in_the_file_stays_what_it_was() -> None:
    assert widen_kinds(UNSEEN_KINDS) == UNSEEN_KINDS
    assert FILE.is_file()
