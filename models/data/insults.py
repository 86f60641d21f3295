"""Insults of the reader in many forms, and sentences built like them that are fine, set into good answers.

`insults.yaml` has the sentences, which were written for this project. None has a wording of the test side
(`held_out` in `models/defects/phrases/hostile.yaml`).
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from models.defects.phrases import read_yaml

from .answers import PoolAnswer, load_pool
from .inject import INNOCENT, insert_innocent, kinds_of, pieces_of, take_opening
from .labelled_replies import AGAINST, FINE, HARMLESS, UNKNOWN, LabelledReply
from .mixture import SHORT_CHARS

INSULTS = Path(__file__).with_suffix(".yaml")
SOURCE = "insults"
_LONGEST_QUESTION = 300
"""Characters of a question, at most, so that the answers are read quickly."""
_SEED = 5


def read_sentences(file: Path = INSULTS) -> list[tuple[str, int]]:
    """(sentence, label) of every sentence of the file: `AGAINST` for insults, `FINE` for what is only built alike."""
    lists = read_yaml(file)
    return [(text, AGAINST) for text in lists["insults"]] + [(text, FINE) for text in lists["alike"]]


def plant_insults(data: Path, times: int) -> list[LabelledReply]:
    """Good answers, each with one of the sentences somewhere in it; every sentence is in `times` of them.

    Only the segments of that sentence have a label; the good answer's own are `UNKNOWN`. `prompt` is the sentence, so
    replies that share one can be kept together.
    """
    rng = Random(_SEED)
    pool = list_hosts(data)
    return [
        plant_sentence(rng, rng.choice(pool), sentence, label, f"{SOURCE}-{number}-{time}")
        for time in range(times)
        for number, (sentence, label) in enumerate(read_sentences())
    ]


def list_hosts(data: Path) -> list[PoolAnswer]:
    """The good answers of the training side into which sentences are set: harmless ones to short questions."""
    return [
        answer
        for answer in load_pool(data, "train").answers
        if answer.harmless and len(answer.query) <= _LONGEST_QUESTION
    ]


def plant_sentence(rng: Random, answer: PoolAnswer, sentence: str, label: int, name: str) -> LabelledReply:
    """The first sentences of an answer with one more among them."""
    pieces = insert_innocent(rng, take_opening(pieces_of(answer.text), SHORT_CHARS), sentence) or []
    text = "".join(piece.text + piece.gap for piece in pieces).rstrip()
    labels = tuple(label if INNOCENT in kinds else UNKNOWN for kinds in kinds_of(text, pieces))
    return LabelledReply(
        name,
        SOURCE,
        prompt=sentence,
        question=answer.query,
        answer=text,
        objective=HARMLESS,
        harmful=label == AGAINST,
        segments=labels,
        slug="insult" if label == AGAINST else "alike",
    )
