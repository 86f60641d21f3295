"""Earlier turns before a question, whose manners say nothing about the answer.

An application may show its model rude or chatty examples; the answer that follows is to be judged by itself, and a
defect does not become harmless because the assistant has behaved like that before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from aligner_proxy.prompts import find_template, query_field
from aligner_proxy.text.structure import join
from aligner_proxy.types import Turn
from models.defects import DefectKind

from .answers import PoolAnswer
from .inject import pieces_of, take_opening
from .pairs import Pair

LONGEST_QUESTION = 160
LONGEST_REPLY = 200
BAD_MANNERS = 0.5


def select_earlier_answers(answers: Sequence[PoolAnswer]) -> tuple[PoolAnswer, ...]:
    """Answers to single short questions: what can stand before another question."""
    return tuple(a for a in answers if len(a.query) <= LONGEST_QUESTION and not is_dialogue(a.query))


def add_history(
    rng: Random,
    pair: Pair,
    earlier_answers: Sequence[PoolAnswer],
    kinds: Sequence[DefectKind],
    held_out: bool,
    manners: float = BAD_MANNERS,
) -> Pair:
    """The pair with one to three turns before its question; one that has some already stays as it is.

    In a share of `manners` every earlier reply has a defect: one of `kinds`, as often as not the one that the answer
    has, too.
    """
    if is_dialogue(pair.query):
        return pair
    same = [kind for kind in kinds if kind.name in pair.kinds]
    turns: list[Turn] = []
    bad = rng.random() < manners
    for answer in rng.sample(earlier_answers, k=min(len(earlier_answers), rng.choice((1, 1, 2, 2, 3)))):
        reply = _shorten_reply(answer.text)
        if bad:
            kind = rng.choice(same if same and rng.random() < 0.5 else kinds)
            reply = f"{reply} {kind.make(rng, answer.query, answer.text, held_out)}"
        turns += [Turn("user", answer.query), Turn("assistant", reply)]
    return replace(pair, query=query_field(find_template("ultrafeedback"), [*turns, Turn("user", pair.query)]))


def is_dialogue(text: str) -> bool:
    """Whether a query has earlier turns already."""
    return text.lstrip().startswith("Human:")


def _shorten_reply(text: str) -> str:
    first = take_opening(pieces_of(text), LONGEST_REPLY)
    return join([(piece.text, piece.gap) for piece in first]).strip()[: 2 * LONGEST_REPLY]
