"""Defects beside the content of an answer: padding, hedging, flattery, boasting, sign-offs, lectures."""

from __future__ import annotations

from random import Random

from aligner_proxy.text.structure import split

from .grammar import Grammar, expand, uncapitalise
from .kind import load_kinds
from .phrases import read_table
from .topic import topic_of

_SHOUTS = read_table("chatter")["kinds"]["shouting"]["train"]


def _shout(rng: Random, query: str, answer: str, held_out: bool) -> str:
    """A sentence in capitals about the topic of the answer: "BICYCLES MATTER SO MUCH!!!".

    With the topic, a model learns that capitals are the defect, and not certain words.
    """
    if held_out:
        templates: tuple[str, ...] = (
            "[OH MY GOODNESS|NO WAY], {topic} [IS EVERYTHING|RULES]!!!",
            "[SAY IT WITH ME|ALL TOGETHER NOW]: {topic}!!!",
        )
    else:
        templates = (
            *_SHOUTS,
            "{topic} [IS|MATTERS] [SO MUCH|MORE THAN ANYTHING|THE KEY TO IT ALL]!!!",
            "[EVERYBODY|EVERYONE] [NEEDS|LOVES|TALKS ABOUT] {topic}!!",
        )
    topic = topic_of(rng, query, answer) or "this"
    return Grammar(templates).make(rng, topic).upper()


_REPETITIONS = (
    "[Again|To repeat|As I said|As already mentioned|Once more|To say it again|Let me repeat that|In "
    "other words], {lower}",
    "{stem}, [as I said|as mentioned before|as stated above|to say it once more].",
    "[I repeat|And again]: {lower}",
)
_HELD_OUT_REPETITIONS = (
    "[To put it differently|I cannot say it often enough], {lower}",
    "{stem}, [to say it twice|and there it is again].",
)


def _repeat(rng: Random, query: str, answer: str, held_out: bool) -> str:
    """An earlier sentence of the answer once more, word for word or as "As I said, ..."; "" if none is fit for that."""
    sentences = [
        segment.text.strip()
        for segment in split(answer)
        if 25 <= len(segment.text.strip()) <= 260 and segment.text.strip()[-1] in ".!"
    ]
    usable = [text for text in sentences if text[0].isalpha() and "\n" not in text]
    if not usable:
        return ""
    sentence = rng.choice(usable)
    if not held_out and rng.random() < 0.5:
        return sentence
    templates = _HELD_OUT_REPETITIONS if held_out else _REPETITIONS
    return expand(rng, rng.choice(templates), {"lower": [uncapitalise(sentence)], "stem": [sentence.rstrip(".!")]})


KINDS = load_kinds("chatter", {"shouting": _shout, "repetition": _repeat})
