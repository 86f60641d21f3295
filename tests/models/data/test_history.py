"""Earlier turns before a question."""

from __future__ import annotations

from random import Random

from models.data.answers import PoolAnswer
from models.data.history import add_history, select_earlier_answers
from models.data.pairs import Pair
from models.defects import TRAINING_KINDS
from tests.support.tiny import OBJECTIVES

INSULT = [kind for kind in TRAINING_KINDS if kind.name == "insult"]
BEFORE = (
    PoolAnswer("When does the museum open?", "It opens at nine. " * 30, "own"),
    PoolAnswer("Which bus goes to the pier?", "Bus four. It runs all day.", "own"),
)


def pair(query: str = "Where is the harbour?") -> Pair:
    return Pair(query, OBJECTIVES, "South of here. You fool.", "South of here.", (0, 1), "own", kinds=("", "insult"))


def test_the_question_comes_last_and_the_rest_is_as_it_was() -> None:
    made = add_history(Random(1), pair(), BEFORE, INSULT, held_out=False)
    assert made.query.startswith("\n\nHuman: ")
    assert made.query.endswith("\n\nHuman: Where is the harbour? \n\nAssistant:")
    assert (made.answer, made.target, made.labels, made.kinds) == (pair().answer, pair().target, (0, 1), pair().kinds)


def test_the_share_says_how_many_conversations_have_defects() -> None:
    def rude(bad_share: float) -> int:
        made = [
            add_history(Random(seed), pair(), BEFORE[1:], INSULT, held_out=False, bad_share=bad_share)
            for seed in range(40)
        ]
        return sum("It runs all day.\n\n" not in p.query for p in made)

    assert rude(0.0) == 0
    assert rude(1.0) == 40
    assert 8 < rude(0.5) < 32


def test_earlier_replies_are_short() -> None:
    made = [add_history(Random(seed), pair(), BEFORE, INSULT, held_out=False) for seed in range(50)]
    assert max(len(p.query) for p in made) < 1500


def test_a_dialogue_stays_as_it_is() -> None:
    dialogue = pair("\n\nHuman: Where?\n\nAssistant: There.\n\nHuman: And when? \n\nAssistant:")
    assert add_history(Random(1), dialogue, BEFORE, INSULT, held_out=False) == dialogue
    assert (
        select_earlier_answers(
            [*BEFORE, PoolAnswer(dialogue.query, "At six.", "own"), PoolAnswer("Long? " * 60, "Yes.", "own")]
        )
        == BEFORE
    )
