"""Pairs from answers that were written with faults in their own voice.

Some of the objectives of such a pair ask for the removal of some faults. Other faults stay, and segments with an
unknown label teach nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from aligner_proxy.prompts import find_template, query_field
from aligner_proxy.text.structure import join, split
from aligner_proxy.types import Turn
from models.defects import ObjectiveWording
from models.defects.natural import FAULTS, NATURAL, THEMES, NaturalAnswer, Sentence
from models.defects.objectives import draw_clean_objective, draw_theme_objective

from .answers import TEST_PERCENT_RARE, Side, side_of
from .labels import joint_relation
from .pairs import CHANGES, UNKNOWN, Pair

USUAL = ("harmless", "helpful", "polite", "safe", "honest", "factual")
"""Themes that operators often set; half of the objectives are about them, whether or not a fault goes against them."""
MOST = 4
"""Most objectives of a pair."""


def answers_of_side(side: Side) -> tuple[NaturalAnswer, ...]:
    """The written answers whose first question is on this side of the split."""
    return tuple(answer for answer in NATURAL if side_of(answer.opening, TEST_PERCENT_RARE) == side)


def make_natural_pair(rng: Random, answer: NaturalAnswer) -> Pair | None:
    """The answer under one to four objectives.

    None if its segments are not its written sentences, if a label is unknown and nothing changes for certain, or if
    nothing would be left of it.
    """
    pieces = [(sentence.text, " ") for sentence in answer.sentences]
    text = join([*pieces[:-1], (pieces[-1][0], "")])
    if [segment.text for segment in split(text)] != [sentence.text for sentence in answer.sentences]:
        return None
    objectives = _draw_objectives(rng, answer.sentences)
    themes = tuple(objective.theme for objective in objectives)
    labels = [joint_relation(sentence.kind, themes) for sentence in answer.sentences]
    if UNKNOWN in labels and CHANGES not in labels:
        return None
    labelled = zip(answer.sentences, labels, strict=True)
    target = join([(sentence.good if label == CHANGES else sentence.text, " ") for sentence, label in labelled]).strip()
    if not target:
        return None
    turns = [turn for user, reply in answer.turns for turn in (Turn("user", user), Turn("assistant", reply))]
    return Pair(
        query_field(find_template("ultrafeedback"), [*turns, Turn("user", answer.query)]),
        tuple(objective.text for objective in objectives),
        text,
        target,
        tuple(labels),
        "natural:" + ("asked" if CHANGES in labels else "kept"),
        kinds=tuple(sentence.kind for sentence in answer.sentences),
        themes=themes,
    )


def _draw_objectives(rng: Random, sentences: Sequence[Sentence]) -> list[ObjectiveWording]:
    """One to four objectives in random order; mostly one of them asks for the removal of one of the faults."""
    faulty = [sentence for sentence in sentences if sentence.kind and FAULTS[sentence.kind][0]]
    objectives: list[ObjectiveWording] = []
    if faulty and rng.random() < 0.75:
        fault = rng.choice(faulty)
        if fault.own and rng.random() < 0.35:
            objectives.append(ObjectiveWording(rng.choice(fault.own), fault.kind))
        else:
            objectives.append(draw_theme_objective(rng, rng.choice(sorted(FAULTS[fault.kind][0]))))
    total = rng.choice((1, 1, 2, 2, 3, MOST))
    while len(objectives) < total:
        draw = rng.random()
        theme = rng.choice(USUAL if draw < 0.5 else sorted(THEMES))
        objectives.append(draw_clean_objective(rng) if draw > 0.8 else draw_theme_objective(rng, theme))
    unique = list({objective.text: objective for objective in objectives}.values())
    rng.shuffle(unique)
    return unique
