"""Earlier turns before a question, some with defects, so that a model learns to judge the answer by itself.

An application may show its model rude or chatty examples. A defect in the answer does not become harmless because the
assistant has behaved like that before.
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
"""Characters of the longest earlier question, and about those of the longest earlier reply."""
BAD_MANNERS = 0.5
"""Share of the histories in which every reply has a defect."""


def select_earlier_answers(answers: Sequence[PoolAnswer]) -> tuple[PoolAnswer, ...]:
    """Answers to single short questions, which can be earlier turns of another question."""
    return tuple(a for a in answers if len(a.query) <= LONGEST_QUESTION and not is_dialogue(a.query))


def add_history(
    rng: Random,
    pair: Pair,
    earlier_answers: Sequence[PoolAnswer],
    kinds: Sequence[DefectKind],
    *,
    held_out: bool,
    bad_share: float = BAD_MANNERS,
) -> Pair:
    """The pair with one to three questions and replies before its query; a query with earlier turns is unchanged.

    With probability `bad_share`, every earlier reply has a defect of `kinds`; half of these are defects that the answer
    has, too.
    """
    if is_dialogue(pair.query):
        return pair
    kinds_of_answer = [kind for kind in kinds if kind.name in pair.kinds]
    turns: list[Turn] = []
    is_bad = rng.random() < bad_share
    for answer in rng.sample(earlier_answers, k=min(len(earlier_answers), rng.choice((1, 1, 2, 2, 3)))):
        reply = _shorten_reply(answer.text)
        if is_bad:
            kind = rng.choice(kinds_of_answer if kinds_of_answer and rng.random() < 0.5 else kinds)
            reply = f"{reply} {kind.make(rng, answer.query, answer.text, held_out)}"
        turns += [Turn("user", answer.query), Turn("assistant", reply)]
    return replace(pair, query=query_field(find_template("ultrafeedback"), [*turns, Turn("user", pair.query)]))


def is_dialogue(text: str) -> bool:
    """Whether a query has earlier turns: such a query begins with "Human:"."""
    return text.lstrip().startswith("Human:")


def _shorten_reply(text: str) -> str:
    """The first sentences of a reply, at most twice `LONGEST_REPLY` characters."""
    first = take_opening(pieces_of(text), LONGEST_REPLY)
    return join([(piece.text, piece.gap) for piece in first]).strip()[: 2 * LONGEST_REPLY]
