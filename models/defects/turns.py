"""Invented dialogue: further turns of user and assistant that a model made up, after many different role marks."""

from __future__ import annotations

from random import Random

from .grammar import Grammar
from .kind import DefectKind
from .phrases import read_table
from .topic import topic_of

_TABLE = read_table("turns")
ASK = Grammar(_TABLE["ask"])
REPLY = Grammar(_TABLE["reply"])


def write_dialogue(
    rng: Random,
    query: str,
    answer: str,
    held_out: bool = False,
    replies: tuple[str, ...] = (),
    questions: tuple[str, ...] = (),
) -> str:
    """One to three invented questions and replies; some are taken from `replies` and `questions`."""
    ask_mark, reply_mark = rng.choice(_TABLE["held_out_roles"] if held_out else _TABLE["roles"])
    parts: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        topic = topic_of(rng, query, answer)
        question = rng.choice(questions) if questions and rng.random() < 0.4 else ASK.make(rng, topic)
        parts.append(ask_mark + question)
        reply = rng.choice(replies) if replies and rng.random() < 0.4 else _sentences(rng, topic)
        parts.append(reply_mark + reply)
    if rng.random() < 0.25:
        parts.pop()
    return rng.choice(("\n\n", "\n\n", "\n\n", "\n")).join(parts)


def _sentences(rng: Random, topic: str) -> str:
    return " ".join(REPLY.make(rng, topic) for _ in range(rng.choice((1, 2, 2, 3))))


INVENTED_TURN = DefectKind(
    name="invented-turn",
    family="turns",
    names=("Single turn", "No invented dialogue", "Dialogue", "Reply only", "Turn taking"),
    things=(
        "invented turns of the conversation",
        "made-up dialogue",
        "questions and answers that the assistant made up",
        "further turns after the reply",
        "text written in the name of the user",
        "messages of the user",
    ),
    asks=("single-reply", "relevance", "helpful"),
    unclear=(
        "concise",
        "direct",
        "instruction-following",
        "honest",
        "template-leak",
        "formal",
        "factual",
        "non-repetitive",
    ),
    train=ASK,
    held_out=ASK,
    maker=write_dialogue,
    place="end",
    own_line=1.0,
    natural=r"(?m)^\W*(Human|User|Assistant|Q|A|AI|Bot)\W*:",
)
KINDS = (INVENTED_TURN,)
